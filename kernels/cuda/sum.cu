/* Sum of the 64-bit words of a buffer: reads everything once and does little with it, so that its time is the
 * device memory's.
 *
 * Blocks of THREADS walk the buffer together in steps of the whole grid, each thread with UNROLL loads of 16
 * bytes under way: 2048 threads x 64 bytes = 128 KiB a multiprocessor, some times what bandwidth x latency
 * asks for (H200: 4.8 TB/s x 0.8 us / 132 = 29 KiB). Bound by memory: two additions for a load of 16 bytes.
 * The order of additions does not matter modulo 2^64. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, BLOCKS_PER_SM = 8, UNROLL = 4 };

typedef unsigned long long word; /* what shuffles and atomics take */

/* The sum over a warp, in its lane 0. */
static __device__ word warp_sum(word s)
{
    for (int step = WARP / 2; step > 0; step /= 2) s += warp_down(s, step);
    return s;
}

static __global__ void __launch_bounds__(THREADS) sum_words(word *sum, const ulonglong2 *data, size_t n)
{
    __shared__ word part[WARPS];
    const size_t step = (size_t)gridDim.x * THREADS;
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    word s = 0;

    for (; i + (UNROLL - 1) * step < n; i += UNROLL * step) {
        ulonglong2 w[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) w[u] = __ldcs(data + i + u * step);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) s += w[u].x + w[u].y;
    }
    for (; i < n; i += step) s += data[i].x + data[i].y;

    s = warp_sum(s);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = s;
    block_sync();
    if (threadIdx.x >= WARP) return;
    s = warp_sum(threadIdx.x < WARPS ? part[threadIdx.x] : 0);
    if (threadIdx.x == 0) atomicAdd(sum, s);
}

cudaError_t launch_sum(uint64_t *sum, const void *data, size_t bytes, int n_sms, cudaStream_t stream)
{
    return launch(sum_words, (unsigned)n_sms * BLOCKS_PER_SM, THREADS, 0, stream, (word *)sum,
                  static_cast<const ulonglong2 *>(data), bytes / sizeof(ulonglong2));
}
