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
 * Bound by the multiply-add rate for many rows, and from about 6 query heads of a group (F16) or 4 (Q8_0)
 * also when decoding; else by memory. Pages lie anywhere, which hardware does not foresee: so with every step
 * a tile asks for a little of the next page. (All of it at once would stall; without it decoding takes twice
 * as long.) Besides the tiles (tile.h) the weights take about 25 cycles for a row and page. Measured:
 * kernels/NOTES.md. */
#ifndef PRIMA_KERNELS_VEC_ATTENTION_H
#define PRIMA_KERNELS_VEC_ATTENTION_H
#include "kernels/kernels.h"
#include "kernels/vec/tile.h"
#include "kernels/vec/words.h"
#include <math.h>
#include <string.h>

enum {
    BLOCK_MAX = 128, /* rows of a block */
    SPAN_PAGES = ATTN_SPAN / KV_PAGE
};
_Static_assert(ATTN_SPAN % KV_PAGE == 0, "spans are whole pages");

/* --- a block of rows ----------------------------------------------------------------------- */

typedef struct {
    const attn_args *a;
    size_t first, n_rows, n_chunks;
    size_t chunk_step; /* floats from chunk to chunk of q, o, total_o: [n_chunks][n_rows][CHUNK] */
    float *panel;      /* [32][CHUNK] a chunk that is no whole one */
    float *scales;     /* [2][n_chunks][32] of Q8_0 */
    float *q, *o, *total_o;
    float *l;                   /* [n_rows][16] */
    float *m, *decay;           /* [n_rows + 16], since VW rows at a time; decay = e^(m - m') of this page */
    float *total_m, *total_l;   /* [n_rows] */
    size_t position[BLOCK_MAX]; /* of each row */
    size_t half_bytes;          /* K or V of a page */
    /* The page at work: */
    size_t key;                  /* its first key */
    const uint8_t *data, *ahead; /* ahead: the page after it; NULL after the last one */
    size_t row_first, tile_rows; /* rows from row_first on see some of it; rows of a tile */
    float *s;                    /* [n_rows][32] scores, then weights */
} row_block;

/* The first row that sees `key`; n_rows when none does. */
static size_t first_row_seeing(const row_block *b, size_t key)
{
    size_t row = 0;

    while (row < b->n_rows && b->position[row] < key) row++;
    return row;
}

/* Keys of a page that a row sees. */
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

static void turn_to(row_block *b, size_t page)
{
    size_t n, n_tiles;

    b->key = page * KV_PAGE;
    b->data = page_at(b->a, page);
    b->ahead = b->key + KV_PAGE <= b->position[b->n_rows - 1] ? page_at(b->a, page + 1) : NULL;
    b->row_first = first_row_seeing(b, b->key);
    n = b->n_rows - b->row_first;
    n_tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
    b->tile_rows = (n + n_tiles - 1) / n_tiles;
}

/* 32 lanes at `at`; meanwhile one asks, `step` bytes for each k, for what lies `place` bytes into the next
 * page. */
static lanes32 lanes_at(const row_block *b, kv_type t, const void *at, size_t ld, size_t place, size_t step)
{
    if (!b->ahead) return (lanes32){t, at, ld, at, 0};
    return (lanes32){t, at, ld, b->ahead + place, step};
}

/* All keys, by dims from that of chunk c on: lanes are keys. (Q8_0 goes chunk by chunk and asks for the
 * scales as well.) */
static lanes32 key_lanes(const row_block *b, kv_type t, size_t c)
{
    size_t ld_bytes = KV_PAGE * value_bytes(t), step = ld_bytes + (t == KV_Q8_0 ? sizeof(float) : 0);

    return lanes_at(b, t, b->data + c * CHUNK * ld_bytes, KV_PAGE, c * CHUNK * step, step);
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
    size_t step = CHUNK * value_bytes(t) + (t == KV_Q8_0 ? sizeof(float) : 0);
    size_t place = b->half_bytes + c * KV_PAGE * step;
    const uint8_t *v = b->data + b->half_bytes;

    if (first + CHUNK <= size) return lanes_at(b, t, v + first * value_bytes(t), size, place, step);
    short_values(b, v, first, n_keys);
    return lanes_at(b, KV_F32, b->panel, CHUNK, place, step);
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

static void scores(const row_block *b)
{
    kv_type t = b->a->type;
    const float *scale = (const float *)(b->data + KV_PAGE * b->a->head_size); /* [n_chunks][KV_PAGE] */

    if (t == KV_Q8_0) memset(b->s, 0, b->n_rows * CHUNK * sizeof *b->s);
    for (size_t c = 0; c < (t == KV_Q8_0 ? b->n_chunks : 1); c++) {
        lanes32 k = key_lanes(b, t, c);
        for (size_t row = b->row_first; row < b->n_rows; row += b->tile_rows) {
            run_tile(rows_of_tile(b, row),
                     &(tile_args){.task = t == KV_Q8_0 ? TILE_SCALED_SCORES : TILE_SCORES,
                                  .c = b->s + row * CHUNK,
                                  .a = b->q + c * b->chunk_step + row * CHUNK,
                                  .a_step = b->chunk_step,
                                  .n = t == KV_Q8_0 ? CHUNK : b->a->head_size,
                                  .factor = scale + c * KV_PAGE,
                                  .b = &k});
        }
    }
}

/* Scores of keys that a row does not see become -infinity. */
static void hide_keys(const row_block *b)
{
    for (size_t row = b->row_first; row < b->n_rows; row++) {
        int n_keys = (int)keys_seen(b, row);
        float *s = b->s + row * CHUNK;

        if (n_keys == KV_PAGE) return; /* later rows see no less */
        for (int i = 0; i < CHUNK; i += VW)
            v_store(s + i, v_first(v_load(s + i), n_keys - i, v_set1(-INFINITY)));
    }
}

static inline vf largest_of_lanes(const float *s)
{
    vf top = v_load(s);

#pragma GCC unroll 8
    for (size_t i = VW; i < CHUNK; i += VW) top = v_max(top, v_load(s + i));
    return top;
}

/* Scores of n <= VW rows from `first` on to weights; their m, l and decay. All rows go through a step before
 * the next step: each is a chain of operations that wait for each other. */
static void weigh_rows(const row_block *b, size_t first, size_t n)
{
    vf top[VW], m, old = v_load(b->m + first);

#pragma GCC unroll 16
    for (size_t r = 0; r < VW; r++) top[r] = largest_of_lanes(b->s + (first + (r < n ? r : 0)) * CHUNK);
    m = v_max(v_hmax_rows(top), old);
    v_store(b->m + first, m);
    v_store(b->decay + first, v_exp(v_sub(old, m)));
    for (size_t row = first; row < first + n; row++) {
        float *s = b->s + row * CHUNK, *l = b->l + row * 16;
        vf x[CHUNK / VW];

#pragma GCC unroll 8
        for (size_t i = 0; i < CHUNK / VW; i++) {
            x[i] = v_exp(v_sub(v_load(s + i * VW), v_set1(b->m[row])));
            v_store(s + i * VW, x[i]);
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < 16 / VW; i++) {
            v_store(l + i * VW,
                    v_fma(v_load(l + i * VW), v_set1(b->decay[row]), v_add(x[i], x[i + 16 / VW])));
        }
    }
}

static void weigh(const row_block *b)
{
    hide_keys(b);
    for (size_t row = b->row_first; row < b->n_rows; row += VW) {
        weigh_rows(b, row, b->n_rows - row < VW ? b->n_rows - row : VW);
    }
}

/* One tile with weights p. Rows see more keys the later they come: first the keys that all see, then for the
 * rows that see more of them those, and so on. No row meets a key that it does not see. */
static void values_of_tile(const row_block *b, size_t row, float *o, const float *p, const lanes32 *all)
{
    size_t end = row + rows_of_tile(b, row), done = 0;
    const float *scale = b->decay + row;

    while (row < end) {
        size_t n = keys_seen(b, row), first = row;
        lanes32 v = *all;

        v.at = (const uint8_t *)all->at + done * all->ld * value_bytes(all->type);
        run_tile(end - row, &(tile_args){.task = TILE_VALUES,
                                         .c = o,
                                         .a = p + done,
                                         .a_step = 0,
                                         .n = n - done,
                                         .factor = scale,
                                         .b = &v});
        if (n == KV_PAGE) return;
        done = n;
        scale = ones;
        while (row < end && keys_seen(b, row) == n) row++;
        o += (row - first) * CHUNK;
        p += (row - first) * CHUNK;
    }
}

/* The scales of the values, [32][n_chunks] in the page, chunk by chunk: [n_chunks][32]. Each round brings
 * numbers at even places to the front half and those at odd ones to the back half. */
static const float *value_scales(const row_block *b)
{
    size_t n = KV_PAGE * b->n_chunks;
    const float *from = (const float *)(b->data + b->half_bytes + KV_PAGE * b->a->head_size);
    float *to = b->scales;

    if (b->n_chunks & (b->n_chunks - 1)) { /* no power of 2 */
        for (size_t i = 0; i < n; i++) to[i % b->n_chunks * KV_PAGE + i / b->n_chunks] = from[i];
        return to;
    }
    for (size_t round = 1; round < b->n_chunks; round *= 2) {
        for (size_t i = 0; i < n / 2; i += VW) {
            vf even, odd;
            v_load_pairs(from + 2 * i, &even, &odd);
            v_store(to + i, even);
            v_store(to + n / 2 + i, odd);
        }
        from = to;
        to = to == b->scales ? b->scales + n : b->scales;
    }
    return from;
}

/* p of n rows times the scales of 32 keys. */
static void scale_weights(float *to, const float *p, size_t n, const float *scale)
{
    for (size_t i = 0; i < n * CHUNK; i += VW) {
        v_store(to + i, v_mul(v_load(p + i), v_load(scale + i % CHUNK)));
    }
}

static void values(const row_block *b)
{
    bool is_scaled = b->a->type == KV_Q8_0;
    const float *scale = is_scaled ? value_scales(b) : NULL;
    float scaled[8 * CHUNK];

    for (size_t c = 0; c < b->n_chunks; c++) {
        lanes32 v = value_lanes(b, c, keys_seen(b, b->n_rows - 1));

        for (size_t row = b->row_first; row < b->n_rows; row += b->tile_rows) {
            const float *p = b->s + row * CHUNK;

            if (is_scaled) scale_weights(scaled, p, rows_of_tile(b, row), scale + c * KV_PAGE);
            values_of_tile(b, row, b->o + c * b->chunk_step + row * CHUNK, is_scaled ? scaled : p, &v);
        }
    }
}

/* --- spans --------------------------------------------------------------------------------- */

static void begin_span(const row_block *b, size_t row)
{
    b->m[row] = -INFINITY;
    memset(b->l + row * 16, 0, 16 * sizeof *b->l);
    for (size_t c = 0; c < b->n_chunks; c++) {
        memset(b->o + c * b->chunk_step + row * CHUNK, 0, CHUNK * sizeof *b->o);
    }
}

static void end_span(const row_block *b, size_t row)
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

static void all_pages(row_block *b)
{
    size_t n = b->position[b->n_rows - 1] / KV_PAGE + 1, first = 0; /* first: row that sees the span */

    for (size_t page = 0; page < n; page++) {
        turn_to(b, page);
        if (page % SPAN_PAGES == 0) {
            first = b->row_first;
            for (size_t row = first; row < b->n_rows; row++) begin_span(b, row);
        }
        scores(b);
        weigh(b);
        values(b);
        if ((page + 1) % SPAN_PAGES == 0 || page + 1 == n) {
            for (size_t row = first; row < b->n_rows; row++) end_span(b, row);
        }
    }
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
    b->half_bytes = kv_page_bytes(a->type, a->head_size) / 2;
    b->panel = scratch;
    b->scales = b->panel + KV_PAGE * CHUNK;
    b->q = b->scales + 2 * b->n_chunks * KV_PAGE;
    b->o = b->q + b->n_chunks * b->chunk_step;
    b->total_o = b->o + b->n_chunks * b->chunk_step;
    b->l = b->total_o + b->n_chunks * b->chunk_step;
    b->m = b->l + n_rows * 16;
    b->decay = b->m + n_rows + 16;
    b->total_m = b->decay + n_rows + 16;
    b->total_l = b->total_m + n_rows;
    b->s = b->total_l + n_rows;
}

/* As many rows as the scratch holds: whole queries if possible. */
static size_t block_rows(const attn_args *a)
{
    size_t n_chunks = (a->head_size + CHUNK - 1) / CHUNK, row = n_chunks * 3 * CHUNK + CHUNK + 16 + 4;
    size_t once = KV_PAGE * CHUNK + 2 * n_chunks * KV_PAGE + 2 * 16;
    size_t n = (ATTN_SCRATCH(a->head_size, a->n_group) / sizeof(float) - once) / row;

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
        all_pages(&b);
        for (size_t row = 0; row < b.n_rows; row++) store_row(&b, row);
    }
}

#endif
