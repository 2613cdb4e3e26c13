/* The product of a type with blocks of 256 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE_avx2
 *   BLOCK_BYTES   of 16 rows
 *   PER           16 or 32: values with one scale
 *   SUMMED        see rows.h; 1: weights with sign
 *   HAS_MIN       pairs are mins with a factor dm; else they are -offset * scale and go into the same sum
 *                 (with SUMMED 1 block_scales makes none)
 *   block_scales(scales *s, const uint8_t *w, int h)
 *   block_weights(__m256i q[8], const uint8_t *w, int c, int h): values 32 c .. 32 c + 31
 *
 * Per block, half and token, on the ports that multiply, for the 64 that would be the limit:
 *   plain  64 vpmaddubsw, 64 / SUMMED vpmaddwd, 4 or 8 vpmaddwd for pairs, 2 or 4 float operations
 *   VNNI   64 vpdpbusd, 8 or 16 vpmulld, 4 or 8 vpdpwssd, 2 or 4 float operations
 * Measured shares: kernels/NOTES.md. */
#include "kernels/avx2/scales.h"

enum {
    PARTS = 8,                 /* of a block, 32 values each */
    PAIRS = PER == 32 ? 4 : 8, /* of scales */
    SUMS = PER == 32 ? offsetof(act_q8_256, sum32) : offsetof(act_q8_256, sum16)
};

/* 32 values, each 16 of them times their scale. */
INLINE __m256i dot32_vnni(const __m256i q[8], const uint8_t *x, const __m256i scale[2])
{
    __m256i a = dot16_vnni(_mm256_setzero_si256(), q, x);
    __m256i b = dot16_vnni(_mm256_setzero_si256(), q + 4, x + 16);

    if (PER == 32) return _mm256_mullo_epi32(add(a, b), scale[0]);
    return add(_mm256_mullo_epi32(a, scale[0]), _mm256_mullo_epi32(b, scale[1]));
}

/* All tokens: sum[t] += 32 values. */
INLINE void add_part(const rows_args *a, const uint8_t *x, const __m256i q[8], const scales *s, int c, int h,
                     const int way)
{
    __m256i scale[2] = {s->scale[PER == 16 ? 2 * c : c], s->scale[PER == 16 ? 2 * c + 1 : c]}, size[8];
    int32_t *sum = a->sum + h * HALF_ROWS;
    size_t x_stride = a->x_stride;

    if (way == VNNI) EACH(i, 2) scale[i] = _mm256_srai_epi32(scale[i], 16);
    if (way == PLAIN && SUMMED == 1) magnitudes(size, q);
    for (size_t t = a->n_tokens; t--; x += x_stride, sum += PACK_ROWS) {
        __m256i part = way == VNNI ? dot32_vnni(q, x, scale) : dot32(q, size, x, scale, SUMMED);
        if (c) part = add(part, load_256(sum));
        _mm256_storeu_si256((__m256i *)sum, part);
    }
}

/* All tokens: acc[t] += the block, from sum[t] and the sums of the activations. */
INLINE void end_block(const rows_args *a, const uint8_t *x, const scales *s, int h, const int way)
{
    const int32_t *sum = a->sum + h * HALF_ROWS;
    float *acc = a->acc + h * HALF_ROWS;
    size_t x_stride = a->x_stride;
    const bool has_pairs = way == VNNI || SUMMED > 1;
    __m256i pair[PAIRS];

    EACH(j, PAIRS) pair[j] = s->pair[j];
    if (has_pairs) keep(pair, PAIRS);
    for (size_t t = a->n_tokens; t--; x += x_stride, sum += PACK_ROWS, acc += PACK_ROWS) {
        const uint8_t *xsum = x + SUMS;
        __m256 xd = broadcast_f32(x + offsetof(act_q8_256, d)), v = _mm256_loadu_ps(acc);
        __m256i whole = load_256(sum), pairs = _mm256_setzero_si256();

        UNROLL for (int j = 0; has_pairs && j < PAIRS; j++)
        {
            __m256i xs = broadcast(xsum + 4 * j);
            pairs = way == VNNI ? dpwssd(pairs, pair[j], xs) : add(pairs, _mm256_madd_epi16(pair[j], xs));
        }
        if (!HAS_MIN) whole = add(whole, pairs);
        v = _mm256_fmadd_ps(_mm256_mul_ps(s->d, xd), _mm256_cvtepi32_ps(whole), v);
        if (HAS_MIN) v = _mm256_fmadd_ps(_mm256_mul_ps(s->dm, xd), _mm256_cvtepi32_ps(pairs), v);
        _mm256_storeu_ps(acc, v);
    }
}

/* Pairs of -128 * scale, for weights with sign. */
INLINE void sign_pairs(scales *s)
{
    EACH(j, PAIRS)
    {
        __m256i pair = _mm256_blend_epi16(s->scale[2 * j], s->scale[2 * j + 1], 0xaa);
        s->pair[j] = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(pair, 7));
    }
}

INLINE void multiply_rows(const rows_args *a, const int way)
{
    enum { PART_BYTES = BLOCK_BYTES / PARTS };
    const uint8_t *w = a->w, *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_256)) {
        scales s[HALVES];

        for (int h = 0; h < HALVES; h++) {
            block_scales(&s[h], w, h);
            if (way == VNNI && SUMMED == 1) sign_pairs(&s[h]);
        }
        for (int c = 0; c < PARTS; c++) {
            prefetch(w + a->ahead + c * PART_BYTES, PART_BYTES / LINE + 1);
            EACH(h, HALVES)
            {
                __m256i q[8];
                block_weights(q, w, c, h);
                if (way == VNNI && SUMMED == 1) without_sign(q);
                if (way == VNNI || SUMMED > 1) keep(q, 8);
                add_part(a, x + 32 * c, q, &s[h], c, h, way);
            }
        }
        for (int h = 0; h < HALVES; h++) end_block(a, x, &s[h], h, way);
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
