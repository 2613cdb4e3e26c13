/* Q4_0: value = d * (q - 8), 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; then d (half a line)
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 12 (AVX-VNNI: 11) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 40 GB/s of 42 with one
 * token, 291 Gop/s = 53 % of vpmaddubsw with 64; AVX-VNNI: 1.18 times this with 8, 1.18 with 64. */
#include "kernels/avx2/nibbles.h"

enum { BLOCK_BYTES = 18 * PACK_ROWS, SUMMED = 8, OFFSET = 8, D_LINE = 4, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    nibbles(q, w, h);
}

#define TYPE q4_0
#include "kernels/avx2/rows_32.h"
