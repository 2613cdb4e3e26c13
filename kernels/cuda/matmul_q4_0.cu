/* Products of Q4_0 weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q4_0(product_args a, cudaStream_t stream)
{
    return launch_any<q4_0>(a, stream);
}
