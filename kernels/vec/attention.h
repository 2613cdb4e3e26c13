/* Attention of one kv head: one text for all instruction sets (words.h).
 *
 * A *row* is one query of one head: row r = query r / n_group, head r % n_group of the group. A block of rows
 * is in the scratch together; pages run outside, rows inside, so that a page is read from memory once for the
 * whole block. Both products of a page are the same small product, of a register tile of rows with 32 lanes,
 * over chunks of 32 dimensions:
 *
 *   scores:  s[row][key] += q[row][dim] * K[dim][key]       lanes are keys, over dims
 *   values:  o[row][dim] += p[row][key] * V[key][dim]       lanes are dims, over keys
 *
 * Order of every sum, for one row: dims ascending; keys ascending within a span of ATTN_SPAN keys, by page:
 *
 *   m' = max(m, s)   c = e^(m - m')   p = e^(s - m')   o = c o + p V   l = c l + p  (16 sums: key % 16)
 *
 * and after each span into the totals
 *
 *   M' = max(M, m)   a = e^(M - M')   b = e^(m - M')   O = a O + b o   L = a L + b l;   the answer is O / L.
 *
 * No row sees another, nor a key behind its position: what lies there (even a NaN) is masked among the scores
 * and not read as a value. So the bits follow from the row's position and values alone.
 *
 * Q8_0: the sum over the 32 dims of a scale is made of q and 8-bit numbers, then s += scale * sum; and the
 * weights for a chunk of values are p * scale.
 *
 * Bound by memory when decoding, by the multiply-add rate for many rows. Pages lie anywhere, which hardware
 * does not foresee: so with every step a tile asks for a little of the next page. (All of it at once would
 * stall; without it decoding takes twice as long.) */
#ifndef PRIMA_KERNELS_VEC_ATTENTION_H
#define PRIMA_KERNELS_VEC_ATTENTION_H
#include "kernels/kernels.h"
#include "kernels/vec/words.h"
#include <math.h>
#include <string.h>

enum {
    CHUNK = KV_PAGE, /* dims of a chunk and lanes of a tile: 32 for both products */
    BLOCK_MAX = 128  /* rows of a block */
};
_Static_assert(ATTN_SPAN % KV_PAGE == 0, "spans are whole pages");

/* --- the tile: c[r][lane] = scale[r] c[r][lane] + sum over k < n of a[r][k] b[k][lane], 32 lanes -------- */

/* What a tile reads: 32 lanes of a page (of Q8_0 without the scales); and what it asks for ahead. */
typedef struct {
    kv_type type;
    const void *at;
    size_t ld; /* values from one k to the next */
    const uint8_t *ahead;
    size_t ahead_step; /* bytes for each k */
} lanes32;

/* a and c have rows of CHUNK floats. */
static inline __attribute__((always_inline)) void tile(size_t n_rows, kv_type t, float *c, const float *scale,
                                                       const float *a, const lanes32 *b, size_t n)
{
    for (size_t lane = 0; lane < CHUNK; lane += TILE_VECS * VW) {
        vf acc[8][TILE_VECS];

#pragma GCC unroll 8
        for (size_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECS; v++) {
                acc[r][v] = v_mul(v_set1(scale[r]), v_load(c + r * CHUNK + lane + v * VW));
            }
        }
        for (size_t k = 0; k < n; k++) {
            vf x[TILE_VECS];
            if (lane == 0) {
                __builtin_prefetch(b->ahead + k * b->ahead_step);
                if (t == KV_F32) __builtin_prefetch(b->ahead + k * b->ahead_step + 64);
            }
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECS; v++) {
                size_t at = k * b->ld + lane + v * VW;
                x[v] = t == KV_F16   ? v_load_f16((const uint16_t *)b->at + at)
                       : t == KV_F32 ? v_load((const float *)b->at + at)
                                     : v_load_i8((const int8_t *)b->at + at);
            }
#pragma GCC unroll 8
            for (size_t r = 0; r < n_rows; r++) {
                vf y = v_set1(a[r * CHUNK + k]);
#pragma GCC unroll 4
                for (size_t v = 0; v < TILE_VECS; v++) acc[r][v] = v_fma(y, x[v], acc[r][v]);
            }
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < n_rows; r++) {
#pragma GCC unroll 4
            for (size_t v = 0; v < TILE_VECS; v++) v_store(c + r * CHUNK + lane + v * VW, acc[r][v]);
        }
    }
}

static inline __attribute__((always_inline)) void
tile_of(size_t n_rows, kv_type t, float *c, const float *scale, const float *a, const lanes32 *b, size_t n)
{
    switch (n_rows) {
    case 1: tile(1, t, c, scale, a, b, n); break;
    case 2: tile(2, t, c, scale, a, b, n); break;
    case 3: tile(3, t, c, scale, a, b, n); break;
    case 4: tile(4, t, c, scale, a, b, n); break;
    case 5: tile(5, t, c, scale, a, b, n); break;
    case 6: tile(6, t, c, scale, a, b, n); break;
    case 7: tile(TILE_ROWS < 7 ? 0 : 7, t, c, scale, a, b, n); break;
    case 8: tile(TILE_ROWS < 8 ? 0 : 8, t, c, scale, a, b, n); break;
    }
}

static void run_tile(size_t n_rows, float *c, const float *scale, const float *a, const lanes32 *b, size_t n)
{
    switch (b->type) {
    case KV_F16: tile_of(n_rows, KV_F16, c, scale, a, b, n); break;
    case KV_Q8_0: tile_of(n_rows, KV_Q8_0, c, scale, a, b, n); break;
    case KV_F32: tile_of(n_rows, KV_F32, c, scale, a, b, n); break;
    }
}

/* --- a block of rows ----------------------------------------------------------------------- */

typedef struct {
    const attn_args *a;
    size_t first, n_rows, n_chunks;
    size_t chunk_step; /* floats from chunk to chunk of q, o, total_o: [n_chunks][n_rows][CHUNK] */
    float *panel;      /* [32][CHUNK] a chunk that is no whole one */
    float *s;          /* [n_rows][32] scores, then weights, of a page */
    float *q, *o, *total_o;
    float *l;                             /* [n_rows][16] */
    float *m, *decay, *total_m, *total_l; /* [n_rows]; decay = e^(m - m') of this page */
    size_t position[BLOCK_MAX];           /* of each row */
    /* The page at work: */
    size_t key;                      /* its first key */
    const uint8_t *page, *next_page; /* next_page: NULL after the last one */
    size_t row_first, tile_rows;     /* rows from row_first on see some of it; rows of a tile */
} row_block;

/* The first row that sees `key`; n_rows when none does. */
static size_t first_row_seeing(const row_block *b, size_t key)
{
    size_t row = 0;

    while (row < b->n_rows && b->position[row] < key) row++;
    return row;
}

/* Keys of the page at work that a row sees. */
static inline size_t keys_seen(const row_block *b, size_t row)
{
    size_t n = b->position[row] - b->key + 1;
    return n < KV_PAGE ? n : KV_PAGE;
}

/* --- reading pages ------------------------------------------------------------------------- */

static const uint8_t *page_at(const attn_args *a, size_t page)
{
    return a->kv + a->page_stride * (size_t)a->pages[page];
}

static inline size_t value_bytes(kv_type t)
{
    return t == KV_F16 ? sizeof(uint16_t) : t == KV_F32 ? sizeof(float) : sizeof(int8_t);
}

/* Page number `page` becomes the one at work. */
static void turn_to(row_block *b, size_t page)
{
    size_t n, n_tiles;

    b->key = page * KV_PAGE;
    b->page = page_at(b->a, page);
    b->next_page = b->key + KV_PAGE <= b->position[b->n_rows - 1] ? page_at(b->a, page + 1) : NULL;
    b->row_first = first_row_seeing(b, b->key);
    n = b->n_rows - b->row_first;
    n_tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
    b->tile_rows = (n + n_tiles - 1) / n_tiles;
}

/* 32 lanes at `at`, and chunk c of half 0 (K) or 1 (V) of the next page to ask for. */
static lanes32 lanes_at(const row_block *b, kv_type t, const void *at, size_t ld, size_t half, size_t c)
{
    size_t bytes = kv_page_bytes(b->a->type, b->a->head_size) / 2, part = bytes / b->n_chunks;

    if (!b->next_page) return (lanes32){t, at, ld, at, 0};
    return (lanes32){t, at, ld, b->next_page + half * bytes + c * part, part / KV_PAGE};
}

/* Dims of chunk c of all keys: lanes are keys. */
static lanes32 key_lanes(const row_block *b, size_t c)
{
    kv_type t = b->a->type;
    return lanes_at(b, t, b->page + c * CHUNK * KV_PAGE * value_bytes(t), KV_PAGE, 0, c);
}

/* The last dims of a head size that is no multiple of 32, filled up with zeros, to the panel. */
static void short_values(const row_block *b, const uint8_t *v, size_t first, size_t n_keys)
{
    size_t size = b->a->head_size, n = size - first;

    memset(b->panel, 0, CHUNK * CHUNK * sizeof *b->panel);
    for (size_t key = 0; key < n_keys; key++) {
        float *to = b->panel + key * CHUNK;
        if (b->a->type == KV_F16) {
            uint16_t h[CHUNK] = {0};
            memcpy(h, (const uint16_t *)v + key * size + first, n * sizeof *h);
            for (size_t i = 0; i < CHUNK; i += VW) v_store(to + i, v_load_f16(h + i));
        } else {
            memcpy(to, (const float *)v + key * size + first, n * sizeof *to);
        }
    }
}

/* Dims of chunk c of keys [0, n_keys): lanes are dims. */
static lanes32 value_lanes(const row_block *b, size_t c, size_t n_keys)
{
    kv_type t = b->a->type;
    size_t size = b->a->head_size, first = c * CHUNK;
    const uint8_t *v = b->page + kv_page_bytes(t, size) / 2;

    if (first + CHUNK <= size) return lanes_at(b, t, v + first * value_bytes(t), size, 1, c);
    short_values(b, v, first, n_keys);
    return lanes_at(b, KV_F32, b->panel, CHUNK, 1, c);
}

/* --- one page ------------------------------------------------------------------------------ */

static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};

static inline size_t rows_of_tile(const row_block *b, size_t row)
{
    return b->n_rows - row < b->tile_rows ? b->n_rows - row : b->tile_rows;
}

static inline size_t dims_of_chunk(const row_block *b, size_t c)
{
    size_t left = b->a->head_size - c * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

static void scores_of_tile(row_block *b, size_t row, size_t c, const lanes32 *k)
{
    const float *q = b->q + c * b->chunk_step + row * CHUNK;
    float *s = b->s + row * CHUNK, part[8 * CHUNK];
    size_t n = rows_of_tile(b, row);

    if (k->type != KV_Q8_0) {
        run_tile(n, s, ones, q, k, dims_of_chunk(b, c));
        return;
    }
    memset(part, 0, n * CHUNK * sizeof *part);
    run_tile(n, part, ones, q, k, CHUNK);
    for (size_t i = 0; i < n * CHUNK; i += VW) {
        vf scale = v_load((const float *)(b->page + KV_PAGE * b->a->head_size) + c * KV_PAGE + i % CHUNK);
        v_store(s + i, v_fma(scale, v_load(part + i), v_load(s + i)));
    }
}

static void scores(row_block *b)
{
    memset(b->s, 0, b->n_rows * CHUNK * sizeof *b->s);
    for (size_t c = 0; c < b->n_chunks; c++) {
        lanes32 k = key_lanes(b, c);
        for (size_t row = b->row_first; row < b->n_rows; row += b->tile_rows) scores_of_tile(b, row, c, &k);
    }
}

/* Scores of one row to weights; its m, l and decay. */
static inline void weigh_row(row_block *b, size_t row)
{
    float *s = b->s + row * CHUNK, *l = b->l + row * 16, m;
    int n_keys = (int)keys_seen(b, row);
    vf x[CHUNK / VW], top, decay;

    for (int i = 0; i < CHUNK / VW; i++) {
        x[i] = v_first(v_load(s + i * VW), n_keys - i * VW, v_set1(-INFINITY));
    }
    top = x[0];
    for (int i = 1; i < CHUNK / VW; i++) top = v_max(top, x[i]);
    m = v_hmax(top);
    m = m > b->m[row] ? m : b->m[row];
    decay = v_exp(v_set1(b->m[row] - m));
    for (int i = 0; i < CHUNK / VW; i++) {
        x[i] = v_exp(v_sub(x[i], v_set1(m)));
        v_store(s + i * VW, x[i]);
    }
    for (int i = 0; i < 16 / VW; i++) {
        v_store(l + i * VW, v_fma(v_load(l + i * VW), decay, v_add(x[i], x[i + 16 / VW])));
    }
    b->m[row] = m;
    b->decay[row] = v_lane0(decay);
}

/* One tile with weights p. Rows see more keys the later they come: first the keys that all see, then for the
 * rows that see more of them those, and so on. No row meets a key that it does not see. */
static void values_of_tile(row_block *b, size_t row, float *o, const float *p, const lanes32 *all)
{
    size_t end = row + rows_of_tile(b, row), done = 0;
    const float *scale = b->decay + row;

    while (row < end) {
        size_t n = keys_seen(b, row), first = row;
        lanes32 v = *all;

        v.at = (const uint8_t *)all->at + done * all->ld * value_bytes(all->type);
        run_tile(end - row, o, scale, p + done, &v, n - done);
        if (n == KV_PAGE) return;
        done = n;
        scale = ones;
        while (row < end && keys_seen(b, row) == n) row++;
        o += (row - first) * CHUNK;
        p += (row - first) * CHUNK;
    }
}

/* The scales of the values in chunk c, key by key; 0 for keys that nobody sees. */
static void value_scales(const row_block *b, size_t c, size_t n_keys, float *scale)
{
    size_t half = kv_page_bytes(KV_Q8_0, b->a->head_size) / 2, step = b->a->head_size / 32;
    const float *from = (const float *)(b->page + half + KV_PAGE * b->a->head_size) + c;

    for (size_t key = 0; key < KV_PAGE; key++) scale[key] = key < n_keys ? from[key * step] : 0;
}

static void values(row_block *b)
{
    size_t n_keys = keys_seen(b, b->n_rows - 1);
    float scale[KV_PAGE], scaled[8 * CHUNK];

    for (size_t c = 0; c < b->n_chunks; c++) {
        lanes32 v = value_lanes(b, c, n_keys);

        if (v.type == KV_Q8_0) value_scales(b, c, n_keys, scale);
        for (size_t row = b->row_first; row < b->n_rows; row += b->tile_rows) {
            const float *p = b->s + row * CHUNK;

            if (v.type == KV_Q8_0) {
                for (size_t i = 0; i < rows_of_tile(b, row) * CHUNK; i += VW) {
                    v_store(scaled + i, v_mul(v_load(p + i), v_load(scale + i % CHUNK)));
                }
                p = scaled;
            }
            values_of_tile(b, row, b->o + c * b->chunk_step + row * CHUNK, p, &v);
        }
    }
}

/* --- spans --------------------------------------------------------------------------------- */

static void begin_span(row_block *b, size_t row)
{
    b->m[row] = -INFINITY;
    memset(b->l + row * 16, 0, 16 * sizeof *b->l);
    for (size_t c = 0; c < b->n_chunks; c++) {
        memset(b->o + c * b->chunk_step + row * CHUNK, 0, CHUNK * sizeof *b->o);
    }
}

static void end_span(row_block *b, size_t row)
{
    float m = b->m[row] > b->total_m[row] ? b->m[row] : b->total_m[row];
    vf old = v_exp(v_set1(b->total_m[row] - m)), new = v_exp(v_set1(b->m[row] - m));

    b->total_m[row] = m;
    b->total_l[row] = fmaf(b->total_l[row], v_lane0(old), sum_of_16(b->l + row * 16) * v_lane0(new));
    for (size_t c = 0; c < b->n_chunks; c++) {
        float *total = b->total_o + c * b->chunk_step + row * CHUNK,
              *o = b->o + c * b->chunk_step + row * CHUNK;
        for (size_t i = 0; i < CHUNK; i += VW) {
            v_store(total + i, v_fma(v_load(total + i), old, v_mul(v_load(o + i), new)));
        }
    }
}

/* The keys of the span that begins at `key`. */
static void add_span(row_block *b, size_t key)
{
    size_t first = first_row_seeing(b, key), last = b->position[b->n_rows - 1];

    for (size_t row = first; row < b->n_rows; row++) begin_span(b, row);
    for (size_t page = key / KV_PAGE; page < (key + ATTN_SPAN) / KV_PAGE && page * KV_PAGE <= last; page++) {
        turn_to(b, page);
        scores(b);
        for (size_t row = b->row_first; row < b->n_rows; row++) weigh_row(b, row);
        values(b);
    }
    for (size_t row = first; row < b->n_rows; row++) end_span(b, row);
}

/* --- in and out ---------------------------------------------------------------------------- */

static void load_row(row_block *b, size_t row)
{
    const attn_args *a = b->a;
    size_t r = b->first + row;
    const float *q = a->q + r / a->n_group * a->q_stride + r % a->n_group * a->head_size;

    for (size_t c = 0; c < b->n_chunks; c++) {
        float *to = b->q + c * b->chunk_step + row * CHUNK;
        for (size_t i = 0; i < dims_of_chunk(b, c); i++) to[i] = q[c * CHUNK + i] * a->scale;
        memset(b->total_o + c * b->chunk_step + row * CHUNK, 0, CHUNK * sizeof *b->total_o);
    }
    b->total_m[row] = -INFINITY;
    b->total_l[row] = 0;
    b->position[row] = a->pos + r / a->n_group;
}

static void store_row(const row_block *b, size_t row)
{
    const attn_args *a = b->a;
    size_t r = b->first + row;
    float *out = a->out + r / a->n_group * a->out_stride + r % a->n_group * a->head_size;
    float inverse = 1.0f / b->total_l[row];

    for (size_t c = 0; c < b->n_chunks; c++) {
        const float *from = b->total_o + c * b->chunk_step + row * CHUNK;
        for (size_t i = 0; i < dims_of_chunk(b, c); i++) out[c * CHUNK + i] = from[i] * inverse;
    }
}

/* Lay a block of at most `n_rows` rows out in the scratch. */
static void lay_out(row_block *b, const attn_args *a, float *scratch, size_t n_rows)
{
    b->a = a;
    b->n_chunks = (a->head_size + CHUNK - 1) / CHUNK;
    b->chunk_step = n_rows * CHUNK;
    b->panel = scratch;
    b->s = b->panel + KV_PAGE * CHUNK;
    b->q = b->s + n_rows * CHUNK;
    b->o = b->q + b->n_chunks * b->chunk_step;
    b->total_o = b->o + b->n_chunks * b->chunk_step;
    b->l = b->total_o + b->n_chunks * b->chunk_step;
    b->m = b->l + n_rows * 16;
    b->decay = b->m + n_rows;
    b->total_m = b->decay + n_rows;
    b->total_l = b->total_m + n_rows;
}

/* As many rows as the scratch holds: whole queries if possible. */
static size_t block_rows(const attn_args *a)
{
    size_t n_chunks = (a->head_size + CHUNK - 1) / CHUNK, row = n_chunks * 3 * CHUNK + CHUNK + 16 + 4;
    size_t n = (ATTN_SCRATCH(a->head_size, a->n_group) / sizeof(float) - KV_PAGE * CHUNK) / row;

    if (n > BLOCK_MAX) n = BLOCK_MAX;
    return n > a->n_group ? n - n % a->n_group : n;
}

void ISA(attention)(const attn_args *a, void *scratch)
{
    size_t n_all = a->n_queries * a->n_group, step = block_rows(a);
    row_block b;

    for (size_t first = 0; first < n_all; first += step) {
        lay_out(&b, a, scratch, n_all < step ? n_all : step);
        b.first = first;
        b.n_rows = n_all - first < step ? n_all - first : step;
        for (size_t row = 0; row < b.n_rows; row++) load_row(&b, row);
        for (size_t key = 0; key <= b.position[b.n_rows - 1]; key += ATTN_SPAN) add_span(&b, key);
        for (size_t row = 0; row < b.n_rows; row++) store_row(&b, row);
    }
}

#endif
