/* Q2_K: value = d * scale[j] * q - dmin * min[j], 2 bits, 16 sub-blocks of 16 with scales and mins of 4 bits.
 *
 *   lines 0..15  qs: 8 lines for a half of the block: bits 0-1 values 0..31, 2-3 32..63, 4-5 64..95, 6-7 96..127
 *   lines 16..19 scales in lower, mins in upper nibbles; line 20 d and dmin of 16 rows
 *
 * A weight times its scale is at most 3 * 15 and stays a byte, so it is multiplied once for all tokens: 16-bit products of
 * two bytes with one scale carry nothing from the lower to the upper byte. */
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 84 * PACK_ROWS, PER = 0, HAS_MIN = true };

/* Here scale[j] stands twice in each lane, as int16. */
INLINE void block_scales(scales *s, const uint8_t *w)
{
    UNROLL for (int u = 0; u < 4; u++) {
        __m512i v = load_line(w + (16 + u) * LINE), scale = masked(v, 15), min = masked(right(v, 4), 15);
        UNROLL for (int i = 0; i < 4; i++) s->scale[4 * u + i] = lane_bytes(scale, i, ZERO, i, ZERO);
        UNROLL for (int i = 0; i < 2; i++) s->pair[2 * u + i] = lane_bytes(min, 2 * i, ZERO, 2 * i + 1, ZERO);
    }
    s->d = load_f16_rows(w + 20 * LINE);
    s->dm = negate(load_f16_rows(w + 20 * LINE + 2 * PACK_ROWS));
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    const uint8_t *qs = w + c / 4 * 8 * LINE;

    UNROLL for (int i = 0; i < 8; i++) {
        __m512i v = masked(right(load_line(qs + i * LINE), c % 4 * 2), 3);
        q[i] = _mm512_mullo_epi16(v, s->scale[2 * c + i / 4]);
    }
}

#define TYPE q2_k_avx512
#include "kernels/avx512/rows_256.h"
