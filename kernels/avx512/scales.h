/* Scales of blocks of 256 values, one lane per row. A pair is two int16 in one lane, for vpdpwssd with
 * pairs of the activations' sums. */
#ifndef PRIMA_KERNELS_AVX512_SCALES_H
#define PRIMA_KERNELS_AVX512_SCALES_H
#include "kernels/avx512/rows.h"

typedef struct {
    __m512i scale[16]; /* int32 for each 16 values, or 8 of them for each 32 values */
    __m512i pair[8];   /* of mins, or of -offset * scale; 4 of them where scales are for 32 values */
    __m512 d, dm;
} scales;

/* 16 signed scales in 4 words of 4 bytes, for weights that stand with an offset of 2^log2_offset. */
INLINE void signed_scales(scales *s, const __m512i words[4], const int log2_offset)
{
    EACH(u, 4)
    {
        EACH(i, 4)
        {
            s->scale[4 * u + i] = _mm512_srai_epi32(lane_bytes(words[u], ZERO, ZERO, ZERO, i), 24);
        }
        EACH(i, 2)
        { /* scale * 256 in 16 bits, down to scale * offset */
            __m512i pair = lane_bytes(words[u], ZERO, 2 * i, ZERO, 2 * i + 1);
            pair = _mm512_srai_epi16(pair, (unsigned)(8 - log2_offset));
            s->pair[2 * u + i] = _mm512_sub_epi16(_mm512_setzero_si512(), pair);
        }
    }
}

/* Q4_K, Q5_K: 8 scales and 8 mins of 6 bits in 12 bytes (3 words), then d and dmin.
 *   word 0: scales 0..3, in the upper two bits of each byte those of scales 4..7
 *   word 1: mins 0..3, likewise       word 2: lower four bits of scales 4..7, in the upper halves of
 * mins 4..7 */
INLINE void scales_and_mins(scales *s, const uint8_t *w)
{
    __m512i w0 = load_line(w), w1 = load_line(w + LINE), w2 = load_line(w + 2 * LINE);
    __m512i scale[2] = {masked(w0, 63), masked_or(right(w0, 2), 0x30, masked(w2, 15))};
    __m512i min[2] = {masked(w1, 63), masked_or(right(w1, 2), 0x30, masked(right(w2, 4), 15))};

    EACH(j, 8)
    {
        s->scale[j] = lane_bytes(scale[j / 4], j % 4, ZERO, ZERO, ZERO);
    }
    EACH(j, 4) s->pair[j] = lane_bytes(min[j / 2], j % 2 * 2, ZERO, j % 2 * 2 + 1, ZERO);
    s->d = load_f16_rows(w + 3 * LINE);
    s->dm = negate(load_f16_rows(w + 3 * LINE + 2 * PACK_ROWS));
}

#endif
