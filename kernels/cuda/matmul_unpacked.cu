/* Products of weights that matmul_grids.cu has unpacked. */
#include "kernels/cuda/matmul_any.cuh"

cudaError_t matmul_unpacked(product_args a, cudaStream_t stream)
{
    return launch_any<unpacked>(a, stream);
}
