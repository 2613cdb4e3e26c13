/* The product of a type with blocks of 32 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE
 *   BLOCK_BYTES   of 16 rows
 *   OFFSET        what its weights stand above their value
 *   D_LINE        line of d (16 f16), which ends the block
 *   HAS_MIN       m of the 16 rows follows d: value = d * q + m
 *   block_weights(__m512i q[8], const uint8_t *w)
 *
 * Per block, group and token, on the two ports that multiply: 8 vpdpbusd, 1 vpdpwssd for
 * the offset, 2 float operations (4 with mins), for the 8 that would be the limit; 6 loads (2 a cycle), 1
 * store. */
#include "kernels/avx512/planes.h"

INLINE void add_block(const rows_args *a, const uint8_t *x, __m512i q[][8], const __m512 *d, const __m512 *m,
                      const int R)
{
    __m512i less = _mm512_set1_epi32(-OFFSET & 0xffff); /* pair: (-OFFSET, 0) */
    size_t x_stride = a->x_stride;
    float *acc = a->acc;

    for (size_t t = a->n_tokens; t--; x += x_stride) {
        __m512i xsum =
            broadcast(x + offsetof(act_q8_32, sum)); /* its lower half is the sum: |sum| <= 32 * 127 */
        __m512 xd = broadcast_f32(x + offsetof(act_q8_32, d));
        __m512i lo[GROUPS], hi[GROUPS];

        EACH(r, R) lo[r] = hi[r] = _mm512_setzero_si512();
        if (OFFSET) EACH(r, R) lo[r] = _mm512_dpwssd_epi32(lo[r], less, xsum);
        dot32(lo, hi, q, x, R);
        UNROLL for (int r = 0; r < R; r++, acc += PACK_ROWS)
        {
            __m512 v = _mm512_load_ps(acc);
            v = _mm512_fmadd_ps(_mm512_mul_ps(d[r], xd), _mm512_cvtepi32_ps(add(lo[r], hi[r])), v);
            if (HAS_MIN) v = _mm512_fmadd_ps(_mm512_mul_ps(m[r], xd), _mm512_cvtepi32_ps(xsum), v);
            _mm512_store_ps(acc, v);
        }
    }
}

INLINE void multiply_rows(const rows_args *a, const int R)
{
    const uint8_t *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, x += sizeof(act_q8_32)) {
        __m512i q[GROUPS][8];
        __m512 d[GROUPS], m[GROUPS];

        prefetch(a, place_ahead(a, b * BLOCK_BYTES, R), BLOCK_BYTES / LINE + 1, R);
        EACH(r, R)
        {
            const uint8_t *w = a->w + (size_t)r * a->group_bytes + b * BLOCK_BYTES;
            block_weights(q[r], w);
            keep(q[r], 8);
            d[r] = load_f16_rows(w + D_LINE * LINE);
            m[r] = HAS_MIN ? load_f16_rows(w + D_LINE * LINE + 2 * PACK_ROWS) : _mm512_setzero_ps();
        }
        add_block(a, x, q, d, m, R);
    }
}

static void one_group(const rows_args *a)
{
    multiply_rows(a, 1);
}
static void two_groups(const rows_args *a)
{
    multiply_rows(a, 2);
}

const rows_fn GLUE(rows_, TYPE)[GROUPS] = {one_group, two_groups};

/* kernels/avx512/planes.h */
static void make_planes(planes_32 *p, const uint8_t *w, size_t ahead)
{
    __m512i q[8];

    prefetch_lines(w + ahead, BLOCK_BYTES / LINE + 1);
    block_weights(q, w);
    EACH(i, 8) _mm512_store_si512(p->q[i], _mm512_sub_epi8(q[i], bytes(OFFSET)));
    _mm512_store_ps(p->d, load_f16_rows(w + D_LINE * LINE));
    _mm512_store_ps(p->m, HAS_MIN ? load_f16_rows(w + D_LINE * LINE + 2 * PACK_ROWS) : _mm512_setzero_ps());
}

const planes_32_type GLUE(planes_, TYPE) = {BLOCK_BYTES, HAS_MIN, make_planes};
