/* The vector words of kernels/vec/ in AVX-512: 16 lanes. What each means: kernels/vec/words.h. */
#ifndef PRIMA_KERNELS_AVX512_VEC_H
#define PRIMA_KERNELS_AVX512_VEC_H
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m512 vf;
enum { VW = 16, TILE_ROWS = 8, TILE_VECS = 2 };
#define ISA(name) name##_avx512

/* clang-format off */
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline float v_lane0(vf a) { return _mm512_cvtss_f32(a); }
static inline vf v_set1(float x) { return _mm512_set1_ps(x); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm512_abs_ps(a); }
/* A tree: of two registers at a time one that has half as many lanes of each. */
static inline vf v_hmax_rows(const vf a[VW])
{
    vf b[8], c[4], d[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        b[i] = v_max(_mm512_unpacklo_ps(a[i], a[i + 8]), _mm512_unpackhi_ps(a[i], a[i + 8]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) /* lanes of each four: a[i], a[i + 8], a[i + 4], a[i + 12] */
        c[i] = v_max(_mm512_shuffle_ps(b[i], b[i + 4], 0x44), _mm512_shuffle_ps(b[i], b[i + 4], 0xee));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        d[i] = v_max(_mm512_shuffle_f32x4(c[i], c[i + 2], 0x44), _mm512_shuffle_f32x4(c[i], c[i + 2], 0xee));
    d[0] = v_max(_mm512_shuffle_f32x4(d[0], d[1], 0x88), _mm512_shuffle_f32x4(d[0], d[1], 0xdd));
    /* fours of rows 0 8 4 12, 2 10 6 14, 1 9 5 13, 3 11 7 15 */
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), d[0]);
}
static inline vf v_select_ge(vf x, vf y, vf a, vf b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_GE_OQ), b, a);
}
static inline vf v_first(vf a, int n, vf fill)
{
    __mmask16 m = n >= VW ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
    return _mm512_mask_blend_ps(m, fill, a);
}
static inline vf v_2_to(vf t)
{
    __m512i k = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(k, _mm512_castps_si512(v_set1(1.0f))));
}

static inline vf v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void v_store_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vf v_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline void v_store_i8(int8_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}

/* Pairs of neighbours: (0 1)(2 3)... */
static inline vf v_dup_even(vf a) { return _mm512_moveldup_ps(a); }
static inline vf v_dup_odd(vf a) { return _mm512_movehdup_ps(a); }
static inline vf v_swap_pairs(vf a) { return _mm512_permute_ps(a, 0xb1); }
static inline vf v_sub_even_add_odd(vf a, vf b) { return _mm512_fmaddsub_ps(a, _mm512_set1_ps(1.0f), b); }
static inline void v_load_pairs(const float *p, vf *even, vf *odd)
{
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    vf a = v_load(p), b = v_load(p + VW);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
/* clang-format on */

#endif
