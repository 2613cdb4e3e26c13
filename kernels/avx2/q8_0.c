/* Q8_0: value = d * q, int8.
 *
 *   lines 0..7 qs, then d (half a line) */
#include "kernels/avx2/rows.h"

enum { BLOCK_BYTES = 34 * PACK_ROWS, SUMMED = 1, OFFSET = 0, D_LINE = 8, HAS_MIN = false };

INLINE void block_weights(__m256i q[8], const uint8_t *w, int h)
{
    UNROLL for (int i = 0; i < 8; i++) q[i] = load_line(w, i, h);
}

#define TYPE q8_0_avx2
#include "kernels/avx2/rows_32.h"
