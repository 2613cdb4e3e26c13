/* Q5_0: value = d * (q - 16), 5 bits.
 *
 *   lines 0..3 qs as in Q4_0, line 4 fifth bits, then d (half a line)
 *
 * Unpacking takes about 7 instructions for a register of weights, the product 13 (AVX-VNNI: 11) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 23 GB/s of 42 with one
 * token, 273 Gop/s = 50 % of vpmaddubsw with 64; AVX-VNNI: 1.12 times this with 8, 1.14 with 64. */
#include "kernels/avx2/nibbles.h"

enum { BLOCK_BYTES = 22 * PACK_ROWS, SUMMED = 4, OFFSET = 16, D_LINE = 5, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    nibbles(q, w, h);
    fifth_bits(q, w, h);
}

#define TYPE q5_0
#include "kernels/avx2/rows_32.h"
