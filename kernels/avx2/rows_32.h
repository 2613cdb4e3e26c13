/* The product of a type with blocks of 32 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE
 *   BLOCK_BYTES   of 16 rows
 *   SUMMED        see rows.h
 *   OFFSET        what its weights stand above their value
 *   D_LINE        line of d (16 f16), which ends the block
 *   HAS_MIN       m of the 16 rows follows d: value = d * q + m
 *   block_weights(__m256i q[8], const uint8_t *w, int h)
 *
 * Per block, half and token, on the ports that multiply: 8 vpmaddubsw, 8 / SUMMED vpmaddwd, 1 for the offset,
 * 2 float operations (4 with mins), for the 8 that would be the limit. */
#include "kernels/avx2/rows.h"

INLINE void add_block(const rows_args *a, const uint8_t *x, const __m256i q[8], __m256 d, __m256 m, int h)
{
    const __m256i less = _mm256_set1_epi32(-OFFSET & 0xffff); /* pair: (-OFFSET, 0) */
    const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    size_t x_stride = a->x_stride;
    float *acc = a->acc + h * HALF_ROWS;
    __m256i size[8];

    if (SUMMED == 1) magnitudes(size, q);
    for (size_t t = a->n_tokens; t--; x += x_stride, acc += PACK_ROWS) {
        __m256i xsum =
            broadcast(x + offsetof(act_q8_32, sum)); /* its lower half is the sum: |sum| <= 32 * 127 */
        __m256 xd = broadcast_f32(x + offsetof(act_q8_32, d)), v = _mm256_loadu_ps(acc);
        __m256i sum = dot32(q, size, x, ones, SUMMED);

        if (OFFSET) sum = add(sum, _mm256_madd_epi16(less, xsum));
        v = _mm256_fmadd_ps(_mm256_mul_ps(d, xd), _mm256_cvtepi32_ps(sum), v);
        if (HAS_MIN) v = _mm256_fmadd_ps(_mm256_mul_ps(m, xd), _mm256_cvtepi32_ps(xsum), v);
        _mm256_storeu_ps(acc, v);
    }
}

void GLUE(rows_, TYPE)(const rows_args *a)
{
    const uint8_t *w = a->w, *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_32)) {
        prefetch(w + AHEAD, BLOCK_BYTES / LINE + 1);
        for (int h = 0; h < HALVES; h++) {
            const uint8_t *d = w + D_LINE * LINE;
            __m256i q[8];
            block_weights(q, w, h);
            if (SUMMED > 1) keep(q, 8);
            add_block(a, x, q, load_f16_rows(d, h),
                      HAS_MIN ? load_f16_rows(d + 2 * PACK_ROWS, h) : _mm256_setzero_ps(), h);
        }
    }
}
