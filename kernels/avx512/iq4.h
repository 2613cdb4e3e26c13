/* IQ4_NL, IQ4_XS: each 4-bit digit stands for an entry of iq4_values (-127 .. 113), found by a byte shuffle,
 * with an offset of 128. */
#ifndef PRIMA_KERNELS_AVX512_IQ4_H
#define PRIMA_KERNELS_AVX512_IQ4_H
#include "kernels/avx512/rows.h"
#include "kernels/ref/iq_grids.h"

/* 32 values in 4 lines: lower nibbles are values 0..15, upper 16..31. */
INLINE void iq4_weights(__m512i q[8], const uint8_t *w)
{
    __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)iq4_values));
    __m512i table = _mm512_xor_si512(values, bytes(128));

    EACH(i, 4)
    {
        __m512i v = load_line(w + i * LINE);
        q[i] = _mm512_shuffle_epi8(table, masked(v, 15));
        q[4 + i] = _mm512_shuffle_epi8(table, masked(right(v, 4), 15));
    }
}

#endif
