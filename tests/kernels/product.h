/* One product for the tests of kernels: weights, inputs, and its buffers. */
#ifndef PRIMA_TESTS_KERNELS_PRODUCT_H
#define PRIMA_TESTS_KERNELS_PRODUCT_H
#include "kernels/kernels.h"
#include "tests/kernels/blocks.h"

enum { GUARD = 16 };

struct product {
    uint32_t type;
    size_t n_rows, n_cols, n_tokens;
    size_t stride; /* floats of a token's outputs, padding rows and GUARD more */
    uint8_t *rows; /* file layout */
    uint8_t *pack;
    float *x_f32; /* [n_tokens][n_cols] */
    uint8_t *x;   /* [n_tokens] rows of the type's activation kind */
    size_t x_stride;
};

static inline void product_clear(struct product *p)
{
    free(p->rows);
    free(p->pack);
    free(p->x_f32);
    free(p->x);
}

/* Weights of one kind, and random inputs through the reference quantiser. */
static inline void product_init(struct product *p, uint32_t type, int kind, size_t n_rows, size_t n_cols,
                                size_t n_tokens, uint64_t seed)
{
    uint64_t state = seed * 31 + type * 7 + (unsigned)kind;
    act_kind act = act_for_type(type);
    size_t row_bytes = quant_row_bytes(type, n_cols);
    kernel_table ref;

    kernels_init(&ref, 0);
    *p = (struct product){.type = type, .n_rows = n_rows, .n_cols = n_cols, .n_tokens = n_tokens};
    p->stride = pack_groups(n_rows) * PACK_ROWS + GUARD;
    p->rows = test_alloc(n_rows * row_bytes);
    p->pack = test_alloc(pack_bytes(type, n_rows, n_cols));
    p->x_f32 = test_alloc(n_tokens * n_cols * sizeof(float));
    p->x_stride = act_row_bytes(act, n_cols);
    p->x = test_alloc(n_tokens * p->x_stride);
    make_blocks(type, kind, &state, p->rows, n_rows * (n_cols / quant_info(type)->block_values));
    pack_rows(type, p->pack, p->rows, n_rows, n_cols, 0, pack_groups(n_rows));
    for (size_t i = 0; i < n_tokens * n_cols; i++)
        p->x_f32[i] = rnd_float(&state) * (i / n_cols % 3 == 1 ? 100.0f : 1.0f);
    for (size_t t = 0; t < n_tokens; t++)
        ref.quantize[act](p->x + t * p->x_stride, p->x_f32 + t * n_cols, n_cols);
}

/* Run groups [first, end) with scratch of exactly the promised size (poisoned: kernels may not count on
 * zeros). */
static inline void multiply(matmul_fn fn, const struct product *p, const void *x, size_t x_stride,
                            size_t n_tokens, float *out, size_t first, size_t end)
{
    matmul_args a = {.type = p->type,
                     .pack = p->pack,
                     .n_rows = p->n_rows,
                     .n_cols = p->n_cols,
                     .x = x,
                     .x_stride = x_stride,
                     .n_tokens = n_tokens,
                     .out = out,
                     .out_stride = p->stride,
                     .next_group = end < pack_groups(p->n_rows) ? end : 0};
    size_t bytes = MATMUL_SCRATCH(n_tokens);
    uint8_t *scratch = test_alloc(bytes + 64);

    memset(scratch, 0xff, bytes + 64);
    fn(&a, first, end, scratch);
    for (size_t i = 0; i < 64; i++) cr_assert_eq(scratch[bytes + i], 0xff, "wrote past its scratch");
    free(scratch);
}

#endif
