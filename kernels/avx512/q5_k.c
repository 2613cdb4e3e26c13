/* Q5_K: value = d * scale[j] * q - dmin * min[j], 5 bits, 8 sub-blocks of 32.
 *
 *   lines 0..31  qs: 8 lines for 64 values, lower nibbles values 0..31, upper 32..63
 *   lines 32..39 qh: bit c of each byte is the fifth bit of values 32 c .. 32 c + 31
 *   lines 40..42 scales and mins, line 43 d and dmin of 16 rows
 *
 * Unpacking takes about 6 instructions for a register of weights, the product 80 on the ports that
 * multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 38 GB/s of 42 with one token,
 * 74 % of vpdpbusd with 64. */
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 176 * PACK_ROWS, PER = 32, HAS_MIN = true, OFFSET = 0 };

INLINE void block_scales(scales *s, const uint8_t *w)
{
    scales_and_mins(s, w + 40 * LINE);
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    const uint8_t *qs = w + c / 2 * 8 * LINE;

    (void)s;
    EACH(i, 8)
    {
        __m512i low = right(load_line(qs + i * LINE), c % 2 * 4), fifth = load_line(w + (32 + i) * LINE);
        q[i] = masked_or(shifted(fifth, 4 - c), 0x10, masked(low, 15));
    }
}

#define TYPE q5_k_avx512
#include "kernels/avx512/rows_256.h"
