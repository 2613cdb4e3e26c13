/* One block of 256 values of a group with all tokens: four tile products a plane and 16 tokens, then
 * acc += d * xd * (lo + 128 * hi), and the mins. */
#ifndef PRIMA_KERNELS_AMX_BLOCK_256_H
#define PRIMA_KERNELS_AMX_BLOCK_256_H
#include "kernels/amx/tokens.h"

typedef struct {
    planes_256 planes;
    _Alignas(64) int32_t sum[2][2][TILE_ROWS][PACK_ROWS]; /* of 32 tokens: [half][plane][token][row] */
    uint8_t pad[TILE_ROWS][256];
} block_256;

/* Tiles of 16 tokens (second NULL) or 32, left in C0 (lo), C1 (hi), and C2, C3 of the other 16. */
INLINE void multiply_256(const planes_256 *p, const token_tile *x, const token_tile *second, bool two_planes)
{
    tile_clear(TILE_C0);
    tile_clear(TILE_C1);
    tile_clear(TILE_C2);
    tile_clear(TILE_C3);
    for (size_t k = 0; k < 4; k++) {
        tile_load(TILE_B0, p->lo[16 * k], LINE);
        tile_load(TILE_A0, x->at + 64 * k, x->stride);
        tile_multiply(TILE_C0, TILE_A0, TILE_B0);
        if (second) tile_load(TILE_A1, second->at + 64 * k, second->stride);
        if (second) tile_multiply(TILE_C2, TILE_A1, TILE_B0);
        if (!two_planes) continue;
        tile_load(TILE_B1, p->hi[16 * k], LINE);
        tile_multiply(TILE_C1, TILE_A0, TILE_B1);
        if (second) tile_multiply(TILE_C3, TILE_A1, TILE_B1);
    }
}

INLINE void store_sums(int32_t sum[2][2][TILE_ROWS][PACK_ROWS], bool second, bool two_planes)
{
    tile_store(sum[0][0], LINE, TILE_C0);
    if (two_planes) tile_store(sum[0][1], LINE, TILE_C1);
    if (second) tile_store(sum[1][0], LINE, TILE_C2);
    if (second && two_planes) tile_store(sum[1][1], LINE, TILE_C3);
}

/* The floats of tokens [first, first + 32), as far as there are that many. */
INLINE void add_sums(const tokens *t, size_t first, const block_256 *b, bool two_planes, int n_mins)
{
    const size_t n = t->n - first < 2 * TILE_ROWS ? t->n - first : 2 * TILE_ROWS;
    const __m512 d = _mm512_load_ps(b->planes.d), dm = _mm512_load_ps(b->planes.dm);
    const uint8_t *x = t->x + first * t->x_stride;
    float *acc = t->acc + first * PACK_ROWS;
    __m512i mins[8];

    EACH(j, n_mins) mins[j] = _mm512_load_si512(b->planes.mins[j]);
    for (size_t i = 0; i < n; i++, x += t->x_stride, acc += PACK_ROWS) {
        const uint8_t *xsum = x + (n_mins == 4 ? offsetof(act_q8_256, sum32) : offsetof(act_q8_256, sum16));
        const __m512 xd = broadcast_f32(x + offsetof(act_q8_256, d));
        __m512i whole = _mm512_load_si512(b->sum[i / TILE_ROWS][0][i % TILE_ROWS]);
        __m512 v = _mm512_load_ps(acc);

        if (two_planes)
            whole = add(whole, left(_mm512_load_si512(b->sum[i / TILE_ROWS][1][i % TILE_ROWS]), 7));
        v = _mm512_fmadd_ps(_mm512_mul_ps(d, xd), _mm512_cvtepi32_ps(whole), v);
        if (n_mins) {
            __m512i m = _mm512_setzero_si512();
            EACH(j, n_mins) m = _mm512_dpwssd_epi32(m, mins[j], broadcast(xsum + 4 * j));
            v = _mm512_fmadd_ps(_mm512_mul_ps(dm, xd), _mm512_cvtepi32_ps(m), v);
        }
        _mm512_store_ps(acc, v);
    }
}

/* While the tiles of some tokens are multiplied, the floats of those before are added. */
INLINE void each_tokens_256(const tokens *t, block_256 *b, bool two_planes, int n_mins)
{
    for (size_t first = 0; first < t->n; first += 2 * TILE_ROWS) {
        bool second = first + TILE_ROWS < t->n;
        token_tile x0 = tile_of(t, first, 256, b->pad[0]), x1 = x0;

        if (second) x1 = tile_of(t, first + TILE_ROWS, 256, b->pad[0]);
        multiply_256(&b->planes, &x0, second ? &x1 : NULL, two_planes);
        if (first) add_sums(t, first - 2 * TILE_ROWS, b, two_planes, n_mins);
        store_sums(b->sum, second, two_planes);
    }
    add_sums(t, (t->n - 1) / (2 * TILE_ROWS) * (2 * TILE_ROWS), b, two_planes, n_mins);
}

static void add_block_256(const tokens *t, block_256 *b, const planes_256_type *type)
{
    if (!type->scale_values) each_tokens_256(t, b, false, 8); /* Q2_K */
    else if (!type->has_min) each_tokens_256(t, b, true, 0);
    else each_tokens_256(t, b, true, 4); /* Q4_K, Q5_K */
}

#endif
