/* Products of Q4_1 weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q4_1(product_args a, cudaStream_t stream)
{
    return launch_any<q4_1>(a, stream);
}
