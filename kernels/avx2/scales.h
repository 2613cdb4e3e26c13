/* Scales of blocks of 256 values, one lane per row, for 8 rows. A pair is two int16 in one lane, for
 * vpmaddwd. */
#ifndef PRIMA_KERNELS_AVX2_SCALES_H
#define PRIMA_KERNELS_AVX2_SCALES_H
#include "kernels/avx2/rows.h"

typedef struct {
    __m256i scale[16]; /* pairs of the scale, twice: for each 16 values, or 8 of them for each 32 values */
    __m256i pair[8];   /* mins, or -offset * scale; 4 pairs where scales are for 32 values */
    __m256 d, dm;
} scales;

/* 16 signed scales in 4 words of 4 bytes, for weights that stand with an offset of 2^log2_offset. */
INLINE void signed_scales(scales *s, const __m256i words[4], const int log2_offset)
{
    EACH(u, 4)
    {
        EACH(i, 4)
        {
            s->scale[4 * u + i] = _mm256_srai_epi16(lane_bytes(words[u], ZERO, i, ZERO, i), 8);
        }
        EACH(i, 2)
        { /* scale * 256 in 16 bits, down to scale * offset */
            __m256i pair =
                _mm256_srai_epi16(lane_bytes(words[u], ZERO, 2 * i, ZERO, 2 * i + 1), 8 - log2_offset);
            s->pair[2 * u + i] = _mm256_sub_epi16(_mm256_setzero_si256(), pair);
        }
    }
}

/* Q4_K, Q5_K: 8 scales and 8 mins of 6 bits in 12 bytes (3 words) from line `first` on, then d and dmin.
 *   word 0: scales 0..3, in the upper two bits of each byte those of scales 4..7
 *   word 1: mins 0..3, likewise       word 2: lower four bits of scales 4..7, in the upper halves of
 * mins 4..7 */
INLINE void scales_and_mins(scales *s, const uint8_t *w, int first, int h)
{
    __m256i w0 = load_line(w, first, h), w1 = load_line(w, first + 1, h), w2 = load_line(w, first + 2, h);
    __m256i scale[2] = {masked(w0, 63), either(masked(right(w0, 2), 0x30), masked(w2, 15))};
    __m256i min[2] = {masked(w1, 63), either(masked(right(w1, 2), 0x30), masked(right(w2, 4), 15))};

    EACH(j, 8)
    {
        s->scale[j] = lane_bytes(scale[j / 4], j % 4, ZERO, j % 4, ZERO);
    }
    EACH(j, 4) s->pair[j] = lane_bytes(min[j / 2], j % 2 * 2, ZERO, j % 2 * 2 + 1, ZERO);
    s->d = load_f16_rows(w + (first + 3) * LINE, h);
    s->dm = negate(load_f16_rows(w + (first + 3) * LINE + 2 * PACK_ROWS, h));
}

#endif
