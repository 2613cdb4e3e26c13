/* Q8_0: value = d * q, int8. The offset of 128 flips the sign bit.
 *
 *   lines 0..7 qs, then d (half a line: every second block begins in the middle of a line)
 *
 * Unpacking takes about 2 instructions for a register of weights, the product 11 on the ports that
 * multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 40 GB/s of 42 with one token, 762
 * Gop/s = 70 % of vpdpbusd with 64. */
#include "kernels/avx512/rows.h"

enum { BLOCK_BYTES = 34 * PACK_ROWS, OFFSET = 128, D_LINE = 8, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w)
{
    EACH(i, 8) q[i] = _mm512_xor_si512(load_line(w + i * LINE), bytes(128));
}

#define TYPE q8_0_avx512
#include "kernels/avx512/rows_32.h"
