/* The product of a type with blocks of 256 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE
 *   BLOCK_BYTES   of 16 rows
 *   PER           16 or 32: values with one scale
 *   SUMMED        see rows.h
 *   HAS_MIN       pairs are mins with a factor dm; else they are -offset * scale and go into the same sum
 *                 (no offset and no pairs with SUMMED 1)
 *   block_scales(scales *s, const uint8_t *w, int h)
 *   block_weights(__m256i q[8], const uint8_t *w, int c, int h): values 32 c .. 32 c + 31
 *
 * Per block, half and token, on the ports that multiply: 64 vpmaddubsw, 64 / SUMMED vpmaddwd, 8 vpmaddwd for
 * pairs, 2 or 4 float operations, for the 64 that would be the limit. Measured shares: kernels/NOTES.md. */
#include "kernels/avx2/scales.h"

/* All tokens: sum[t] += 32 values. */
INLINE void add_part(const rows_args *a, const uint8_t *x, const __m256i q[8], const scales *s, int c, int h)
{
    __m256i scale[2] = {s->scale[PER == 16 ? 2 * c : c], s->scale[PER == 16 ? 2 * c + 1 : c]}, size[8];
    int32_t *sum = a->sum + h * HALF_ROWS;
    size_t x_stride = a->x_stride;

    if (SUMMED == 1) magnitudes(size, q);
    for (size_t t = a->n_tokens; t--; x += x_stride, sum += PACK_ROWS) {
        __m256i part = dot32(q, size, x, scale, SUMMED);
        if (c) part = add(part, load_256(sum));
        _mm256_storeu_si256((__m256i *)sum, part);
    }
}

/* All tokens: acc[t] += the block, from sum[t] and the sums of the activations. */
INLINE void end_block(const rows_args *a, const uint8_t *x, const scales *s, int h)
{
    const int32_t *sum = a->sum + h * HALF_ROWS;
    float *acc = a->acc + h * HALF_ROWS;
    size_t x_stride = a->x_stride;
    __m256i pair[8];

    EACH(j, 8) pair[j] = s->pair[j];
    if (SUMMED > 1) keep(pair, 8);
    for (size_t t = a->n_tokens; t--; x += x_stride, sum += PACK_ROWS, acc += PACK_ROWS) {
        const uint8_t *xsum = x + offsetof(act_q8_256, sum16);
        __m256 xd = broadcast_f32(x + offsetof(act_q8_256, d)), v = _mm256_loadu_ps(acc);
        __m256i whole = load_256(sum), pairs = _mm256_setzero_si256();

        if (SUMMED > 1) {
            EACH(j, 8) pairs = add(pairs, _mm256_madd_epi16(pair[j], broadcast(xsum + 4 * j)));
        }
        if (!HAS_MIN) whole = add(whole, pairs);
        v = _mm256_fmadd_ps(_mm256_mul_ps(s->d, xd), _mm256_cvtepi32_ps(whole), v);
        if (HAS_MIN) v = _mm256_fmadd_ps(_mm256_mul_ps(s->dm, xd), _mm256_cvtepi32_ps(pairs), v);
        _mm256_storeu_ps(acc, v);
    }
}

void GLUE(rows_, TYPE)(const rows_args *a)
{
    enum { PARTS = 8, PART_BYTES = BLOCK_BYTES / PARTS };
    const uint8_t *w = a->w, *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_256)) {
        scales s[HALVES];

        for (int h = 0; h < HALVES; h++) block_scales(&s[h], w, h);
        for (int c = 0; c < PARTS; c++) {
            prefetch(w + AHEAD + c * PART_BYTES, PART_BYTES / LINE + 1);
            EACH(h, HALVES)
            {
                __m256i q[8];
                block_weights(q, w, c, h);
                if (SUMMED > 1) keep(q, 8);
                add_part(a, x + 32 * c, q, &s[h], c, h);
            }
        }
        for (int h = 0; h < HALVES; h++) end_block(a, x, &s[h], h);
    }
}
