/* Q4_0: value = d * (q - 8), 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; then d (half a line) */
#include "kernels/avx2/nibbles.h"

enum { BLOCK_BYTES = 18 * PACK_ROWS, SUMMED = 8, OFFSET = 8, D_LINE = 4, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h) { nibbles(q, w, h); }

#define TYPE q4_0_avx2
#include "kernels/avx2/rows_32.h"
