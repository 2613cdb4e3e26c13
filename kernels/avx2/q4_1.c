/* Q4_1: value = d * q + m, 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; line 4 d and m of 16 rows
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 13 (AVX-VNNI: 12) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 37 GB/s of 42 with one
 * token, 252 Gop/s = 46 % of vpmaddubsw with 64; AVX-VNNI: 1.27 times this with 8, 1.24 with 64. */
#include "kernels/avx2/nibbles.h"

enum { BLOCK_BYTES = 20 * PACK_ROWS, SUMMED = 8, OFFSET = 0, D_LINE = 4, HAS_MIN = true };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    nibbles(q, w, h);
}

#define TYPE q4_1
#include "kernels/avx2/rows_32.h"
