/* Work whose time tells what a GPU's memory and its link to the host can do: sums over device memory, copies
 * from and to pinned memory. Every function has finished its work on return; the caller has the clock. */
#ifndef PRIMA_KERNELS_CUDA_PROBE_H
#define PRIMA_KERNELS_CUDA_PROBE_H
#include "src/base/err.h"
#include <stddef.h>
#include <stdint.h>

typedef enum { GPU_FROM_HOST, GPU_TO_HOST } gpu_direction;

/* One buffer in a GPU's memory and one in pinned memory of the host; contents unspecified at first. */
typedef struct gpu_probe gpu_probe;

/* device_bytes and host_bytes: multiples of 16, > 0. PR_ERESOURCE names the GPU and the error of CUDA. */
int gpu_probe_open(gpu_probe **out, int gpu, size_t device_bytes, size_t host_bytes, pr_err *err);
void gpu_probe_close(gpu_probe *p); /* NULL is fine */
void *gpu_probe_host(gpu_probe *p); /* the pinned buffer, to be filled and looked at between calls */

/* n times the same copy between the beginning of the pinned buffer and `offset` of the device's. */
int gpu_probe_copy(gpu_probe *p, gpu_direction direction, size_t offset, size_t bytes, int n, pr_err *err);

/* Read the first `bytes` (multiple of 16) of the device's buffer n times, every byte once each time.
 *   sum  all 64-bit words of all n passes, modulo 2^64: whether they really were read */
int gpu_probe_sum(gpu_probe *p, size_t bytes, int n, uint64_t *sum, pr_err *err);

#endif
