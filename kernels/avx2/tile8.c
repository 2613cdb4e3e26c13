/* IQ1_*, IQ2_*, IQ3_*: blocks unpacked to 8 bits by portable C (kernels/unpack8.h; their grids are looked up
 * row by row), then the product of the other types. Slow for one token; with many the unpacking, done once
 * for all, fades. */
#include "kernels/avx2/scales.h"
#include "kernels/unpack8.h"
#include <string.h>

enum { BLOCK_BYTES = sizeof(unpack8_tile), PER = 16, SUMMED = 1, HAS_MIN = false };

INLINE void block_scales(scales *s, const uint8_t *w, int h)
{
    const unpack8_tile *t = (const unpack8_tile *)w;

    EACH(j, 16)
    {
        __m256i scale = load_256(t->sc[j] + h * HALF_ROWS);
        s->scale[j] = either(_mm256_and_si256(scale, _mm256_set1_epi32(0xffff)), left(scale, 16));
    }
    s->d = _mm256_loadu_ps(t->d + h * HALF_ROWS);
}

INLINE void block_weights(__m256i q[8], const uint8_t *w, int c, int h)
{
    EACH(i, 8) q[i] = load_line(w + 8 * c * LINE, i, h);
}

#define TYPE tile8
#include "kernels/avx2/rows_256.h"

/* Block by block, all tokens with each; acc[n_tokens][16] waits in scratch. */
static void multiply_group(const matmul_args *a, const uint8_t *w, rows_args *r, unpack8_tile *tile, int way)
{
    size_t block_bytes = PACK_ROWS * (size_t)quant_info(a->type)->block_bytes;

    memset(r->acc, 0, a->n_tokens * PACK_ROWS * sizeof *r->acc);
    for (size_t b = 0; b < a->n_cols / 256; b++) {
        unpack8_info(a->type)->unpack(tile, w + b * block_bytes);
        r->x = (const uint8_t *)a->x + b * sizeof(act_q8_256);
        rows_tile8_avx2[way](r);
    }
}

static void multiply(const matmul_args *a, size_t group_first, size_t group_end, void *scratch, int way)
{
    size_t group_bytes = PACK_ROWS * quant_row_bytes(a->type, a->n_cols);
    unpack8_tile *tile = scratch;
    rows_args r = {.w = scratch,
                   .n_blocks = 1,
                   .x_stride = a->x_stride,
                   .n_tokens = a->n_tokens,
                   .acc = (float *)(tile + 1)};

    r.sum = (void *)(r.acc + a->n_tokens * PACK_ROWS);
    for (size_t g = group_first; g < group_end; g++) {
        multiply_group(a, (const uint8_t *)a->pack + g * group_bytes, &r, tile, way);
        for (size_t t = 0; t < a->n_tokens; t++) {
            memcpy(a->out + t * a->out_stride + g * PACK_ROWS, r.acc + t * PACK_ROWS,
                   PACK_ROWS * sizeof *r.acc);
        }
    }
}

void matmul_tile8_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    multiply(a, group_first, group_end, scratch, PLAIN);
}

void matmul_tile8_avxvnni(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    multiply(a, group_first, group_end, scratch, VNNI);
}
