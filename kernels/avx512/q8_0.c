/* Q8_0: value = d * q, int8. The offset of 128 flips the sign bit.
 *
 *   lines 0..7 qs, then d (half a line: every second block begins in the middle of a line) */
#include "kernels/avx512/rows.h"

enum { BLOCK_BYTES = 34 * PACK_ROWS, OFFSET = 128, D_LINE = 8, HAS_MIN = false };

INLINE void block_weights(__m512i q[8], const uint8_t *w)
{
    UNROLL for (int i = 0; i < 8; i++) q[i] = _mm512_xor_si512(load_line(w + i * LINE), bytes(128));
}

#define TYPE q8_0_avx512
#include "kernels/avx512/rows_32.h"
