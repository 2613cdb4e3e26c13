/* Products with tiles (kernels/amx) for more tokens than test_matmul has, and on CPUs without tiles: the same
 * code over tiles in C. What must come out is matmul_q8_ref's, bit for bit. */
#if defined(__x86_64__)
#define TILES_IN_C
#define matmul_amx matmul_amx_in_c
#include "kernels/amx/matmul.c"
#undef matmul_amx
#include "tests/kernels/isas.h"
#include "tests/kernels/product.h"
#include <criterion/parameterized.h>

enum { ROWS = 40, GROUPS_OF_ROWS = 3, MOST = TOKENS_MOST + 40 };

static uint32_t types[] = {Q_Q4_0,  Q_Q4_1,   Q_Q5_0,    Q_Q5_1,  Q_Q8_0,   Q_IQ4_NL, Q_Q2_K,
                           Q_Q3_K,  Q_Q4_K,   Q_Q5_K,    Q_Q6_K,  Q_IQ4_XS, Q_IQ1_S,  Q_IQ1_M,
                           Q_IQ2_S, Q_IQ2_XS, Q_IQ2_XXS, Q_IQ3_S, Q_IQ3_XXS};

/* (The tokens' memory ends with the last of them: AddressSanitizer sees who reads on.) */
static void check(matmul_fn fn, uint32_t type, int kind, size_t n_cols, size_t n_tokens)
{
    struct product p;
    float *want, *got;

    product_init(&p, type, kind, ROWS, n_cols, n_tokens, n_cols + n_tokens);
    want = test_alloc(n_tokens * p.stride * sizeof *want);
    got = test_alloc(n_tokens * p.stride * sizeof *got);
    memset(got, 0xff, n_tokens * p.stride * sizeof *got);
    multiply(matmul_q8_ref, &p, p.x, p.x_stride, n_tokens, want, 0, GROUPS_OF_ROWS);
    multiply(fn, &p, p.x, p.x_stride, n_tokens, got, 0, 1);
    multiply(fn, &p, p.x, p.x_stride, n_tokens, got, 1, GROUPS_OF_ROWS);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t i = 0; i < ROWS; i++) {
            const float g = got[t * p.stride + i], w = want[t * p.stride + i];
            cr_assert(memcmp(&g, &w, 4) == 0 || (g != g && w != w),
                      "%s, %zu values, %zu tokens: token %zu row %zu is %a, not %a", quant_info(type)->name,
                      n_cols, n_tokens, t, i, (double)g, (double)w);
        }
    }
    product_clear(&p);
    free(want);
    free(got);
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
#else
#include <criterion/criterion.h>

Test(tiles, in_c)
{
    cr_skip_test("tiles are of x86-64 only");
}
#endif
