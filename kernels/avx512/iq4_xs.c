/* IQ4_XS: value = d * (scale[j] - 32) * table[q], 4 bits, 8 sub-blocks of 32.
 *
 *   lines 0..31  qs: 4 lines for 32 values, lower nibbles values 0..15, upper 16..31
 *   line 32      lower four bits of the 8 scales, one nibble each
 *   line 33      first half: upper two bits of the 8 scales, 16 bits for a row; second half: d of 16 rows
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 78 on the ports that
 * multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 41 GB/s of 42 with one token,
 * 72 % of vpdpbusd with 64. */
#include "kernels/avx512/iq4.h"
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 136 * PACK_ROWS, PER = 32, HAS_MIN = false, OFFSET = 128 };

/* x gets the 16 bits' nibble i in its byte i: bits 0-1 of a byte belong to an even scale, 2-3 to the odd one
 * after it. */
INLINE void block_scales(scales *s, const uint8_t *w)
{
    __m512i low = load_line(w + 32 * LINE), scale[2];
    __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(w + 33 * LINE)));

    x = _mm512_and_si512(_mm512_or_si512(x, left(x, 8)), _mm512_set1_epi32(0x00ff00ff));
    x = _mm512_or_si512(x, left(x, 4));
    scale[0] = _mm512_sub_epi8(masked_or(left(x, 4), 0x30, masked(low, 15)), bytes(32));
    scale[1] = _mm512_sub_epi8(masked_or(left(x, 2), 0x30, masked(right(low, 4), 15)), bytes(32));
    EACH(j, 8)
    {
        s->scale[j] = _mm512_srai_epi32(lane_bytes(scale[j % 2], ZERO, ZERO, ZERO, j / 2), 24);
    }
    EACH(j, 4)
    { /* 256 * scale in 16 bits, down to 128 * scale */
        __m512i even = lane_bytes(scale[0], ZERO, j, ZERO, ZERO);
        __m512i odd = lane_bytes(scale[1], ZERO, ZERO, ZERO, j);
        __m512i pair = _mm512_srai_epi16(_mm512_or_si512(even, odd), 1);
        s->pair[j] = _mm512_sub_epi16(_mm512_setzero_si512(), pair);
    }
    s->d = load_f16_rows(w + 33 * LINE + 2 * PACK_ROWS);
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    (void)s;
    iq4_weights(q, w + 4 * c * LINE);
}

#define TYPE iq4_xs_avx512
#include "kernels/avx512/rows_256.h"
