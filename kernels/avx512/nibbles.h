/* Q4_0 Q4_1 Q5_0 Q5_1: blocks of 32 values of 4 bits and perhaps a fifth. */
#ifndef PRIMA_KERNELS_AVX512_NIBBLES_H
#define PRIMA_KERNELS_AVX512_NIBBLES_H
#include "kernels/avx512/rows.h"

/* 4 lines: lower nibbles are values 0..15, upper 16..31. */
INLINE void nibbles(__m512i q[8], const uint8_t *w)
{
    EACH(i, 4)
    {
        __m512i v = load_line(w + i * LINE);
        q[i] = masked(v, 15);
        q[4 + i] = masked(right(v, 4), 15);
    }
}

/* One line: bit k of a row's 32 is the fifth bit of value k. The product brings four neighbouring bits from
 * 0, 1, 2, 3 to 0, 8, 16, 24. */
INLINE void fifth_bits(__m512i q[8], const uint8_t *w)
{
    __m512i all = load_line(w), spread = _mm512_set1_epi32(1 | 1 << 7 | 1 << 14 | 1 << 21);

    EACH(i, 8)
    {
        __m512i four = _mm512_and_si512(right(all, 4 * i), _mm512_set1_epi32(15));
        q[i] = masked_or(left(_mm512_mullo_epi32(four, spread), 4), 0x10, q[i]);
    }
}

#endif
