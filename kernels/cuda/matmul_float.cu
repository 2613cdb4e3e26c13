/* Products of F16 and BF16 weights by tensor cores, of F32 weights by fmaf.
 *
 * Inputs are x = scale * (hi + lo), both of the weights' 16-bit type, so a product is two mma into one f32
 * accumulator: nearly the precision of f32 inputs, since products of two halves are exact in f32.
 *
 * Layout (kernels/gpu_pack_float.h), in chunks of 32 k, for two mma.m16n8k16 of hi and two of lo:
 *
 *   16 rows of weights, 1024 bytes:  [fragment 0: 32 lanes x 16 bytes][fragment 1: 32 lanes x 16 bytes]
 *   a token of hi or lo, 64 bytes:   [t = 0: k 0..7][t = 1: k 8..15][t = 2][t = 3]
 *                                     \_ b of fragment 0: 4 halves; of fragment 1: 4 halves
 *
 * so every load is 16 bytes a lane, nothing is moved within a warp, and shared memory has no bank conflicts
 * without padding.
 *
 * Order of additions, the same in every kernel here: k is cut in SEGMENTS runs of whole chunks; in a segment
 * one accumulator takes chunk after chunk: fragment 0 hi, lo, fragment 1 hi, lo; segments are added in order
 * to 0; times scale at the end. F32: a segment has two chains, of the k with k / 4 even and odd.
 *
 * Few tokens (<= 32): a block takes 1 or 2 groups and all its tokens, a warp a segment, with 4 KiB of loads
 * under way. Bound by memory: for 512 weights and 8 tokens 4 loads and 4 mma. Expected on an H200: 80 to 90 %
 * of 4.8 TB/s for 1 to 8 tokens; 40 to 60 % for 9 to 32, whose inputs come from L2 once a block.
 *
 * More: a block has a tile in shared memory, two chunks deep, filled by copies behind its back. 128 rows x
 * 128 tokens are 24 KiB a chunk, for which each of 8 warps has 64 mma (in all about 830 cycles of the tensor
 * cores) and 16 loads of 512 bytes (in all 512 cycles of shared memory). Expected on an H200: 70 % of what
 * mma.sync gives, 600 Tflop/s, half of it for each of hi and lo: 210 Tflop/s of weights times tokens. Smaller
 * tiles where there would be too few blocks for the SMs. */
#include "kernels/cuda/matmul.cuh"

enum { SEGMENTS = 8, GROUP = GPU_PACK_ROWS, CHUNK = GPU_FLOAT_CHUNK };
enum { FEW_THREADS = SEGMENTS * WARP, ENOUGH_BLOCKS = 128 };

typedef struct {
    const uint8_t *pack;
    float *out;
    size_t out_stride, n_groups;
} float_product;
typedef struct {
    float_product p[GPU_PRODUCTS];
    unsigned first[GPU_PRODUCTS]; /* number of the product's first block; UINT32_MAX where there is none */
    size_t group_bytes;
    unsigned n_chunks, segment_chunks;
    const uint16_t *hi;
    ptrdiff_t lo;             /* after hi */
    const float *f32, *scale; /* NULL: 1 */
    size_t stride, n_tokens;
} float_args;

/* The product of this block, and its number in there. */
static __device__ __forceinline__ float_product product_of_block(const float_args &a, unsigned *block)
{
    const unsigned b = blockIdx.x;

    *block = b - (b >= a.first[2] ? a.first[2] : b >= a.first[1] ? a.first[1] : 0);
    return b >= a.first[2] ? a.p[2] : b >= a.first[1] ? a.p[1] : a.p[0];
}

template <bool bf16>
static __device__ __forceinline__ void mma_half(float d[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
    const uint32_t fragment[4] = {a.x, a.y, a.z, a.w}, column[2] = {b0, b1};

    if (bf16) mma_bf16(d, fragment, column);
    else mma_f16(d, fragment, column);
}

static __device__ __forceinline__ size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* --- the end of kernels whose warps have a segment each -------------------------------------------- */
/* Adds the segments' sums of ROWS rows and TOKENS tokens in order and stores them. */
template <int ROWS, int TOKENS, int PAD>
static __device__ __forceinline__ void join_segments(const float part[SEGMENTS][TOKENS][ROWS + PAD],
                                                     const float_product &p, const float *scale,
                                                     size_t n_tokens, size_t first_group, size_t first_token)
{
    block_sync();
    for (int i = (int)threadIdx.x; i < ROWS * TOKENS; i += FEW_THREADS) {
        const int row = i % ROWS, col = i / ROWS;
        const size_t token = first_token + col;
        float sum = 0;

        if (token >= n_tokens || first_group + row / GROUP >= p.n_groups) continue;
#pragma unroll
        for (int s = 0; s < SEGMENTS; s++) sum += part[s][col][row];
        p.out[token * p.out_stride + first_group * GROUP + row] = scale ? sum * scale[token] : sum;
    }
}

/* --- F16, BF16, few tokens -------------------------------------------------------------------------- */
/* A lane's token of each eight: hi at `hi` + 8 n rows, while 8 n < n_tokens; others are zeros. */
typedef struct {
    const uint16_t *hi;
    ptrdiff_t lo;
    size_t stride;
    int n_tokens;
} few_inputs;

/* N chunks of MT groups and NT times 8 tokens; all loads of weights first. */
template <bool bf16, int MT, int NT, int N>
static __device__ __forceinline__ void few_chunks(float acc[MT][NT][4], const uint8_t *const weights[MT],
                                                  const few_inputs &x, unsigned chunk)
{
    uint4 w[N][MT][2];

#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
            w[i][m][0] = load_once(weights[m] + (size_t)(chunk + i) * 1024);
            w[i][m][1] = load_once(weights[m] + (size_t)(chunk + i) * 1024 + 512);
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        const size_t k = (size_t)(chunk + i) * CHUNK;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            const uint4 zero = make_uint4(0, 0, 0, 0);
            const uint16_t *from = x.hi + 8 * n * x.stride + k;
            const uint4 h = 8 * n < x.n_tokens ? *(const uint4 *)from : zero;
            const uint4 l = 8 * n < x.n_tokens ? *(const uint4 *)(from + x.lo) : zero;
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_half<bf16>(acc[m][n], w[i][m][0], h.x, h.y);
                mma_half<bf16>(acc[m][n], w[i][m][0], l.x, l.y);
                mma_half<bf16>(acc[m][n], w[i][m][1], h.z, h.w);
                mma_half<bf16>(acc[m][n], w[i][m][1], l.z, l.w);
            }
        }
    }
}

/* Block (groups, tokens), warp = segment. */
template <bool bf16, int MT, int NT>
static __global__ void __launch_bounds__(FEW_THREADS, MT == 1 ? 3 : 2) float_few(float_args a)
{
    enum { ROWS = MT * GROUP, TOKENS = NT * 8, PAD = 4, DEEP = MT == 1 ? 4 : 2 };
    __shared__ float part[SEGMENTS][TOKENS][ROWS + PAD]; /* the padding spreads columns over the banks */
    const int lane = lane_id(), g = lane / 4, t = lane % 4;
    const unsigned segment = threadIdx.x / WARP;
    unsigned block;
    const float_product p = product_of_block(a, &block);
    const size_t first_group = (size_t)block * MT, first_token = (size_t)blockIdx.y * TOKENS;
    const unsigned end = min((segment + 1) * a.segment_chunks, a.n_chunks);
    unsigned chunk = segment * a.segment_chunks;
    const uint8_t *weights[MT];
    const few_inputs x = {a.hi + (first_token + g) * a.stride + 8 * t, a.lo, a.stride,
                          (int)(a.n_tokens - first_token) - g};
    float acc[MT][NT][4] = {};

#pragma unroll
    for (int m = 0; m < MT; m++)
        weights[m] = p.pack + least(first_group + m, p.n_groups - 1) * a.group_bytes + 16 * lane;
    for (; chunk + DEEP <= end; chunk += DEEP) few_chunks<bf16, MT, NT, DEEP>(acc, weights, x, chunk);
    for (; chunk < end; chunk++) few_chunks<bf16, MT, NT, 1>(acc, weights, x, chunk);
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                part[segment][8 * n + 2 * t + i % 2][GROUP * m + g + i / 2 * 8] = acc[m][n][i];
        }
    }
    join_segments<ROWS, TOKENS, PAD>(part, p, a.scale, a.n_tokens, first_group, first_token);
}

/* --- F16, BF16, a tile ------------------------------------------------------------------------------- */
/* WM x WN warps, each with MT groups and NT = 4 times 8 tokens. */
template <int MT, int WM, int WN> struct tile {
    enum {
        THREADS = WM * WN * WARP,
        NT = 4,
        GROUPS = WM * MT,
        TOKENS = WN * NT * 8,
        WEIGHTS = GROUPS * 1024,
        INPUT = TOKENS * 64,
        STAGE = WEIGHTS + 2 * INPUT,
        WEIGHT_COPIES = WEIGHTS / 16 / THREADS,
        INPUT_COPIES = INPUT / 16 / THREADS
    };
};

/* Where a thread's copies of a chunk come from. */
template <class TILE> struct tile_source {
    const uint8_t *weights[TILE::WEIGHT_COPIES];
    const uint16_t *hi[TILE::INPUT_COPIES];
    ptrdiff_t lo;

    /* Groups and tokens that are not there are the last ones; nobody stores their results. */
    __device__ __forceinline__ tile_source(const float_args &a, const float_product &p, size_t first_group,
                                           size_t first_token)
        : lo(a.lo)
    {
#pragma unroll
        for (int i = 0; i < TILE::WEIGHT_COPIES; i++) {
            const int piece = (int)threadIdx.x + i * TILE::THREADS;
            const size_t group = least(first_group + piece / 64, p.n_groups - 1);
            weights[i] = p.pack + group * a.group_bytes + piece % 64 * 16;
        }
#pragma unroll
        for (int i = 0; i < TILE::INPUT_COPIES; i++) {
            const int piece = (int)threadIdx.x + i * TILE::THREADS;
            const size_t at = least(first_token + piece / 4, a.n_tokens - 1) * a.stride + piece % 4 * 8;
            hi[i] = a.hi + at;
        }
    }
    /* Copies the next chunk. */
    __device__ __forceinline__ void copy(uint8_t *stage)
    {
        uint8_t *to = stage + 16 * threadIdx.x;

#pragma unroll
        for (int i = 0; i < TILE::WEIGHT_COPIES; i++, to += 16 * TILE::THREADS) {
            copy16_async(to, weights[i]);
            weights[i] += 1024;
        }
#pragma unroll
        for (int i = 0; i < TILE::INPUT_COPIES; i++, to += 16 * TILE::THREADS) {
            copy16_async(to, hi[i]);
            copy16_async(to + TILE::INPUT, hi[i] + lo);
            hi[i] += CHUNK;
        }
        copy_commit();
    }
};

template <bool bf16, int MT, class TILE>
static __device__ __forceinline__ void tile_chunk(float acc[MT][TILE::NT][4], const uint8_t *weights,
                                                  const uint8_t *inputs)
{
    uint4 hi[TILE::NT], lo[TILE::NT];

#pragma unroll
    for (int n = 0; n < TILE::NT; n++) {
        hi[n] = *(const uint4 *)(inputs + 512 * n);
        lo[n] = *(const uint4 *)(inputs + 512 * n + TILE::INPUT);
    }
#pragma unroll
    for (int s = 0; s < 2; s++) {
        uint4 w[MT];

#pragma unroll
        for (int m = 0; m < MT; m++) w[m] = *(const uint4 *)(weights + 1024 * m + 512 * s);
#pragma unroll
        for (int n = 0; n < TILE::NT; n++) {
#pragma unroll
            for (int m = 0; m < MT; m++)
                mma_half<bf16>(acc[m][n], w[m], s ? hi[n].z : hi[n].x, s ? hi[n].w : hi[n].y);
        }
#pragma unroll
        for (int n = 0; n < TILE::NT; n++) {
#pragma unroll
            for (int m = 0; m < MT; m++)
                mma_half<bf16>(acc[m][n], w[m], s ? lo[n].z : lo[n].x, s ? lo[n].w : lo[n].y);
        }
    }
}

template <bool bf16, int MT, int WM, int WN>
static __global__ void __launch_bounds__(WM *WN *WARP, MT == 4 ? 1 : 2) float_tile(float_args a)
{
    typedef tile<MT, WM, WN> shape;
    enum { NT = shape::NT };
    uint8_t *const stage = (uint8_t *)dynamic_shared();
    const int lane = lane_id(), warp = (int)threadIdx.x / WARP, wm = warp % WM, wn = warp / WM;
    unsigned block;
    const float_product p = product_of_block(a, &block);
    const size_t first_group = (size_t)block * shape::GROUPS,
                 first_token = (size_t)blockIdx.y * shape::TOKENS;
    tile_source<shape> source(a, p, first_group, first_token);
    float acc[MT][NT][4] = {}, total[MT][NT][4] = {};
    unsigned join = a.segment_chunks;

    source.copy(stage);
    for (unsigned chunk = 0; chunk < a.n_chunks; chunk++) {
        const uint8_t *now = stage + chunk % 2 * shape::STAGE;

        copy_wait<0>();
        block_sync(); /* the chunk is there for all, and all are done with the one before it */
        if (chunk + 1 < a.n_chunks) source.copy(stage + (chunk + 1) % 2 * shape::STAGE);
        tile_chunk<bf16, MT, shape>(acc, now + wm * MT * 1024 + 16 * lane,
                                    now + shape::WEIGHTS + wn * NT * 512 + 16 * lane);
        if (chunk + 1 < join && chunk + 1 < a.n_chunks) continue;
        join += a.segment_chunks;
#pragma unroll
        for (int i = 0; i < MT * NT * 4; i++) {
            total[i / 4 / NT][i / 4 % NT][i % 4] += acc[i / 4 / NT][i / 4 % NT][i % 4];
            acc[i / 4 / NT][i / 4 % NT][i % 4] = 0;
        }
    }
#pragma unroll
    for (int i = 0; i < MT * NT * 4; i++) {
        const int m = i / 4 / NT, n = i / 4 % NT, d = i % 4;
        const size_t group = first_group + wm * MT + m;
        const size_t token = first_token + (wn * NT + n) * 8 + lane % 4 * 2 + d % 2;

        if (group < p.n_groups && token < a.n_tokens)
            p.out[token * p.out_stride + group * GROUP + lane / 4 + d / 2 * 8] =
                total[m][n][d] * a.scale[token];
    }
}

/* --- F32 ------------------------------------------------------------------------------------------------ */
/* Lane = row (lane / 2) and half of each eight k; warp = segment; TOKENS tokens a block. */
template <int TOKENS> static __global__ void __launch_bounds__(FEW_THREADS) float_f32(float_args a)
{
    __shared__ float part[SEGMENTS][TOKENS][GROUP];
    const int lane = lane_id();
    const unsigned segment = threadIdx.x / WARP;
    unsigned group;
    const float_product p = product_of_block(a, &group);
    const size_t first_token = (size_t)blockIdx.y * TOKENS;
    const unsigned end = min((segment + 1) * a.segment_chunks, a.n_chunks);
    const uint8_t *weights = p.pack + group * a.group_bytes + 16 * lane;
    const float *x[TOKENS];
    float acc[TOKENS] = {};

#pragma unroll
    for (int n = 0; n < TOKENS; n++)
        x[n] = a.f32 + least(first_token + n, a.n_tokens - 1) * a.stride + lane % 2 * 4;
    for (size_t chunk = (size_t)segment * a.segment_chunks; chunk < end; chunk++) {
        uint4 w[4];

#pragma unroll
        for (int s = 0; s < 4; s++) w[s] = load_once(weights + chunk * 2048 + 512 * s);
#pragma unroll
        for (int s = 0; s < 4; s++) {
#pragma unroll
            for (int n = 0; n < TOKENS; n++) {
                const float4 v = *(const float4 *)(x[n] + chunk * CHUNK + 8 * s);
                acc[n] = fmaf(bits_float(w[s].x), v.x, acc[n]);
                acc[n] = fmaf(bits_float(w[s].y), v.y, acc[n]);
                acc[n] = fmaf(bits_float(w[s].z), v.z, acc[n]);
                acc[n] = fmaf(bits_float(w[s].w), v.w, acc[n]);
            }
        }
    }
#pragma unroll
    for (int n = 0; n < TOKENS; n++) {
        const float sum = acc[n] + warp_xor(acc[n], 1);
        if (lane % 2 == 0) part[segment][n][lane / 2] = sum;
    }
    join_segments<GROUP, TOKENS, 0>(part, p, a.scale, a.n_tokens, group, first_token);
}

/* --- launching ------------------------------------------------------------------------------------------ */
static unsigned blocks_of(size_t n, size_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

/* Numbers the blocks, which have so many groups each, and returns how many there are in all. */
static unsigned number_blocks(float_args *a, size_t n_products, size_t groups)
{
    unsigned n = 0;

    for (size_t i = 0; i < GPU_PRODUCTS; i++) {
        a->first[i] = i < n_products ? n : UINT32_MAX;
        if (i < n_products) n += blocks_of(a->p[i].n_groups, groups);
    }
    return n;
}

template <bool bf16, int MT, int NT>
static cudaError_t launch_few(float_args *a, size_t n_products, cudaStream_t stream)
{
    const dim3 grid(number_blocks(a, n_products, MT), blocks_of(a->n_tokens, 8 * NT));
    return launch(float_few<bf16, MT, NT>, grid, dim3(FEW_THREADS), 0, stream, *a);
}

/* With `enough` blocks only: else false. */
template <bool bf16, int MT, int WM, int WN>
static bool launch_tile(float_args *a, size_t n_products, unsigned enough, cudaStream_t stream,
                        cudaError_t *e)
{
    typedef tile<MT, WM, WN> shape;
    const dim3 grid(number_blocks(a, n_products, shape::GROUPS), blocks_of(a->n_tokens, shape::TOKENS));

    if (grid.x * grid.y < enough) return false;
    *e = launch(float_tile<bf16, MT, WM, WN>, grid, dim3(shape::THREADS), 2 * shape::STAGE, stream, *a);
    return true;
}

template <bool bf16> static cudaError_t launch_half(float_args *a, size_t n_products, cudaStream_t stream)
{
    cudaError_t e = cudaSuccess;

    if (a->n_tokens <= 8) return launch_few<bf16, 1, 1>(a, n_products, stream);
    if (a->n_tokens <= 16) return launch_few<bf16, 1, 2>(a, n_products, stream);
    if (a->n_tokens <= 32) return launch_few<bf16, 2, 4>(a, n_products, stream);
    if (a->n_tokens > 64 && launch_tile<bf16, 4, 2, 4>(a, n_products, ENOUGH_BLOCKS, stream, &e)) return e;
    if (launch_tile<bf16, 2, 4, 2>(a, n_products, ENOUGH_BLOCKS, stream, &e)) return e;
    launch_tile<bf16, 2, 2, 2>(a, n_products, 0, stream, &e);
    return e;
}

static cudaError_t launch_f32(float_args *a, size_t n_products, cudaStream_t stream)
{
    const unsigned n = number_blocks(a, n_products, 1);

    if (a->n_tokens == 1) return launch(float_f32<1>, dim3(n, 1), dim3(FEW_THREADS), 0, stream, *a);
    return launch(float_f32<8>, dim3(n, blocks_of(a->n_tokens, 8)), dim3(FEW_THREADS), 0, stream, *a);
}

cudaError_t launch_matmul_float(const gpu_product *p, size_t n, const gpu_acts *x, size_t n_tokens,
                                cudaStream_t stream)
{
    const gpu_act_kind kind = gpu_act_for_type(p->type);
    const int half = kind - GPU_ACT_F16; /* 0 and 1 of the two kinds with halves */
    float_args a = {};

    assert(n >= 1 && n <= GPU_PRODUCTS && n_tokens >= 1 && (x->kinds & 1u << kind));
    a.group_bytes = gpu_pack_group_bytes(p->type, p->n_cols);
    a.n_chunks = (unsigned)(x->stride / CHUNK);
    a.segment_chunks = blocks_of(a.n_chunks, SEGMENTS);
    a.stride = x->stride;
    a.n_tokens = n_tokens;
    for (size_t i = 0; i < n; i++) {
        assert(p[i].type == p->type && p[i].n_cols == x->n_cols);
        a.p[i] = {(const uint8_t *)p[i].pack, p[i].out, p[i].out_stride, gpu_pack_groups(p[i].n_rows)};
    }
    if (kind == GPU_ACT_F32) {
        a.f32 = x->f32;
        return launch_f32(&a, n, stream);
    }
    a.hi = x->hi[half];
    a.lo = x->lo[half] - x->hi[half];
    a.scale = x->scale[half];
    return kind == GPU_ACT_BF16 ? launch_half<true>(&a, n, stream) : launch_half<false>(&a, n, stream);
}
