/* The products of NEON: a driver that walks groups, blocks and tokens, and what a type's file gives it.
 *
 * A line of 64 bytes (pack.h: 4 consecutive k of 16 rows) is four registers of four rows; `sdot` with one
 * lane of the activations, which holds the same 4 k, adds to four rows at once. Sums wait in acc,
 * [n_tokens][16]. */
#ifndef PRIMA_KERNELS_NEON_PRODUCT_H
#define PRIMA_KERNELS_NEON_PRODUCT_H
#include "kernels/kernels.h"
#include "kernels/unpack8.h"
#include <arm_neon.h>

enum { NEON_TOKENS = 4 }; /* at most so many tokens share the unpacking of a block */

/* Add n_blocks group-blocks from `w` on to the sums of n_tokens (1..NEON_TOKENS) tokens; x is the first block
 * of activations of the first token. */
typedef void (*neon_blocks_fn)(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                               size_t x_stride, size_t n_tokens);

/* Run a product, `run` blocks in a call. `via`: unpack each block first (run is 1) and give the unpack8_tile
 * as w; NULL: give the group-blocks as they are. */
void neon_product(const matmul_args *a, size_t group_first, size_t group_end, void *scratch, size_t run,
                  const unpack8_type *via, neon_blocks_fn add_blocks);

void matmul_q4_k_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_q6_k_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_q8_0_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_float_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_via8_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);

void quantize_q8_256_neon(void *dst, const float *x, size_t n);
void quantize_q8_32_neon(void *dst, const float *x, size_t n);

/* f(n_tokens, ...) with n_tokens a constant. */
#define NEON_BY_TOKENS(f, n_tokens, ...)                                                                     \
    switch (n_tokens) {                                                                                      \
    case 1: f(1, __VA_ARGS__); break;                                                                        \
    case 2: f(2, __VA_ARGS__); break;                                                                        \
    case 3: f(3, __VA_ARGS__); break;                                                                        \
    case 4: f(4, __VA_ARGS__); break;                                                                        \
    }

#define NEON_INLINE static inline __attribute__((always_inline))

/* 4 f16 numbers as f32. */
static inline float32x4_t neon_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* sum += w (4 rows x 4 k) times 4 activations, a lane of x; `lane` may be the counter of an unrolled loop. */
NEON_INLINE int32x4_t neon_dot(int32x4_t sum, int8x16_t w, int8x16_t x, int lane)
{
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, x, 0);
    case 1: return vdotq_laneq_s32(sum, w, x, 1);
    case 2: return vdotq_laneq_s32(sum, w, x, 2);
    default: return vdotq_laneq_s32(sum, w, x, 3);
    }
}

/* acc += factor * sum for 4 rows. */
NEON_INLINE void neon_add_scaled(float *acc, float32x4_t factor, int32x4_t sum)
{
    vst1q_f32(acc, vfmaq_f32(vld1q_f32(acc), factor, vcvtq_f32_s32(sum)));
}

#endif
