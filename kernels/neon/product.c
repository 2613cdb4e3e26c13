/* The driver of NEON's products: group by group, a few blocks of it (in the first-level cache) for all
 * tokens, then the next. The sum of one row and token runs over the blocks in order, whatever the number of
 * tokens. */
#include "kernels/neon/product.h"
#include <string.h>

void neon_product(const matmul_args *a, size_t group_first, size_t group_end, void *scratch, size_t run,
                  size_t most, const unpack8_type *via, neon_blocks_fn add_blocks)
{
    const quant_type *type = quant_info(a->type);
    size_t n_blocks = a->n_cols / type->block_values, block_bytes = PACK_ROWS * (size_t)type->block_bytes;
    size_t x_bytes = a->n_cols == 0              ? 0
                     : type->block_values == 256 ? sizeof(act_q8_256)
                     : type->block_values == 32  ? sizeof(act_q8_32)
                                                 : sizeof(float);
    float(*acc)[PACK_ROWS] = scratch;
    unpack8_tile tile;

    for (size_t g = group_first; g < group_end; g++) {
        const uint8_t *group = (const uint8_t *)a->pack + g * n_blocks * block_bytes;
        size_t row = g * PACK_ROWS, n_rows = a->n_rows - row < PACK_ROWS ? a->n_rows - row : PACK_ROWS;

        memset(acc, 0, a->n_tokens * sizeof *acc);
        for (size_t b = 0; b < n_blocks; b += run) {
            const uint8_t *w = group + b * block_bytes, *x = (const uint8_t *)a->x + b * x_bytes;
            size_t n = n_blocks - b < run ? n_blocks - b : run;

            if (via) {
                via->unpack(&tile, w);
                w = (const uint8_t *)&tile;
            }
            for (size_t t = 0; t < a->n_tokens; t += most) {
                size_t n_tokens = a->n_tokens - t < most ? a->n_tokens - t : most;
                add_blocks(acc + t, w, n, x + t * a->x_stride, a->x_stride, n_tokens);
            }
        }
        for (size_t t = 0; t < a->n_tokens; t++) {
            memcpy(a->out + t * a->out_stride + row, acc[t], n_rows * sizeof(float));
        }
    }
}
