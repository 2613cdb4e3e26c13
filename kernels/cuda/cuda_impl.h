/* What the files of this folder share, in C and C++: the check of CUDA's errors, and the launchers, which the
 * .cu files give to the C files. A .cu file holds a kernel and its launcher; everything else is C. */
#ifndef PRIMA_KERNELS_CUDA_CUDA_IMPL_H
#define PRIMA_KERNELS_CUDA_CUDA_IMPL_H
#include "src/base/err.h"
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* PR_OK, or PR_ERESOURCE with "GPU 0: WHAT: cudaErrorName (words)" in *err (device.c). */
int cuda_check(cudaError_t e, int gpu, const char *what, pr_err *err);

/* A launcher puts its kernel on a stream and returns; errors of the kernel itself come with a later call. */

/* *sum += all 64-bit words of data, modulo 2^64 (sum.cu).
 *   sum   device memory
 *   data  device memory, 16-byte aligned     bytes  multiple of 16     n_sms  of this GPU */
cudaError_t launch_sum(uint64_t *sum, const void *data, size_t bytes, int n_sms, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
