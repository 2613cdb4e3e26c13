/* Products of Q6_K weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q6_k(product_args a, cudaStream_t stream)
{
    return launch_any<q6_k>(a, stream);
}
