/* Q4_K: 32 lines of 4-bit weights, 3 lines of scales and mins, d and dmin of 16 rows in a group-block of 2304
 * bytes; activations in blocks of 256. Line 8 p + i holds line i of sub-block 2 p in its low digits and of
 * sub-block 2 p + 1 in its high ones. Bound by memory for one token, by sdot (smmla) for many. */
#include "kernels/neon/product.h"

enum { LINE = 64, SCALES = 32 * LINE, D = 35 * LINE, DMIN = D + 2 * PACK_ROWS };

/* The 6-bit scales and mins of 4 rows, byte j of sc[i] belonging to sub-block 4 i + j. */
typedef struct {
    uint32x4_t sc[2], m[2];
} scales;

NEON_INLINE scales load_scales(const uint8_t *p)
{
    const uint32x4_t six = vdupq_n_u32(0x3f3f3f3f), four = vdupq_n_u32(0x0f0f0f0f),
                     two = vdupq_n_u32(0x03030303);
    uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(p)), b = vreinterpretq_u32_u8(vld1q_u8(p + LINE));
    uint32x4_t c = vreinterpretq_u32_u8(vld1q_u8(p + 2 * LINE));
    scales s;

    s.sc[0] = vandq_u32(a, six);
    s.m[0] = vandq_u32(b, six);
    s.sc[1] = vorrq_u32(vandq_u32(c, four), vshlq_n_u32(vandq_u32(vshrq_n_u32(a, 6), two), 4));
    s.m[1] = vorrq_u32(vandq_u32(vshrq_n_u32(c, 4), four), vshlq_n_u32(vandq_u32(vshrq_n_u32(b, 6), two), 4));
    return s;
}

/* Byte j (0..7) of every row. */
NEON_INLINE int32x4_t scale_of(const uint32x4_t *bytes, int j)
{
    return vreinterpretq_s32_u32(vandq_u32(bytes[j / 4] >> 8 * (j % 4), vdupq_n_u32(255)));
}

/* S of 4 rows: sub-blocks 2 p and 2 p + 1 for T tokens. */
NEON_INLINE void add_pair(int T, neon_tile *S, const uint8_t *w, const scales *s, const neon_inputs *in,
                          int p)
{
    uint8x16_t q[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) q[i] = vld1q_u8(w + (8 * p + i) * LINE);
#pragma GCC unroll 2
    for (int high = 0; high < 2; high++) {
        neon_tile sum = neon_tile_zero();

#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            int8x16_t v[4];

#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                uint8x16_t both = q[4 * half + i];
                v[i] = vreinterpretq_s8_u8(high ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
            }
            neon_tile_dot(T, &sum, v, in, 64 * p + 32 * high + 16 * half);
        }
        neon_tile_add_scaled(T, S, &sum, scale_of(s->sc, 2 * p + high));
    }
}

/* M of 4 rows: mins times the sums of 32 activations. */
NEON_INLINE int32x4_t sum_of_mins(const uint32x4_t *m, const act_q8_256 *y)
{
    int16x8_t sums = vld1q_s16(y->sum32);
    int32x4_t low = vmovl_s16(vget_low_s16(sums)), high = vmovl_s16(vget_high_s16(sums)), M = vdupq_n_s32(0);

#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        M = vmlaq_n_s32(M, scale_of(m, j), low[j]);
        M = vmlaq_n_s32(M, scale_of(m, 4 + j), high[j]);
    }
    return M;
}

/* Rows 4 quad .. 4 quad + 3 of one block; in: its inputs. */
NEON_INLINE void add_quad(int T, float (*acc)[PACK_ROWS], const uint8_t *w, const uint8_t *x, size_t x_stride,
                          const neon_inputs *in, int quad)
{
    scales s = load_scales(w + SCALES + 16 * quad);
    float32x4_t d = neon_f16(w + D + 8 * quad), dmin = neon_f16(w + DMIN + 8 * quad);
    neon_tile S = neon_tile_zero();

    for (int p = 0; p < 4; p++) add_pair(T, &S, w + 16 * quad, &s, in, p);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        const act_q8_256 *y = (const act_q8_256 *)(x + (size_t)t * x_stride);
        neon_add_scaled(acc[t] + 4 * quad, vmulq_n_f32(d, y->d), neon_tile_rows(T, &S, t));
        neon_add_scaled(acc[t] + 4 * quad, vnegq_f32(vmulq_n_f32(dmin, y->d)), sum_of_mins(s.m, y));
    }
}

NEON_INLINE void add_some(int T, float (*acc)[PACK_ROWS], const uint8_t *w, const uint8_t *x, size_t x_stride)
{
    int8_t buffer[256 * NEON_TOKENS];
    neon_inputs in = neon_order_inputs(T, buffer, ((const act_q8_256 *)x)->q, x_stride, 256);

    for (int quad = 0; quad < 4; quad++) add_quad(T, acc, w, x, x_stride, &in, quad);
}

static void add_blocks(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    for (size_t b = 0; b < n_blocks; b++, w += 144 * PACK_ROWS, x += sizeof(act_q8_256)) {
        NEON_BY_TOKENS(add_some, n_tokens, acc, w, x, x_stride)
    }
}

void NEON_WAY(matmul_q4_k)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    neon_product(a, group_first, group_end, scratch, 1, NEON_TOKENS, NULL, add_blocks);
}
