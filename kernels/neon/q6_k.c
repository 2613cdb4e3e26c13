/* Q6_K: 32 lines of low digits (4 bits), 16 lines of high digits (2 bits), 4 lines of 8-bit scales and d of
 * 16 rows in a group-block of 3360 bytes; activations in blocks of 256. Bound by memory for one token, by
 * sdot (smmla) for many. */
#include "kernels/neon/product.h"

enum { LINE = 64, HIGH = 32 * LINE, SCALES = 48 * LINE, D = 52 * LINE };

/* Line c of a half, 4 rows: low digits stand 16 lines apart, high ones 8. */
NEON_INLINE int8x16_t weights(const uint8_t *w, int half, int c)
{
    uint8x16_t low = vld1q_u8(w + (16 * half + c % 16) * LINE) >> (uint8_t)(c / 16 * 4);
    uint8x16_t high = vld1q_u8(w + HIGH + (8 * half + c % 8) * LINE) >> (uint8_t)(c / 8 * 2);

    low = vorrq_u8(vandq_u8(low, vdupq_n_u8(15)), vshlq_n_u8(vandq_u8(high, vdupq_n_u8(3)), 4));
    return vsubq_s8(vreinterpretq_s8_u8(low), vdupq_n_s8(32));
}

/* S of 4 rows: the 8 sub-blocks of a half for T tokens. */
NEON_INLINE void add_half(int T, neon_tile *S, const uint8_t *w, const neon_inputs *in, int half)
{
    for (int j = 0; j < 8; j++) {
        int32x4_t four = vreinterpretq_s32_u8(vld1q_u8(w + SCALES + (2 * half + j / 4) * LINE));
        int32x4_t sc = (four << (24 - 8 * (j % 4))) >> 24;
        neon_tile sum = neon_tile_zero();
        int8x16_t q[4];

#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) q[i] = weights(w, half, 4 * j + i);
        neon_tile_dot(T, &sum, q, in, 128 * half + 16 * j);
        neon_tile_add_scaled(T, S, &sum, sc);
    }
}

NEON_INLINE void add_some(int T, float (*acc)[PACK_ROWS], const uint8_t *w, const uint8_t *x, size_t x_stride)
{
    int8_t buffer[256 * NEON_TOKENS];
    neon_inputs in = neon_order_inputs(T, buffer, ((const act_q8_256 *)x)->q, x_stride, 256);

    for (int quad = 0; quad < 4; quad++) {
        float32x4_t d = neon_f16(w + D + 8 * quad);
        neon_tile S = neon_tile_zero();

        for (int half = 0; half < 2; half++) add_half(T, &S, w + 16 * quad, &in, half);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const act_q8_256 *y = (const act_q8_256 *)(x + (size_t)t * x_stride);
            neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(d, y->d), neon_tile_rows(T, &S, t));
        }
    }
}

static void add_blocks(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    for (size_t b = 0; b < n_blocks; b++, w += 210 * PACK_ROWS, x += sizeof(act_q8_256)) {
        NEON_BY_TOKENS(add_some, n_tokens, acc, w, x, x_stride)
    }
}

void NEON_WAY(matmul_q6_k)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    neon_product(a, group_first, group_end, scratch, 1, NEON_TOKENS, NULL, add_blocks);
}
