/* IQ4_NL: value = d * table[q], 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; then d (half a line)
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 11 on the ports that
 * multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 40 GB/s of 42 with one token, 772
 * Gop/s = 71 % of vpdpbusd with 64. */
#include "kernels/avx512/iq4.h"

enum { BLOCK_BYTES = 18 * PACK_ROWS, OFFSET = 128, D_LINE = 4, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w)
{
    iq4_weights(q, w);
}

#define TYPE iq4_nl_avx512
#include "kernels/avx512/rows_32.h"
