/* IQ4_NL: value = d * table[q], 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; then d (half a line)
 *
 * Unpacking takes about 3 instructions for a register of weights, the product 18 (AVX-VNNI: 11) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 27 GB/s of 42 with one
 * token, 201 Gop/s = 37 % of vpmaddubsw with 64; AVX-VNNI: 1.64 times this with 8, 1.74 with 64. */
#include "kernels/avx2/iq4.h"

enum { BLOCK_BYTES = 18 * PACK_ROWS, SUMMED = 1, OFFSET = 0, D_LINE = 4, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    iq4_weights(q, w, h);
}

#define TYPE iq4_nl
#include "kernels/avx2/rows_32.h"
