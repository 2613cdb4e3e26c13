/* All other block types: kernels/unpack8.h makes a tile of 8-bit weights of each group-block, once for all
 * tokens, and this multiplies the tile. */
#include "kernels/neon/product.h"

/* Lines [first, first + n) of 4 rows times the activations q. */
NEON_INLINE int32x4_t dot_lines(const unpack8_tile *tile, int quad, int first, int n, const int8_t *q)
{
    int32x4_t sum = vdupq_n_s32(0);

#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        sum = neon_dot(sum, vld1q_s8(tile->q[first + i][4 * quad]), vld1q_s8(q + i / 4 * 16), i % 4);
    }
    return sum;
}

NEON_INLINE void add_quad_256(const unpack8_tile *tile, bool has_min, float *acc, int quad,
                              const act_q8_256 *y)
{
    int32x4_t S = vdupq_n_s32(0), M = vdupq_n_s32(0);

    for (int j = 0; j < 16; j++) {
        int32x4_t sum = dot_lines(tile, quad, 4 * j, 4, y->q + 16 * j);
        S = vmlaq_s32(S, sum, vld1q_s32(tile->sc[j] + 4 * quad));
    }
    neon_add_scaled(acc + 4 * quad, vmulq_n_f32(vld1q_f32(tile->d + 4 * quad), y->d), S);
    if (!has_min) return;
    for (int j = 0; j < 16; j++) M = vmlaq_n_s32(M, vld1q_s32(tile->m[j] + 4 * quad), y->sum16[j]);
    neon_add_scaled(acc + 4 * quad, vmulq_n_f32(vld1q_f32(tile->dm + 4 * quad), y->d), M);
}

NEON_INLINE void add_quad_32(const unpack8_tile *tile, bool has_min, float *acc, int quad, const act_q8_32 *y)
{
    int32x4_t sum = dot_lines(tile, quad, 0, 8, y->q);

    neon_add_scaled(acc + 4 * quad, vmulq_n_f32(vld1q_f32(tile->d + 4 * quad), y->d), sum);
    if (!has_min) return;
    neon_add_scaled(acc + 4 * quad, vmulq_n_f32(vld1q_f32(tile->dm + 4 * quad), y->d), vdupq_n_s32(y->sum));
}

NEON_INLINE void add_tile(bool has_min, size_t values, float (*acc)[PACK_ROWS], const uint8_t *w,
                          const uint8_t *x, size_t x_stride, size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens; t++, x += x_stride) {
        for (int quad = 0; quad < 4; quad++) {
            if (values == 256) add_quad_256((const void *)w, has_min, acc[t], quad, (const void *)x);
            else add_quad_32((const void *)w, has_min, acc[t], quad, (const void *)x);
        }
    }
}

static void add_256(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                    size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    add_tile(false, 256, acc, w, x, x_stride, n_tokens);
}

static void add_256_min(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                        size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    add_tile(true, 256, acc, w, x, x_stride, n_tokens);
}

static void add_32(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                   size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    add_tile(false, 32, acc, w, x, x_stride, n_tokens);
}

static void add_32_min(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                       size_t x_stride, size_t n_tokens)
{
    (void)n_blocks;
    add_tile(true, 32, acc, w, x, x_stride, n_tokens);
}

void matmul_via8_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    static const neon_blocks_fn by_kind[2][2] = {{add_32, add_32_min}, {add_256, add_256_min}};
    const unpack8_type *info = unpack8_info(a->type);

    neon_product(a, group_first, group_end, scratch, 1, info, by_kind[info->n_values == 256][info->has_min]);
}
