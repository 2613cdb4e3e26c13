/* The definition of the 8-bit products in portable C (arithmetic: kernels/unpack8.h), and of the products of
 * float weights: acc = fmaf(w, x, acc) for rising k in one chain.
 *
 * Each group-block is unpacked once and used for all tokens; sums per token wait in scratch, [n_tokens][16].
 */
#include "kernels/kernels.h"
#include "kernels/unpack8.h"
#include <math.h>
#include <string.h>

/* Line c: 4 values of every row times 4 inputs. */
static void add_line(int32_t *sum, const unpack8_tile *t, int c, const int8_t *x)
{
    for (int r = 0; r < PACK_ROWS; r++) {
        for (int i = 0; i < 4; i++) sum[r] += t->q[c][r][i] * x[i];
    }
}

/* 16 values of every row, times their scale. */
static void add_sub_block(int32_t *sum, const unpack8_tile *t, int j, const int8_t *x)
{
    int32_t part[PACK_ROWS] = {0};

    for (int c = 0; c < 4; c++) add_line(part, t, 4 * j + c, x + 4 * c);
    for (int r = 0; r < PACK_ROWS; r++) sum[r] += t->sc[j][r] * part[r];
}

static void add_block_256(float *acc, const unpack8_tile *t, bool has_min, const act_q8_256 *x)
{
    int32_t s[PACK_ROWS] = {0}, m[PACK_ROWS] = {0};

    for (int j = 0; j < 16; j++) add_sub_block(s, t, j, x->q + 16 * j);
    for (int r = 0; r < PACK_ROWS; r++) acc[r] = fmaf(t->d[r] * x->d, (float)s[r], acc[r]);
    if (!has_min) return;
    for (int j = 0; j < 16; j++) {
        for (int r = 0; r < PACK_ROWS; r++) m[r] += t->m[j][r] * x->sum16[j];
    }
    for (int r = 0; r < PACK_ROWS; r++) acc[r] = fmaf(t->dm[r] * x->d, (float)m[r], acc[r]);
}

static void add_block_32(float *acc, const unpack8_tile *t, bool has_min, const act_q8_32 *x)
{
    int32_t sum[PACK_ROWS] = {0};

    for (int c = 0; c < 8; c++) add_line(sum, t, c, x->q + 4 * c);
    for (int r = 0; r < PACK_ROWS; r++) {
        acc[r] = fmaf(t->d[r] * x->d, (float)sum[r], acc[r]);
        if (has_min) acc[r] = fmaf(t->dm[r] * x->d, (float)x->sum, acc[r]);
    }
}

/* One group of block types: sums of all tokens to acc. */
static void group_q8(const matmul_args *a, const uint8_t *group, float *acc)
{
    const unpack8_type *info = unpack8_info(a->type);
    size_t block_bytes = PACK_ROWS * (size_t)quant_info(a->type)->block_bytes;
    unpack8_tile tile;

    for (size_t b = 0; b < a->n_cols / info->n_values; b++, group += block_bytes) {
        info->unpack(&tile, group);
        for (size_t t = 0; t < a->n_tokens; t++) {
            const void *x = (const uint8_t *)a->x + t * a->x_stride;

            if (info->n_values == 256) {
                add_block_256(acc + t * PACK_ROWS, &tile, info->has_min, (const act_q8_256 *)x + b);
            } else {
                add_block_32(acc + t * PACK_ROWS, &tile, info->has_min, (const act_q8_32 *)x + b);
            }
        }
    }
}

/* One group of F32, F16 or BF16: the 16 weights of each k are one after the other. */
static void group_float(const matmul_args *a, const uint8_t *group, float *acc)
{
    size_t bytes = PACK_ROWS * (size_t)quant_info(a->type)->block_bytes;

    for (size_t k = 0; k < a->n_cols; k++, group += bytes) {
        float w[PACK_ROWS];

        quant_dequant(a->type, group, w, PACK_ROWS);
        for (size_t t = 0; t < a->n_tokens; t++, acc += PACK_ROWS) {
            float x = ((const float *)((const uint8_t *)a->x + t * a->x_stride))[k];
            for (int r = 0; r < PACK_ROWS; r++) acc[r] = fmaf(w[r], x, acc[r]);
        }
        acc -= a->n_tokens * PACK_ROWS;
    }
}

void matmul_q8_ref(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    size_t group_bytes = PACK_ROWS * quant_row_bytes(a->type, a->n_cols);
    float *acc = scratch;

    for (size_t g = group_first; g < group_end; g++) {
        size_t row = g * PACK_ROWS, rows = a->n_rows - row < PACK_ROWS ? a->n_rows - row : PACK_ROWS;
        const uint8_t *group = (const uint8_t *)a->pack + g * group_bytes;

        memset(acc, 0, a->n_tokens * PACK_ROWS * sizeof *acc);
        if (unpack8_info(a->type)) group_q8(a, group, acc);
        else group_float(a, group, acc);
        for (size_t t = 0; t < a->n_tokens; t++) {
            memcpy(a->out + t * a->out_stride + row, acc + t * PACK_ROWS, rows * sizeof *acc);
        }
    }
}
