/* Tokens of a batch, 16 at a time. */
#ifndef PRIMA_KERNELS_AMX_TOKENS_H
#define PRIMA_KERNELS_AMX_TOKENS_H
#include "kernels/amx/tiles.h"
#include "kernels/avx512/planes.h"

typedef struct {
    const uint8_t *x; /* activation block of the first token */
    size_t x_stride, n;
    float *acc; /* [n][16]: sums of the rows so far */
} tokens;

/* Where a tile of tokens lies. */
typedef struct {
    const uint8_t *at;
    size_t stride;
} token_tile;

/* 16 tokens from `first` on, `bytes` of each. The last ones, when fewer, are copied to `pad`: what lies
 * behind them is not ours to read. The other rows keep what they have, and nobody looks at their sums. */
INLINE token_tile tile_of(const tokens *t, size_t first, size_t bytes, uint8_t *pad)
{
    const uint8_t *x = t->x + first * t->x_stride;

    if (first + TILE_ROWS <= t->n) return (token_tile){x, t->x_stride};
    for (size_t i = 0; first + i < t->n; i++) memcpy(pad + i * bytes, x + i * t->x_stride, bytes);
    return (token_tile){pad, bytes};
}

#endif
