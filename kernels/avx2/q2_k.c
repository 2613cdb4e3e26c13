/* Q2_K: value = d * scale[j] * q - dmin * min[j], 2 bits, 16 sub-blocks of 16 with scales and mins of 4 bits.
 *
 *   lines 0..15  qs: 8 lines for a half of the block: values 0..31 in bits 0-1, 32..63 in 2-3,
 *                64..95 in 4-5, 96..127 in 6-7
 *   lines 16..19 scales in lower, mins in upper nibbles; line 20 d and dmin of 16 rows
 *
 * Unpacking takes about 4 instructions for a register of weights, the product 92 (AVX-VNNI: 92) on the
 * ports that multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 22 GB/s of 42 with one
 * token, 301 Gop/s = 55 % of vpmaddubsw with 64; AVX-VNNI: 1.10 times this with 8, 1.08 with 64. */
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 84 * PACK_ROWS, PER = 16, SUMMED = 4, HAS_MIN = true };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    EACH(u, 4)
    {
        __m256i v = load_line(w, 16 + u, h), scale = masked(v, 15), min = masked(right(v, 4), 15);
        EACH(i, 4) s->scale[4 * u + i] = lane_bytes(scale, i, ZERO, i, ZERO);
        EACH(i, 2) s->pair[2 * u + i] = lane_bytes(min, 2 * i, ZERO, 2 * i + 1, ZERO);
    }
    s->d = load_f16_rows(w + 20 * LINE, h);
    s->dm = negate(load_f16_rows(w + 20 * LINE + 2 * PACK_ROWS, h));
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    const uint8_t *qs = w + c / 4 * 8 * LINE;

    EACH(i, 8) q[i] = masked(right(load_line(qs, i, h), c % 4 * 2), 3);
}

#define TYPE q2_k
#include "kernels/avx2/rows_256.h"
