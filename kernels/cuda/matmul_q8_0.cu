/* Products of Q8_0 weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q8_0(product_args a, cudaStream_t stream)
{
    return launch_any<q8_0>(a, stream);
}
