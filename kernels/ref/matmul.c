/* The reference product: weights dequantised, inputs f32, sums in f64 for rising k; rounded to f32 once at
 * the end.
 *
 * A row is taken from the pack a few blocks at a time, for all tokens, so rows may be as long as they like;
 * the sums of the tokens wait in scratch. The product of two f32 is exact in f64. */
#include "kernels/ref/ref.h"

enum { CHUNK = 256 }; /* values at a time: a whole number of blocks of every type */

static void one_row(const matmul_args *a, size_t row, double *sum)
{
    size_t block_values = quant_info(a->type)->block_values;

    for (size_t t = 0; t < a->n_tokens; t++) sum[t] = 0;
    for (size_t k = 0; k < a->n_cols; k += CHUNK) {
        uint8_t blocks[CHUNK * sizeof(float)];
        float w[CHUNK];
        size_t n = a->n_cols - k < CHUNK ? a->n_cols - k : CHUNK;

        pack_blocks_back(a->type, blocks, a->pack, a->n_cols, row, k / block_values, (k + n) / block_values);
        quant_dequant(a->type, blocks, w, n);
        for (size_t t = 0; t < a->n_tokens; t++) {
            const float *x = (const float *)((const uint8_t *)a->x + t * a->x_stride) + k;
            double s = sum[t];
            for (size_t i = 0; i < n; i++) s += (double)w[i] * x[i];
            sum[t] = s;
        }
    }
    for (size_t t = 0; t < a->n_tokens; t++) a->out[t * a->out_stride + row] = (float)sum[t];
}

void matmul_f32_ref(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    size_t end = group_end * PACK_ROWS < a->n_rows ? group_end * PACK_ROWS : a->n_rows;

    for (size_t row = group_first * PACK_ROWS; row < end; row++) one_row(a, row, scratch);
}
