/* All other block types: kernels/unpack8.h makes a tile of 8-bit weights of each group-block, once for all
 * tokens, and this multiplies the tile. */
#include "kernels/neon/product.h"

/* sum += lines 4 j .. 4 j + 3 of 4 rows times their 16 inputs of every token. */
NEON_INLINE void add_lines(int T, neon_tile *sum, const unpack8_tile *tile, int quad, int j,
                           const neon_inputs *in)
{
    int8x16_t w[4];

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) w[i] = vld1q_s8(tile->q[4 * j + i][4 * quad]);
    neon_tile_dot(T, sum, w, in, 16 * j);
}

/* Rows 4 quad .. 4 quad + 3 of a tile of 256 values. */
NEON_INLINE void add_quad_256(int T, bool has_min, float (*acc)[PACK_ROWS], const unpack8_tile *tile,
                              int quad, const uint8_t *x, size_t x_stride, const neon_inputs *in)
{
    neon_tile S = neon_tile_zero();

    for (int j = 0; j < 16; j++) {
        neon_tile sum = neon_tile_zero();
        add_lines(T, &sum, tile, quad, j, in);
        neon_tile_add_scaled(T, &S, &sum, vld1q_s32(tile->sc[j] + 4 * quad));
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        const act_q8_256 *y = (const act_q8_256 *)(x + (size_t)t * x_stride);
        int32x4_t M = vdupq_n_s32(0);

        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(vld1q_f32(tile->d + 4 * quad), y->d),
                        neon_tile_rows(T, &S, t));
        if (!has_min) continue;
        for (int j = 0; j < 16; j++) M = vmlaq_n_s32(M, vld1q_s32(tile->m[j] + 4 * quad), y->sum16[j]);
        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(vld1q_f32(tile->dm + 4 * quad), y->d), M);
    }
}

/* The same of 32 values. */
NEON_INLINE void add_quad_32(int T, bool has_min, float (*acc)[PACK_ROWS], const unpack8_tile *tile, int quad,
                             const uint8_t *x, size_t x_stride, const neon_inputs *in)
{
    neon_tile sum = neon_tile_zero();

    for (int j = 0; j < 2; j++) { add_lines(T, &sum, tile, quad, j, in); }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        const act_q8_32 *y = (const act_q8_32 *)(x + (size_t)t * x_stride);

        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(vld1q_f32(tile->d + 4 * quad), y->d),
                        neon_tile_rows(T, &sum, t));
        if (!has_min) continue;
        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(vld1q_f32(tile->dm + 4 * quad), y->d),
                        vdupq_n_s32(y->sum));
    }
}

NEON_INLINE void add_some(int T, bool has_min, size_t values, float (*acc)[PACK_ROWS], const uint8_t *w,
                          const uint8_t *x, size_t x_stride)
{
    const unpack8_tile *tile = (const unpack8_tile *)w;
    const int8_t *q = values == 256 ? ((const act_q8_256 *)x)->q : ((const act_q8_32 *)x)->q;
    int8_t buffer[256 * NEON_TOKENS];
    neon_inputs in = neon_order_inputs(T, buffer, q, x_stride, (int)values);

    for (int quad = 0; quad < 4; quad++) {
        if (values == 256) add_quad_256(T, has_min, acc, tile, quad, x, x_stride, &in);
        else add_quad_32(T, has_min, acc, tile, quad, x, x_stride, &in);
    }
}

static void add_256(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                    size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    NEON_BY_TOKENS(add_some, n_tokens, false, 256, acc, w, x, x_stride)
}

static void add_256_min(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                        size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    NEON_BY_TOKENS(add_some, n_tokens, true, 256, acc, w, x, x_stride)
}

static void add_32(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                   size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    NEON_BY_TOKENS(add_some, n_tokens, false, 32, acc, w, x, x_stride)
}

static void add_32_min(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    NEON_BY_TOKENS(add_some, n_tokens, true, 32, acc, w, x, x_stride)
}

void NEON_WAY(matmul_via8)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    static const neon_blocks_fn by_kind[2][2] = {{add_32, add_32_min}, {add_256, add_256_min}};
    const unpack8_type *info = unpack8_info(a->type);

    neon_product(a, group_first, group_end, scratch, 1, NEON_TOKENS, info,
                 by_kind[info->n_values == 256][info->has_min]);
}
