/* F32, F16 and BF16: 16 weights of each k one after the other, activations f32: acc = fma(w, x, acc), k
 * ascending, one chain for every row and token. Bound by memory for one token, by the multiply-add rate for
 * many. */
#include "kernels/neon/product.h"

enum { RUN = 256 }; /* columns at a time: 16 KiB of weights at most */

NEON_INLINE float32x4_t load_4(uint32_t type, const uint8_t *w, int quad)
{
    if (type == Q_F32) return vreinterpretq_f32_u8(vld1q_u8(w + 16 * quad));
    if (type == Q_F16) return neon_f16(w + 8 * quad);
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w + 8 * quad)), 16));
}

NEON_INLINE void add_some(int T, uint32_t type, float (*acc)[PACK_ROWS], const uint8_t *w, size_t n,
                          const uint8_t *x, size_t x_stride)
{
    float32x4_t sum[NEON_TOKENS][4];

#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int quad = 0; quad < 4; quad++) sum[t][quad] = vld1q_f32(acc[t] + 4 * quad);
    }
    for (size_t k = 0; k < n; k++, w += PACK_ROWS * (type == Q_F32 ? 4 : 2)) {
        float32x4_t v[4];
#pragma GCC unroll 4
        for (int quad = 0; quad < 4; quad++) v[quad] = load_4(type, w, quad);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            float y = ((const float *)(x + (size_t)t * x_stride))[k];
#pragma GCC unroll 4
            for (int quad = 0; quad < 4; quad++) sum[t][quad] = vfmaq_n_f32(sum[t][quad], v[quad], y);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int quad = 0; quad < 4; quad++) vst1q_f32(acc[t] + 4 * quad, sum[t][quad]);
    }
}

static void add_f32(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n, const uint8_t *x, size_t x_stride,
                    size_t n_tokens)
{
    NEON_BY_TOKENS(add_some, n_tokens, Q_F32, acc, w, n, x, x_stride)
}

static void add_f16(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n, const uint8_t *x, size_t x_stride,
                    size_t n_tokens)
{
    NEON_BY_TOKENS(add_some, n_tokens, Q_F16, acc, w, n, x, x_stride)
}

static void add_bf16(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n, const uint8_t *x, size_t x_stride,
                     size_t n_tokens)
{
    NEON_BY_TOKENS(add_some, n_tokens, Q_BF16, acc, w, n, x, x_stride)
}

void matmul_float_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    neon_blocks_fn add = a->type == Q_F32 ? add_f32 : a->type == Q_F16 ? add_f16 : add_bf16;
    neon_product(a, group_first, group_end, scratch, RUN, NEON_TOKENS, NULL, add);
}
