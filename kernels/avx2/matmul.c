/* The way of a product with quantised weights through a matrix: see rows.h. */
#include "kernels/avx2/rows.h"
#include <string.h>

enum {
    L2_SHARE = 256 * 1024, /* bytes of activations that stay in L2 beside the weights of a group */
    TOKENS_LEAST = 16,     /* but no fewer tokens than this, which unpacking is shared by, and no more */
    TOKENS_MOST = 64
}; /* than this, whose sums (128 bytes each) stay in L1 */

static const rows_fn *const rows[Q_TYPE_COUNT] = {
    [Q_Q4_0] = rows_q4_0_avx2, [Q_Q4_1] = rows_q4_1_avx2,     [Q_Q5_0] = rows_q5_0_avx2,
    [Q_Q5_1] = rows_q5_1_avx2, [Q_Q8_0] = rows_q8_0_avx2,     [Q_Q2_K] = rows_q2_k_avx2,
    [Q_Q3_K] = rows_q3_k_avx2, [Q_Q4_K] = rows_q4_k_avx2,     [Q_Q5_K] = rows_q5_k_avx2,
    [Q_Q6_K] = rows_q6_k_avx2, [Q_IQ4_NL] = rows_iq4_nl_avx2, [Q_IQ4_XS] = rows_iq4_xs_avx2,
};

static size_t tokens_at_once(const matmul_args *a)
{
    size_t n = L2_SHARE / act_row_bytes(act_for_type(a->type), a->n_cols);
    return n < TOKENS_LEAST ? TOKENS_LEAST : n > TOKENS_MOST ? TOKENS_MOST : n;
}

static void multiply(const matmul_args *a, size_t group_first, size_t group_end, void *scratch, int way)
{
    const quant_type *type = quant_info(a->type);
    size_t n_at_once = tokens_at_once(a), n, group_bytes = PACK_ROWS * quant_row_bytes(a->type, a->n_cols);
    rows_args r = {.n_blocks = a->n_cols / type->block_values,
                   .x_stride = a->x_stride,
                   .acc = scratch,
                   .ahead = stream_ahead()};

    for (size_t first = 0; first < a->n_tokens; first += n) {
        n = a->n_tokens - first < n_at_once ? a->n_tokens - first : n_at_once;
        r.x = (const uint8_t *)a->x + first * a->x_stride;
        r.n_tokens = n;
        r.sum = (void *)(r.acc + n * PACK_ROWS);
        for (size_t g = group_first; g < group_end; g++) {
            float *out = a->out + first * a->out_stride + g * PACK_ROWS;

            r.w = (const uint8_t *)a->pack + g * group_bytes;
            memset(r.acc, 0, n * PACK_ROWS * sizeof *r.acc);
            rows[a->type][way](&r);
            for (size_t t = 0; t < n; t++) {
                memcpy(out + t * a->out_stride, r.acc + t * PACK_ROWS, PACK_ROWS * sizeof *r.acc);
            }
        }
    }
}

void matmul_blocks_avx2(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    multiply(a, group_first, group_end, scratch, PLAIN);
}

void matmul_blocks_avxvnni(const matmul_args *a, size_t group_first, size_t group_end, void *scratch)
{
    multiply(a, group_first, group_end, scratch, VNNI);
}
