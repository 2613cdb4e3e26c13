/* prima bench kernels as a user runs it: what its file holds, that the columns of a row agree with each
 * other, and what it refuses. How fast anything is stands in no test. */
#include "kernels/kernels.h"
#include "src/blas.h"
#include "src/multiply_rate.h"
#include "tests/common/csv_table.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(bench_kernels, .init = (void (*)(void))test_dir_new, .fini = test_dir_remove, .timeout = 120);

static prima_result bench(const char *types, const char *tokens, const char *isa)
{
    const char *argv[] = {
        "bench", "kernels", "-o",  in_dir("."),          "--types", types, "--tokens", tokens, "--reps",
        "2",     "--cols",  "512", isa ? "--isa" : NULL, isa,       NULL};

    setenv("PRIMA_LOG", "error", 1);
    return prima_run(NULL, argv);
}

/* Bytes of a weight, from the file format alone: 144 a block of 256, and 2. */
static double bytes_of(const char *type)
{
    return strcmp(type, "Q4_K") ? 2 : 144.0 / 256;
}

/* A weight is two operations a token; so the two rates of a row say how many tokens it is of. */
Test(bench_kernels, rows_agree_with_themselves)
{
    prima_result r = bench("Q4_K,f16", "1,3,16", "ref");

    cr_assert_eq(r.status, 0, "%s", r.err);
    read_table(in_dir("kernels.csv"), true);
    cr_assert_eq(n_rows, 6);
    for (size_t i = 0; i < n_rows; i++) {
        const char *type = get(i, "type");
        double gb = number(i, "gb_per_s"), gop = number(i, "gop_per_s"),
               limit = number(i, "read_limit_gb_per_s");

        cr_expect_str_eq(get(i, "schema"), "prima/bench-kernels/1");
        cr_expect_str_eq(get(i, "isa"), "ref");
        cr_expect_str_eq(type, i < 3 ? "Q4_K" : "F16");
        cr_expect_eq(number(i, "cols"), 512);
        cr_expect_eq(number(i, "reps"), 2);
        cr_assert(gb > 0 && limit > 0);
        cr_expect_float_eq(gop / (gb / bytes_of(type)) / (2 * number(i, "tokens")), 1, 0.02,
                           "%g Gop/s, %g GB/s", gop, gb);
        cr_expect_float_eq(number(i, "read_pct"), 100 * gb / limit, 1);
        cr_expect_str_eq(get(i, "multiply_pct"), "", "the reference has no limit");
    }
    r = bench("Q4_K", "1", "ref");
    cr_assert_eq(r.status, 0, "%s", r.err);
    read_table(in_dir("kernels.csv"), true);
    cr_assert_eq(n_rows, 7, "rows are added");
}

Test(bench_kernels, every_instruction_set_of_this_cpu)
{
    prima_result r;

    if (!cpu_features()) cr_skip_test("this CPU has the reference only");
    r = bench("Q8_0,F32", "16", NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    read_table(in_dir("kernels.csv"), true);
    cr_assert_geq(n_rows, 2);
    for (size_t i = 0; i < n_rows; i++) {
        double gop = number(i, "gop_per_s"), limit = number(i, "multiply_limit_gop_per_s");

        cr_expect_str_neq(get(i, "isa"), "ref");
        cr_expect_null(strstr(get(i, "path"), "ref"), "%s %s", get(i, "isa"), get(i, "path"));
        cr_assert_gt(limit, 0);
        cr_expect_float_eq(number(i, "multiply_pct"), 100 * gop / limit, 1);
        for (size_t j = 0; j < i; j++)
            cr_expect(strcmp(get(i, "path"), get(j, "path")) || strcmp(get(i, "type"), get(j, "type")),
                      "measured twice: %s %s", get(i, "path"), get(i, "type"));
    }
}

/* An AVX-512 register holds twice as much, an 8-bit value is a quarter of a float, and a tile product is 32
 * times a register's: whatever the CPU, the loops of these cannot lie far from that. */
Test(bench_kernels, limits_are_those_of_the_instructions)
{
    multiply_rate best = {0, 0};

    if (!cpu_features()) cr_skip_test("this CPU has the reference only");
    for (int i = 0; i < 50; i++) {
        multiply_rate m = multiply_rate_slice(cpu_features());
        best.int8 = fmax(best.int8, m.int8);
        best.f32 = fmax(best.f32, m.f32);
    }
    cr_expect(best.f32 > 1 && best.f32 < 5000, "%g", best.f32);
    cr_expect(best.int8 > 1.4 * best.f32 && best.int8 < (cpu_features() & CPU_AMX ? 60 : 20) * best.f32,
              "%g and %g", best.int8, best.f32);
    best = multiply_rate_slice(0);
    cr_expect(best.int8 == 0 && best.f32 == 0);
}

/* Threads of its own would make it faster than one thread's multiply-add rate allows. */
Test(bench_kernels, sgemm_is_one_thread)
{
    pr_err err = {0};
    double sgemm, f32 = 0;

    if (!cpu_features()) cr_skip_test("this CPU has the reference only");
    setenv("OPENBLAS_NUM_THREADS", "64", 1);
    sgemm = blas_gop_per_s(cpu_features(), 1, 128, 256, 512, 50, &err);
    if (isnan(sgemm)) cr_skip_test("%s", err.msg);
    for (int i = 0; i < 100; i++) f32 = fmax(f32, multiply_rate_slice(cpu_features()).f32);
    cr_expect(sgemm > 0.02 * f32 && sgemm < 1.3 * f32, "%g of %g", sgemm, f32);
    cr_expect_str_eq(getenv("OPENBLAS_NUM_THREADS"), "64", "this process is left as it was");
}

struct wrong {
    char types[16], tokens[16], isa[16], said[64];
};
ParameterizedTestParameters(bench_kernels, refused)
{
    static struct wrong all[] = {
        {"Q4_K,Q9", "1", "ref", "--types"},      {"", "1", "ref", "--types"},
        {"Q4_K", "0", "ref", "from 1 to 512"},   {"Q4_K", "513", "ref", "from 1 to 512"},
        {"Q4_K", "1,x", "ref", "from 1 to 512"}, {"Q4_K", ",1", "ref", "--tokens"},
        {"Q4_K", "1", "sse", "avx512"},          {"Q4_K", "1", "ref,,ref", "--isa"}};

    return cr_make_param_array(struct wrong, all, sizeof all / sizeof *all);
}
ParameterizedTest(struct wrong *w, bench_kernels, refused)
{
    prima_result r = bench(w->types, w->tokens, w->isa);

    cr_assert_eq(r.status, 2, "%s", r.err);
    cr_assert_not_null(strstr(r.err, w->said), "%s", r.err);
}
