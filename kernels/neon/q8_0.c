/* Q8_0: 8 lines of weights and the f16 scales of 16 rows in a group-block of 544 bytes; activations in blocks
 * of 32. Bound by memory for one token. */
#include "kernels/neon/product.h"

enum { LINE = 64, BLOCK_BYTES = 34 * PACK_ROWS };

/* Rows 4 quad .. 4 quad + 3 of one block for T tokens. */
NEON_INLINE void add_quad(int T, float (*acc)[PACK_ROWS], const uint8_t *w, const uint8_t *x, size_t x_stride,
                          int quad)
{
    float32x4_t d = neon_f16(w + 8 * LINE + 8 * quad);
    int32x4_t sum[NEON_TOKENS];

#pragma GCC unroll 4
    for (int t = 0; t < T; t++) sum[t] = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (int line = 0; line < 8; line++) {
        int8x16_t q = vreinterpretq_s8_u8(vld1q_u8(w + line * LINE + 16 * quad));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            const act_q8_32 *y = (const act_q8_32 *)(x + (size_t)t * x_stride);
            sum[t] = neon_dot(sum[t], q, vld1q_s8(y->q + line / 4 * 16), line % 4);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        const act_q8_32 *y = (const act_q8_32 *)(x + (size_t)t * x_stride);
        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(d, y->d), sum[t]);
    }
}

NEON_INLINE void add_some(int T, float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                          size_t x_stride)
{
    for (size_t b = 0; b < n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_32)) {
        for (int quad = 0; quad < 4; quad++) add_quad(T, acc, w, x, x_stride, quad);
    }
}

static void add_blocks(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    NEON_BY_TOKENS(add_some, n_tokens, acc, w, n_blocks, x, x_stride)
}

void matmul_q8_0_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    neon_product(a, group_first, group_end, scratch, 8, NULL, add_blocks);
}
