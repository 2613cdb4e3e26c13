/* Products of Q3_K weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q3_k(product_args a, cudaStream_t stream)
{
    return launch_any<q3_k>(a, stream);
}
