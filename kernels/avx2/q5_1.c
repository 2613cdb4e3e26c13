/* Q5_1: value = d * q + m, 5 bits.
 *
 *   lines 0..3 qs as in Q4_0, line 4 fifth bits, line 5 d and m of 16 rows
 *
 * Unpacking takes about 7 instructions for a register of weights, the product 14 (AVX-VNNI: 12) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 25 GB/s of 42 with one
 * token, 269 Gop/s = 49 % of vpmaddubsw with 64; AVX-VNNI: 1.14 times this with 8, 1.15 with 64. */
#include "kernels/avx2/nibbles.h"

enum { BLOCK_BYTES = 24 * PACK_ROWS, SUMMED = 4, OFFSET = 0, D_LINE = 5, HAS_MIN = true };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    nibbles(q, w, h);
    fifth_bits(q, w, h);
}

#define TYPE q5_1
#include "kernels/avx2/rows_32.h"
