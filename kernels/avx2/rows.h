/* Products with quantised weights: what all types share. The way is that of kernels/avx512/rows.h, in
 * registers of 32 bytes:
 *
 *   for as many tokens as stay in L2                               matmul.c
 *     for each group of 16 rows
 *       for each block of the rows                                 rows_256.h, rows_32.h
 *         for each 32 values, for each half of the group (8 rows): unpack them to 8 registers
 *           for each token: 8 broadcasts, 8 vpmaddubsw, vpmaddwd with the scale (with AVX-VNNI: 8 vpdpbusd,
 *             vpmulld with the scale), add to its sums in L1
 *
 * In every register lane = row; a token goes through the same operations however many there are. A type says
 * in its own file how a block is unpacked and includes rows_256.h or rows_32.h. What must come out is defined
 * in kernels/unpack8.h.
 *
 * vpmaddubsw multiplies bytes without sign by bytes with sign and adds pairs to 16 bits, saturating. It must
 * never saturate. Inputs are within +-127 (kernels.h), so a pair of weights up to W gives at most
 * 2 * 127 * W, and so many of these may be added in 16 bits (at most 32767):
 *
 *   SUMMED   weights as they stand                                     largest sum
 *   8        0..15 (4 bits)                                            8 * 2 * 127 * 15 = 30480
 *   4        0..31 (5 bits; 2 and 3 bits with scales per 16 values)    4 * 2 * 127 * 31 = 31496
 *   2        0..63 (6 bits)                                            2 * 2 * 127 * 63 = 32004
 *   1        -128..127, as |w| times x with the sign of w              2 * 127 * 128    = 32512
 *
 * Where the CPU has AVX-VNNI, vpdpbusd adds four products to 32 bits at once and nothing can saturate: 8 of
 * them and a vpmulld with the scale for each 32 values, 8 rows and token. Weights with sign then stand 128
 * higher, which is taken out again in integers, as what offsets add is. */
#ifndef PRIMA_KERNELS_AVX2_ROWS_H
#define PRIMA_KERNELS_AVX2_ROWS_H
#include "kernels/kernels.h"
#include <immintrin.h>

#define INLINE     static inline __attribute__((always_inline))
#define UNROLL     _Pragma("GCC unroll 32")
/* A loop that is unrolled whole: n is a constant wherever it stands. */
#define EACH(i, n) UNROLL for (int i = 0; i < (n); i++)

enum {
    LINE = 64, /* bytes of one unit of a field for 16 rows */
    HALF = 32, /* bytes of a register: the same of 8 rows */
    HALVES = 2,
    HALF_ROWS = 8,
    /* bytes from the weights in use to those asked for: see kernels/NOTES.md */
    AHEAD = 12288,
    AHEAD_SHORT = 3072 /* where cpu_reads_near */
};

/* How bytes are multiplied: vpmaddubsw and vpmaddwd, or vpdpbusd of AVX-VNNI. The sums are the same integers,
 * so the products the same bits. */
enum { PLAIN, VNNI, WAYS };

/* A group of 16 rows times n_tokens. */
typedef struct {
    const uint8_t *w;
    size_t n_blocks;
    const uint8_t *x;
    size_t x_stride, n_tokens;
    float *acc;   /* [n_tokens][16], in: zeros, out: the products */
    int32_t *sum; /* [n_tokens][16], for use by 256-value types */
    size_t ahead; /* bytes */
} rows_args;

typedef void (*rows_fn)(const rows_args *a);

/* [way] */
extern const rows_fn rows_q2_k_avx2[WAYS], rows_q3_k_avx2[WAYS], rows_q4_k_avx2[WAYS], rows_q5_k_avx2[WAYS],
    rows_q6_k_avx2[WAYS], rows_iq4_xs_avx2[WAYS], rows_tile8_avx2[WAYS];
extern const rows_fn rows_q4_0_avx2[WAYS], rows_q4_1_avx2[WAYS], rows_q5_0_avx2[WAYS], rows_q5_1_avx2[WAYS],
    rows_q8_0_avx2[WAYS], rows_iq4_nl_avx2[WAYS];

INLINE size_t stream_ahead(void)
{
    return cpu_reads_near() ? AHEAD_SHORT : AHEAD;
}

void matmul_blocks_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_tile8_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_blocks_avxvnni(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_tile8_avxvnni(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_float_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void quantize_q8_256_avx2(void *dst, const float *x, size_t n);
void quantize_q8_32_avx2(void *dst, const float *x, size_t n);

/* --- weights: h is the half of the group, 0 or 1 ---------------------------------------------- */

INLINE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Line i of the block. */
INLINE __m256i load_line(const uint8_t *w, int i, int h)
{
    return load_256(w + i * LINE + h * HALF);
}

/* f16 of 8 rows; the 16 of the group stand at p. */
INLINE __m256 load_f16_rows(const uint8_t *p, int h)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + h * HALF_ROWS * 2)));
}

INLINE __m256 negate(__m256 v)
{
    return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

INLINE __m256i bytes(int b)
{
    return _mm256_set1_epi8((char)b);
}
INLINE __m256i masked(__m256i v, int byte)
{
    return _mm256_and_si256(v, bytes(byte));
}
INLINE __m256i either(__m256i a, __m256i b)
{
    return _mm256_or_si256(a, b);
}

/* Shifts within 32 bits: bits that cross from byte to byte are masked out by the caller. */
INLINE __m256i right(__m256i v, int n)
{
    return _mm256_srlv_epi32(v, _mm256_set1_epi32(n));
}
INLINE __m256i left(__m256i v, int n)
{
    return _mm256_sllv_epi32(v, _mm256_set1_epi32(n));
}

/* In each lane its bytes a, b, c, d (0..3; ZERO: a zero). */
enum { ZERO = 0x80 };
INLINE __m256i lane_bytes(__m256i v, int a, int b, int c, int d)
{
    __m256i lanes =
        _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    __m256i select =
        _mm256_set1_epi32((int)((unsigned)a | (unsigned)b << 8 | (unsigned)c << 16 | (unsigned)d << 24));
    return _mm256_shuffle_epi8(v, _mm256_or_si256(lanes, select));
}

/* Keep values in registers for all tokens: gcc would rather load or make them again for each. */
INLINE void keep(__m256i *v, int n)
{
    EACH(i, n) __asm__("" : "+x"(v[i]));
}

INLINE void prefetch(const uint8_t *p, int lines)
{
    EACH(i, lines) _mm_prefetch((const char *)p + i * LINE, _MM_HINT_T0);
}

/* --- activations ------------------------------------------------------------------------------ */

typedef int32_t __attribute__((may_alias)) word;

/* The 4 bytes at p in every lane. */
INLINE __m256i broadcast(const uint8_t *p)
{
    return _mm256_set1_epi32(*(const word *)p);
}
INLINE __m256 broadcast_f32(const uint8_t *p)
{
    return _mm256_castsi256_ps(broadcast(p));
}
INLINE __m256i add(__m256i a, __m256i b)
{
    return _mm256_add_epi32(a, b);
}

/* n registers of weights times 4 n bytes at x, sums of pairs in 16 bits: n <= SUMMED. */
INLINE __m256i dot_unsigned(const __m256i *q, const uint8_t *x, const int n)
{
    __m256i sum = _mm256_maddubs_epi16(q[0], broadcast(x));

    UNROLL for (int i = 1; i < n; i++)
    {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(q[i], broadcast(x + 4 * i)));
    }
    return sum;
}

/* 32 values times the activations at x, each 16 of them times their scale (two int16 in each lane). For
 * signed weights `size` holds their magnitudes. */
INLINE __m256i dot32(const __m256i q[8], const __m256i size[8], const uint8_t *x, const __m256i scale[2],
                     const int summed)
{
    __m256i sum = _mm256_setzero_si256();

    if (summed == 8) return _mm256_madd_epi16(dot_unsigned(q, x, 8), scale[0]);
    UNROLL for (int i = 0; i < 8; i += summed)
    {
        __m256i part = summed > 1
                           ? dot_unsigned(q + i, x + 4 * i, summed)
                           : _mm256_maddubs_epi16(size[i], _mm256_sign_epi8(broadcast(x + 4 * i), q[i]));
        sum = add(sum, _mm256_madd_epi16(part, scale[i / 4]));
    }
    return sum;
}

/* Magnitudes for dot32, kept in registers; q may then be read from the stack. */
INLINE void magnitudes(__m256i size[8], const __m256i q[8])
{
    EACH(i, 8) size[i] = _mm256_abs_epi8(q[i]);
    keep(size, 8);
}

/* AVX-VNNI, by its letters: the folder is built for AVX2. sum += 4 bytes without sign times 4 with sign; sum
 * += 2 x int16 times 2 x int16. */
INLINE __m256i dpbusd(__m256i sum, __m256i q, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(q), "x"(x));
    return sum;
}
INLINE __m256i dpwssd(__m256i sum, __m256i pair, __m256i x)
{
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(pair), "x"(x));
    return sum;
}

/* Weights with sign for dpbusd: q + 128. */
enum { SIGN_OFFSET = 128 };
INLINE void without_sign(__m256i q[8])
{
    EACH(i, 8) q[i] = _mm256_xor_si256(q[i], bytes(SIGN_OFFSET));
}

/* sum + 16 values. */
INLINE __m256i dot16_vnni(__m256i sum, const __m256i q[4], const uint8_t *x)
{
    EACH(i, 4) sum = dpbusd(sum, q[i], broadcast(x + 4 * i));
    return sum;
}

#define GLUE2(a, b) a##b
#define GLUE(a, b)  GLUE2(a, b)

#endif
