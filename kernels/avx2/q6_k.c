/* Q6_K: value = d * scale[j] * (q - 32), 6 bits, 16 sub-blocks of 16 with int8 scales.
 *
 *   lines 0..31   ql: 16 lines for a half of the block, lower nibbles values 0..63, upper 64..127
 *   lines 32..47  qh: 8 lines for a half: bits 0-1 are the upper bits of values 0..31, 2-3 of 32..63, 4-5, 6-7
 *   lines 48..51  scales; then d (half a line) */
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 210 * PACK_ROWS, PER = 16, SUMMED = 2, HAS_MIN = false };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    __m256i words[4];

    UNROLL for (int u = 0; u < 4; u++) words[u] = load_line(w, 48 + u, h);
    signed_scales(s, words, 5);
    s->d = load_f16_rows(w + 52 * LINE, h);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    const uint8_t *ql = w + (c / 4 * 16 + c % 2 * 8) * LINE, *qh = w + (32 + c / 4 * 8) * LINE;

    UNROLL for (int i = 0; i < 8; i++) {
        __m256i low = right(load_line(ql, i, h), c % 4 / 2 * 4), high = right(load_line(qh, i, h), c % 4 * 2);
        q[i] = either(masked(left(high, 4), 0x30), masked(low, 15));
    }
}

#define TYPE q6_k_avx2
#include "kernels/avx2/rows_256.h"
