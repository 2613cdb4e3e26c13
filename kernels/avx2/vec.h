/* The vector words of kernels/vec/ in AVX2, FMA and F16C: 8 lanes. What each means: kernels/vec/words.h. */
#ifndef PRIMA_KERNELS_AVX2_VEC_H
#define PRIMA_KERNELS_AVX2_VEC_H
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef __m256 vf;
enum { VW = 8, TILE_ROWS = 6, TILE_VECS = 2 };
#define ISA(name) name##_avx2

/* clang-format off */
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline float v_lane0(vf a) { return _mm256_cvtss_f32(a); }
static inline vf v_set1(float x) { return _mm256_set1_ps(x); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/* A tree: of two registers at a time one that has half as many lanes of each. */
static inline vf v_hmax_rows(const vf a[VW])
{
    vf b[4], c[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        b[i] = v_max(_mm256_unpacklo_ps(a[i], a[i + 4]), _mm256_unpackhi_ps(a[i], a[i + 4]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) /* lanes of each four: a[i], a[i + 4], a[i + 2], a[i + 6] */
        c[i] = v_max(_mm256_shuffle_ps(b[i], b[i + 2], 0x44), _mm256_shuffle_ps(b[i], b[i + 2], 0xee));
    c[0] = v_max(_mm256_permute2f128_ps(c[0], c[1], 0x20), _mm256_permute2f128_ps(c[0], c[1], 0x31));
    /* fours of rows 0 4 2 6, 1 5 3 7 */
    return _mm256_permutevar8x32_ps(c[0], _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
}
static inline vf v_select_ge(vf x, vf y, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_GE_OQ));
}
static inline vf v_first(vf a, int n, vf fill)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)));
}
static inline vf v_2_to(vf t)
{
    __m256i k = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(k, _mm256_castps_si256(v_set1(1.0f))));
}

static inline vf v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline void v_store_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vf v_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline void v_store_i8(int8_t *p, vf a)
{
    __m256i i = _mm256_cvtps_epi32(a);
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(w, w));
}

/* Pairs of neighbours: (0 1)(2 3)... */
static inline vf v_dup_even(vf a) { return _mm256_moveldup_ps(a); }
static inline vf v_dup_odd(vf a) { return _mm256_movehdup_ps(a); }
static inline vf v_swap_pairs(vf a) { return _mm256_permute_ps(a, 0xb1); }
static inline vf v_sub_even_add_odd(vf a, vf b) { return _mm256_addsub_ps(a, b); }
static inline void v_load_pairs(const float *p, vf *even, vf *odd)
{
    vf a = v_load(p), b = v_load(p + VW);
    vf lo = _mm256_permute2f128_ps(a, b, 0x20), hi = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(lo, hi, 0x88);
    *odd = _mm256_shuffle_ps(lo, hi, 0xdd);
}
/* clang-format on */

#endif
