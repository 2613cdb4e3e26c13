/* Products with quantised weights: what all types share.
 *
 * In every register lane = row (pack.h). A product is vpdpbusd of four bytes of 16 rows with four bytes of
 * one token's activations, broadcast to all lanes; nothing is summed across lanes. The way through a matrix:
 *
 *   for as many tokens as stay in L2                               matmul.c
 *     for each R = 2 groups of 16 rows
 *       for each block of the rows                                 rows_256.h, rows_32.h
 *         for each 32 values: unpack them to 8 registers a group
 *           for each token: 8 broadcasts, 8 R vpdpbusd, add to the token's sums in L1
 *
 * So weights are unpacked in registers once for all tokens, and a token goes through the same operations
 * however many there are. A type says in its own file how a block is unpacked and includes rows_256.h or
 * rows_32.h, which make its product of that. What must come out is defined in kernels/unpack8.h. vpdpbusd
 * wants one unsigned side, so weights stand as q + offset >= 0; what the offset adds is taken out again in
 * integers, hence exactly. */
#ifndef PRIMA_KERNELS_AVX512_ROWS_H
#define PRIMA_KERNELS_AVX512_ROWS_H
#include "kernels/kernels.h"
#include <immintrin.h>

#define INLINE     static inline __attribute__((always_inline))
#define UNROLL     _Pragma("GCC unroll 32")
/* A loop that is unrolled whole: n is a constant wherever it stands. */
#define EACH(i, n) UNROLL for (int i = 0; i < (n); i++)

enum {
    LINE = 64,  /* bytes of a register, and of one unit of a field for 16 rows */
    GROUPS = 2, /* groups that share a broadcast */
    /* bytes from the weights in use to those asked for: see kernels/NOTES.md */
    AHEAD = 8192,
    NEAR = 4608,       /* where they come from L2 */
    AHEAD_SHORT = 2048 /* one stream, where cpu_reads_near */
};

/* R groups of 16 rows times n_tokens. */
typedef struct {
    const uint8_t *w; /* the first group; the second follows after group_bytes */
    size_t group_bytes, n_blocks;
    const uint8_t *x;
    size_t x_stride, n_tokens;
    float *acc;          /* [n_tokens][R][16], in: zeros, out: the products */
    int32_t *sum;        /* [n_tokens][R][16], for use by 256-value types */
    const uint8_t *next; /* with two groups: what the next call reads, to be brought to L2 meanwhile */
    size_t next_bytes;   /* of it; 0: nothing */
    size_t ahead;        /* bytes; two groups: NEAR where the call before has brought these weights so */
} rows_args;

typedef void (*rows_fn)(const rows_args *a);

/* [R - 1] */
extern const rows_fn rows_q2_k_avx512[GROUPS], rows_q3_k_avx512[GROUPS], rows_q4_k_avx512[GROUPS],
    rows_q5_k_avx512[GROUPS], rows_q6_k_avx512[GROUPS], rows_iq4_xs_avx512[GROUPS], rows_tile8_avx512[GROUPS];
extern const rows_fn rows_q4_0_avx512[GROUPS], rows_q4_1_avx512[GROUPS], rows_q5_0_avx512[GROUPS],
    rows_q5_1_avx512[GROUPS], rows_q8_0_avx512[GROUPS], rows_iq4_nl_avx512[GROUPS];

void matmul_blocks_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_tile8_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void matmul_float_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);
void quantize_q8_256_avx512(void *dst, const float *x, size_t n);
void quantize_q8_32_avx512(void *dst, const float *x, size_t n);

/* For one stream of weights. */
INLINE size_t stream_ahead(void)
{
    return cpu_reads_near() ? AHEAD_SHORT : AHEAD;
}

/* --- weights ---------------------------------------------------------------------------------- */

INLINE __m512i load_line(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

/* f16 of 16 rows. */
INLINE __m512 load_f16_rows(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512 negate(__m512 v)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MIN)));
}

INLINE __m512i bytes(int b)
{
    return _mm512_set1_epi8((char)b);
}
INLINE __m512i masked(__m512i v, int byte)
{
    return _mm512_and_si512(v, bytes(byte));
}
/* (v & byte) | rest, one instruction. */
INLINE __m512i masked_or(__m512i v, int byte, __m512i rest)
{
    return _mm512_ternarylogic_epi32(v, bytes(byte), rest, 0xea);
}

/* Shifts within 32 bits: bits that cross from byte to byte are masked out by the caller. n may be a variable
 * (not so for a rotation or a shift by xmm: on Zen 5 those take the ports of the products). */
INLINE __m512i right(__m512i v, int n)
{
    return (__m512i)((__v16su)v >> (__v16su)_mm512_set1_epi32(n));
}
INLINE __m512i left(__m512i v, int n)
{
    return (__m512i)((__v16su)v << (__v16su)_mm512_set1_epi32(n));
}

/* To the left by n; n < 0: to the right. */
INLINE __m512i shifted(__m512i v, int n)
{
    return n < 0 ? right(v, -n) : left(v, n);
}

/* In each lane its bytes a, b, c, d (0..3; ZERO: a zero). */
enum { ZERO = 0x80 };
INLINE __m512i lane_bytes(__m512i v, int a, int b, int c, int d)
{
    __m512i lanes = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    __m512i select =
        _mm512_set1_epi32((int)((unsigned)a | (unsigned)b << 8 | (unsigned)c << 16 | (unsigned)d << 24));
    return _mm512_shuffle_epi8(v, _mm512_or_si512(lanes, select));
}

/* Keep values in registers for all tokens: gcc would rather load or make them again for each. */
INLINE void keep(__m512i *v, int n)
{
    EACH(i, n) __asm__("" : "+v"(v[i]));
}

INLINE void prefetch_lines(const uint8_t *p, int lines)
{
    EACH(i, lines) _mm_prefetch((const char *)p + i * LINE, _MM_HINT_T0);
}

/* `lines` of each of R groups, at the place `at` of the first. */
INLINE void prefetch(const rows_args *a, size_t at, int lines, const int R)
{
    EACH(r, R) prefetch_lines(a->w + (size_t)r * a->group_bytes + at, lines);
}

/* What is to be asked for with the block at `at`: a place in this group or in the one read after it. */
INLINE size_t place_ahead(const rows_args *a, size_t at, const int R)
{
    at += a->ahead;
    return at < a->group_bytes ? at : at + (size_t)(R - 1) * a->group_bytes;
}

/* R groups are R streams, which memory serves worse than one. So it sees one: while R groups are multiplied,
 * those after them come to L2 in the order in which they lie there. Here: bytes [at, at + n) of them. */
INLINE void prefetch_next(const rows_args *a, size_t at, const int n)
{
    const char *p = (const char *)a->next + at;

    if (at < a->next_bytes) EACH(i, (n + LINE - 1) / LINE) _mm_prefetch(p + i * LINE, _MM_HINT_T1);
}

/* --- activations ------------------------------------------------------------------------------ */

typedef int32_t __attribute__((may_alias)) word;

/* The 4 bytes at p in every lane. */
INLINE __m512i broadcast(const uint8_t *p)
{
    return _mm512_set1_epi32(*(const word *)p);
}
INLINE __m512 broadcast_f32(const uint8_t *p)
{
    return _mm512_castsi512_ps(broadcast(p));
}
INLINE __m512i add(__m512i a, __m512i b)
{
    return _mm512_add_epi32(a, b);
}

/* a[r] += the first 16 of 32 values, b[r] += the others. */
INLINE void dot32(__m512i *a, __m512i *b, __m512i q[][8], const uint8_t *x, const int R)
{
    EACH(i, 4)
    {
        __m512i xa = broadcast(x + 4 * i), xb = broadcast(x + 16 + 4 * i);
        EACH(r, R)
        {
            a[r] = _mm512_dpbusd_epi32(a[r], q[r][i], xa);
            b[r] = _mm512_dpbusd_epi32(b[r], q[r][4 + i], xb);
        }
    }
}

#define GLUE2(a, b) a##b
#define GLUE(a, b)  GLUE2(a, b)

#endif
