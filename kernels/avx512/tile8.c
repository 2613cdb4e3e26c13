/* IQ1_*, IQ2_*, IQ3_*: blocks unpacked to 8 bits by portable C (kernels/unpack8.h; their grids are looked up
 * row by row), then the product of the other types. Slow for one token; with many the unpacking, done once
 * for all, fades. */
#include "kernels/avx512/scales.h"
#include "kernels/unpack8.h"
#include <string.h>

enum { BLOCK_BYTES = sizeof(unpack8_tile), PER = 16, HAS_MIN = false, OFFSET = 128 };

/* The weights' offset is 128, which flips their sign bit. |scale| <= 31 in all these types: 128 * scale is an
 * int16. */
INLINE void block_scales(scales *s, const uint8_t *w)
{
    const unpack8_tile *t = (const unpack8_tile *)w;

    EACH(j, 16) s->scale[j] = _mm512_load_si512(t->sc[j]);
    EACH(j, 8)
    {
        __m512i pair = _mm512_mask_blend_epi16(0xaaaaaaaa, s->scale[2 * j], left(s->scale[2 * j + 1], 16));
        s->pair[j] = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_slli_epi16(pair, 7));
    }
    s->d = _mm512_load_ps(t->d);
}

INLINE void block_weights(__m512i q[8], const uint8_t *w, int c, const scales *s)
{
    (void)s;
    EACH(i, 8) q[i] = _mm512_xor_si512(load_line(w + 8 * c * LINE + i * LINE), bytes(128));
}

#define TYPE tile8_avx512
#include "kernels/avx512/rows_256.h"

/* Block by block, all tokens with each; acc[n_tokens][16] waits in scratch. */
static void multiply_group(const matmul_args *a, const uint8_t *w, rows_args *r, unpack8_tile *tile)
{
    size_t block_bytes = PACK_ROWS * (size_t)quant_info(a->type)->block_bytes;

    memset(r->acc, 0, a->n_tokens * PACK_ROWS * sizeof *r->acc);
    for (size_t b = 0; b < a->n_cols / 256; b++) {
        unpack8_info(a->type)->unpack(tile, w + b * block_bytes);
        r->x = (const uint8_t *)a->x + b * sizeof(act_q8_256);
        rows_tile8_avx512[0](r);
    }
}

void matmul_tile8_avx512(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    size_t group_bytes = PACK_ROWS * quant_row_bytes(a->type, a->n_cols);
    unpack8_tile *tile = scratch;
    rows_args r = {.w = scratch,
                   .group_bytes = sizeof *tile,
                   .n_blocks = 1,
                   .x_stride = a->x_stride,
                   .n_tokens = a->n_tokens,
                   .acc = (float *)(tile + 1)};

    r.sum = (void *)(r.acc + a->n_tokens * PACK_ROWS);
    for (size_t g = group_first; g < group_end; g++) {
        multiply_group(a, (const uint8_t *)a->pack + g * group_bytes, &r, tile);
        for (size_t t = 0; t < a->n_tokens; t++) {
            _mm512_storeu_ps(a->out + t * a->out_stride + g * PACK_ROWS,
                             _mm512_load_ps(r.acc + t * PACK_ROWS));
        }
    }
}
