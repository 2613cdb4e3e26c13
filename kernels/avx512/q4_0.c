/* Q4_0: value = d * (q - 8), 4 bits.
 *
 *   lines 0..3 qs: lower nibbles values 0..15, upper 16..31; then d (half a line) */
#include "kernels/avx512/nibbles.h"

enum { BLOCK_BYTES = 18 * PACK_ROWS, OFFSET = 8, D_LINE = 4, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w) { nibbles(q, w); }

#define TYPE q4_0_avx512
#include "kernels/avx512/rows_32.h"
