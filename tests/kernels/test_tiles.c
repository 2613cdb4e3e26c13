/* Products with tiles (kernels/amx) for more tokens than test_matmul has, and on CPUs without tiles: the same
 * code over tiles in C. What must come out is matmul_q8_ref's, bit for bit. */
#if defined(__x86_64__)
#define TILES_IN_C
#define matmul_amx matmul_amx_in_c
#include "kernels/amx/matmul.c"
#undef matmul_amx
#include "tests/kernels/blocks.h"
#include "tests/kernels/isas.h"
#include <criterion/parameterized.h>

enum { ROWS = 40, GROUPS_OF_ROWS = 3, STRIDE = 48, MOST = TOKENS_MOST + 40 };

static uint32_t types[] = {Q_Q4_0,  Q_Q4_1,   Q_Q5_0,    Q_Q5_1,  Q_Q8_0,   Q_IQ4_NL, Q_Q2_K,
                           Q_Q3_K,  Q_Q4_K,   Q_Q5_K,    Q_Q6_K,  Q_IQ4_XS, Q_IQ1_S,  Q_IQ1_M,
                           Q_IQ2_S, Q_IQ2_XS, Q_IQ2_XXS, Q_IQ3_S, Q_IQ3_XXS};

/* The tokens at the end of a page of their own, where reading on would be seen by AddressSanitizer. */
static void check(matmul_fn fn, uint32_t type, int kind, size_t n_cols, size_t n_tokens)
{
    uint64_t state = type * 7 + n_cols + n_tokens;
    size_t x_stride = act_row_bytes(act_for_type(type), n_cols),
           out_bytes = n_tokens * STRIDE * sizeof(float);
    uint8_t *rows = test_alloc(ROWS * quant_row_bytes(type, n_cols));
    uint8_t *pack = test_alloc(pack_bytes(type, ROWS, n_cols)), *x = test_alloc(n_tokens * x_stride);
    float *want = test_alloc(out_bytes), *got = test_alloc(out_bytes),
          *token = test_alloc(n_cols * sizeof *token);
    void *scratch = test_alloc(MATMUL_SCRATCH(n_tokens));
    matmul_args a = {.type = type,
                     .pack = pack,
                     .n_rows = ROWS,
                     .n_cols = n_cols,
                     .x = x,
                     .x_stride = x_stride,
                     .n_tokens = n_tokens,
                     .out = want,
                     .out_stride = STRIDE};
    kernel_table ref;

    kernels_init(&ref, 0);
    make_blocks(type, kind, &state, rows, ROWS * (n_cols / quant_info(type)->block_values));
    pack_rows(type, pack, rows, ROWS, n_cols, 0, GROUPS_OF_ROWS);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t i = 0; i < n_cols; i++) token[i] = rnd_float(&state) * (t % 3 == 1 ? 100.0f : 1.0f);
        ref.quantize[act_for_type(type)](x + t * x_stride, token, n_cols);
    }
    matmul_q8_ref(&a, 0, GROUPS_OF_ROWS, scratch);
    a.out = got;
    memset(scratch, 0xff, MATMUL_SCRATCH(n_tokens));
    fn(&a, 0, 1, scratch);
    fn(&a, 1, GROUPS_OF_ROWS, scratch);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < ROWS; i++)
            cr_assert(memcmp(got + t * STRIDE + i, want + t * STRIDE + i, 4) == 0 ||
                          (got[t * STRIDE + i] != got[t * STRIDE + i] &&
                           want[t * STRIDE + i] != want[t * STRIDE + i]),
                      "%s, %zu values, %zu tokens: token %zu row %zu is %a, not %a", quant_info(type)->name,
                      n_cols, n_tokens, t, i, (double)got[t * STRIDE + i], (double)want[t * STRIDE + i]);
    free(rows);
    free(pack);
    free(x);
    free(want);
    free(got);
    free(token);
    free(scratch);
}

static void check_all(matmul_fn fn, uint32_t type)
{
    static const size_t counts[] = {15, 16, 17, 32, 47, 63, 64, 65, TOKENS_MOST, MOST};
    const size_t block = quant_info(type)->block_values;

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check(fn, type, 0, 2 * 256, counts[i]);
    for (size_t n = 1; n <= 5; n++) check(fn, type, 1, n * block, 64 + n); /* fewer blocks than four of 32 */
}

ParameterizedTestParameters(tiles, in_c)
{
    return cr_make_param_array(uint32_t, types, sizeof types / sizeof *types);
}
ParameterizedTest(uint32_t *type, tiles, in_c)
{
    if (!(cpu_features() & CPU_AVX512)) cr_skip_test("no avx512 here");
    check_all(matmul_amx_in_c, *type);
}

ParameterizedTestParameters(tiles, of_the_cpu)
{
    return cr_make_param_array(uint32_t, types, sizeof types / sizeof *types);
}
ParameterizedTest(uint32_t *type, tiles, of_the_cpu)
{
    kernel_table k;

    isa_table(&k, ISA_AMX);
    check_all(k.matmul[*type], *type);
}
#endif
