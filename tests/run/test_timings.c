/* The timing tables: columns as conventions 11 lists them, figures by hand. */
#include "src/run/timings.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <locale.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* Copied from the conventions, not from the code. */
#define REQUESTS                                                                                             \
    "schema,run_id,custom_id,status,finish_reason,error_code,slot,prompt_tokens,completion_tokens,start_ms," \
    "queue_ms,ttft_ms,"                                                                                      \
    "tpot_ms,itl_p50_ms,itl_p95_ms,itl_p99_ms,itl_max_ms,e2e_ms,prefill_tps,decode_tps\n"
#define DEVICES                                                                                              \
    "schema,run_id,rank,device,phase,interval_start_ms,wall_ms,compute_cpu_ms,compute_gpu_ms,disk_wait_ms,"  \
    "send_wait_ms,"                                                                                          \
    "recv_wait_ms,other_ms,disk_busy_ms,disk_read_bytes,net_tx_bytes,net_rx_bytes,passes,tokens,rss_peak_"   \
    "bytes,mem_available_min_bytes,"                                                                         \
    "mem_pressure_pct,psi_mem_some_pct,major_faults,gpu_mem_peak_bytes,predicted_pass_ms,measured_pass_ms\n"
#define RUN                                                                                                  \
    "schema,run_id,started_at,build,model,quant,plan_sha256,n_devices,slots,requests_ok,requests_failed,"    \
    "load_s,wall_s,prompt_tokens,"                                                                           \
    "completion_tokens,output_tps,total_tps,ttft_p50_ms,ttft_p95_ms,ttft_p99_ms,tpot_p50_ms,tpot_p95_ms,"    \
    "tpot_p99_ms,weight_read_bytes_per_token,"                                                               \
    "mem_pressure_max_pct,restarts\n"

static char path[512];

static void setup(void)
{
    test_dir_new();
    snprintf(path, sizeof path, "%s", in_dir("t.csv"));
}

TestSuite(timings, .init = setup, .fini = test_dir_remove, .timeout = 30);

static timings *open_timings(bool resume)
{
    timings *t = NULL;
    pr_err err = {0};
    cr_assert_eq(timings_open(&t, path, "0123456789ab", resume, &err), PR_OK, "%s", err.msg);
    return t;
}

static const timings_run_facts facts = {"v1", "my \"model\"", "Q4_K_M", "abc", 1, 16};

static void close_timings(timings *t, bool with_row)
{
    pr_err err = {0};
    cr_assert_eq(timings_close(t, with_row ? &facts : NULL, 0.5, 2.25, 1e9, 0, &err), PR_OK, "%s", err.msg);
}

/* Admitted at start_ms with ttft and n tokens at the given gap. */
static request_times times_of(double start_ms, double ttft_ms, double gap_ms, size_t n)
{
    request_times t = {.run_start_ns = 1000000000, .slot = 3, .prompt_tokens = 10, .completion_tokens = n};
    t.eligible_ns = t.run_start_ns + 500000;
    t.admitted_ns = t.run_start_ns + (uint64_t)(start_ms * 1e6);
    t.first_token_ns = t.admitted_ns + (uint64_t)(ttft_ms * 1e6);
    t.last_token_ns = t.first_token_ns + (uint64_t)(gap_ms * 1e6 * (double)(n - 1));
    t.itl_p50_ms = n > 1 ? gap_ms : NAN;
    t.itl_p95_ms = t.itl_p99_ms = t.itl_max_ms = t.itl_p50_ms;
    return t;
}

static void add(timings *t, char *id, const request_times *times)
{
    request r = {.id = id};
    completion c = {.finish_reason = "stop"};
    pr_err err = {0};
    if (!times) r.error.code = REQ_INVALID_VALUE;
    cr_assert_eq(timings_request(t, &r, times ? &c : NULL, times, &err), PR_OK, "%s", err.msg);
}

static void expect_file(const char *name, const char *expected)
{
    char *found = read_file(in_dir(name));
    cr_expect_str_eq(found, expected, "\nfound:    %s\nexpected: %s", found, expected);
    free(found);
}

Test(timings, a_row_a_request)
{
    timings *t = open_timings(false);
    request_times a = times_of(1.5, 20, 5, 5), b = times_of(2, 20.0625, 0, 1);
    add(t, "a,\"1\"", &a);
    add(t, "b", &b);
    add(t, "c", NULL);
    close_timings(t, true);
    expect_file("t.csv", REQUESTS
                "prima/timings/"
                "1,0123456789ab,\"a,\"\"1\"\"\",ok,stop,,3,10,5,1.500,1.000,20.000,5.000,5.000,5.000,5.000,5."
                "000,40.000,"
                "500.000,200.000\n"
                "prima/timings/1,0123456789ab,b,ok,stop,,3,10,1,2.000,1.500,20.062,,,,,,20.062,498.442,\n"
                "prima/timings/1,0123456789ab,c,error,,invalid_value,,,,,,,,,,,,,,\n");
}

/* Field number `at` (0-based) of row `row` of a file without quotes. */
static double number_at(const char *name, int row, int at)
{
    char *text = read_file(in_dir(name)), *p = text;
    double v;
    while (row-- > 0) p = strchr(p, '\n') + 1;
    while (at-- > 0) p = strchr(p, ',') + 1;
    v = *p == ',' || *p == '\n' ? NAN : strtod(p, NULL);
    free(text);
    return v;
}

Test(timings, a_row_a_run)
{
    timings *t = open_timings(false);
    char *row;
    /* From the first admission (0 ms) to the last token (600 + 100 + 4 * 75 = 1000 ms): one second. */
    request_times a = times_of(0, 20, 5, 21), b = times_of(600, 100, 75, 5), c = times_of(10, 60, 0, 1);
    add(t, "a", &a);
    add(t, "b", &b);
    add(t, "c", &c);
    add(t, "d", NULL);
    close_timings(t, true);
    row = read_file(in_dir("t.run.csv"));
    cr_expect_eq(strncmp(row, RUN, strlen(RUN)), 0, "%s", row);
    char *from = strstr(row, ",v1,");
    cr_assert_not_null(from);
    /* 27 tokens and 30 of prompts in 1 s. ttft 20, 60, 100: p95 = 60 + 0.9 * 40, p99 = 60 + 0.98 * 40. tpot 5
     * and 75. */
    const char *expected =
        ",v1,\"my \"\"model\"\"\",Q4_K_M,abc,1,16,3,1,0.500,2.250,30,27,27.000,57.000,60.000,96.000,99.200,"
        "40.000,71.500,74.300,1000000000,";
    cr_expect_eq(strncmp(from, expected, strlen(expected)), 0, "%s", from);
    cr_expect_eq(strncmp(row + strlen(RUN), "prima/timings-run/1,0123456789ab,20", 35), 0, "%s",
                 row + strlen(RUN));
    cr_expect_str_eq(row + strlen(row) - 3, ",0\n", "restarts");
    free(row);
}

Test(timings, a_run_without_requests_and_one_that_failed)
{
    close_timings(open_timings(false), true);
    cr_expect_eq(count_lines(in_dir("t.run.csv")), 2);
    cr_expect(isnan(number_at("t.run.csv", 1, 18)), "no requests: no percentiles");
    close_timings(open_timings(false), false);
    expect_file("t.run.csv", RUN);
    pr_err err;
    cr_expect_eq(timings_close(NULL, &facts, 0, 0, 0, 0, &err), PR_OK);
}

Test(timings, a_row_a_device)
{
    timings *t = open_timings(false);
    timings_device_row row = {.rank = 2,
                              .device = "desk",
                              .phase = "mixed",
                              .interval_start_ms = 1000,
                              .wall_ms = 500,
                              .compute_cpu_ms = 300,
                              .compute_gpu_ms = 50,
                              .disk_wait_ms = 40,
                              .send_wait_ms = 20,
                              .recv_wait_ms = 60,
                              .disk_busy_ms = 90,
                              .disk_read_bytes = 123456789012,
                              .net_tx_bytes = 1,
                              .net_rx_bytes = 2,
                              .passes = 7,
                              .tokens = 70,
                              .gpu_mem_peak_bytes = 5,
                              .predicted_pass_ms = NAN,
                              .measured_pass_ms = 71.4287};
    pr_err err = {0};
    double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    cr_assert_eq(timings_device(t, &row, &err), PR_OK, "%s", err.msg);
    row.recv_wait_ms = 90.5;
    cr_assert_eq(timings_device(t, &row, &err), PR_OK, "%s", err.msg);
    close_timings(t, true);

    char *text = read_file(in_dir("t.devices.csv"));
    const char *start =
        DEVICES "prima/timings-devices/"
                "1,0123456789ab,2,desk,mixed,1000.000,500.000,300.000,50.000,40.000,20.000,60.000,"
                "30.000,90.000,123456789012,1,2,7,70,";
    cr_expect_eq(strncmp(text, start, strlen(start)), 0, "%s", text);
    cr_expect_not_null(strstr(text, ",5,,71.429\n"), "%s", text);
    free(text);
    cr_expect_eq(number_at("t.devices.csv", 2, 12), 0, "other is never negative");
    cr_expect(number_at("t.devices.csv", 1, 19) > 1e5 && number_at("t.devices.csv", 1, 19) < total, "rss");
    cr_expect(number_at("t.devices.csv", 1, 20) > 0 && number_at("t.devices.csv", 1, 20) < total,
              "available");
    for (int i = 21; i < 23; i++) {
        double pct = number_at("t.devices.csv", 1, i);
        cr_expect(isnan(pct) || (pct >= 0 && pct <= 100), "column %d: %g", i, pct);
    }
    cr_expect(number_at("t.devices.csv", 1, 23) >= 0, "major faults");
}

Test(timings, memory_that_is_taken_shows_as_pressure)
{
    const size_t n = (size_t)128 << 20;
    timings *t = open_timings(false);
    timings_device_row row = {.device = "desk", .phase = "decode"};
    pr_err err = {0};
    double before, after;
    cr_assert_eq(timings_device(t, &row, &err), PR_OK);
    char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(p != MAP_FAILED);
    memset(p, 1, n);
    cr_assert_eq(timings_device(t, &row, &err), PR_OK);
    munmap(p, n);
    close_timings(t, true);
    before = number_at("t.devices.csv", 1, 19);
    after = number_at("t.devices.csv", 2, 19);
    /* The resident set is counted lazily, in batches of some pages a thread. */
    cr_expect_gt(after - before, 0.9 * (double)n, "rss peak from %g to %g", before, after);
}

Test(timings, resume_appends)
{
    request_times a = times_of(1, 20, 5, 5);
    timings *t = open_timings(false);
    add(t, "a", &a);
    close_timings(t, true);
    t = open_timings(true);
    add(t, "b", &a);
    close_timings(t, true);
    cr_expect_eq(count_lines(in_dir("t.csv")), 3);
    cr_expect_eq(count_lines(in_dir("t.run.csv")), 3);
    t = open_timings(false);
    close_timings(t, true);
    cr_expect_eq(count_lines(in_dir("t.csv")), 1, "without resume it begins anew");
}

Test(timings, the_extension_may_be_left_out)
{
    snprintf(path, sizeof path, "%s", in_dir("plain"));
    close_timings(open_timings(false), true);
    cr_expect_eq(access(in_dir("plain.csv"), F_OK), 0);
    cr_expect_eq(access(in_dir("plain.devices.csv"), F_OK), 0);
    cr_expect_eq(access(in_dir("plain.run.csv"), F_OK), 0);
    timings *t = NULL;
    pr_err err = {0};
    cr_expect_eq(timings_open(&t, in_dir("no/folder.csv"), "x", false, &err), PR_ERESOURCE);
}

Test(timings, percentiles_interpolate)
{
    double v[] = {40, 10, 30, 20}, one[] = {7};
    cr_expect_eq(timings_percentile(v, 4, 0), 10);
    cr_expect_eq(timings_percentile(v, 4, 50), 25);
    cr_expect_float_eq(timings_percentile(v, 4, 95), 38.5, 1e-9);
    cr_expect_eq(timings_percentile(v, 4, 100), 40);
    cr_expect_eq(timings_percentile(one, 1, 99), 7);
    cr_expect(isnan(timings_percentile(one, 0, 50)));
}
