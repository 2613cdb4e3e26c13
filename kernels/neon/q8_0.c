/* Q8_0: 8 lines of weights and the f16 scales of 16 rows in a group-block of 544 bytes; activations in blocks
 * of 32. Bound by memory for one token, by sdot (smmla) for many. */
#include "kernels/neon/product.h"

enum { LINE = 64, BLOCK_BYTES = 34 * PACK_ROWS };

/* Rows 4 quad .. 4 quad + 3 of one block for T tokens. */
NEON_INLINE void add_quad(int T, float (*acc)[PACK_ROWS], const uint8_t *w, const uint8_t *x, size_t x_stride,
                          const neon_inputs *in, int quad)
{
    float32x4_t d = neon_f16(w + 8 * LINE + 8 * quad);
    neon_tile sum = neon_tile_zero();

#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        int8x16_t q[4];

#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            q[i] = vreinterpretq_s8_u8(vld1q_u8(w + (4 * half + i) * LINE + 16 * quad));
        }
        neon_tile_dot(T, &sum, q, in, 16 * half);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        const act_q8_32 *y = (const act_q8_32 *)(x + (size_t)t * x_stride);
        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(d, y->d), neon_tile_rows(T, &sum, t));
    }
}

NEON_INLINE void add_some(int T, float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                          size_t x_stride)
{
    for (size_t b = 0; b < n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_32)) {
        int8_t buffer[256 * NEON_TOKENS];
        neon_inputs in = neon_order_inputs(T, buffer, ((const act_q8_32 *)x)->q, x_stride, 32);

        for (int quad = 0; quad < 4; quad++) add_quad(T, acc, w, x, x_stride, &in, quad);
    }
}

static void add_blocks(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    NEON_BY_TOKENS(add_some, n_tokens, acc, w, n_blocks, x, x_stride)
}

void NEON_WAY(matmul_q8_0)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    neon_product(a, group_first, group_end, scratch, 8, NEON_TOKENS, NULL, add_blocks);
}
