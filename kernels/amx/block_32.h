/* Up to four blocks of 32 values of a group with all tokens. Each has a float scale of its own: one tile
 * product each, then acc += d * xd * sum, block by block. */
#ifndef PRIMA_KERNELS_AMX_BLOCK_32_H
#define PRIMA_KERNELS_AMX_BLOCK_32_H
#include "kernels/amx/tokens.h"

enum { BLOCKS_32 = 4 };

typedef struct {
    planes_32 planes[BLOCKS_32];
    _Alignas(64) int32_t sum[BLOCKS_32][TILE_ROWS][PACK_ROWS];
    uint8_t pad[TILE_ROWS][BLOCKS_32 * sizeof(act_q8_32)];
} block_32;

/* Sums of n blocks and 16 tokens, left in C0 .. C3. */
INLINE void multiply_32(const planes_32 *p, const token_tile *x, size_t n)
{
#define ONE(i, a, b)                                                                                         \
    if (i < n) {                                                                                             \
        tile_clear(TILE_C##i);                                                                               \
        tile_load(b, p[i].q, LINE);                                                                          \
        tile_load(a, x->at + i * sizeof(act_q8_32), x->stride);                                              \
        tile_multiply(TILE_C##i, a, b);                                                                      \
    }
    ONE(0, TILE_A0, TILE_B0)
    ONE(1, TILE_A1, TILE_B1)
    ONE(2, TILE_A0, TILE_B0)
    ONE(3, TILE_A1, TILE_B1)
#undef ONE
}

INLINE void store_sums_32(int32_t sum[BLOCKS_32][TILE_ROWS][PACK_ROWS], size_t n)
{
    tile_store(sum[0], LINE, TILE_C0);
    if (n > 1) tile_store(sum[1], LINE, TILE_C1);
    if (n > 2) tile_store(sum[2], LINE, TILE_C2);
    if (n > 3) tile_store(sum[3], LINE, TILE_C3);
}

INLINE void add_sums_32(const tokens *t, size_t first, const block_32 *b, size_t n_blocks, bool has_min)
{
    const size_t n = t->n - first < TILE_ROWS ? t->n - first : TILE_ROWS;
    const uint8_t *x = t->x + first * t->x_stride;
    float *acc = t->acc + first * PACK_ROWS;

    for (size_t i = 0; i < n; i++, x += t->x_stride, acc += PACK_ROWS) {
        __m512 v = _mm512_load_ps(acc);

        for (size_t k = 0; k < n_blocks; k++) {
            const uint8_t *block = x + k * sizeof(act_q8_32);
            const __m512 xd = broadcast_f32(block + offsetof(act_q8_32, d));
            __m512 d = _mm512_mul_ps(_mm512_load_ps(b->planes[k].d), xd);

            v = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(_mm512_load_si512(b->sum[k][i])), v);
            if (has_min) {
                __m512i xsum = broadcast(block + offsetof(act_q8_32, sum));
                d = _mm512_mul_ps(_mm512_load_ps(b->planes[k].m), xd);
                v = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(xsum), v);
            }
        }
        _mm512_store_ps(acc, v);
    }
}

/* While the tiles of some tokens are multiplied, the floats of those before are added. */
INLINE void each_tokens_32(const tokens *t, block_32 *b, size_t n, bool has_min)
{
    for (size_t first = 0; first < t->n; first += TILE_ROWS) {
        token_tile x = tile_of(t, first, n * sizeof(act_q8_32), b->pad[0]);

        multiply_32(b->planes, &x, n);
        if (first) add_sums_32(t, first - TILE_ROWS, b, n, has_min);
        store_sums_32(b->sum, n);
    }
    add_sums_32(t, (t->n - 1) / TILE_ROWS * TILE_ROWS, b, n, has_min);
}

static void add_blocks_32(const tokens *t, block_32 *b, size_t n, bool has_min)
{
    if (n == BLOCKS_32 && !has_min) each_tokens_32(t, b, BLOCKS_32, false);
    else if (n == BLOCKS_32) each_tokens_32(t, b, BLOCKS_32, true);
    else each_tokens_32(t, b, n, has_min);
}

#endif
