/* IQ4_XS: value = d * (scale[j] - 32) * table[q], 4 bits, 8 sub-blocks of 32.
 *
 *   lines 0..31  qs: 4 lines for 32 values, lower nibbles values 0..15, upper 16..31
 *   line 32      lower four bits of the 8 scales, one nibble each
 *   line 33      first half: upper two bits of the 8 scales, 16 bits for a row; second half: d of 16 rows
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 130 (AVX-VNNI: 78) on the
 * ports that multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 25 GB/s of 42 with one
 * token, 211 Gop/s = 39 % of vpmaddubsw with 64; AVX-VNNI: 1.62 times this with 8, 1.70 with 64. */
#include "kernels/avx2/iq4.h"
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 136 * PACK_ROWS, PER = 32, SUMMED = 1, HAS_MIN = false };

/* x gets the 16 bits' nibble i in its byte i: bits 0-1 of a byte belong to an even scale, 2-3 to the odd one
 * after it. */
INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    __m256i low = load_line(w, 32, h), scale[2];
    __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(w + 33 * LINE + h * HALF_ROWS * 2)));

    x = _mm256_and_si256(either(x, left(x, 8)), _mm256_set1_epi32(0x00ff00ff));
    x = either(x, left(x, 4));
    scale[0] = _mm256_sub_epi8(either(masked(left(x, 4), 0x30), masked(low, 15)), bytes(32));
    scale[1] = _mm256_sub_epi8(either(masked(left(x, 2), 0x30), masked(right(low, 4), 15)), bytes(32));
    EACH(j, 8)
    {
        s->scale[j] = _mm256_srai_epi16(lane_bytes(scale[j % 2], ZERO, j / 2, ZERO, j / 2), 8);
    }
    s->d = load_f16_rows(w + 33 * LINE + 2 * PACK_ROWS, h);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    iq4_weights(q, w + 4 * c * LINE, h);
}

#define TYPE iq4_xs
#include "kernels/avx2/rows_256.h"
