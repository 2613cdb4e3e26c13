/* Shared memory of kernels: called before each launch (device.cuh). */
#ifndef PRIMA_KERNELS_CUDA_SHARED_H
#define PRIMA_KERNELS_CUDA_SHARED_H
#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes sure that blocks of this kernel may have so many bytes beside its static arrays, on the current GPU.
 * cudaErrorLaunchOutOfResources: they are more than it has. */
cudaError_t cuda_allow_shared(const void *kernel, size_t bytes);
/* What this thread was refused last, in words, where e comes from that; else NULL. */
const char *cuda_refusal(cudaError_t e);

#ifdef __cplusplus
}
#endif

#endif
