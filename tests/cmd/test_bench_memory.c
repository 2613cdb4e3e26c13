/* prima bench memory as a user runs it, on the demo model: what its file holds, and that the columns of a row
 * agree with each other. The model is so small that limits are mostly KV cache and buffers. */
#include "tests/common/csv_table.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(bench_memory, .init = (void (*)(void))test_dir_new, .fini = test_dir_remove, .timeout = 120);

static prima_result bench(const char *limits, const char *sequences)
{
    const char *output = in_dir(".");

    setenv("PRIMA_LOG", "error", 1);
    setenv("PRIMA_FIO", "/nonexistent/fio", 1); /* the runtime's own reader takes no start-up time */
    return prima_run(NULL,
                     (const char *const[]){"bench", "memory", "-m", "datasets/demo/demo.gguf", "--limits",
                                           limits, "--sequences", sequences, "-n", "3", "-t", "1",
                                           "--disk-time", "100ms", "-o", output, "--pack-dir", output, NULL});
}

static bool is(size_t row, const char *column, const char *text)
{
    return !strcmp(get(row, column), text);
}

/* Between two whole blocks more a piece and none. */
static void check_reading(size_t row)
{
    double must = number(row, "streamed_bytes"), step = number(row, "read_bytes_per_step");

    if (is(row, "mode", "mapped")) cr_expect(isnan(step), "the page cache does not say");
    else
        cr_expect(step >= 0.9 * must && step <= must + 64 * 8192 + 40000, "row %zu: %g, %g", row, step, must);
}

static void check_row(size_t row)
{
    double limit = number(row, "disk_limit_bytes_per_s"), before = number(row, "disk_before_bytes_per_s"),
           after = number(row, "disk_after_bytes_per_s"), compute = number(row, "compute_ms"),
           floor_ms = number(row, "floor_ms"), must = number(row, "streamed_bytes"),
           median = number(row, "median_ms"), slots = number(row, "sequences");

    cr_expect(is(row, "schema", "prima/bench-memory/1") && is(row, "error", ""), "row %zu: %s", row,
              get(row, "error"));
    cr_expect(before > 0 && after > 0);
    cr_expect_float_eq(limit, (before + after) / 2, 1);
    cr_expect_float_eq(floor_ms, fmax(compute, must / limit * 1e3), 2e-3);
    cr_expect(number(row, "min_ms") <= median && median <= number(row, "max_ms") && compute > 0);
    cr_expect_float_eq(number(row, "tokens_per_s"), slots / median * 1e3, 0.03 * slots / median * 1e3);
    cr_expect_eq(is(row, "reader", ""), must == 0);
    check_reading(row);
}

Test(bench_memory, rows_agree_with_themselves)
{
    prima_result r = bench("200,80", "1,2");
    cr_assert_eq(r.status, 0, "exit %d: %s", r.status, r.err);
    read_table(in_dir("memory.csv"), false);
    cr_assert_eq(n_rows, 10, "resident, and two modes at two limits, for two numbers of sequences");
    for (size_t i = 0; i < n_rows; i++) check_row(i);
    for (size_t i = 0; i < n_rows; i += 5) {
        cr_expect(is(i, "mode", "resident") && is(i + 3, "mode", "streamed") && is(i + 4, "mode", "mapped"));
        cr_expect_eq(number(i + 1, "streamed_bytes"), 0, "twice the weights hold all of it");
        cr_expect_gt(number(i + 3, "streamed_bytes"), 100000);
        cr_expect_eq(number(i + 3, "streamed_bytes"), number(i + 4, "streamed_bytes"), "the same split");
    }
}

/* A limit that holds less than KV cache and buffers: a row that says so, and the others are measured. */
Test(bench_memory, what_does_not_fit_is_said)
{
    prima_result r = bench("5", "1");
    cr_assert_eq(r.status, 0, "exit %d: %s", r.status, r.err);
    read_table(in_dir("memory.csv"), false);
    cr_assert_eq(n_rows, 3);
    cr_expect(is(0, "error", ""));
    for (size_t i = 1; i < n_rows; i++) {
        cr_expect(strstr(get(i, "error"), "too little"), "%s", get(i, "error"));
        cr_expect(is(i, "median_ms", ""));
    }
}

Test(bench_memory, wrong_lists_are_refused)
{
    cr_expect_eq(bench("0", "1").status, 2);
    cr_expect_eq(bench("80,", "x").status, 2);
    cr_expect_eq(bench("80", "65").status, 2);
}
