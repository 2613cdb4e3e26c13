/* Q3_K: value = d * (scale[j] - 32) * (q - 4), 3 bits, 16 sub-blocks of 16.
 *
 *   lines 0..15  qs: 8 lines for a half of the block: lower two bits of values 0..31 in bits 0-1,
 *                32..63 in 2-3, 64..95 in 4-5, 96..127 in 6-7
 *   lines 16..23 hmask: bit c of each byte is the third bit of values 32 c .. 32 c + 31
 *   lines 24..26 scales of 6 bits: words 0 and 1 hold the lower four bits of scales 0..7, in upper nibbles
 *                of 8..15; word 2 the upper two: bits 0-1 of its byte i those of scale i, 2-3 of 4 + i,
 *                4-5 of 8 + i, 6-7 of 12 + i
 *   half a line  d
 *
 * Unpacking takes about 6 instructions for a register of weights, the product 90 (AVX-VNNI: 90) on the
 * ports that multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 18 GB/s of 42 with one
 * token, 298 Gop/s = 54 % of vpmaddubsw with 64; AVX-VNNI: 1.03 times this with 8, 1.04 with 64. */
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 110 * PACK_ROWS, PER = 16, SUMMED = 4, HAS_MIN = false };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    __m256i w2 = load_line(w, 26, h), words[4];

    EACH(u, 4)
    {
        __m256i low = masked(right(load_line(w, 24 + u % 2, h), u / 2 * 4), 15);
        words[u] = _mm256_sub_epi8(either(masked(left(right(w2, 2 * u), 4), 0x30), low), bytes(32));
    }
    signed_scales(s, words, 2);
    s->d = load_f16_rows(w + 27 * LINE, h);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    const uint8_t *qs = w + c / 4 * 8 * LINE;

    EACH(i, 8)
    {
        __m256i low = right(load_line(qs, i, h), c % 4 * 2), third = right(load_line(w, 16 + i, h), c);
        q[i] = either(masked(left(third, 2), 4), masked(low, 3));
    }
}

#define TYPE q3_k
#include "kernels/avx2/rows_256.h"
