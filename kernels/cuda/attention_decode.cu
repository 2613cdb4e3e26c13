/* Attention when decoding: a block for each span of 256 keys of each kv head of each sequence, so that one
 * sequence keeps the whole GPU's memory busy; a second kernel joins the spans in their order.
 *
 *   block = 8 warps, one kv head, one span of 8 pages; 16 rows at a time (n_group of them in use):
 *     warp w: page w      keys -> registers (8 loads of 16 bytes a lane at a time), s[16][32] = q K
 *             ask for the values of 16 dimensions (w), 4 pages at a time: 8 loads of 16 bytes a lane
 *             largest score of its page            -> shared memory, all warps wait
 *             m' after pages 0..w, c, p, sum of p  -> shared memory, all warps wait
 *     warp w: o[16][16 dims] = c o + p V           page after page
 *   partial results o, m, l -> VRAM
 *
 * The maxima of pages are known before any weight is, so pages work side by side on what attention_prompt.cu
 * does one after the other: the same numbers, for same operations (attention.cuh).
 *
 * Bytes: F16 4 S per key (keys and values), Q8_0 2.25 S; per span and row 4 (S + 2) written and read again:
 * 1.6 % more at 4 rows. Per 16 bytes of F16 loaded by a lane: 2 mma, 0.5 ex2; of Q8_0: 4 mma, 1 ex2, and 20
 * instructions that make halves of keys, 28 of values.
 *
 * S = 128, F16: at least 32 registers of a lane are on their way from memory, 64 KiB in the two blocks of an
 * SM, where an H200 needs 29 (4.8 TB/s x 0.8 us / 132). All 64 at once spill. Expected: 70 to 80 % of the
 * memory's rate at contexts of 8000 tokens and more; below, the latency of three dependent loads (tile, page
 * table, page), of two kernels, and a last round of blocks that is not full. */
#include "kernels/cuda/attention.cuh"

enum { WARPS = SPAN_PAGES, THREADS = WARPS * WARP, JOIN_THREADS = 128, AHEAD = 8 };

/* The units of 16 dimensions that a warp adds up: w, w + 8. */
template <int MAX> constexpr int WARP_UNITS = (MAX + WARPS * UNIT - 1) / (WARPS * UNIT);
/* Of its page's keys a warp asks for so many chunks at a time, of values for so many pages: 32 registers. */
template <kv_type TYPE> constexpr int KEY_PART = TYPE == KV_F16 ? 2 : 4;
enum { VALUE_PART = 4 };

/* --- partial results ---------------------------------------------------------------------------------- */
/* o [heads][n_spans][S], then m and l [heads][n_spans][2], heads = tiles * H: a tile is a token */
static __device__ __forceinline__ float *partial_values(const gpu_attention_args &a, size_t head, size_t span)
{
    return a.partial + (head * a.n_spans + span) * a.head_size;
}
static __device__ __forceinline__ float *partial_sums(const gpu_attention_args &a, size_t head, size_t span)
{
    return a.partial + a.n_tiles * a.n_heads * a.n_spans * a.head_size + (head * a.n_spans + span) * 2;
}

/* Of a row of the block's tile. */
static __device__ __forceinline__ size_t partial_head(const gpu_attention_args &a, const attn_tile &t,
                                                      int row, int kv_head)
{
    return (size_t)blockIdx.z * a.n_heads + row_head(t, row, kv_head);
}

/* --- a span ------------------------------------------------------------------------------------------- */
template <kv_type TYPE, int MAX> struct span_shared {
    uint4 query[MAX / 16][WARP];  /* A fragments */
    uint4 p[SPAN_PAGES][2][WARP]; /* A fragments */
    float top[SPAN_PAGES][ROWS];  /* largest score of the page */
    float decay[SPAN_PAGES][ROWS];
    float sum[SPAN_PAGES][2][WARP];
    float scale[TYPE == KV_Q8_0 ? SPAN_PAGES : 1][2 * MAX]; /* of keys, of values */
};

/* Lane p (and p + 8 ..) has the address of the span's page p: an array would not fit in registers. */
static __device__ __forceinline__ const uint8_t *page_of_lane(const uint8_t *own_page, int p)
{
    return (const uint8_t *)warp_from((unsigned long long)own_page, p);
}

template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void load_keys(uint4 keys[KEY_PART<TYPE>][KEY_LOADS<TYPE>],
                                                 const uint8_t *page, int first, int S)
{
#pragma unroll
    for (int k = 0; k < KEY_PART<TYPE>; k++) {
        const int c = first + k, width = S - c * CHUNK;
        if (width <= 0) break;
#pragma unroll
        for (int i = 0; i < KEY_LOADS<TYPE>; i++)
            keys[k][i] = TYPE == KV_F16 && width < CHUNK ? key_words_last(page, c, i, width)
                                                         : load_once(page + key_offset<TYPE>(c, i));
    }
}

template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void
load_values(uint4 values[VALUE_PART][WARP_UNITS<MAX>][VALUE_LOADS<TYPE>], const uint8_t *own_page, int first,
            int n_pages, int warp, int S)
{
#pragma unroll
    for (int p = 0; p < VALUE_PART; p++) {
        const uint8_t *page = page_of_lane(own_page, first + p);
        if (first + p >= n_pages) break;
#pragma unroll
        for (int k = 0; k < WARP_UNITS<MAX>; k++) {
#pragma unroll
            for (int i = 0; i < VALUE_LOADS<TYPE>; i++) {
                const int u = warp + k * WARPS;
                if (u * UNIT + 8 * i < S) values[p][k][i] = load_once(page + value_offset<TYPE>(S, u, i));
            }
        }
    }
}

/* The page's 2 S scales to shared memory. */
static __device__ __forceinline__ void load_scales(float *to, const uint8_t *page, int S)
{
    const uint8_t *from = page + gpu_kv_scales(S);

    for (int i = lane_id(); i < S / 2; i += WARP) ((uint4 *)to)[i] = load_once(from + i * 16);
}

/* Scores of chunks [first, ..) of the warp's page. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void span_scores(float s[TILES][4], const span_shared<TYPE, MAX> &x,
                                                   const uint4 keys[KEY_PART<TYPE>][KEY_LOADS<TYPE>],
                                                   int first, int warp, int S)
{
#pragma unroll
    for (int k = 0; k < KEY_PART<TYPE>; k++) {
        const int c = first + k;
        if (c * CHUNK >= S) break;
        const uint4 q[2] = {x.query[2 * c][lane_id()], x.query[2 * c + 1][lane_id()]};
        add_scores<TYPE>(s, q, keys[k], x.scale[TYPE == KV_Q8_0 ? warp : 0] + c * 32, S - c * CHUNK > 16);
    }
}

/* The warp's page gets its weights, after the maxima of all pages are known. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void span_weights(span_shared<TYPE, MAX> &x, float s[TILES][4], int warp)
{
    const int g = lane_id() / 4;
    float m[2] = {-INFINITY, -INFINITY}, before[2] = {-INFINITY, -INFINITY}, sum[2];
    uint4 p[2];

    for (int page = 0; page <= warp; page++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            before[i] = m[i];
            m[i] = fmaxf(m[i], x.top[page][g + 8 * i]);
        }
    }
    weigh(p, sum, s, m);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        x.p[warp][i][lane_id()] = p[i];
        x.sum[warp][i][lane_id()] = sum[i];
        if (lane_id() % 4 == 0) x.decay[warp][g + 8 * i] = weight(before[i], m[i]);
    }
}

/* o of the warp's units over pages [first, ..); of the span's last one `seen` keys. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void
span_values(float o[WARP_UNITS<MAX>][2][4], const span_shared<TYPE, MAX> &x,
            const uint4 values[VALUE_PART][WARP_UNITS<MAX>][VALUE_LOADS<TYPE>], int first, int n_pages,
            int seen, int warp, int S)
{
    const int g = lane_id() / 4;

#pragma unroll
    for (int i = 0; i < VALUE_PART; i++) {
        const int page = first + i;
        if (page >= n_pages) break;
        const uint4 p[2] = {x.p[page][0][lane_id()], x.p[page][1][lane_id()]};
        const float decay[2] = {x.decay[page][g], x.decay[page][g + 8]};
#pragma unroll
        for (int k = 0; k < WARP_UNITS<MAX>; k++) {
            const int u = warp + k * WARPS;
            uint32_t scales[4] = {0, 0, 0, 0};
            if (u * UNIT >= S) break;
            if (TYPE == KV_Q8_0) scale_halves(scales, x.scale[TYPE == KV_Q8_0 ? page : 0] + S + u / 2 * 32);
#pragma unroll
            for (int n = 0; n < 2; n++) {
                uint32_t b[4];
                if (u * UNIT + 8 * n >= S) break;
                value_words<TYPE>(b, values[i][k], n, scales);
                if (page + 1 == n_pages) hide_values(b, seen);
                decay_values(o[k][n], decay);
                add_values(o[k][n], p, b);
            }
        }
    }
}

/* m and l of the span's rows: one warp's work. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void store_sums(const gpu_attention_args &a,
                                                  const span_shared<TYPE, MAX> &x, const attn_tile &t,
                                                  int kv_head, int first, int span, int n_pages)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int g = lane_id() / 4 + 8 * i;
        float m = -INFINITY, l = 0;

        for (int page = 0; page < n_pages; page++) {
            m = fmaxf(m, x.top[page][g]);
            l = add_weights(l, x.decay[page][g], x.sum[page][i][lane_id()]);
        }
        l = row_sum(l);
        if (lane_id() % 4 == 0 && first + g < t.n_rows)
            *(float2 *)partial_sums(a, partial_head(a, t, first + g, kv_head), span) = make_float2(m, l);
    }
}

template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void
store_span(const gpu_attention_args &a, const span_shared<TYPE, MAX> &x, const attn_tile &t, int kv_head,
           int first, int span, const float o[WARP_UNITS<MAX>][2][4], int n_pages, int warp, int S)
{
    if (warp == 0) store_sums(a, x, t, kv_head, first, span, n_pages);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + lane_id() / 4 + 8 * i;
        if (row >= t.n_rows) continue;
        float *to = partial_values(a, partial_head(a, t, row, kv_head), span);
#pragma unroll
        for (int k = 0; k < WARP_UNITS<MAX>; k++) {
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const int dim = (warp + k * WARPS) * UNIT + 8 * n + 2 * (lane_id() % 4);
                if (dim < S) *(float2 *)(to + dim) = make_float2(o[k][n][2 * i], o[k][n][2 * i + 1]);
            }
        }
    }
}

template <kv_type TYPE, int MAX, bool EXACT>
static __global__ void __launch_bounds__(THREADS, MAX > 128 ? 1 : 2) span_kernel(const gpu_attention_args a)
{
    __shared__ span_shared<TYPE, MAX> x;
    const int warp = threadIdx.x / WARP, S = EXACT ? MAX : (int)a.head_size, span = blockIdx.x,
              kv_head = blockIdx.y;
    const attn_tile t = tile_at(a, blockIdx.z);
    const int n_keys = min(row_position(t, 0) + 1 - span * GPU_ATTN_SPAN, (int)GPU_ATTN_SPAN);
    const int n_pages = (n_keys + KV_PAGE - 1) / KV_PAGE, n_steps = (S + CHUNK - 1) / CHUNK * 2;
    const int seen_here = min(n_keys - warp * KV_PAGE, (int)KV_PAGE), seen[2] = {seen_here, seen_here};

    if (n_keys <= 0) return; /* behind the sequence's end */
    const uint8_t *own_page =
        page_at(a, t, kv_head, span * SPAN_PAGES + min(lane_id() % SPAN_PAGES, n_pages - 1));

    for (int first = 0; first < t.n_rows; first += ROWS) {
        uint4 keys[KEY_PART<TYPE>][KEY_LOADS<TYPE>], values[VALUE_PART][WARP_UNITS<MAX>][VALUE_LOADS<TYPE>];
        float s[TILES][4] = {}, top[2], o[WARP_UNITS<MAX>][2][4] = {};

        /* Every warp loads; those behind the last page load that one again, and nobody uses it. */
        load_keys<TYPE, MAX>(keys, page_of_lane(own_page, warp), 0, S);
        if (TYPE == KV_Q8_0)
            load_scales(x.scale[TYPE == KV_Q8_0 ? warp : 0], page_of_lane(own_page, warp), S);
        for (int step = warp; step < n_steps; step += WARPS)
            x.query[step][lane_id()] =
                query_fragment(load_query(a, t, kv_head, first, step, S), query_scale(a));
        block_sync();
#pragma unroll
        for (int c = 0; c < MAX / CHUNK; c += KEY_PART<TYPE>) {
            if (c > 0) load_keys<TYPE, MAX>(keys, page_of_lane(own_page, warp), c, S);
            span_scores<TYPE, MAX>(s, x, keys, c, warp, S);
        }
        load_values<TYPE, MAX>(values, own_page, 0, n_pages, warp, S);
        hide_scores(s, seen);
        largest_scores(top, s);
        if (lane_id() % 4 == 0) {
            x.top[warp][lane_id() / 4] = top[0];
            x.top[warp][lane_id() / 4 + 8] = top[1];
        }
        block_sync();
        span_weights<TYPE, MAX>(x, s, warp);
        block_sync();
#pragma unroll
        for (int p = 0; p < SPAN_PAGES; p += VALUE_PART) {
            if (p > 0) load_values<TYPE, MAX>(values, own_page, p, n_pages, warp, S);
            span_values<TYPE, MAX>(o, x, values, p, n_pages, n_keys - (n_pages - 1) * KV_PAGE, warp, S);
        }
        store_span<TYPE, MAX>(a, x, t, kv_head, first, span, o, n_pages, warp, S);
        block_sync(); /* before x is written again */
    }
}

/* --- the spans of a head together --------------------------------------------------------------------- */
/* Block: one token's head; a thread: some of its dimensions. The order is that of end_span in
 * attention_prompt.cu. What spans hold is asked for AHEAD at a time: the sums wait for each other, loads
 * do not. */
static __global__ void __launch_bounds__(JOIN_THREADS) join_kernel(const gpu_attention_args a)
{
    const attn_tile t = tile_at(a, blockIdx.y);
    const int n_spans = row_position(t, 0) / GPU_ATTN_SPAN + 1;
    const size_t token = row_token(t, 0), head = (size_t)blockIdx.y * a.n_heads + blockIdx.x, S = a.head_size;

    for (size_t dim = threadIdx.x; dim < S; dim += JOIN_THREADS) {
        const float *o = partial_values(a, head, 0) + dim, *sums = partial_sums(a, head, 0);
        float M = -INFINITY, L = 0, O = 0;

        for (int first = 0; first < n_spans; first += AHEAD) {
            float value[AHEAD];
            float2 ml[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const int span = min(first + i, n_spans - 1);
                value[i] = o[span * S];
                ml[i] = *(const float2 *)(sums + 2 * span);
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                float before, now;
                if (first + i >= n_spans) break;
                fold_span(M, L, before, now, ml[i].x, ml[i].y);
                O = fold_value(O, before, value[i], now);
            }
        }
        a.out[token * a.out_stride + blockIdx.x * S + dim] = __fmul_rn(O, 1.0f / L);
    }
}

/* --- launching ---------------------------------------------------------------------------------------- */
template <kv_type TYPE, int MAX, bool EXACT>
static cudaError_t launch_spans(const gpu_attention_args *a, cudaStream_t stream)
{
    return launch(span_kernel<TYPE, MAX, EXACT>,
                  dim3((unsigned)a->n_spans, (unsigned)a->n_kv_heads, (unsigned)a->n_tiles), dim3(THREADS), 0,
                  stream, *a);
}

template <kv_type TYPE> static cudaError_t launch_sizes(const gpu_attention_args *a, cudaStream_t stream)
{
    if (a->head_size == 128) return launch_spans<TYPE, 128, true>(a, stream);
    if (a->head_size < 128) return launch_spans<TYPE, 128, false>(a, stream);
    return launch_spans<TYPE, 256, false>(a, stream);
}

cudaError_t attention_decode(const gpu_attention_args *a, cudaStream_t stream)
{
    cudaError_t e = a->type == KV_F16 ? launch_sizes<KV_F16>(a, stream) : launch_sizes<KV_Q8_0>(a, stream);

    if (e != cudaSuccess) return e;
    return launch(join_kernel, dim3((unsigned)a->n_heads, (unsigned)a->n_tiles), dim3(JOIN_THREADS), 0,
                  stream, *a);
}
