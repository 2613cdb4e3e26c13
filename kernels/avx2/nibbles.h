/* Q4_0 Q4_1 Q5_0 Q5_1: blocks of 32 values of 4 bits and perhaps a fifth. */
#ifndef PRIMA_KERNELS_AVX2_NIBBLES_H
#define PRIMA_KERNELS_AVX2_NIBBLES_H
#include "kernels/avx2/rows.h"

/* Lines 0..3: lower nibbles are values 0..15, upper 16..31. */
INLINE void nibbles(__m256i q[8], const uint8_t *w, int h)
{
    EACH(i, 4)
    {
        __m256i v = load_line(w, i, h);
        q[i] = masked(v, 15);
        q[4 + i] = masked(right(v, 4), 15);
    }
}

/* Line 4: bit k of a row's 32 is the fifth bit of value k. The product brings four neighbouring bits from 0,
 * 1, 2, 3 to 0, 8, 16, 24. */
INLINE void fifth_bits(__m256i q[8], const uint8_t *w, int h)
{
    __m256i all = load_line(w, 4, h), spread = _mm256_set1_epi32(1 | 1 << 7 | 1 << 14 | 1 << 21);

    EACH(i, 8)
    {
        __m256i four = _mm256_and_si256(right(all, 4 * i), _mm256_set1_epi32(15));
        q[i] = either(q[i], masked(left(_mm256_mullo_epi32(four, spread), 4), 0x10));
    }
}

#endif
