/* Activations to 8 bits; rule and blocks: kernels/kernels.h, the same bits as kernels/ref/quantize.c.
 *
 * Bound by reading x and by the chain maximum -> division -> products; some 60 cycles for 256 values. */
#include "kernels/avx512/rows.h"
#include <math.h>
#include <string.h>

/* Scale of a block from the bits of its largest magnitude; *inverse is what its values are multiplied by. Not
 * *usable: all of them become 0. */
static float block_scale(__m512i max_bits, float *inverse, bool *usable)
{
    int32_t bits = _mm512_reduce_max_epi32(max_bits);
    float amax;

    memcpy(&amax, &bits, sizeof amax);
    *usable = amax >= ACT_TINY && isfinite(amax);
    *inverse = *usable ? 127.0f / amax : 0;
    return *usable ? amax / 127.0f : amax < ACT_TINY ? 0.0f : NAN;
}

INLINE __m512i magnitude_bits(const float *x)
{
    return _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(INT32_MAX));
}

/* |x * inverse| < 127.5, so that rounding gives at most 127 and the narrowing below never saturates. */
INLINE __m512i rounded(const float *x, float inverse)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
}

/* 64 values to q; each 128 bits of the result hold the sum of 16 of them, four times. */
static __m512i quantize_64(int8_t *q, const float *x, float inverse)
{
    __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); /* packs work in 128 bits */
    __m512i low = _mm512_packs_epi32(rounded(x, inverse), rounded(x + 16, inverse));
    __m512i high = _mm512_packs_epi32(rounded(x + 32, inverse), rounded(x + 48, inverse));
    __m512i all = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes(1), all);

    _mm512_storeu_si512(q, all);
    sums = add(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
    return add(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
}

static void quantize_block_256(act_q8_256 *out, const float *x)
{
    __m512i max_bits = magnitude_bits(x), sums = _mm512_setzero_si512();
    float inverse;
    bool usable;

    for (int i = 1; i < 16; i++) max_bits = _mm512_max_epi32(max_bits, magnitude_bits(x + 16 * i));
    memset(out, 0, sizeof *out);
    out->d = block_scale(max_bits, &inverse, &usable);
    if (!usable) return;
    /* Number L of the four sums of part i comes to place 4 L + i, then to 4 i + L. */
    for (int i = 0; i < 4; i++) {
        __mmask16 place = (__mmask16)(0x1111 << i);
        sums = _mm512_mask_mov_epi32(sums, place, quantize_64(out->q + 64 * i, x + 64 * i, inverse));
    }
    sums = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    sums);
    __m256i sum16 = _mm512_cvtepi32_epi16(sums), sum32 = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
    _mm256_storeu_si256((__m256i *)out->sum16, sum16);
    _mm_storeu_si128((__m128i *)out->sum32, _mm256_cvtepi32_epi16(sum32));
}

static void quantize_block_32(act_q8_32 *out, const float *x)
{
    float inverse;
    bool usable;

    out->d = block_scale(_mm512_max_epi32(magnitude_bits(x), magnitude_bits(x + 16)), &inverse, &usable);
    __m512i low = usable ? rounded(x, inverse) : _mm512_setzero_si512();
    __m512i high = usable ? rounded(x + 16, inverse) : _mm512_setzero_si512();
    _mm_storeu_si128((__m128i *)out->q, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((__m128i *)(out->q + 16), _mm512_cvtepi32_epi8(high));
    out->sum = _mm512_reduce_add_epi32(add(low, high));
}

void quantize_q8_256_avx512(void *dst, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 256; b++) quantize_block_256((act_q8_256 *)dst + b, x + 256 * b);
}

void quantize_q8_32_avx512(void *dst, const float *x, size_t n)
{
    for (size_t b = 0; b < n / 32; b++) quantize_block_32((act_q8_32 *)dst + b, x + 32 * b);
}
