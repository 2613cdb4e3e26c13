/* Activations to 8 bits; rule and blocks: kernels/kernels.h, the same bits as kernels/ref/quantize.c. */
#include "kernels/avx2/rows.h"
#include <math.h>
#include <string.h>

INLINE __m256i magnitude_bits(const float *x)
{
    return _mm256_and_si256(load_256(x), _mm256_set1_epi32(INT32_MAX));
}

/* Scale of a block of n values; *inverse is what they are multiplied by. Not *usable: all of them become 0.
 * The maximum is taken of the bits of magnitudes, as integers, so that NaN counts as larger than all. */
INLINE float block_scale(const float *x, size_t n, float *inverse, bool *usable)
{
    __m256i max = magnitude_bits(x);
    __m128i m;
    int32_t bits;
    float amax;

    for (size_t i = 8; i < n; i += 8) max = _mm256_max_epi32(max, magnitude_bits(x + i));
    m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    bits = _mm_cvtsi128_si32(m);
    memcpy(&amax, &bits, sizeof amax);
    *usable = amax >= ACT_TINY && isfinite(amax);
    *inverse = *usable ? 127.0f / amax : 0;
    return *usable ? amax / 127.0f : amax < ACT_TINY ? 0.0f : NAN;
}

/* |x * inverse| < 127.5, so that rounding gives at most 127 and the narrowing below never saturates. */
INLINE __m256i rounded(const float *x, float inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(inverse)));
}

/* 32 values to q. Packing works within 128 bits: the permutation puts the groups of four back in order. */
INLINE __m256i quantize_32(int8_t *q, const float *x, float inverse)
{
    __m256i low = _mm256_packs_epi32(rounded(x, inverse), rounded(x + 8, inverse));
    __m256i high = _mm256_packs_epi32(rounded(x + 16, inverse), rounded(x + 24, inverse));
    __m256i all =
        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));

    _mm256_storeu_si256((__m256i *)q, all);
    return all;
}

/* Sums of 16 bytes each, in the first lane of each 128 bits. */
INLINE __m256i sums_of_16(__m256i q)
{
    __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes(1), q), _mm256_set1_epi16(1));

    sums = add(sums, _mm256_shuffle_epi32(sums, 0x4e));
    return add(sums, _mm256_shuffle_epi32(sums, 0xb1));
}

void quantize_q8_256_avx2(void *dst, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 256; b++, x += 256) {
        act_q8_256 *out = (act_q8_256 *)dst + b;
        float inverse;
        bool usable;

        memset(out, 0, sizeof *out);
        out->d = block_scale(x, 256, &inverse, &usable);
        for (int i = 0; usable && i < 8; i++) {
            __m256i sums = sums_of_16(quantize_32(out->q + 32 * i, x + 32 * i, inverse));
            int first = _mm256_extract_epi32(sums, 0), second = _mm256_extract_epi32(sums, 4);

            out->sum16[2 * i] = (int16_t)first;
            out->sum16[2 * i + 1] = (int16_t)second;
            out->sum32[i] = (int16_t)(first + second);
        }
    }
}

void quantize_q8_32_avx2(void *dst, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 32; b++, x += 32) {
        act_q8_32 *out = (act_q8_32 *)dst + b;
        __m256i sums = _mm256_setzero_si256();
        float inverse;
        bool usable;

        out->d = block_scale(x, 32, &inverse, &usable);
        if (usable) sums = sums_of_16(quantize_32(out->q, x, inverse));
        else memset(out->q, 0, sizeof out->q);
        out->sum = _mm256_extract_epi32(sums, 0) + _mm256_extract_epi32(sums, 4);
    }
}
