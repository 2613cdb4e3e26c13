/* Q8_0: value = d * q, int8.
 *
 *   lines 0..7 qs, then d (half a line)
 *
 * Unpacking takes about 2 instructions for a register of weights, the product 18 (AVX-VNNI: 11) on the
 * ports that multiply, of which 8 would be the limit. Measured (Zen 5, one thread): 40 GB/s of 42 with one
 * token, 202 Gop/s = 37 % of vpmaddubsw with 64; AVX-VNNI: 1.63 times this with 8, 1.74 with 64. */
#include "kernels/avx2/rows.h"

enum { BLOCK_BYTES = 34 * PACK_ROWS, SUMMED = 1, OFFSET = 0, D_LINE = 8, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    EACH(i, 8) q[i] = load_line(w, i, h);
}

#define TYPE q8_0
#include "kernels/avx2/rows_32.h"
