/* Products of IQ4_NL weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_iq4_nl(product_args a, cudaStream_t stream)
{
    return launch_any<iq4_nl>(a, stream);
}
