/* Products of Q5_1 weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_q5_1(product_args a, cudaStream_t stream)
{
    return launch_any<q5_1>(a, stream);
}
