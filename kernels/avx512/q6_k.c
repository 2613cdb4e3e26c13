/* Q6_K: value = d * scale[j] * (q - 32), 6 bits, 16 sub-blocks of 16 with int8 scales.
 *
 *   lines 0..31   ql: 16 lines for a half of the block, lower nibbles values 0..63, upper 64..127
 *   lines 32..47  qh: 8 lines for a half: upper two bits of values 0..31 in bits 0-1, 32..63 in 2-3,
 *                 64..95 in 4-5, 96..127 in 6-7
 *   lines 48..51  scales; then d (half a line: every second block begins in the middle of a line)
 *
 * Unpacking takes about 6 instructions for a register of weights, the product 90 on the ports that
 * multiply, of which 64 would be the limit. Measured (Zen 5, one thread): 37 GB/s of 42 with one token,
 * 690 Gop/s = 63 % of vpdpbusd with 64. */
#include "kernels/avx512/scales.h"

enum { BLOCK_BYTES = 210 * PACK_ROWS, PER = 16, HAS_MIN = false, OFFSET = 32 };

INLINE void block_scales(scales *s, const uint8_t *w)
{
    __m512i words[4];

    EACH(u, 4) words[u] = load_line(w + (48 + u) * LINE);
    signed_scales(s, words, 5);
    s->d = load_f16_rows(w + 52 * LINE);
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    const uint8_t *ql = w + (c / 4 * 16 + c % 2 * 8) * LINE, *qh = w + (32 + c / 4 * 8) * LINE;

    (void)s;
    EACH(i, 8)
    {
        __m512i low = right(load_line(ql + i * LINE), c % 4 / 2 * 4), high = load_line(qh + i * LINE);
        q[i] = masked_or(shifted(high, 4 - c % 4 * 2), 0x30, masked(low, 15));
    }
}

#define TYPE q6_k_avx512
#include "kernels/avx512/rows_256.h"
