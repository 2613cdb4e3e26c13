/* Products of Q4_K weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q4_k(product_args a, cudaStream_t stream)
{
    return launch_any<q4_k>(a, stream);
}
