/* The bias of the output projection: x[t * stride + i] += bias[i].
 *
 * Block (part, token), a value a thread; 12 bytes a value, so a token of 152064 values is 1.8 MB out of the
 * L2 cache where the product has left it: expected at 2 us. Other biases are added where values are read
 * anyway. */
#include "kernels/cuda/device.cuh"

enum { BIAS_THREADS = 256 };

static __global__ void __launch_bounds__(BIAS_THREADS)
    add_bias(float *x, const float *bias, size_t n, size_t stride)
{
    const size_t i = (size_t)blockIdx.x * BIAS_THREADS + threadIdx.x;

    if (i < n) x[blockIdx.y * stride + i] += bias[i];
}

cudaError_t launch_bias(float *x, const float *bias, size_t n, size_t stride, size_t n_tokens,
                        cudaStream_t stream)
{
    const dim3 grid((unsigned)((n + BIAS_THREADS - 1) / BIAS_THREADS), (unsigned)n_tokens);

    return launch(add_bias, grid, dim3(BIAS_THREADS), 0, stream, x, bias, n, stride);
}
