/* The product of a type with blocks of 256 values. A template: the including file defines
 *
 *   TYPE          part of the name made here: rows_TYPE
 *   BLOCK_BYTES   of 16 rows
 *   PER           16 or 32: values with one scale; 0: its weights come multiplied by their scale
 *   HAS_MIN       pairs are mins with a factor dm; else they are -offset * scale and go into the same sum
 *   OFFSET        what its weights stand above their value (0 with mins)
 *   block_scales(scales *s, const uint8_t *w)
 *   block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s): values 32 c .. 32 c + 31
 *
 * Per block, group and token, on the two ports that multiply: 64 vpdpbusd, 8 or 16 vpmulld, 4 vpdpwssd for
 * scales of 32 values and 8 for scales of 16, 2 or 4 float operations, that is 78 to 90 for the 64 that would
 * be the limit; 44 or 46 loads (2 a cycle), 10 stores.
 * Unpacking, shared by all tokens, runs on the other ports. Measured shares: kernels/NOTES.md. */
#include "kernels/avx512/planes.h"
#include "kernels/avx512/scales.h"

enum {
    PARTS = 8,                 /* of a block, 32 values each */
    PAIRS = PER == 32 ? 4 : 8, /* of scales */
    SUMS = PER == 32 ? offsetof(act_q8_256, sum32) : offsetof(act_q8_256, sum16)
};

/* All tokens: sum[t] += 32 values. */
INLINE void add_part(const rows_args *a, const uint8_t *x, __m512i q[][8], const scales *s, int c,
                     const int R)
{
    __m512i scale[GROUPS][2];
    size_t x_stride = a->x_stride;
    int32_t *sum = a->sum;

    EACH(r, R)
    {
        EACH(i, 2) scale[r][i] = s[r].scale[PER == 16 ? 2 * c + i : c];
    }
    for (size_t t = a->n_tokens; t--; x += x_stride) {
        __m512i lo[GROUPS], hi[GROUPS];

        EACH(r, R) lo[r] = hi[r] = _mm512_setzero_si512();
        dot32(lo, hi, q, x, R);
        UNROLL for (int r = 0; r < R; r++, sum += PACK_ROWS)
        {
            if (PER == 16) {
                lo[r] = _mm512_mullo_epi32(lo[r], scale[r][0]);
                hi[r] = _mm512_mullo_epi32(hi[r], scale[r][1]);
            }
            lo[r] = add(lo[r], hi[r]);
            if (PER == 32) lo[r] = _mm512_mullo_epi32(lo[r], scale[r][0]);
            if (c) lo[r] = add(lo[r], _mm512_load_si512(sum));
            _mm512_store_si512(sum, lo[r]);
        }
    }
}

/* All tokens: acc[t] += the block, from sum[t] and the sums of the activations. */
INLINE void end_block(const rows_args *a, const uint8_t *x, const scales *s, const int R)
{
    const int32_t *sum = a->sum;
    size_t x_stride = a->x_stride;
    float *acc = a->acc;
    __m512i pair[GROUPS][PAIRS];

    EACH(r, R) EACH(j, PAIRS) pair[r][j] = s[r].pair[j];
    for (size_t t = a->n_tokens; t--; x += x_stride) {
        const uint8_t *xsum = x + SUMS;
        __m512 xd = broadcast_f32(x + offsetof(act_q8_256, d));
        __m512i even[GROUPS], odd[GROUPS];

        EACH(r, R) even[r] = odd[r] = _mm512_setzero_si512();
        UNROLL for (int j = 0; j < PAIRS; j += 2)
        {
            __m512i x0 = broadcast(xsum + 4 * j), x1 = broadcast(xsum + 4 * j + 4);
            EACH(r, R)
            {
                even[r] = _mm512_dpwssd_epi32(even[r], pair[r][j], x0);
                odd[r] = _mm512_dpwssd_epi32(odd[r], pair[r][j + 1], x1);
            }
        }
        UNROLL for (int r = 0; r < R; r++, sum += PACK_ROWS, acc += PACK_ROWS)
        {
            __m512i whole = _mm512_load_si512(sum), pairs = add(even[r], odd[r]);
            __m512 v = _mm512_load_ps(acc);

            if (!HAS_MIN) whole = add(whole, pairs);
            v = _mm512_fmadd_ps(_mm512_mul_ps(s[r].d, xd), _mm512_cvtepi32_ps(whole), v);
            if (HAS_MIN) v = _mm512_fmadd_ps(_mm512_mul_ps(s[r].dm, xd), _mm512_cvtepi32_ps(pairs), v);
            _mm512_store_ps(acc, v);
        }
    }
}

/* 32 values of R groups, unpacked and used for all tokens. w, x: block b of the first group and token. */
INLINE void multiply_part(const rows_args *a, size_t b, size_t ahead, const uint8_t *w, const uint8_t *x,
                          const scales *s, int c, const int R)
{
    enum { PART_BYTES = BLOCK_BYTES / PARTS };
    __m512i q[GROUPS][8];

    if (R > 1) prefetch_next(a, R * (b * BLOCK_BYTES + (size_t)c * PART_BYTES), R * PART_BYTES);
    prefetch(a, ahead + (size_t)c * PART_BYTES, PART_BYTES / LINE + 1, R);
    EACH(r, R)
    {
        block_weights(q[r], w + (size_t)r * a->group_bytes, c, &s[r]);
        keep(q[r], 8);
    }
    add_part(a, x + 32 * c, q, s, c, R);
}

INLINE void multiply_rows(const rows_args *a, const int R)
{
    const uint8_t *w = a->w, *x = a->x;

    for (size_t b = 0; b < a->n_blocks; b++, w += BLOCK_BYTES, x += sizeof(act_q8_256)) {
        size_t ahead = place_ahead(a, b * BLOCK_BYTES, R);
        scales s[GROUPS];

        EACH(r, R) block_scales(&s[r], w + (size_t)r * a->group_bytes);
        if (R == 1) { /* unrolled, one token reads memory a tenth slower */
#pragma GCC unroll 1
            for (int c = 0; c < PARTS; c++) multiply_part(a, b, ahead, w, x, s, c, R);
        } else {
            EACH(c, PARTS) multiply_part(a, b, ahead, w, x, s, c, R);
        }
        end_block(a, x, s, R);
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

/* --- planes (kernels/avx512/planes.h) -------------------------------------------------------------- */

/* Weights of bytes times the scale of their row, as int16 in [-8192, 8191], split: lower 7 bits, and the
 * rest. */
INLINE void store_line(planes_256 *p, int line, __m512i q, __m512i scale)
{
    const __m512i low_bytes = _mm512_set1_epi16(0xff), offset = _mm512_set1_epi16(OFFSET);
    __m512i twice = _mm512_mask_blend_epi16(0xaaaaaaaa, scale, left(scale, 16));
    __m512i even = _mm512_sub_epi16(_mm512_and_si512(q, low_bytes), offset);
    __m512i odd = _mm512_sub_epi16(_mm512_srli_epi16(q, 8), offset);

    even = _mm512_mullo_epi16(even, twice);
    odd = _mm512_mullo_epi16(odd, twice);
    /* 0xca: where a bit of the first is set the second, else the third */
    q = _mm512_ternarylogic_epi32(low_bytes, even, _mm512_slli_epi16(odd, 8), 0xca);
    _mm512_store_si512(p->lo[line], masked(q, 127));
    q = _mm512_ternarylogic_epi32(low_bytes, _mm512_srli_epi16(even, 7), left(odd, 1), 0xca);
    _mm512_store_si512(p->hi[line], q);
}

static void make_planes(planes_256 *p, const uint8_t *w, size_t ahead)
{
    enum { PART_BYTES = BLOCK_BYTES / PARTS };
    scales s;

    block_scales(&s, w);
    for (int c = 0; c < PARTS; c++) {
        __m512i q[8];

        prefetch_lines(w + ahead + c * PART_BYTES, PART_BYTES / LINE + 1);
        block_weights(q, w, c, &s);
        EACH(i, 8)
        {
            if (PER) store_line(p, 8 * c + i, q[i], s.scale[PER == 16 ? 2 * c + i / 4 : c]);
            else _mm512_store_si512(p->lo[8 * c + i], q[i]);
        }
    }
    if (HAS_MIN) {
        EACH(j, PAIRS) _mm512_store_si512(p->mins[j], s.pair[j]);
        _mm512_store_ps(p->dm, s.dm);
    }
    _mm512_store_ps(p->d, s.d);
}

const planes_256_type GLUE(planes_, TYPE) = {PER, HAS_MIN, make_planes};
