/* Q6_K: value = d * scale[j] * (q - 32), 6 bits, 16 sub-blocks of 16 with int8 scales.
 *
 *   lines 0..31   ql: 16 lines for a half of the block, lower nibbles values 0..63, upper 64..127
 *   lines 32..47  qh: 8 lines for a half: upper two bits of values 0..31 in bits 0-1, 32..63 in 2-3,
 *                 64..95 in 4-5, 96..127 in 6-7
 *   lines 48..51  scales; then d (half a line: every second block begins in the middle of a line)
 *
 * Unpacking takes about 6 instructions for a register of weights, the product 106 (AVX-VNNI: 90) on the
 * ports that multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 34 GB/s of 42 with one
 * token, 279 Gop/s = 51 % of vpmaddubsw with 64; AVX-VNNI: 1.09 times this with 8, 1.16 with 64. */
#include "kernels/avx2/scales.h"

enum { BLOCK_BYTES = 210 * PACK_ROWS, PER = 16, SUMMED = 2, HAS_MIN = false };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    __m256i words[4];

    EACH(u, 4) words[u] = load_line(w, 48 + u, h);
    signed_scales(s, words, 5);
    s->d = load_f16_rows(w + 52 * LINE, h);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    const uint8_t *ql = w + (c / 4 * 16 + c % 2 * 8) * LINE, *qh = w + (32 + c / 4 * 8) * LINE;

    EACH(i, 8)
    {
        __m256i low = right(load_line(ql, i, h), c % 4 / 2 * 4), high = right(load_line(qh, i, h), c % 4 * 2);
        q[i] = either(masked(left(high, 4), 0x30), masked(low, 15));
    }
}

#define TYPE q6_k
#include "kernels/avx2/rows_256.h"
