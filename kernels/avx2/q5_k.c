/* Q5_K: value = d * scale[j] * q - dmin * min[j], 5 bits, 8 sub-blocks of 32.
 *
 *   lines 0..31  qs: 8 lines for 64 values, lower nibbles values 0..31, upper 32..63
 *   lines 32..39 qh: bit c of each byte is the fifth bit of values 32 c .. 32 c + 31
 *   lines 40..42 scales and mins, line 43 d and dmin of 16 rows
 *
 * Unpacking takes about 6 instructions for a register of weights, the product 88 (AVX-VNNI: 80) on the
 * ports that multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 31 GB/s of 42 with one
 * token, 289 Gop/s = 53 % of vpmaddubsw with 64; AVX-VNNI: 1.06 times this with 8, 1.11 with 64. */
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 176 * PACK_ROWS, PER = 32, SUMMED = 4, HAS_MIN = true };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    scales_and_mins(s, w, 40, h);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    const uint8_t *qs = w + c / 2 * 8 * LINE;

    EACH(i, 8)
    {
        __m256i low = right(load_line(qs, i, h), c % 2 * 4), fifth = right(load_line(w, 32 + i, h), c);
        q[i] = either(masked(left(fifth, 4), 0x10), masked(low, 15));
    }
}

#define TYPE q5_k
#include "kernels/avx2/rows_256.h"
