/* Products of Q5_0 weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q5_0(product_args a, cudaStream_t stream)
{
    return launch_any<q5_0>(a, stream);
}
