/* Kernels that try what kernels/cuda/device.cuh gives, with inputs and outputs as plain arrays. */
#ifndef PRIMA_TESTS_GPU_DEVICE_KERNELS_H
#define PRIMA_TESTS_GPU_DEVICE_KERNELS_H
#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* d [16][8] += a [16][k] * b [k][8], all row-major; k 32 for s8, 16 for the others. half: k is 16. */
cudaError_t launch_try_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, int half, cudaStream_t stream);
cudaError_t launch_try_mma_float(float *d, const uint16_t *a, const uint16_t *b, int is_bf16,
                                 cudaStream_t stream);

/* One warp: out[0..31] = warp_xor(in, step), then warp_from(in, step), then warp_down(in, step). */
cudaError_t launch_try_warp_int(int32_t *out, const int32_t *in, int step, cudaStream_t stream);
cudaError_t launch_try_warp_float(float *out, const float *in, int step, cudaStream_t stream);
cudaError_t launch_try_warp_word(uint64_t *out, const uint64_t *in, int step, cudaStream_t stream);

/* f16_float of all 65536; n floats to f16 and bf16. */
cudaError_t launch_try_halves(float *all, cudaStream_t stream);
cudaError_t launch_try_to_halves(uint16_t *f16, uint16_t *bf16, const float *x, int n, cudaStream_t stream);
/* out[5 * i ..] = float_halves, halves_sub, halves_mul, bytes_pick, dot4_s8 of in[3 * i ..] */
cudaError_t launch_try_words(uint32_t *out, const uint32_t *in, int n, cudaStream_t stream);
/* __float2int_rn */
cudaError_t launch_try_int(int32_t *out, const float *x, int n, cudaStream_t stream);

/* out[i] = in[n - 1 - i] by way of n words of dynamic shared memory, one block of 128 threads, copied in two
 * groups of asynchronous copies, of 16 and of 4 bytes; then 4 words that are 0. n a multiple of 8. */
cudaError_t launch_try_copies(uint32_t *out, const uint32_t *in, int n, cudaStream_t stream);
/* out[z][y][x] of the launch's threads = their number, over a grid and a block of three dimensions each */
cudaError_t launch_try_index(int32_t *out, cudaStream_t stream);
/* out[i] += by; out and i as they were given: for graphs */
cudaError_t launch_try_add(int32_t *out, int i, int by, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
