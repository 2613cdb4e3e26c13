/* Shared memory of a kernel's blocks: its static arrays and what the launch adds. More than 48 KiB of both
 * together have to be asked for, once for each kernel and GPU; what a GPU does not have is refused by name.
 */
#include "kernels/cuda/shared.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Of the C++ runtime that the code of kernels needs anyway. */
char *__cxa_demangle(const char *symbol, char *out, size_t *bytes, int *status);

enum { WITHOUT_ASKING = 48 << 10, MAX_KNOWN = 1024 };

/* allowed: bytes that a launch may add; below 0: not even the static arrays have room. */
typedef struct {
    const void *kernel;
    int gpu;
    size_t static_bytes;
    int64_t allowed;
} known_kernel;

static known_kernel known[MAX_KNOWN]; /* open addressing; used up: what is new is looked up every time */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local char refusal[200];

/* The place of a kernel: its own, an empty one, or NULL. */
static known_kernel *place_of(const void *kernel, int gpu)
{
    size_t first = ((uintptr_t)kernel >> 4) * 31 + (size_t)gpu;

    for (size_t i = 0; i < MAX_KNOWN; i++) {
        known_kernel *k = &known[(first + i) % MAX_KNOWN];
        if (!k->kernel || (k->kernel == kernel && k->gpu == gpu)) return k;
    }
    return NULL;
}

static cudaError_t limit_of(int gpu, size_t *bytes)
{
    int most = 0;
    cudaError_t e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu);

    *bytes = (size_t)most;
    return e;
}

static cudaError_t look_at(known_kernel *k, const void *kernel, int gpu)
{
    struct cudaFuncAttributes a;
    size_t most;
    cudaError_t e = cudaFuncGetAttributes(&a, kernel);

    if (!e) e = limit_of(gpu, &most);
    if (e) return e;
    if (most > WITHOUT_ASKING) most = WITHOUT_ASKING;
    *k = (known_kernel){kernel, gpu, a.sharedSizeBytes, (int64_t)most - (int64_t)a.sharedSizeBytes};
    return cudaSuccess;
}

static cudaError_t refuse(const known_kernel *k, size_t bytes, size_t most)
{
    const char *symbol = NULL;
    char *name = NULL;

    if (!cudaFuncGetName(&symbol, k->kernel)) name = __cxa_demangle(symbol, NULL, NULL, NULL);
    snprintf(refusal, sizeof refusal,
             "a block of kernel %.90s takes %zu bytes of shared memory, this GPU has %zu",
             name     ? name
             : symbol ? symbol
                      : "(unknown)",
             k->static_bytes + bytes, most);
    free(name);
    return cudaErrorLaunchOutOfResources;
}

static cudaError_t allow(known_kernel *k, size_t bytes)
{
    size_t most;
    cudaError_t e;

    if ((int64_t)bytes <= k->allowed) return cudaSuccess;
    if ((e = limit_of(k->gpu, &most))) return e;
    if (k->static_bytes + bytes > most) return refuse(k, bytes, most);
    if ((e = cudaFuncSetAttribute(k->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes)))
        return e;
    k->allowed = (int64_t)bytes;
    return cudaSuccess;
}

cudaError_t cuda_allow_shared(const void *kernel, size_t bytes)
{
    known_kernel own = {0}, *k;
    int gpu;
    cudaError_t e = cudaGetDevice(&gpu);

    refusal[0] = 0;
    if (e) return e;
    pthread_mutex_lock(&lock);
    if (!(k = place_of(kernel, gpu))) k = &own;
    if (!k->kernel) e = look_at(k, kernel, gpu);
    if (!e) e = allow(k, bytes);
    pthread_mutex_unlock(&lock);
    return e;
}

const char *cuda_refusal(cudaError_t e)
{
    return e == cudaErrorLaunchOutOfResources && refusal[0] ? refusal : NULL;
}
