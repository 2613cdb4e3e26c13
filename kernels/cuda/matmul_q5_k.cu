/* Products of Q5_K weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q5_k(product_args a, cudaStream_t stream)
{
    return launch_any<q5_k>(a, stream);
}
