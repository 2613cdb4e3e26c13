/* Q5_0: value = d * (q - 16), 5 bits.
 *
 *   lines 0..3 qs as in Q4_0, line 4 fifth bits, then d (half a line) */
#include "kernels/avx512/nibbles.h"

enum { BLOCK_BYTES = 22 * PACK_ROWS, OFFSET = 16, D_LINE = 5, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w)
{
    nibbles(q, w);
    fifth_bits(q, w + 4 * LINE);
}

#define TYPE q5_0_avx512
#include "kernels/avx512/rows_32.h"
