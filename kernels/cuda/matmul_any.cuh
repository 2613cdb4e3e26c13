/* Products of one type for any number of tokens: which of the two kinds of kernels. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_ANY_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_ANY_CUH
#include "kernels/cuda/matmul_few.cuh"
#include "kernels/cuda/matmul_tile.cuh"

/* Largest shared memory of a block of threads on the current GPU. */
static inline cudaError_t shared_limit_of_gpu(size_t *bytes)
{
    int gpu, limit = 0;
    cudaError_t e = cudaGetDevice(&gpu);

    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu);
    *bytes = (size_t)limit;
    return e;
}

template <class W> static cudaError_t launch_any(const product_args &a, cudaStream_t stream)
{
    size_t limit;
    cudaError_t e = shared_limit_of_gpu(&limit);

    if (e != cudaSuccess) return e;
    return is_few<W>(a.n_tokens, limit) ? launch_few<W>(a, stream) : launch_tile<W>(a, limit, stream);
}

#endif
