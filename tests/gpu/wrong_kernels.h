/* Kernels with a mistake each, for tests of the emulated GPU: what they do on a GPU is not defined. */
#ifndef PRIMA_TESTS_GPU_WRONG_KERNELS_H
#define PRIMA_TESTS_GPU_WRONG_KERNELS_H
#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WRONG_THREADS = 128 };
typedef enum {
    /* These leave in out[0..127] something else than in[127], in[126], ...: */
    WRONG_NO_BLOCK_SYNC,
    WRONG_NO_WARP_SYNC,
    WRONG_NO_COPY_WAIT,
    WRONG_COPY_TOO_EARLY, /* into a place that others still read */
    WRONG_NOTHING_WRITTEN,
    /* These end the process: */
    WRONG_HALF_A_WARP,
    WRONG_TWO_FUNCTIONS,
    WRONG_THREAD_LEFT,
    WRONG_LOAD_PLACE,
    WRONG_COPY_PLACE,
    WRONG_COPY_TARGET,
    WRONG_NO_DYNAMIC_MEMORY,
    WRONG_COUNT,
    WRONG_NONE /* right: what the first ones should have done */
} wrong_kind;

/* One block of WRONG_THREADS. */
cudaError_t launch_wrong(wrong_kind kind, uint32_t *out, const uint32_t *in, cudaStream_t stream);
/* A right one: out = in backwards, by way of 24 KiB of static shared memory and so many bytes more, both read
 * and written to their ends. */
enum { WRONG_STATIC_BYTES = 24 << 10 };
cudaError_t launch_large_block(size_t dynamic_bytes, uint32_t *out, const uint32_t *in, cudaStream_t stream);
/* A block of any number of threads that shuffles. */
cudaError_t launch_wrong_block(int n_threads, uint32_t *out, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
