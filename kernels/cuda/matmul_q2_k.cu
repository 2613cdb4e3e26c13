/* Products of Q2_K weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q2_k(product_args a, cudaStream_t stream)
{
    return launch_any<q2_k>(a, stream);
}
