/* IQ4_NL, IQ4_XS: each 4-bit digit stands for an entry of iq4_values (-127..113), found by a byte shuffle. */
#ifndef PRIMA_KERNELS_AVX2_IQ4_H
#define PRIMA_KERNELS_AVX2_IQ4_H
#include "kernels/avx2/rows.h"
#include "kernels/ref/iq_grids.h"

/* 32 values in lines 0..3: lower nibbles are values 0..15, upper 16..31. */
INLINE void iq4_weights(__m256i q[8], const uint8_t *w, int h)
{
    __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)iq4_values));

    EACH(i, 4)
    {
        __m256i v = load_line(w, i, h);
        q[i] = _mm256_shuffle_epi8(table, masked(v, 15));
        q[4 + i] = _mm256_shuffle_epi8(table, masked(right(v, 4), 15));
    }
}

#endif
