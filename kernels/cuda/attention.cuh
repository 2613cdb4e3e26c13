/* Attention: what the kernel for decoding (attention_decode.cu) and the one for prompts (attention_prompt.cu)
 * have in common, which is every operation on numbers: both give a query the same bits, since both do the
 * same operations in the same order on it and differ in who does them, when, and where numbers wait.
 *
 * A row is one query of one head. For one row, with scores in units of log2 (q is multiplied by scale *
 * log2(e), then rounded to f16), keys in pages of 32, pages in spans of 256 keys that begin at absolute
 * positions:
 *
 *   within a span, page by page:  m' = max(m, s)   c = 2^(m - m')   p = 2^(s - m')
 *                                 o = c o,  o += p V (p as f16; two mma of 16 keys)
 *                                 l = c l + p (4 sums: keys 8t .. 8t + 7)
 *   after each span:              M' = max(M, m)   a = 2^(M - M')   b = 2^(m - M')
 *                                 O = a O + b o    L = a L + b l;   the answer is O / L
 *
 * Scores: mma of 16 dimensions one after the other. Q8_0: keys are whole numbers, exact as f16, a sum for
 * each 32 dimensions is multiplied by their scale and added; values are scale * number, rounded to f16.
 *
 * mma keeps rows apart: which rows share a tile, and whether it has 1 or 16, is of no importance to a row.
 * Keys that a row does not see have score -inf, hence weight 0. Their values still meet that weight: behind
 * the end of all rows of a tile they are taken as 0, whatever lies there, and where a tile's rows end in
 * different places and a value is not finite, rows are done one position after the other
 * (attention_prompt.cu). So a NaN spoils rows that see it, and no other.
 *
 * Fragments: order of the page in kernels/gpu_kv.h, of mma in device.cuh. Rows of a warp are 16; a lane has
 * rows g = lane / 4 and g + 8, and of each page the scores of keys 8t .. 8t + 7, t = lane % 4. */
#ifndef PRIMA_KERNELS_CUDA_ATTENTION_CUH
#define PRIMA_KERNELS_CUDA_ATTENTION_CUH
#include "kernels/cuda/device.cuh"
#include "kernels/gpu_kv.h"

enum {
    ROWS = 16,                            /* of a warp */
    CHUNK = 32,                           /* dimensions that have their keys together: two mma */
    UNIT = 16,                            /* dimensions that have their values together: two mma tiles */
    SPAN_PAGES = GPU_ATTN_SPAN / KV_PAGE, /* 8 */
    TILES = KV_PAGE / 8                   /* mma tiles of a page's scores */
};

/* 16-byte loads of a lane for the keys of a page's chunk, and for the values of a page's unit. */
template <kv_type TYPE> constexpr int KEY_LOADS = TYPE == KV_F16 ? 4 : 2;
template <kv_type TYPE> constexpr int VALUE_LOADS = TYPE == KV_F16 ? 2 : 1;

/* launch_attention's two ways: all tiles of a; for decoding they are of one token each. */
cudaError_t attention_decode(const gpu_attention_args *a, cudaStream_t stream);
cudaError_t attention_prompt(const gpu_attention_args *a, cudaStream_t stream);

/* A tile of gpu_step.tile, and where its rows are. */
struct attn_tile {
    int run, first_row, n_rows, run_pos;
    int first_token, n_group;
};

static __device__ __forceinline__ attn_tile tile_at(const gpu_attention_args &a, size_t i)
{
    const int4 t = *(const int4 *)(a.step.tile + 4 * i);
    return {t.x, t.y, t.z, t.w, a.step.first[t.x], (int)(a.n_heads / a.n_kv_heads)};
}
static __device__ __forceinline__ int row_position(const attn_tile &t, int row)
{
    return t.run_pos + (t.first_row + row) / t.n_group;
}
/* The token and the query head of a row. */
static __device__ __forceinline__ size_t row_token(const attn_tile &t, int row)
{
    return (size_t)(t.first_token + (t.first_row + row) / t.n_group);
}
static __device__ __forceinline__ int row_head(const attn_tile &t, int row, int kv_head)
{
    return kv_head * t.n_group + (t.first_row + row) % t.n_group;
}
static __device__ __forceinline__ size_t page_bytes(kv_type type, int head_size)
{
    return (size_t)head_size * (type == KV_F16 ? 128 : 72);
}
/* Page number `page` of a tile's sequence, of one kv head. */
static __device__ __forceinline__ const uint8_t *page_at(const gpu_attention_args &a, const attn_tile &t,
                                                         int kv_head, int page)
{
    size_t id = (size_t)a.step.pages[(size_t)t.run * a.step.max_pages + page];
    return a.kv + (id * a.n_kv_heads + kv_head) * page_bytes(a.type, (int)a.head_size);
}

/* --- queries ------------------------------------------------------------------------------------------ */
/* The A fragment of mma `step` (16 dimensions; two in a chunk) of 16 rows from `first` on, as numbers,
 * before they are rounded: two words for row g, two for g + 8. A lane's words of a chunk are dimensions 8t
 * .. 8t + 7 of it, or w/4 from w/4 t on in a last chunk of w. Rows behind the tile's end are 0. */
struct query_part {
    float2 x[4];
};
static __device__ __forceinline__ query_part load_query(const gpu_attention_args &a, const attn_tile &t,
                                                        int kv_head, int first, int step, int S)
{
    const int chunk = step / 2, width = min(CHUNK, S - chunk * CHUNK), word = step % 2 * 2;
    query_part q;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + lane_id() / 4 + 8 * i;
        q.x[i] = q.x[i + 2] = make_float2(0, 0);
        if (row >= t.n_rows) continue;
        const float *from = a.q + row_token(t, row) * a.q_stride + (size_t)row_head(t, row, kv_head) * S +
                            chunk * CHUNK + lane_id() % 4 * (width / 4) + 2 * word;
        if (8 * word < width) q.x[i] = *(const float2 *)from;
        if (8 * (word + 1) < width) q.x[i + 2] = *(const float2 *)(from + 2);
    }
    return q;
}
static __device__ __forceinline__ float query_scale(const gpu_attention_args &a)
{
    return __fmul_rn(a.scale, 1.44269504f); /* log2(e) */
}
static __device__ __forceinline__ uint4 query_fragment(const query_part &q, float scale)
{
    uint32_t w[4];

#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = float_halves(__fmul_rn(q.x[i].x, scale), __fmul_rn(q.x[i].y, scale));
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/* --- scores ------------------------------------------------------------------------------------------- */
/* Where a lane finds its 16 bytes number `load` of a chunk of keys. Not for the last chunk of S % 32. */
template <kv_type TYPE> static __device__ __forceinline__ size_t key_offset(int chunk, int load)
{
    return (size_t)(chunk * KEY_LOADS<TYPE> + load) * 512 + lane_id() * 16;
}
/* The same words of a last chunk of `width` dimensions, f16. */
static __device__ __forceinline__ uint4 key_words_last(const uint8_t *page, int chunk, int j, int width)
{
    const uint32_t *from = (const uint32_t *)(page + chunk * 2048) + (j * 32 + lane_id()) * (width / 8);
    uint4 x = make_uint4(from[0], 0, 0, 0);

    if (width > 8) x.y = from[1];
    if (width > 16) x.z = from[2];
    return x;
}

static __device__ __forceinline__ void mma_words(float d[4], const uint4 a, uint32_t b0, uint32_t b1)
{
    const uint32_t aw[4] = {a.x, a.y, a.z, a.w}, bw[2] = {b0, b1};
    mma_f16(d, aw, bw);
}

/* Four bytes of Q8_0 as two words of halves, exactly: q, or q / 128 (values). With its sign turned a byte
 * is the mantissa of 1024 + 128 + q, of 8 + 1 + q / 128. */
static __device__ __forceinline__ void byte_halves(uint32_t out[2], uint32_t bytes, bool by_128)
{
    const uint32_t base = by_128 ? 0x48484848u : 0x64646464u, less = by_128 ? 0x48804880u : 0x64806480u;
    const uint32_t u = bytes ^ 0x80808080u;

    out[0] = halves_sub(bytes_pick(u, base, 0x4140), less);
    out[1] = halves_sub(bytes_pick(u, base, 0x4342), less);
}

/* s += what a chunk's dimensions add to the scores of a page. keys: the lane's loads. scale: of Q8_0, the
 * chunk's 32. two: the chunk has more than 16 dimensions. */
template <kv_type TYPE>
static __device__ __forceinline__ void add_scores(float s[TILES][4], const uint4 a[2], const uint4 *keys,
                                                  const float *scale, bool two)
{
    if (TYPE == KV_F16) {
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            mma_words(s[j], a[0], keys[j].x, keys[j].y);
            if (two) mma_words(s[j], a[1], keys[j].z, keys[j].w);
        }
        return;
    }
    scale += 8 * (lane_id() % 4);
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        const uint4 w = keys[j / 2];
        const float2 by = *(const float2 *)(scale + 2 * j);
        float d[4] = {0, 0, 0, 0};
        uint32_t b[2];

        byte_halves(b, j % 2 ? w.z : w.x, false);
        mma_words(d, a[0], b[0], b[1]);
        byte_halves(b, j % 2 ? w.w : w.y, false);
        mma_words(d, a[1], b[0], b[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = fmaf(i % 2 ? by.y : by.x, d[i], s[j][i]);
    }
}

/* Keys that a row does not see: `seen` of the page's are seen by rows g and g + 8. */
static __device__ __forceinline__ void hide_scores(float s[TILES][4], const int seen[2])
{
    const int key = 8 * (lane_id() % 4);

#pragma unroll
    for (int j = 0; j < TILES; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (key + 2 * j + i % 2 >= seen[i / 2]) s[j][i] = -INFINITY;
    }
}

/* --- weights ------------------------------------------------------------------------------------------ */
/* The largest score of rows g and g + 8; NaN is passed over here, and comes back as a weight. */
static __device__ __forceinline__ void largest_scores(float top[2], const float s[TILES][4])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float x = fmaxf(s[0][2 * i], s[0][2 * i + 1]);
#pragma unroll
        for (int j = 1; j < TILES; j++) x = fmaxf(x, fmaxf(s[j][2 * i], s[j][2 * i + 1]));
        x = fmaxf(x, warp_xor(x, 1));
        top[i] = fmaxf(x, warp_xor(x, 2));
    }
}

/* 2^(x - largest), where x <= largest, or NaN. All -inf gives 0, not NaN: a row that sees nothing here. */
static __device__ __forceinline__ float weight(float x, float largest)
{
    return exp2f(x - (largest == -INFINITY ? 0.0f : largest));
}

/* Scores s become weights; sum: of the lane's own, for rows g and g + 8; p: A fragments of the product
 * with values, for keys 8t .. 8t + 3 and for 8t + 4 .. 8t + 7 */
static __device__ __forceinline__ void weigh(uint4 p[2], float sum[2], float s[TILES][4],
                                             const float largest[2])
{
#pragma unroll
    for (int j = 0; j < TILES; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = weight(s[j][i], largest[i / 2]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] = s[0][2 * i] + s[0][2 * i + 1];
#pragma unroll
        for (int j = 1; j < TILES; j++) sum[i] += s[j][2 * i] + s[j][2 * i + 1];
    }
#pragma unroll
    for (int k = 0; k < 2; k++)
        p[k] = make_uint4(float_halves(s[2 * k][0], s[2 * k][1]), float_halves(s[2 * k][2], s[2 * k][3]),
                          float_halves(s[2 * k + 1][0], s[2 * k + 1][1]),
                          float_halves(s[2 * k + 1][2], s[2 * k + 1][3]));
}

/* l = c l + the lane's sum of a page; over a span, then over the row's lanes. */
static __device__ __forceinline__ float add_weights(float l, float decay, float sum)
{
    return fmaf(l, decay, sum);
}
static __device__ __forceinline__ float row_sum(float l)
{
    l += warp_xor(l, 1);
    return l + warp_xor(l, 2);
}

/* --- values ------------------------------------------------------------------------------------------- */
template <kv_type TYPE>
static __device__ __forceinline__ size_t value_offset(int head_size, int unit, int load)
{
    return (size_t)head_size * (TYPE == KV_F16 ? 64 : 32) + (unit * VALUE_LOADS<TYPE> + load) * 512 +
           lane_id() * 16;
}

/* Q8_0: 128 * scale of keys 8t .. 8t + 7, as halves; scale: the 32 of the unit's chunk. */
static __device__ __forceinline__ void scale_halves(uint32_t out[4], const float *scale)
{
    scale += 8 * (lane_id() % 4);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 x = *(const float2 *)(scale + 2 * i);
        out[i] = float_halves(__fmul_rn(x.x, 128.0f), __fmul_rn(x.y, 128.0f));
    }
}

/* The B words of tile n of a unit (8 dimensions): keys 8t + 2i, 8t + 2i + 1 of dimension g. */
template <kv_type TYPE>
static __device__ __forceinline__ void value_words(uint32_t b[4], const uint4 *values, int n,
                                                   const uint32_t *scales)
{
    if (TYPE == KV_F16) {
        b[0] = values[n].x;
        b[1] = values[n].y;
        b[2] = values[n].z;
        b[3] = values[n].w;
        return;
    }
    byte_halves(b, n ? values[0].z : values[0].x, true);
    byte_halves(b + 2, n ? values[0].w : values[0].y, true);
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = halves_mul(b[i], scales[i]);
}

/* Zeros for the keys of the page from `seen` on. */
static __device__ __forceinline__ void hide_values(uint32_t b[4], int seen)
{
    const int left = seen - 8 * (lane_id() % 4);

#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (left <= 2 * i) b[i] = 0;
        else if (left == 2 * i + 1) b[i] &= 0xffffu;
    }
}

/* o += p * values, for one tile of 8 dimensions. */
static __device__ __forceinline__ void add_values(float o[4], const uint4 p[2], const uint32_t b[4])
{
    mma_words(o, p[0], b[0], b[1]);
    mma_words(o, p[1], b[2], b[3]);
}
static __device__ __forceinline__ void decay_values(float o[4], const float decay[2])
{
#pragma unroll
    for (int i = 0; i < 4; i++) o[i] = __fmul_rn(o[i], decay[i / 2]);
}

/* --- spans -------------------------------------------------------------------------------------------- */
/* Totals of a row: largest M and sum L take in a span's m and l; a and b are for its values. */
static __device__ __forceinline__ void fold_span(float &M, float &L, float &a, float &b, float m, float l)
{
    const float top = fmaxf(M, m);

    a = weight(M, top);
    b = weight(m, top);
    M = top;
    L = fmaf(L, a, __fmul_rn(l, b));
}
static __device__ __forceinline__ float fold_value(float total, float a, float o, float b)
{
    return fmaf(total, a, __fmul_rn(o, b));
}

#endif
