/* The GPUs of this machine: how many, and what they are. C11 without a CUDA type or an #ifdef: a build
 * without the CUDA toolkit has the same functions (kernels/cuda_none.c) and finds no GPU.
 *
 * A GPU's number is its place on the PCI bus among those that CUDA_VISIBLE_DEVICES lets through: the number
 * that nvidia-smi shows (CUDA_DEVICE_ORDER is set unless the user has set it). Not for two threads at once.
 */
#ifndef PRIMA_KERNELS_CUDA_DEVICE_H
#define PRIMA_KERNELS_CUDA_DEVICE_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stdint.h>

enum { GPU_NAME_BYTES = 64 };

typedef struct {
    char name[GPU_NAME_BYTES];
    uint64_t vram_total_bytes;
    uint64_t vram_free_bytes; /* without what this process itself takes to use the GPU at all */
    int capability;           /* 10 x major + minor: 75, 86, 120 */
    int n_sms;                /* multiprocessors */
} gpu_info;

/* What was built in: "CUDA 13.0 for sm_75 sm_80 and newer", or "built without CUDA". Asks no driver. */
const char *gpu_support(void);

/* Whether code for GPUs is built in. */
bool gpu_is_built(void);

/* How many GPUs can be used. When that is 0, why->msg says why: built without CUDA, no driver, a driver that
 * is too old, no GPU. Never an error; why may be NULL. */
int gpu_count(pr_err *why);

/* gpu  0 .. gpu_count - 1, else PR_ERESOURCE, as for every error of CUDA, which the message names */
int gpu_describe(gpu_info *out, int gpu, pr_err *err);

#endif
