/* Products for more tokens than matmul_few.cuh takes: tiles of rows x tokens, bound by arithmetic for many
 * tokens and by the weights, the inputs and the latency of their loads in between.
 *
 *   block of threads   a tile of 16 MG WM rows x 8 NT WN tokens, all columns, in stages of 256 values
 *   warp               16 MG rows x 8 NT tokens: MG x NT fragments of sums, as floats and as whole numbers
 *   stage              weights as they are packed, inputs, their sums and scales: copied to shared memory by
 *                      cp.async while the stages before are computed
 *
 *   shared memory of a stage   group-blocks of 16 rows, q of the tokens, sums of 16, scales block by block
 *
 * Rows of q are 64 (blocks of 32 values: 32) bytes longer than they are, so that the 16 (8) bytes of
 * the lanes of a fragment stand in different banks.
 *
 * The whole numbers of a block are complete within the warp, and so is the chain of floats over the blocks:
 * in order, whatever the tile. Each warp makes fragments of the digits it needs (WN warps make the same
 * ones), which costs 24 instructions for 16 mma of Q4_K.
 *
 * Instructions (sm_90, as compiled) for 64 values, 32 rows x 32 tokens, Q4_K: 145 with 16 mma, of which 64
 * are multiply-adds of scales; besides, for a block of 256 (64 mma) some 320 for mins and the chain and about
 * 100 to copy: 16 an mma of 4096 products, 4 cycles of a multiprocessor. As a bound of issue on an H200 about
 * 470 Tflop/s; two thirds of that is the goal. Types with scales of 16 values: twice the (half) mma and
 * multiply-adds: 344 instead of 145. Blocks of 32 values: conversion, product of scales and fmaf for each
 * sum: 17 an mma.
 *
 * From L2, for 128 x 64 tiles: 35 KB for 2.1 M products: 12 bytes a cycle at the rate of the goal. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_TILE_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_TILE_CUH
#include "kernels/cuda/matmul_steps.cuh"

/* The two shapes of tiles. WIDE: two blocks of threads a multiprocessor; NARROW: more of them, for matrices
 * and token counts with few tiles. */
template <int MG_, int NT_, int WM_, int WN_, int STAGES_> struct tile_shape {
    static constexpr int MG = MG_, NT = NT_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int GROUPS = MG * WM, ROWS = 16 * GROUPS, TOKENS = 8 * NT * WN;
    static constexpr int WARPS = WM * WN, THREADS = WARPS * WARP;
};
typedef tile_shape<2, 4, 4, 2, 2> tile_wide;
typedef tile_shape<1, 4, 4, 2, 3> tile_narrow;

/* Offsets in a stage, bytes. */
template <class W, class S> struct tile_stage {
    static constexpr int BLOCKS = 256 / W::VALUES; /* of a row */
    static constexpr int GROUP = BLOCKS * 16 * W::BYTES;
    static constexpr int Q_STRIDE = 256 + (W::VALUES == 256 ? 64 : 32);
    static constexpr int Q = S::GROUPS * GROUP;
    static constexpr int SUM = Q + S::TOKENS * Q_STRIDE;
    static constexpr int D = SUM + (W::VALUES == 256 && W::HAS_MIN ? S::TOKENS * 32 : 0);
    static constexpr int BYTES = (D + BLOCKS * S::TOKENS * 4 + 127) / 128 * 128;
};

/* What a warp reads of its rows' scales: sc, m of 256-value types, numbers of all. */
template <class W, class S> struct tile_scales {
    uint4 sc[W::VALUES == 256 ? 16 * S::MG : 1], m[W::VALUES == 256 && W::HAS_MIN ? 16 * S::MG : 1];
    float d[256 / W::VALUES][16 * S::MG], dm[W::HAS_MIN ? 256 / W::VALUES : 1][16 * S::MG];
};

/* The tile of a block of threads. */
struct tile_place {
    product_part part;
    const uint8_t *pack; /* of its first group */
    size_t group_bytes;
    int group, n_groups; /* first; how many there are of it */
    int token, n_tokens;
};
template <class W, class S> static __device__ __forceinline__ tile_place tile_of(const product_args &a)
{
    tile_place p;

    p.part = part_of(a, blockIdx.y);
    p.group = (int)(blockIdx.y - p.part.first) * S::GROUPS;
    p.n_groups = min((int)S::GROUPS, (int)(p.part.n_rows + 15) / 16 - p.group);
    p.group_bytes = (size_t)(a.n_cols / W::VALUES) * (16 * W::BYTES);
    p.pack = p.part.pack + p.group * p.group_bytes;
    p.token = (int)blockIdx.x * S::TOKENS;
    p.n_tokens = min((int)S::TOKENS, (int)a.n_tokens - p.token);
    return p;
}

/* Ask for 256 values (or the n_blocks blocks of 32 that are left) from column 256 * step on, without a
 * division: a warp copies whole group-blocks; 16 threads the q of a token, 2 its sums, 8 (1) its scales. */
template <class W, class S>
static __device__ __forceinline__ void tile_copy(uint8_t *stage, const product_args &a, const tile_place &p,
                                                 int step, int n_blocks)
{
    typedef tile_stage<W, S> L;
    const int tid = (int)threadIdx.x, lane = lane_id(), group_bytes = n_blocks * (16 * W::BYTES);
    const int blocks = (int)a.n_cols / W::VALUES;
    const uint8_t *pack = p.pack + (size_t)step * L::GROUP;
    const int8_t *q = a.q + (size_t)p.token * a.n_cols + 256 * step;
    const float *d = a.d + (size_t)p.token * blocks + step * L::BLOCKS;

    for (int group = tid / WARP; group < p.n_groups; group += S::WARPS) {
        const uint8_t *from = pack + group * p.group_bytes;
        uint8_t *to = stage + group * L::GROUP;
        for (int at = 16 * lane; at < group_bytes; at += 16 * WARP) copy16_async(to + at, from + at);
    }
    if (16 * (tid % 16) < n_blocks * W::VALUES) {
        const int at = 16 * (tid % 16);
        for (int token = tid / 16; token < p.n_tokens; token += S::THREADS / 16)
            copy16_async(stage + L::Q + token * L::Q_STRIDE + at, q + (size_t)token * a.n_cols + at);
    }
    if constexpr (W::VALUES == 256 && W::HAS_MIN) {
        const int16_t *sum = a.sum + ((size_t)p.token * blocks + step) * 16 + tid % 2 * 8;
        for (int token = tid / 2; token < p.n_tokens; token += S::THREADS / 2)
            copy16_async(stage + L::SUM + 32 * token + tid % 2 * 16, sum + (size_t)token * blocks * 16);
    }
    if (tid % L::BLOCKS < n_blocks) {
        const int block = tid % L::BLOCKS;
        for (int token = tid / L::BLOCKS; token < p.n_tokens; token += S::THREADS / L::BLOCKS)
            copy4_async(stage + L::D + (block * S::TOKENS + token) * 4, d + (size_t)token * blocks + block);
    }
}

/* The sums of a warp, one float for each element of its fragments. */
template <class S> struct tile_sums {
    float v[S::MG][S::NT][4];
};

/* The scales of the warp's rows to its own part of shared memory: one lane a row. (All have read the last
 * ones: the barrier behind a stage lies between.) */
template <class W, class S>
static __device__ __forceinline__ void tile_scales_256(tile_scales<W, S> *to, const uint8_t *groups, int lane)
{
    const int row = lane % (16 * S::MG);
    row_scales s;

    W::scales(W::template load_head<in_place>(groups + row / 16 * tile_stage<W, S>::GROUP, row % 16), &s);
    if (lane < 16 * S::MG) {
        to->sc[row] = make_uint4(s.sc[0], s.sc[1], W::SUB == 16 ? s.sc[2] : 0, W::SUB == 16 ? s.sc[3] : 0);
        to->d[0][row] = s.d;
        if constexpr (W::HAS_MIN) {
            to->m[row] = make_uint4(s.m[0], s.m[1], s.m[2], s.m[3]);
            to->dm[0][row] = s.dm;
        }
    }
    warp_sync();
}

/* One block of 256 values: groups, q, sum, d are the warp's rows and tokens in the stage. */
template <class W, class S>
static __device__ __forceinline__ void tile_block_256(tile_sums<S> *acc, tile_scales<W, S> *scales,
                                                      const uint8_t *groups, const uint8_t *q,
                                                      const uint8_t *sum, const float *d)
{
    typedef tile_stage<W, S> L;
    const int lane = lane_id(), g = lane / 4, t = lane % 4;
    int32_t s[S::MG][S::NT][4];

#pragma unroll
    for (int m = 0; m < S::MG; m++) {
#pragma unroll
        for (int n = 0; n < S::NT; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }
    tile_scales_256<W, S>(scales, groups, lane);
#pragma unroll(S::MG == 1 ? 2 : 1)
    for (int chunk = 0; chunk < 4; chunk++) {
        uint32_t digits[S::MG][2][4], sc[S::MG][2];

#pragma unroll
        for (int m = 0; m < S::MG; m++) {
            uint4 parts[W::PER_CHUNK];
#pragma unroll
            for (int i = 0; i < W::PER_CHUNK; i++)
                parts[i] = *(const uint4 *)(groups + m * L::GROUP + 512 * W::unit(chunk, i) + 16 * lane);
            W::digits(digits[m], parts, chunk);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint32_t *words = (const uint32_t *)&scales->sc[16 * m + g + 8 * i];
                sc[m][i] = W::SUB == 32 ? words[chunk / 2] >> chunk % 2 * 16 : words[chunk];
            }
        }
#pragma unroll
        for (int n = 0; n < S::NT; n++) {
            uint4 x = *(const uint4 *)(q + (8 * n + g) * L::Q_STRIDE + 64 * chunk + 16 * t);
#pragma unroll
            for (int m = 0; m < S::MG; m++) chunk_product<W>(s[m][n], digits[m], x, sc[m]);
        }
    }
#pragma unroll
    for (int n = 0; n < S::NT; n++) {
        const float2 xd = *(const float2 *)(d + 8 * n + 2 * t);
        uint2 sums = {};
        if constexpr (W::HAS_MIN) sums = *(const uint2 *)(sum + (8 * n + g) * 32 + 8 * t);
#pragma unroll
        for (int m = 0; m < S::MG; m++) {
            int32_t mins[4];
            if constexpr (W::HAS_MIN) {
                uint32_t a[2];
#pragma unroll
                for (int i = 0; i < 2; i++) a[i] = ((const uint32_t *)&scales->m[16 * m + g + 8 * i])[t];
                mins_product(mins, a, sums);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = 16 * m + g + i / 2 * 8;
                const float x = i % 2 ? xd.y : xd.x;
                float *v = &acc->v[m][n][i];
                *v = fmaf(scales->d[0][row] * x, (float)s[m][n][i], *v);
                if constexpr (W::HAS_MIN) *v = fmaf(scales->dm[0][row] * x, (float)mins[i], *v);
            }
        }
    }
}

/* Up to 8 blocks of 32 values. */
template <class W, class S>
static __device__ __forceinline__ void tile_blocks_32(tile_sums<S> *acc, tile_scales<W, S> *scales,
                                                      const uint8_t *groups, const uint8_t *q, const float *d,
                                                      int n_blocks)
{
    typedef tile_stage<W, S> L;
    const int lane = lane_id(), g = lane / 4, t = lane % 4;

    for (int i = lane; i < n_blocks * 16 * S::MG; i += WARP) {
        const int row = i % (16 * S::MG), block = i / (16 * S::MG);
        row_numbers n = W::numbers(W::template load_head<in_place>(
            groups + row / 16 * L::GROUP + block * (16 * W::BYTES), row % 16));
        scales->d[block][row] = n.d;
        if constexpr (W::HAS_MIN) scales->dm[block][row] = n.dm;
    }
    warp_sync();
#pragma unroll 1
    for (int block = 0; block < n_blocks; block++) {
        uint32_t digits[S::MG][4];
        float wd[S::MG][2], wdm[S::MG][2];

#pragma unroll
        for (int m = 0; m < S::MG; m++) {
            W::digits(digits[m],
                      W::template load_part<in_place>(groups + m * L::GROUP + block * (16 * W::BYTES), lane),
                      lane);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                wd[m][i] = scales->d[block][16 * m + g + 8 * i];
                if constexpr (W::HAS_MIN) wdm[m][i] = scales->dm[block][16 * m + g + 8 * i];
            }
        }
#pragma unroll
        for (int n = 0; n < S::NT; n++) {
            const uint2 x = *(const uint2 *)(q + (8 * n + g) * L::Q_STRIDE + 32 * block + 8 * t);
            const float2 xd = *(const float2 *)(d + block * S::TOKENS + 8 * n + 2 * t);
            const uint32_t words[2] = {x.x, x.y};
            int32_t sums[4] = {0, 0, 0, 0}; /* of the inputs: a product with ones */

            if constexpr (W::HAS_MIN) {
                const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
                mma_s8(sums, ones, words);
            }
#pragma unroll
            for (int m = 0; m < S::MG; m++) {
                int32_t s[4] = {0, 0, 0, 0};
                mma_s8(s, digits[m], words);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float xi = i % 2 ? xd.y : xd.x;
                    float *v = &acc->v[m][n][i];
                    *v = fmaf(wd[m][i / 2] * xi, (float)s[i], *v);
                    if constexpr (W::HAS_MIN) *v = fmaf(wdm[m][i / 2] * xi, (float)sums[i % 2], *v);
                }
            }
        }
    }
}

/* Wait until the oldest of n_stages stages that were asked for is there. */
static __device__ __forceinline__ void tile_wait(int n_stages)
{
    if (n_stages == 3) copy_wait<2>();
    else if (n_stages == 2) copy_wait<1>();
    else copy_wait<0>();
    block_sync();
}

template <class W, class S>
static __device__ __forceinline__ void tile_write(const tile_sums<S> &acc, const tile_place &p, int warp_m,
                                                  int warp_n)
{
    const int lane = lane_id(), g = lane / 4, t = lane % 4;

#pragma unroll
    for (int m = 0; m < S::MG; m++) {
#pragma unroll
        for (int n = 0; n < S::NT; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned row = (p.group + warp_m * S::MG + m) * 16 + g + i / 2 * 8;
                int token = (warp_n * S::NT + n) * 8 + 2 * t + i % 2;
                if (row < p.part.n_rows && token < p.n_tokens)
                    p.part.out[(size_t)(p.token + token) * p.part.out_stride + row] = acc.v[m][n][i];
            }
        }
    }
}

/* Blocks of a row in step `step`. */
template <class W> static __device__ __forceinline__ int tile_blocks(int n_blocks, int step)
{
    return W::VALUES == 256 ? 1 : min(256 / W::VALUES, n_blocks - step * (256 / W::VALUES));
}

/* Grid: x tiles of tokens, y tiles of rows; blocks that run at the same time share rows' weights. */
template <class W, class S>
static __global__ void __launch_bounds__(S::THREADS, 2) tile(const product_args a, int n_stages)
{
    typedef tile_stage<W, S> L;
    uint8_t *shared = (uint8_t *)dynamic_shared();
    const int warp = (int)threadIdx.x / WARP, warp_m = warp % S::WM, warp_n = warp / S::WM;
    const tile_place p = tile_of<W, S>(a);
    const int n_blocks = (int)a.n_cols / W::VALUES, n_steps = (n_blocks + L::BLOCKS - 1) / L::BLOCKS;
    tile_scales<W, S> *scales = (tile_scales<W, S> *)(shared + n_stages * L::BYTES) + warp;
    /* Warps whose rows or tokens are all behind the end only copy. */
    const bool computes = warp_m * S::MG < p.n_groups && warp_n * S::NT * 8 < p.n_tokens;
    tile_sums<S> acc = {};

    for (int step = 0; step < n_stages - 1; step++) {
        if (step < n_steps)
            tile_copy<W, S>(shared + step * L::BYTES, a, p, step, tile_blocks<W>(n_blocks, step));
        copy_commit();
    }
    for (int step = 0; step < n_steps; step++) {
        const int ahead = step + n_stages - 1;
        const uint8_t *stage = shared + step % n_stages * L::BYTES;
        const uint8_t *groups = stage + warp_m * S::MG * L::GROUP;
        const uint8_t *q = stage + L::Q + warp_n * S::NT * 8 * L::Q_STRIDE;
        const uint8_t *sum = stage + L::SUM + warp_n * S::NT * 8 * 32;
        const float *d = (const float *)(stage + L::D) + warp_n * S::NT * 8;

        if (ahead < n_steps)
            tile_copy<W, S>(shared + ahead % n_stages * L::BYTES, a, p, ahead,
                            tile_blocks<W>(n_blocks, ahead));
        copy_commit();
        tile_wait(n_stages);
        if (computes) {
            if constexpr (W::VALUES == 256) tile_block_256<W, S>(&acc, scales, groups, q, sum, d);
            else tile_blocks_32<W, S>(&acc, scales, groups, q, d, tile_blocks<W>(n_blocks, step));
        }
        block_sync(); /* before the stage is written again */
    }
    if (computes) tile_write<W, S>(acc, p, warp_m, warp_n);
}

template <class W, class S> static constexpr size_t tile_shared(int n_stages)
{
    return n_stages * tile_stage<W, S>::BYTES + S::WARPS * sizeof(tile_scales<W, S>);
}
template <class W, class S>
static cudaError_t launch_tile_shape(product_args a, size_t shared_limit, cudaStream_t stream)
{
    const unsigned y = number_units(&a, S::ROWS), x = (a.n_tokens + S::TOKENS - 1) / S::TOKENS;
    int n_stages = S::STAGES;

    while (n_stages > 1 && tile_shared<W, S>(n_stages) > shared_limit) n_stages--;
    return launch(tile<W, S>, dim3(x, y), S::THREADS, tile_shared<W, S>(n_stages), stream, a, n_stages);
}

template <class W>
static cudaError_t launch_tile(const product_args &a, size_t shared_limit, cudaStream_t stream)
{
    if (a.n_tokens <= tile_narrow::TOKENS || tile_shared<W, tile_wide>(1) > shared_limit)
        return launch_tile_shape<W, tile_narrow>(a, shared_limit, stream);
    return launch_tile_shape<W, tile_wide>(a, shared_limit, stream);
}

#endif
