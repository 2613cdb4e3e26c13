/* Mistakes, one each (wrong_kernels.h). */
#include "kernels/cuda/device.cuh"
#include "tests/gpu/wrong_kernels.h"

/* out = in backwards, by way of shared memory, with the one thing left out that `kind` says. */
static __global__ void __launch_bounds__(WRONG_THREADS)
    reverse(wrong_kind kind, uint32_t *out, const uint32_t *in)
{
    __shared__ __align__(16) uint32_t shared[WRONG_THREADS];
    const int i = (int)threadIdx.x, other = WRONG_THREADS - 1 - i, within = i ^ (WARP - 1);

    if (kind == WRONG_NO_COPY_WAIT || kind == WRONG_COPY_TOO_EARLY) {
        if (i < WRONG_THREADS / 4) copy16_async(shared + 4 * i, in + 4 * i);
        copy_commit();
        if (kind == WRONG_COPY_TOO_EARLY) copy_wait<0>();
        block_sync();
        if (kind == WRONG_COPY_TOO_EARLY && i < WRONG_THREADS / 4) copy16_async(shared + 4 * i, in + 4 * i);
        out[i] = shared[other];
    } else if (kind == WRONG_NO_WARP_SYNC) {
        shared[i] = in[i];
        uint32_t x = shared[within];
        block_sync();
        shared[i] = x; /* now in[i ^ 31]: warps backwards are what is left */
        block_sync();
        out[i] = shared[(WRONG_THREADS / WARP - 1 - i / WARP) * WARP + i % WARP];
    } else {
        if (kind != WRONG_NOTHING_WRITTEN) shared[i] = in[i];
        if (kind != WRONG_NO_BLOCK_SYNC) block_sync();
        out[i] = shared[other];
    }
}

/* One warp is enough for these, but there are more. */
static __global__ void __launch_bounds__(WRONG_THREADS)
    stop(wrong_kind kind, uint32_t *out, const uint32_t *in)
{
    __shared__ __align__(16) uint32_t shared[WRONG_THREADS];
    const int i = (int)threadIdx.x;
    uint32_t x = in[i];

    shared[i] = x;
    if (kind == WRONG_HALF_A_WARP && i % WARP >= WARP / 2) return;
    if (kind == WRONG_HALF_A_WARP) x = warp_xor(x, 1);
    if (kind == WRONG_TWO_FUNCTIONS) x = i % 2 ? warp_xor(x, 1) : warp_from(x, 3);
    if (kind == WRONG_THREAD_LEFT && i == 77) return;
    block_sync();
    if (kind == WRONG_LOAD_PLACE) x = load_once(in + 1).x;
    if (kind == WRONG_COPY_PLACE) copy16_async(shared, in + 2);
    if (kind == WRONG_COPY_TARGET) copy16_async(out, in);
    if (kind == WRONG_NO_DYNAMIC_MEMORY) x = *(const uint32_t *)dynamic_shared();
    copy_wait<0>();
    out[i] = x + shared[i];
}

cudaError_t launch_wrong(wrong_kind kind, uint32_t *out, const uint32_t *in, cudaStream_t stream)
{
    if (kind == WRONG_NONE || kind < WRONG_HALF_A_WARP)
        return launch(reverse, 1, WRONG_THREADS, 0, stream, kind, out, in);
    return launch(stop, 1, WRONG_THREADS, 0, stream, kind, out, in);
}

static __global__ void shuffle(uint32_t *out)
{
    out[threadIdx.x] = warp_xor((uint32_t)threadIdx.x, 1);
}

cudaError_t launch_wrong_block(int n_threads, uint32_t *out, cudaStream_t stream)
{
    return launch(shuffle, 1, (unsigned)n_threads, 0, stream, out);
}

static __global__ void __launch_bounds__(WRONG_THREADS)
    large_block(size_t dynamic_bytes, uint32_t *out, const uint32_t *in)
{
    __shared__ uint32_t fixed[WRONG_STATIC_BYTES / sizeof(uint32_t)];
    uint32_t *const more = (uint32_t *)dynamic_shared() + dynamic_bytes / sizeof(uint32_t) - WRONG_THREADS;
    uint32_t *const end = fixed + WRONG_STATIC_BYTES / sizeof(uint32_t) - WRONG_THREADS;
    const int i = (int)threadIdx.x;

    end[i] = in[i];
    block_sync();
    more[i] = end[WRONG_THREADS - 1 - i];
    block_sync();
    out[i] = more[i];
}

cudaError_t launch_large_block(size_t dynamic_bytes, uint32_t *out, const uint32_t *in, cudaStream_t stream)
{
    return launch(large_block, 1, WRONG_THREADS, dynamic_bytes, stream, dynamic_bytes, out, in);
}
