/* Products of IQ4_XS weights. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_iq4_xs(product_args a, cudaStream_t stream)
{
    return launch_any<iq4_xs>(a, stream);
}
