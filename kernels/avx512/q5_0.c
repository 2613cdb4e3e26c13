/* Q5_0: value = d * (q - 16), 5 bits.
 *
 *   lines 0..3 qs as in Q4_0, line 4 fifth bits, then d (half a line)
 *
 * Unpacking takes about 7 instructions for a register of weights, the product 11 on the ports that
 * multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 41 GB/s of 42 with one token, 741
 * Gop/s = 68 % of vpdpbusd with 64. */
#include "kernels/avx512/nibbles.h"

enum { BLOCK_BYTES = 22 * PACK_ROWS, OFFSET = 16, D_LINE = 5, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w)
{
    nibbles(q, w);
    fifth_bits(q, w + 4 * LINE);
}

#define TYPE q5_0_avx512
#include "kernels/avx512/rows_32.h"
