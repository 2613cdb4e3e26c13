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
 * Unpacking takes about 6 instructions for a register of weights, the product 90 on the ports that
 * multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 32 GB/s of 42 with one token,
 * 695 Gop/s = 64 % of vpdpbusd with 64. */
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 110 * PACK_ROWS, PER = 16, HAS_MIN = false, OFFSET = 4 };

INLINE void block_scales(scales *s, const uint8_t *w)
{
    __m512i w2 = load_line(w + 26 * LINE), words[4];

    EACH(u, 4)
    {
        __m512i low = masked(right(load_line(w + (24 + u % 2) * LINE), u / 2 * 4), 15);
        words[u] = _mm512_sub_epi8(masked_or(left(right(w2, 2 * u), 4), 0x30, low), bytes(32));
    }
    signed_scales(s, words, 2);
    s->d = load_f16_rows(w + 27 * LINE);
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    const uint8_t *qs = w + c / 4 * 8 * LINE;

    (void)s;
    EACH(i, 8)
    {
        __m512i low = right(load_line(qs + i * LINE), c % 4 * 2), third = load_line(w + (16 + i) * LINE);
        q[i] = masked_or(shifted(third, 2 - c), 4, masked(low, 3));
    }
}

#define TYPE q3_k_avx512
#include "kernels/avx512/rows_256.h"
