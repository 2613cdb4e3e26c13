/* Attention of prompts, and of batches that have prompts among them: a block has one tile and one kv head,
 * and goes over the tile's spans in order.
 *
 *   block = 1, 2 or 4 warps, 16 rows each         (4, where shared memory allows)
 *   for each page of 32 keys:                     copied as it lies, one page ahead of the work (2 stages)
 *     for each warp:   s[16][32] = q K,  m, p, l,  o[16][S] = c o + p V      in registers
 *     every 8 pages:   totals M, L, O[16][S] = a O + b o                     in shared memory
 *
 * Order of all operations: attention.cuh. A warp whose rows end before a page does not read it, a page that
 * ends behind a row's position is masked.
 *
 * Counts, S = 128, F16, per warp and page: 64 mma (32 scores, 32 values), 32 shared loads of 16 bytes, 18
 * ex2, 64 multiplications by c, and 8 copies of 16 bytes per thread of a block. mma.m16n8k16 takes about 6.3
 * cycles of a quarter of an SM where mma.sync reaches 62 % of the rate of wgmma: 403 cycles; shared loads of
 * 4 warps: 16 KiB each at 128 bytes a cycle: 512. So shared memory is the limit: expected at most 50 % of the
 * dense rate of an H200, 35 to 40 % with the rest that is done in between.
 *
 * Shared memory, S = 128, F16: 2 x 16 KiB pages + 4 x 8.5 KiB totals = 66 KiB: 3 blocks per SM on an H200. */
#include "kernels/cuda/attention.cuh"

enum { MAX_WARPS = 4 };

/* Above 128 dimensions queries wait in shared memory: there is no room for them in registers. */
template <int MAX> constexpr bool SHARED_QUERIES = MAX > 128;

/* --- shared memory ------------------------------------------------------------------------------------ */
struct prompt_shape {
    int warps, stages;
};

/* Of a warp: for each 8 dimensions a float4 per lane, and M, L of its rows. */
static __host__ __device__ __forceinline__ size_t total_rows(size_t head_size)
{
    return head_size / 8 + 1;
}

static size_t shared_bytes(const gpu_attention_args *a, prompt_shape s, bool shared_queries)
{
    const size_t S = a->head_size, chunks = (S + CHUNK - 1) / CHUNK;

    return s.stages * gpu_kv_page_bytes(a->type, S) +
           s.warps * (total_rows(S) * WARP * sizeof(float4) +
                      (shared_queries ? chunks * 2 * WARP * sizeof(uint4) : 0));
}

/* --- a warp's rows ------------------------------------------------------------------------------------ */
template <int MAX> struct prompt_rows {
    int pos[2], low, high; /* positions of rows g, g + 8; the warp's smallest, largest (-1: no rows) */
    float m[2], l[2], o[MAX / 8][4];
    float4 *total; /* [S / 8][WARP], then M, L, M, L of the two rows */
    uint4 *query;  /* [chunks][2][WARP], or: */
    uint4 q[MAX / CHUNK][2];
};

template <int MAX>
static __device__ __forceinline__ void begin_rows(prompt_rows<MAX> &r, const gpu_attention_args &a,
                                                  const attn_tile &t, int kv_head, int first, int S)
{
    const int last = t.n_rows - 1;

    r.low = first <= last ? row_position(t, first) : 0;
    r.high = first <= last ? row_position(t, min(first + ROWS - 1, last)) : -1;
#pragma unroll
    for (int i = 0; i < 2; i++) { r.pos[i] = row_position(t, min(first + lane_id() / 4 + 8 * i, last)); }
#pragma unroll
    for (int c = 0; c < MAX / CHUNK; c++) {
        if (c * CHUNK >= S) break;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 q = query_fragment(load_query(a, t, kv_head, first, 2 * c + i, S), query_scale(a));
            if (SHARED_QUERIES<MAX>) r.query[(2 * c + i) * WARP + lane_id()] = q;
            else r.q[c][i] = q;
        }
    }
    for (int n = 0; 8 * n < S; n++) r.total[n * WARP + lane_id()] = make_float4(0, 0, 0, 0);
    r.total[S / 8 * WARP + lane_id()] = make_float4(-INFINITY, 0, -INFINITY, 0);
}

template <int MAX> static __device__ __forceinline__ void begin_span(prompt_rows<MAX> &r)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.m[i] = -INFINITY;
        r.l[i] = 0;
    }
#pragma unroll
    for (int n = 0; n < MAX / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) r.o[n][i] = 0;
    }
}

/* Rows that see nothing of the span that begins at `key` stay as they are. */
template <int MAX> static __device__ __forceinline__ void end_span(prompt_rows<MAX> &r, int S, int key)
{
    float4 sums = r.total[S / 8 * WARP + lane_id()];
    float a[2] = {1, 1}, b[2] = {0, 0};
    const bool sees[2] = {r.pos[0] >= key, r.pos[1] >= key};

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float l = row_sum(r.l[i]);
        if (sees[i]) fold_span(i ? sums.z : sums.x, i ? sums.w : sums.y, a[i], b[i], r.m[i], l);
    }
    r.total[S / 8 * WARP + lane_id()] = sums;
#pragma unroll
    for (int n = 0; n < MAX / 8; n++) {
        if (8 * n >= S) break;
        float4 x = r.total[n * WARP + lane_id()];
        if (sees[0]) {
            x.x = fold_value(x.x, a[0], r.o[n][0], b[0]);
            x.y = fold_value(x.y, a[0], r.o[n][1], b[0]);
        }
        if (sees[1]) {
            x.z = fold_value(x.z, a[1], r.o[n][2], b[1]);
            x.w = fold_value(x.w, a[1], r.o[n][3], b[1]);
        }
        r.total[n * WARP + lane_id()] = x;
    }
}

template <int MAX>
static __device__ __forceinline__ void store_rows(const prompt_rows<MAX> &r, const gpu_attention_args &a,
                                                  const attn_tile &t, int kv_head, int first, int S)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first + lane_id() / 4 + 8 * i;
        if (row >= t.n_rows) break;
        float *to = a.out + row_token(t, row) * a.out_stride + (size_t)row_head(t, row, kv_head) * S +
                    2 * (lane_id() % 4);
        const float4 sums = r.total[S / 8 * WARP + lane_id()];
        const float inverse = 1.0f / (i ? sums.w : sums.y);
        for (int n = 0; 8 * n < S; n++) {
            const float4 x = r.total[n * WARP + lane_id()];
            *(float2 *)(to + 8 * n) =
                make_float2(__fmul_rn(i ? x.z : x.x, inverse), __fmul_rn(i ? x.w : x.y, inverse));
        }
    }
}

/* --- a page ------------------------------------------------------------------------------------------- */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void page_scores(float s[TILES][4], const prompt_rows<MAX> &r,
                                                   const uint8_t *page, int S)
{
#pragma unroll
    for (int j = 0; j < TILES; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = 0;
    }
#pragma unroll
    for (int c = 0; c < MAX / CHUNK; c++) {
        const int width = S - c * CHUNK;
        uint4 keys[KEY_LOADS<TYPE>], q[2];

        if (width <= 0) break;
#pragma unroll
        for (int i = 0; i < 2; i++)
            q[i] = SHARED_QUERIES<MAX> ? r.query[(2 * c + i) * WARP + lane_id()] : r.q[c][i];
        if (TYPE == KV_Q8_0 || width >= CHUNK) {
#pragma unroll
            for (int i = 0; i < KEY_LOADS<TYPE>; i++)
                keys[i] = *(const uint4 *)(page + key_offset<TYPE>(c, i));
        } else {
#pragma unroll
            for (int i = 0; i < KEY_LOADS<TYPE>; i++) keys[i] = key_words_last(page, c, i, width);
        }
        add_scores<TYPE>(s, q, keys, (const float *)(page + gpu_kv_scales(S)) + c * 32, width > 16);
    }
}

/* The B words of chunk c's four tiles. Behind S % 32 dimensions they are those of the last tile: what they
 * are added to is not read by anybody. */
template <kv_type TYPE>
static __device__ __forceinline__ void page_values(uint32_t b[4][4], const uint8_t *page, int S, int c)
{
    uint4 values[4];
    uint32_t scales[4] = {0, 0, 0, 0};

#pragma unroll
    for (int i = 0; i < 2 * VALUE_LOADS<TYPE>; i++) {
        const int load = 2 * VALUE_LOADS<TYPE> * c + i;
        values[i] =
            *(const uint4 *)(page + value_offset<TYPE>(S, 0, TYPE == KV_F16 ? min(load, S / 8 - 1) : load));
    }
    if (TYPE == KV_Q8_0) scale_halves(scales, (const float *)(page + gpu_kv_scales(S)) + S + c * 32);
#pragma unroll
    for (int n = 0; n < 4; n++) value_words<TYPE>(b[n], values + n / 2 * VALUE_LOADS<TYPE>, n % 2, scales);
}

/* A page that all rows see. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void add_page_values(prompt_rows<MAX> &r, const uint4 p[2],
                                                       const uint8_t *page, int S)
{
#pragma unroll
    for (int c = 0; c < MAX / CHUNK; c++) {
        uint32_t b[4][4];
        if (c * CHUNK >= S) break;
        page_values<TYPE>(b, page, S, c);
#pragma unroll
        for (int n = 0; n < 4; n++) add_values(r.o[4 * c + n], p, b[n]);
    }
}

static __device__ __forceinline__ bool not_finite(uint32_t halves)
{
    return (halves & 0x7c00u) == 0x7c00u || (halves & 0x7c000000u) == 0x7c000000u;
}

/* Whether one of the page's first `seen` keys has a value that is infinite or NaN. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ bool values_not_finite(const uint8_t *page, int S, int seen)
{
    int bad = 0;

    for (int c = 0; c * CHUNK < S; c++) {
        uint32_t b[4][4];
        page_values<TYPE>(b, page, S, c);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            hide_values(b[n], seen);
#pragma unroll
            for (int i = 0; i < 4; i++) bad |= not_finite(b[n][i]);
        }
    }
    for (int step = 1; step < WARP; step *= 2) bad |= warp_xor(bad, step);
    return bad != 0;
}

/* A page that some rows see only in part: keys that no row sees are no values. Between the first and the
 * last row's end, 0 * value is 0; but where a value is not finite the rows of each position get a product
 * of their own, without the keys behind it. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void add_last_values(prompt_rows<MAX> &r, const uint4 p[2],
                                                       const uint8_t *page, int S, const int seen[2],
                                                       int seen_low, int seen_high)
{
    const bool apart = values_not_finite<TYPE, MAX>(page, S, seen_high);

    for (int end = apart ? seen_low : seen_high; end <= seen_high; end++) {
#pragma unroll
        for (int c = 0; c < MAX / CHUNK; c++) {
            uint32_t b[4][4];
            if (c * CHUNK >= S) break;
            page_values<TYPE>(b, page, S, c);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                float *o = r.o[4 * c + n], d[4] = {o[0], o[1], o[2], o[3]};
                hide_values(b[n], end);
                add_values(d, p, b[n]);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!apart || seen[i / 2] == end) o[i] = d[i];
            }
        }
    }
}

static __device__ __forceinline__ int keys_seen(int pos, int key)
{
    return max(0, min(KV_PAGE, pos - key + 1));
}

/* The page whose first key is `key`. */
template <kv_type TYPE, int MAX>
static __device__ __forceinline__ void add_page(prompt_rows<MAX> &r, const uint8_t *page, int S, int key)
{
    const int seen[2] = {keys_seen(r.pos[0], key), keys_seen(r.pos[1], key)};
    const bool whole = r.low >= key + KV_PAGE - 1;
    float s[TILES][4], top[2], sum[2], decay[2];
    uint4 p[2];

    page_scores<TYPE, MAX>(s, r, page, S);
    if (!whole) hide_scores(s, seen);
    largest_scores(top, s);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        top[i] = fmaxf(r.m[i], top[i]);
        decay[i] = weight(r.m[i], top[i]);
        r.m[i] = top[i];
    }
    weigh(p, sum, s, top);
#pragma unroll
    for (int i = 0; i < 2; i++) r.l[i] = add_weights(r.l[i], decay[i], sum[i]);
#pragma unroll
    for (int n = 0; n < MAX / 8; n++) decay_values(r.o[n], decay);
    if (whole) add_page_values<TYPE, MAX>(r, p, page, S);
    else add_last_values<TYPE, MAX>(r, p, page, S, seen, keys_seen(r.low, key), keys_seen(r.high, key));
}

/* --- the kernel --------------------------------------------------------------------------------------- */
static __device__ __forceinline__ void copy_page(uint8_t *to, const uint8_t *from, unsigned bytes)
{
    for (unsigned i = threadIdx.x * 16; i < bytes; i += blockDim.x * 16) copy16_async(to + i, from + i);
    copy_commit();
}

template <kv_type TYPE, int MAX>
static __global__ void __launch_bounds__(MAX_WARPS *WARP, MAX > 128 ? 1 : 3)
    prompt_kernel(const gpu_attention_args a, const int stages)
{
    const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, S = (int)a.head_size,
              kv_head = blockIdx.y;
    /* Tiles at the end of a prompt take longest: they begin. */
    const attn_tile t = tile_at(a, gridDim.x - 1 - blockIdx.x);
    const unsigned bytes = (unsigned)page_bytes(TYPE, S);
    uint8_t *const pages = (uint8_t *)dynamic_shared();
    float4 *const totals = (float4 *)(pages + stages * bytes);
    uint4 *const queries = (uint4 *)(totals + warps * total_rows(S) * WARP);
    prompt_rows<MAX> r;

    r.total = totals + warp * total_rows(S) * WARP;
    r.query = queries + warp * ((S + CHUNK - 1) / CHUNK) * 2 * WARP;
    for (int first = 0; first < t.n_rows; first += warps * ROWS) {
        const int last_row = min(first + warps * ROWS, t.n_rows) - 1;
        const int n_pages = row_position(t, last_row) / KV_PAGE + 1;

        block_sync(); /* the rows before are done with all pages */
        copy_page(pages, page_at(a, t, kv_head, 0), bytes);
        begin_rows<MAX>(r, a, t, kv_head, first + warp * ROWS, S);
        for (int p = 0; p < n_pages; p++) {
            const uint8_t *page = pages + (stages == 2 && p % 2 ? bytes : 0);
            const int key = p * KV_PAGE;

            if (stages == 1 && p > 0) {
                block_sync();
                copy_page(pages, page_at(a, t, kv_head, p), bytes);
            }
            copy_wait<0>();
            block_sync(); /* the page is there for all, and all are done with the one before */
            if (stages == 2 && p + 1 < n_pages)
                copy_page(pages + (p % 2 ? 0 : bytes), page_at(a, t, kv_head, p + 1), bytes);
            if (p % SPAN_PAGES == 0) begin_span<MAX>(r);
            if (key <= r.high) add_page<TYPE, MAX>(r, page, S, key);
            if (r.high >= 0 && (p % SPAN_PAGES == SPAN_PAGES - 1 || p + 1 == n_pages))
                end_span<MAX>(r, S, key - p % SPAN_PAGES * KV_PAGE);
        }
        store_rows<MAX>(r, a, t, kv_head, first + warp * ROWS, S);
    }
}

/* --- launching ---------------------------------------------------------------------------------------- */
/* As many warps and stages as this GPU's shared memory has room for. One warp and one stage fit every GPU. */
static cudaError_t choose_shape(prompt_shape *out, const gpu_attention_args *a, bool shared_queries)
{
    static const prompt_shape shapes[] = {{MAX_WARPS, 2}, {MAX_WARPS, 1}, {2, 1}, {1, 1}};
    int gpu, most;
    cudaError_t e = cudaGetDevice(&gpu);

    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu);
    if (e != cudaSuccess) return e;
    for (const prompt_shape &s : shapes) {
        *out = s;
        if (shared_bytes(a, s, shared_queries) <= (size_t)most) break;
    }
    return cudaSuccess;
}

template <kv_type TYPE, int MAX>
static cudaError_t launch_prompt(const gpu_attention_args *a, cudaStream_t stream)
{
    prompt_shape s;
    cudaError_t e = choose_shape(&s, a, SHARED_QUERIES<MAX>);

    if (e != cudaSuccess) return e;
    return launch(prompt_kernel<TYPE, MAX>, dim3((unsigned)a->n_tiles, (unsigned)a->n_kv_heads),
                  dim3((unsigned)(s.warps * WARP)), shared_bytes(a, s, SHARED_QUERIES<MAX>), stream, *a,
                  s.stages);
}

template <kv_type TYPE> static cudaError_t launch_sizes(const gpu_attention_args *a, cudaStream_t stream)
{
    if (a->head_size <= 128) return launch_prompt<TYPE, 128>(a, stream);
    return launch_prompt<TYPE, 256>(a, stream);
}

cudaError_t attention_prompt(const gpu_attention_args *a, cudaStream_t stream)
{
    return a->type == KV_F16 ? launch_sizes<KV_F16>(a, stream) : launch_sizes<KV_Q8_0>(a, stream);
}
