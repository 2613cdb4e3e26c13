/* Products for up to 32 tokens (blocks of 32 values: 16): bound by reading the weights once.
 *
 *   block of threads   16 rows (a group) of one product, all columns, all tokens
 *   warp w of 8        blocks w, w + 8, .. of the rows (blocks of 32 values: four at a time)
 *   lane               one 16-byte load per 512 bytes of digits is its part of two A fragments
 *
 * The tokens are the columns of mma_s8, 8 of them, or two or four times 8: columns of tokens that there are
 * not repeat the last one and are thrown away. (dot4_s8 would take 16 instructions for the 512 products of
 * a lane's part of an mma and one token, and then sums across lanes: at one token 4 x 16 instead of 4 mma and
 * 8 multiply-adds for 128 values. The tensor cores are idle otherwise.) Inputs are not copied to shared
 * memory: the blocks of a multiprocessor read the same ones, a few KB a token, from its L1 cache, past which
 * the weights go.
 *
 * The whole numbers S and M of each block and row (kernels/unpack8.h) may be found in any order; floats may
 * not. So the 8 warps leave them in shared memory, slot by slot, and after a barrier 16 threads a token go
 * through the slots in order, while the other warps are at the next 8. Slots are double: one barrier for
 * each 8.
 *
 * On an H200 a multiprocessor's share of 4.8 TB/s is 20.7 bytes a cycle, in which it can issue 4
 * instructions. Instructions of a warp as compiled for sm_90, and those that can be issued while its bytes
 * come in:
 *
 *   block of 256 x 16   1 token   8     16    32      bytes   to be issued
 *   Q4_K                310       310   390   650     2304    445
 *   Q6_K                420       450   600   900     3360    649
 *   IQ4_XS              450       470   540   730     2176    420
 *   Q8_0 (4 blocks)     180       190   200           2176    420
 *
 * (counted in the listing, about; without the chain, some 12 for each slot, row and token). So up to 16
 * tokens memory should be the limit, but for IQ4_XS, whose digits take 13 instructions a word.
 *
 * Under way: each warp has asked for its next block while it computes one. With three blocks of threads on a
 * multiprocessor (FEW_BLOCKS) 24 x 2.3 KB = 55 KB, with two 37 KB; 4.8 TB/s x 0.8 us / 132 are 29 KB. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_FEW_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_FEW_CUH
#include "kernels/cuda/matmul_steps.cuh"

enum {
    FEW_WARPS = 8,
    FEW_THREADS = FEW_WARPS * WARP,
    FEW_BLOCKS_32 = 4, /* blocks of 32 values that a warp takes at a time */
    FEW_STRIDE = 20    /* words of a token's 16 sums in a slot: banks of fragments' columns differ */
};

/* N: the columns that are kept, 1 or a multiple of 8. TILES of 8 of them are columns of one mma. A thread of
 * the chain has row thread % 16 of tokens thread / 16 + 16 i, i < CHAINS. */
template <int N> struct few_columns {
    static constexpr int TILES = (N + 7) / 8, CHAINS = (N + 15) / 16;
};

/* A slot: what one block of the rows adds to the 16 x N sums. */
template <class W, int N> struct few_slot {
    int32_t s[N][FEW_STRIDE];
    int32_t m[W::HAS_MIN && W::VALUES == 256 ? N : 1][W::HAS_MIN && W::VALUES == 256 ? FEW_STRIDE : 1];
    float d[16], dm[W::HAS_MIN ? 16 : 1];
    int32_t xsum[W::HAS_MIN && W::VALUES == 32 ? 8 * few_columns<N>::TILES : 1]; /* of the inputs */
};

/* Columns 8 tile .. of the sums; a fragment: lane (g, t) has columns 2t, 2t + 1 of rows g, g + 8. */
template <int N>
static __device__ __forceinline__ void few_store(int32_t to[N][FEW_STRIDE], int tile, const int32_t s[4],
                                                 int lane)
{
    const int g = lane / 4, t = lane % 4;

    if constexpr (N == 1) {
        if (t == 0) {
            to[0][g] = s[0];
            to[0][g + 8] = s[2];
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) to[8 * tile + 2 * t + i % 2][g + i / 2 * 8] = s[i];
    }
}

/* Where a thread works: its warp and lane, and its row and (first) token of the chain. */
struct few_place {
    int warp, lane, row, token, n_tokens, n_blocks;
    const uint8_t *pack; /* of the group */
};
template <class W>
static __device__ __forceinline__ few_place few_place_of(const product_args &a, const product_part &part,
                                                         unsigned group)
{
    few_place p;

    p.warp = (int)threadIdx.x / WARP;
    p.lane = lane_id();
    p.row = (int)threadIdx.x % 16;
    p.token = (int)threadIdx.x / 16;
    p.n_tokens = (int)a.n_tokens;
    p.n_blocks = (int)a.n_cols / W::VALUES;
    p.pack = part.pack + (size_t)group * p.n_blocks * (16 * W::BYTES);
    return p;
}

/* Where the row of inputs begins that is column lane / 4 of tile `tile`: behind the last token the last
 * again. */
static __device__ __forceinline__ unsigned few_input(const product_args &a, const few_place &p, int tile)
{
    return (unsigned)min(8 * tile + p.lane / 4, p.n_tokens - 1) * a.n_cols;
}

/* The blocks [first, first + n), which are in the slots, to the thread's sums. */
template <class W, int N>
static __device__ __forceinline__ void few_chain(float acc[few_columns<N>::CHAINS],
                                                 const few_slot<W, N> *slots, const product_args &a,
                                                 int first, int n, const few_place &p)
{
#pragma unroll
    for (int c = 0; c < few_columns<N>::CHAINS; c++) {
        const int token = p.token + 16 * c;
        const float *xds = a.d + token * p.n_blocks + first;

        if (token >= p.n_tokens) break;
#pragma unroll 4
        for (int i = 0; i < n; i++) {
            const few_slot<W, N> &slot = slots[i];
            const float xd = xds[i];
            acc[c] = fmaf(slot.d[p.row] * xd, (float)slot.s[token][p.row], acc[c]);
            if constexpr (W::HAS_MIN) {
                int32_t m;
                if constexpr (W::VALUES == 256) m = slot.m[token][p.row];
                else m = slot.xsum[token];
                acc[c] = fmaf(slot.dm[p.row] * xd, (float)m, acc[c]);
            }
        }
    }
}

template <int N>
static __device__ __forceinline__ void few_write(const float acc[few_columns<N>::CHAINS],
                                                 const product_part &part, unsigned group, const few_place &p)
{
    const unsigned row = group * 16 + p.row;

#pragma unroll
    for (int c = 0; c < few_columns<N>::CHAINS; c++) {
        const int token = p.token + 16 * c;
        if (token < p.n_tokens && row < part.n_rows) part.out[(size_t)token * part.out_stride + row] = acc[c];
    }
}

/* --- blocks of 256 values --------------------------------------------------------------------------- */
/* What a warp has asked for: one block. */
template <class W> struct few_load_256 {
    uint4 w[W::UNITS];
    typename W::head head;
};
template <class W>
static __device__ __forceinline__ void few_ask(few_load_256<W> *to, const few_place &p, int b)
{
    const uint8_t *block = p.pack + (size_t)b * (16 * W::BYTES);

#pragma unroll
    for (int i = 0; i < W::UNITS; i++) to->w[i] = load_once(block + 512 * i + 16 * p.lane);
    to->head = W::template load_head<once>(block, p.lane % 16);
}

/* sc and m of each row of a warp's block */
struct few_scales {
    uint4 sc[16], m[16];
};

/* Block b of 16 rows to its slot. */
template <class W, int N>
static __device__ __forceinline__ void few_block_256(const few_load_256<W> &in, few_scales *scales,
                                                     few_slot<W, N> *slot, const product_args &a, int b,
                                                     const few_place &p)
{
    constexpr int TILES = few_columns<N>::TILES;
    const int lane = p.lane, g = lane / 4, t = lane % 4;
    int32_t s[TILES][4] = {};
    uint4 sc[2];
    row_scales own;

    W::scales(in.head, &own);
    if (lane < 16) { /* all have read those of the last block: a barrier lies between */
        scales->sc[lane] =
            make_uint4(own.sc[0], own.sc[1], W::SUB == 16 ? own.sc[2] : 0, W::SUB == 16 ? own.sc[3] : 0);
        slot->d[lane] = own.d;
        if constexpr (W::HAS_MIN) {
            scales->m[lane] = make_uint4(own.m[0], own.m[1], own.m[2], own.m[3]);
            slot->dm[lane] = own.dm;
        }
    }
    warp_sync();
#pragma unroll
    for (int i = 0; i < 2; i++) sc[i] = scales->sc[g + 8 * i];
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk++) {
        uint4 parts[W::PER_CHUNK];
        uint32_t digits[2][4];
        uint32_t both[2] = {chunk_scales<W>(sc[0], chunk), chunk_scales<W>(sc[1], chunk)};
#pragma unroll
        for (int i = 0; i < W::PER_CHUNK; i++) parts[i] = in.w[W::unit(chunk, i)];
        W::digits(digits, parts, chunk);
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            if (n > 0 && 8 * n >= p.n_tokens) break; /* all lanes */
            const uint4 x = *(const uint4 *)(a.q + few_input(a, p, n) + 256 * b + 64 * chunk + 16 * t);
            chunk_product<W>(s[n], digits, x, both);
        }
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        if (n > 0 && 8 * n >= p.n_tokens) break;
        few_store<N>(slot->s, n, s[n], lane);
        if constexpr (W::HAS_MIN) {
            const uint32_t *words = (const uint32_t *)scales->m + t;
            const uint32_t mins[2] = {words[4 * g], words[4 * (g + 8)]};
            const uint2 sums = *(const uint2 *)(a.sum + few_input(a, p, n) / 16 + 16 * b + 4 * t);
            int32_t m[4];
            mins_product(m, mins, sums);
            few_store<N>(slot->m, n, m, lane);
        }
    }
}

template <class W, int N>
static __global__ void __launch_bounds__(FEW_THREADS, N <= 8 ? W::FEW_BLOCKS : 2)
    few_256(const product_args a)
{
    __shared__ few_scales scales[FEW_WARPS];
    const product_part part = part_of(a, blockIdx.x);
    const unsigned group = blockIdx.x - part.first;
    const few_place p = few_place_of<W>(a, part, group);
    few_slot<W, N> *slots = (few_slot<W, N> *)dynamic_shared();
    few_load_256<W> load[2] = {};
    float acc[few_columns<N>::CHAINS] = {};

    if (p.warp < p.n_blocks) few_ask<W>(&load[0], p, p.warp);
    for (int phase = 0; phase < p.n_blocks; phase += 2 * FEW_WARPS) {
#pragma unroll
        for (int i = 0; i < 2; i++) { /* the two halves of the slots, and of what was asked for */
            const int first = phase + i * FEW_WARPS, b = first + p.warp;

            if (first >= p.n_blocks) break;
            if (b + FEW_WARPS < p.n_blocks) few_ask<W>(&load[1 - i], p, b + FEW_WARPS);
            if (b < p.n_blocks) /* all lanes of the warp */
                few_block_256<W, N>(load[i], &scales[p.warp], &slots[i * FEW_WARPS + p.warp], a, b, p);
            block_sync();
            few_chain<W, N>(acc, slots + i * FEW_WARPS, a, first, min((int)FEW_WARPS, p.n_blocks - first), p);
        }
    }
    few_write<N>(acc, part, group, p);
}

/* --- blocks of 32 values ----------------------------------------------------------------------------- */
/* What a warp has asked for: up to four blocks. Heads: lane l has those of row l % 16 of blocks l / 16 and l
 * / 16 + 2. */
template <class W> struct few_load_32 {
    typename W::part part[FEW_BLOCKS_32];
    typename W::head head[2];
};
template <class W>
static __device__ __forceinline__ void few_ask(few_load_32<W> *to, const few_place &p, int b)
{
    const int lane = p.lane;

#pragma unroll
    for (int j = 0; j < FEW_BLOCKS_32; j++) {
        if (b + j < p.n_blocks)
            to->part[j] = W::template load_part<once>(p.pack + (size_t)(b + j) * (16 * W::BYTES), lane);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int from = b + lane / 16 + 2 * j;
        if (from < p.n_blocks)
            to->head[j] = W::template load_head<once>(p.pack + (size_t)from * (16 * W::BYTES), lane % 16);
    }
}

/* One block's digits times the inputs of 8 columns to a slot. */
template <class W, int N>
static __device__ __forceinline__ void few_product_32(few_slot<W, N> *slot, int tile,
                                                      const uint32_t digits[4], const uint2 &x, int lane)
{
    const uint32_t words[2] = {x.x, x.y};
    int32_t s[4] = {0, 0, 0, 0};

    mma_s8(s, digits, words);
    few_store<N>(slot->s, tile, s, lane);
    if constexpr (W::HAS_MIN) { /* the inputs' sums: a product with ones */
        const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
        int32_t sums[4] = {0, 0, 0, 0};

        mma_s8(sums, ones, words);
        if (lane < 4) {
            slot->xsum[8 * tile + 2 * lane] = sums[0];
            slot->xsum[8 * tile + 2 * lane + 1] = sums[1];
        }
    }
}

/* Up to four blocks from block b on to the warp's slots. */
template <class W, int N>
static __device__ __forceinline__ void few_blocks_32(const few_load_32<W> &in, few_slot<W, N> *slots,
                                                     const product_args &a, int b, const few_place &p)
{
    constexpr int TILES = few_columns<N>::TILES;
    const int lane = p.lane;
    uint2 x[TILES][FEW_BLOCKS_32];

#pragma unroll
    for (int n = 0; n < TILES; n++) {
        const int8_t *q = a.q + few_input(a, p, n) + 32 * b + lane % 4 * 8;
#pragma unroll
        for (int j = 0; j < FEW_BLOCKS_32; j++) {
            if (b + j < p.n_blocks) x[n][j] = *(const uint2 *)(q + 32 * j);
        }
    }
#pragma unroll
    for (int j = 0; j < FEW_BLOCKS_32; j++) {
        if (b + j < p.n_blocks) { /* all lanes of the warp */
            uint32_t digits[4];

            W::digits(digits, in.part[j], lane);
#pragma unroll
            for (int n = 0; n < TILES; n++) few_product_32<W, N>(&slots[j], n, digits, x[n][j], lane);
        }
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const int block = lane / 16 + 2 * j;
        if (b + block < p.n_blocks) {
            row_numbers n = W::numbers(in.head[j]);
            slots[block].d[lane % 16] = n.d;
            if constexpr (W::HAS_MIN) slots[block].dm[lane % 16] = n.dm;
        }
    }
}

template <class W, int N>
static __global__ void __launch_bounds__(FEW_THREADS, N <= 8 ? 3 : 2) few_32(const product_args a)
{
    enum { PHASE = FEW_WARPS * FEW_BLOCKS_32 };
    const product_part part = part_of(a, blockIdx.x);
    const unsigned group = blockIdx.x - part.first;
    const few_place p = few_place_of<W>(a, part, group);
    few_slot<W, N> *slots = (few_slot<W, N> *)dynamic_shared();
    few_load_32<W> load[2] = {};
    float acc[few_columns<N>::CHAINS] = {};

    few_ask<W>(&load[0], p, p.warp * FEW_BLOCKS_32);
    for (int phase = 0; phase < p.n_blocks; phase += 2 * PHASE) {
#pragma unroll
        for (int i = 0; i < 2; i++) { /* the two halves of the slots, and of what was asked for */
            const int first = phase + i * PHASE, b = first + p.warp * FEW_BLOCKS_32;

            if (first >= p.n_blocks) break;
            few_ask<W>(&load[1 - i], p, b + PHASE);
            few_blocks_32<W, N>(load[i], slots + i * PHASE + p.warp * FEW_BLOCKS_32, a, b, p);
            block_sync();
            few_chain<W, N>(acc, slots + i * PHASE, a, first, min((int)PHASE, p.n_blocks - first), p);
        }
    }
    few_write<N>(acc, part, group, p);
}

template <class W, int N> static constexpr size_t few_shared(void)
{
    return 2 * FEW_WARPS * (W::VALUES == 256 ? 1 : FEW_BLOCKS_32) * sizeof(few_slot<W, N>);
}
template <class W, int N> static cudaError_t launch_few_columns(product_args a, cudaStream_t stream)
{
    const unsigned n_groups = number_units(&a, GPU_PACK_ROWS);

    if constexpr (W::VALUES == 256)
        return launch(few_256<W, N>, n_groups, FEW_THREADS, few_shared<W, N>(), stream, a);
    else return launch(few_32<W, N>, n_groups, FEW_THREADS, few_shared<W, N>(), stream, a);
}

/* Most columns that there are kernels for: as long as slots are small. */
template <class W> struct few_most {
    static constexpr int COLUMNS = W::VALUES == 256 ? 32 : 16;
};
/* Whether n_tokens are few: also that slots find room in a block's shared memory (static arrays: 4 KB). */
template <class W> static bool is_few(unsigned n_tokens, size_t shared_limit)
{
    if (n_tokens <= 8) return true;
    if (n_tokens <= 16) return few_shared<W, 16>() + 4096 <= shared_limit;
    return n_tokens <= few_most<W>::COLUMNS && few_shared<W, few_most<W>::COLUMNS>() + 4096 <= shared_limit;
}
template <class W> static cudaError_t launch_few(const product_args &a, cudaStream_t stream)
{
    if (a.n_tokens == 1) return launch_few_columns<W, 1>(a, stream);
    if (a.n_tokens <= 8) return launch_few_columns<W, 8>(a, stream);
    if (a.n_tokens <= 16) return launch_few_columns<W, 16>(a, stream);
    return launch_few_columns<W, few_most<W>::COLUMNS>(a, stream);
}

#endif
