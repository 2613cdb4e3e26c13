/* The product of a type with blocks of 32 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE_avx2
 *   BLOCK_BYTES   of 16 rows
 *   SUMMED        see rows.h; 1: weights with sign
 *   OFFSET        what its weights stand above their value
 *   D_LINE        line of d (16 f16), which ends the block
 *   HAS_MIN       m of the 16 rows follows d: value = d * q + m
 *   block_weights(__m256i q[8], const uint8_t *w, int h)
 *
 * Per block, half and token, on the ports that multiply, 1 for the offset, 2 float operations (4 with mins)
 * and, for the 8 that would be the limit:
 *   plain  8 vpmaddubsw, 8 / SUMMED vpmaddwd
 *   VNNI   8 vpdpbusd */
#include "kernels/avx2/rows.h"

INLINE void add_block(const rows_args *a, const uint8_t *x, const __m256i q[8], __m256 d, __m256 m, int h,
                      const int way)
{
    const int offset = way == VNNI && SUMMED == 1 ? SIGN_OFFSET : OFFSET;
    const __m256i less = _mm256_set1_epi32(-offset & 0xffff); /* pair: (-offset, 0) */
    const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    size_t x_stride = a->x_stride;
    float *acc = a->acc + h * HALF_ROWS;
    __m256i size[8];

    if (way == PLAIN && SUMMED == 1) magnitudes(size, q);
    for (size_t t = a->n_tokens; t--; x += x_stride, acc += PACK_ROWS) {
        __m256i xsum =
            broadcast(x + offsetof(act_q8_32, sum)); /* its lower half is the sum: |sum| <= 32 * 127 */
        __m256 xd = broadcast_f32(x + offsetof(act_q8_32, d)), v = _mm256_loadu_ps(acc);
        __m256i sum;

        if (way == VNNI) {
            sum = dot16_vnni(_mm256_setzero_si256(), q, x);
            sum = add(sum, dot16_vnni(_mm256_setzero_si256(), q + 4, x + 16));
            if (offset) sum = dpwssd(sum, less, xsum);
        } else {
            sum = dot32(q, size, x, ones, SUMMED);
            if (offset) sum = add(sum, _mm256_madd_epi16(less, xsum));
        }
        v = _mm256_fmadd_ps(_mm256_mul_ps(d, xd), _mm256_cvtepi32_ps(sum), v);
        if (HAS_MIN) v = _mm256_fmadd_ps(_mm256_mul_ps(m, xd), _mm256_cvtepi32_ps(xsum), v);
        _mm256_storeu_ps(acc, v);
    }
}

INLINE void multiply_rows(const rows_args *a, const int way)
{
    enum { LINES = BLOCK_BYTES / LINE + 1 }; /* asked for by halves: all at once they queue */
    const uint8_t *w = a->w, *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_32)) {
        for (int h = 0; h < HALVES; h++) {
            const uint8_t *d = w + D_LINE * LINE;
            __m256i q[8];

            prefetch(w + a->ahead + h * (LINES / 2 * LINE), (LINES + 1) / 2);
            block_weights(q, w, h);
            if (way == VNNI && SUMMED == 1) without_sign(q);
            if (way == VNNI || SUMMED > 1) keep(q, 8);
            add_block(a, x, q, load_f16_rows(d, h),
                      HAS_MIN ? load_f16_rows(d + 2 * PACK_ROWS, h) : _mm256_setzero_ps(), h, way);
        }
    }
}

static void plain(const rows_args *a)
{
    multiply_rows(a, PLAIN);
}
static void vnni(const rows_args *a)
{
    multiply_rows(a, VNNI);
}

const rows_fn GLUE(GLUE(rows_, TYPE), _avx2)[WAYS] = {plain, vnni};
