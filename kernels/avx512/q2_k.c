/* Q2_K: value = d * scale[j] * q - dmin * min[j], 2 bits, 16 sub-blocks of 16 with scales and mins of 4 bits.
 *
 *   lines 0..15  qs: 8 lines for a half of the block: values 0..31 in bits 0-1, 32..63 in 2-3,
 *                64..95 in 4-5, 96..127 in 6-7
 *   lines 16..19 scales in lower, mins in upper nibbles; line 20 d and dmin of 16 rows
 *
 * A weight times its scale is at most 3 * 15 and stays a byte, so it is multiplied once for all tokens:
 * 16-bit products of two bytes with one scale carry nothing from the lower to the upper byte.
 *
 * Unpacking takes about 4 instructions for a register of weights, the product 76 on the ports that
 * multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 37 GB/s of 42 with one token,
 * 847 Gop/s = 78 % of vpdpbusd with 64. */
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 84 * PACK_ROWS, PER = 0, HAS_MIN = true, OFFSET = 0 };

/* Here scale[j] stands twice in each lane, as int16. */
INLINE void block_scales(scales *s, const uint8_t *w)
{
    EACH(u, 4)
    {
        __m512i v = load_line(w + (16 + u) * LINE), scale = masked(v, 15), min = masked(right(v, 4), 15);
        EACH(i, 4) s->scale[4 * u + i] = lane_bytes(scale, i, ZERO, i, ZERO);
        EACH(i, 2) s->pair[2 * u + i] = lane_bytes(min, 2 * i, ZERO, 2 * i + 1, ZERO);
    }
    s->d = load_f16_rows(w + 20 * LINE);
    s->dm = negate(load_f16_rows(w + 20 * LINE + 2 * PACK_ROWS));
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    const uint8_t *qs = w + c / 4 * 8 * LINE;

    EACH(i, 8)
    {
        __m512i v = masked(right(load_line(qs + i * LINE), c % 4 * 2), 3);
        q[i] = _mm512_mullo_epi16(v, s->scale[2 * c + i / 4]);
    }
}

#define TYPE q2_k_avx512
#include "kernels/avx512/rows_256.h"
