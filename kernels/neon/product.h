/* The products of NEON: a driver that walks groups, blocks and tokens, and what a type's file gives it.
 *
 * A line of 64 bytes (pack.h: 4 consecutive k of 16 rows) is four registers of four rows; `sdot` with one
 * lane of the activations, which holds the same 4 k, adds to four rows at once. Sums wait in acc,
 * [n_tokens][16].
 *
 * The products are built twice from the same files, here with sdot and in kernels/i8mm with `smmla`, which
 * multiplies 2 rows x 8 k by 8 k x 2 tokens: twice the products of sdot in one instruction. The integers are
 * the same, so the bits are. Only the tile below knows the difference; one token alone goes by sdot. */
#ifndef PRIMA_KERNELS_NEON_PRODUCT_H
#define PRIMA_KERNELS_NEON_PRODUCT_H
#include "kernels/kernels.h"
#include "kernels/unpack8.h"
#include <arm_neon.h>

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define NEON_WAY(name) name##_i8mm
enum { NEON_I8MM = 1 };
#else
#define NEON_WAY(name) name##_neon
enum { NEON_I8MM = 0 };
#endif
/* At most so many tokens share the unpacking of a block: their sums fill the registers. */
enum { NEON_TOKENS = NEON_I8MM ? 8 : 4 };

/* Add n_blocks group-blocks from `w` on to the sums of n_tokens (1..NEON_TOKENS) tokens; x is the first block
 * of activations of the first token. */
typedef void (*neon_blocks_fn)(float (*acc)[PACK_ROWS], const uint8_t *w, size_t n_blocks, const uint8_t *x,
                               size_t x_stride, size_t n_tokens);

/* Run a product, `run` blocks and `most` tokens in a call. `via`: unpack each block first (run is 1) and give
 * the unpack8_tile as w; NULL: give the group-blocks as they are. */
void neon_product(const matmul_args *a, size_t group_first, size_t group_end, void *scratch, size_t run,
                  size_t most, const unpack8_type *via, neon_blocks_fn add_blocks);

void NEON_WAY(matmul_q4_k)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void NEON_WAY(matmul_q6_k)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void NEON_WAY(matmul_q8_0)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void NEON_WAY(matmul_via8)(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_float_neon(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);

void quantize_q8_256_neon(void *dst, const float *x, size_t n);
void quantize_q8_32_neon(void *dst, const float *x, size_t n);

/* f(n_tokens, ...) with n_tokens a constant. */
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define NEON_BY_TOKENS(f, n_tokens, ...)                                                                     \
    switch (n_tokens) {                                                                                      \
    case 1: f(1, __VA_ARGS__); break;                                                                        \
    case 2: f(2, __VA_ARGS__); break;                                                                        \
    case 3: f(3, __VA_ARGS__); break;                                                                        \
    case 4: f(4, __VA_ARGS__); break;                                                                        \
    case 5: f(5, __VA_ARGS__); break;                                                                        \
    case 6: f(6, __VA_ARGS__); break;                                                                        \
    case 7: f(7, __VA_ARGS__); break;                                                                        \
    case 8: f(8, __VA_ARGS__); break;                                                                        \
    }
#else
#define NEON_BY_TOKENS(f, n_tokens, ...)                                                                     \
    switch (n_tokens) {                                                                                      \
    case 1: f(1, __VA_ARGS__); break;                                                                        \
    case 2: f(2, __VA_ARGS__); break;                                                                        \
    case 3: f(3, __VA_ARGS__); break;                                                                        \
    case 4: f(4, __VA_ARGS__); break;                                                                        \
    }
#endif

#define NEON_INLINE static inline __attribute__((always_inline))

/* 4 f16 numbers as f32. */
static inline float32x4_t neon_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* --- a tile: integers of 4 rows and T tokens, T a constant ------------------------------------
 *
 * With sdot register t holds the 4 rows of token t. With smmla two registers hold two tokens, 2 u and 2 u + 1
 * (an odd last one is its own neighbour):
 *
 *   register 2 u     row 0 token 2 u | row 0 token 2 u + 1 | row 1 token 2 u | row 1 token 2 u + 1
 *   register 2 u + 1 the same of rows 2 and 3 */
typedef struct {
    int32x4_t v[NEON_TOKENS];
} neon_tile;

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

NEON_INLINE bool neon_by_pairs(int T)
{
    return NEON_I8MM && T > 1;
}
NEON_INLINE int neon_registers(int T)
{
    return neon_by_pairs(T) ? (T + 1) / 2 * 2 : T;
}

NEON_INLINE neon_tile neon_tile_zero(void)
{
    return (neon_tile){{{0}}};
}

/* 8-bit inputs of T tokens. With sdot: as they are, `stride` bytes apart. With smmla: 8 of one token, the
 * same 8 of its neighbour, of the other pairs, then the next 8. */
typedef struct {
    const int8_t *x;
    size_t stride;
} neon_inputs;

/* n (a multiple of 16, at most 256) inputs of each token; `buffer` is for their order with smmla. */
NEON_INLINE neon_inputs neon_order_inputs(int T, int8_t buffer[256 * NEON_TOKENS], const int8_t *x,
                                          size_t x_stride, int n)
{
    int8_t *to = buffer;

    if (!neon_by_pairs(T)) return (neon_inputs){x, x_stride};
    for (int k = 0; k < n; k += 16, to += 16 * neon_registers(T)) {
#pragma GCC unroll 4
        for (int t = 0; t < T; t += 2) {
            const int8_t *x0 = x + (size_t)t * x_stride + k, *x1 = t + 1 < T ? x0 + x_stride : x0;
            int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(x0)), b = vreinterpretq_s64_s8(vld1q_s8(x1));
            vst1q_s8(to + 8 * t, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(to + 8 * (t + neon_registers(T)), vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
    }
    return (neon_inputs){buffer, 0};
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
/* 8 k of the lower or the upper two rows out of two lines. */
NEON_INLINE int8x16_t neon_join_lines(int8x16_t w0, int8x16_t w1, int upper_rows)
{
    int32x4_t a = vreinterpretq_s32_s8(w0), b = vreinterpretq_s32_s8(w1);
    return vreinterpretq_s8_s32(upper_rows ? vzip2q_s32(a, b) : vzip1q_s32(a, b));
}

NEON_INLINE void neon_pairs_dot(int T, neon_tile *sum, const int8x16_t w[4], const int8_t *x)
{
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2, x += 8 * neon_registers(T)) {
        int8x16_t lower = neon_join_lines(w[i], w[i + 1], 0), upper = neon_join_lines(w[i], w[i + 1], 1);
#pragma GCC unroll 4
        for (int t = 0; t < T; t += 2) {
            int8x16_t two = vld1q_s8(x + 8 * t);
            sum->v[t] = vmmlaq_s32(sum->v[t], lower, two);
            sum->v[t + 1] = vmmlaq_s32(sum->v[t + 1], upper, two);
        }
    }
}
#endif

/* sum += 4 lines of 4 rows times inputs k .. k + 15 of every token. */
NEON_INLINE void neon_tile_dot(int T, neon_tile *sum, const int8x16_t w[4], const neon_inputs *in, int k)
{
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if (neon_by_pairs(T)) {
        neon_pairs_dot(T, sum, w, in->x + k * neon_registers(T));
        return;
    }
#endif
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        int8x16_t y = vld1q_s8(in->x + (size_t)t * in->stride + k);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum->v[t] = neon_dot(sum->v[t], w[i], y, i);
    }
}

/* S += sum * scale, one scale for each row. */
NEON_INLINE void neon_tile_add_scaled(int T, neon_tile *S, const neon_tile *sum, int32x4_t scale)
{
    int32x4_t of_rows[2] = {scale, scale};

    if (neon_by_pairs(T)) {
        of_rows[0] = vzip1q_s32(scale, scale);
        of_rows[1] = vzip2q_s32(scale, scale);
    }
#pragma GCC unroll 8
    for (int i = 0; i < neon_registers(T); i++) S->v[i] = vmlaq_s32(S->v[i], sum->v[i], of_rows[i % 2]);
}

/* The 4 rows of token t. */
NEON_INLINE int32x4_t neon_tile_rows(int T, const neon_tile *S, int t)
{
    int u = t / 2 * 2;

    if (!neon_by_pairs(T)) return S->v[t];
    return t % 2 ? vuzp2q_s32(S->v[u], S->v[u + 1]) : vuzp1q_s32(S->v[u], S->v[u + 1]);
}

/* acc += factor * sum for 4 rows. */
NEON_INLINE void neon_add_scaled(float *acc, float32x4_t factor, int32x4_t sum)
{
    vst1q_f32(acc, vfmaq_f32(vld1q_f32(acc), factor, vcvtq_f32_s32(sum)));
}

#endif
