/* Where a run stands: rates, the status line, and the metrics as a parser of the Prometheus text format reads
 * them. */
#include "src/run/metrics.h"
#include "src/run/rate.h"
#include "tests/common/prima.h"
#include "tests/common/prom.h"
#include <criterion/criterion.h>
#include <time.h>
#include <unistd.h>

static const uint64_t S = 1000000000;
static pr_err err;

/* --- rates ------------------------------------------------------------------------------------------------
 */
Test(rate, is_of_the_last_ten_seconds)
{
    rate r = {0};
    double value = 0;
    uint64_t at = 5 * S;

    cr_expect_eq(rate_per_s(&r, at), 0);
    for (int i = 0; i < 1000; i++) rate_add(&r, at += S / 20, value += 100); /* 2000 a second for 50 s */
    cr_expect_float_eq(rate_per_s(&r, at), 2000, 1e-6);
    for (int i = 0; i < 300; i++) rate_add(&r, at += S / 20, value += 5); /* 100 a second for 15 s */
    cr_expect_float_eq(rate_per_s(&r, at), 100, 1e-6, "what was before is forgotten");
    cr_expect_float_eq(rate_per_s(&r, at + 10 * S), 50, 5, "and it falls when nothing comes");
}

Test(rate, counter_that_begins_anew)
{
    rate r = {0};

    for (uint64_t i = 0; i <= 4; i++) rate_add(&r, i * S, 1000.0 * (double)i);
    for (uint64_t i = 5; i <= 8; i++) rate_add(&r, i * S, 7.0 * (double)(i - 5));
    cr_expect_float_eq(rate_per_s(&r, 8 * S), 7, 1e-9);
}

/* --- the status line --------------------------------------------------------------------------------------
 */
static progress_view v;

static const char *line(void)
{
    static char text[256];
    progress_line(&v, text, sizeof text);
    return text;
}

Test(progress, line)
{
    v = (progress_view){.run = {.n_done = 12, .n_all = 600, .n_running = 16}, .tokens_per_s = 512.34};
    v.left_s = NAN;
    cr_expect_str_eq(line(), "12 of 600 done, 16 running, 512.3 tokens/s");
    v.left_s = 42.4;
    v.n_devices = 1;
    v.device[0] = (progress_shown){.name = "desk", .is_up = true, .busy = 0.99};
    cr_expect_str_eq(line(), "12 of 600 done, 16 running, 512.3 tokens/s, 42 s left", "nobody to wait for");
    v.left_s = 80;
    v.n_devices = 3;
    v.device[1] = (progress_shown){.name = "laptop", .is_up = true, .busy = 0.931};
    v.device[2] = (progress_shown){.name = "old", .is_up = false, .busy = 1};
    v.device[0].busy = 0.4;
    cr_expect_str_eq(line(),
                     "12 of 600 done, 16 running, 512.3 tokens/s, 1 min 20 s left, slowest: laptop 93 %");
    v.left_s = 2 * 3600 + 5 * 60;
    v.n_devices = 0;
    cr_expect_str_eq(line(), "12 of 600 done, 16 running, 512.3 tokens/s, 2 h 05 min left");
}

static uint64_t since_ns;

static void note(progress *p, const char *name, double at_s, double compute_s, uint64_t rx)
{
    const progress_device d = {.since_ns = since_ns,
                               .at_ns = (uint64_t)(at_s * 1e9),
                               .compute_s = compute_s,
                               .wait_s = at_s - compute_s,
                               .send_s = 0.5 * at_s,
                               .rx_bytes = rx,
                               .tx_bytes = 2 * rx,
                               .disk_bytes = 5 * rx};
    progress_note_device(p, name, &d);
}

/* Shares are of each device's own clock; sums go on over a restart. */
Test(progress, devices)
{
    progress *p = progress_new();

    progress_note_up(p, "a", false);
    progress_note_up(p, "b", true);
    for (int i = 0; i <= 20; i++) {
        note(p, "a", 1000 + i, 0.25 * i, (uint64_t)(100 * i));
        note(p, "b", 7 + i, 0.75 * i, 10);
    }
    progress_look(p, &v);
    cr_assert_eq(v.n_devices, 2u);
    cr_expect_str_eq(v.device[0].name, "a");
    cr_expect(v.device[0].is_up, "it has beaten");
    cr_expect_float_eq(v.device[0].busy, 0.25, 1e-9);
    cr_expect_float_eq(v.device[1].busy, 0.75, 1e-9);

    progress_note_up(p, "a", false);
    progress_look(p, &v);
    cr_expect_not(v.device[0].is_up);
    since_ns = 77;
    note(p, "a", 3, 6, 3000); /* more already than before */
    note(p, "a", 5, 7, 5000);
    progress_note_restart(p);
    progress_look(p, &v);
    cr_expect(v.device[0].is_up);
    cr_expect_float_eq(v.device[0].total.compute_s, 5 + 7, 1e-9);
    cr_expect_eq(v.device[0].total.rx_bytes, 2000u + 5000u);
    cr_expect_eq(v.device[0].total.tx_bytes, 4000u + 10000u);
    cr_expect_float_eq(v.device[0].busy, 0.5, 1e-9);
    cr_expect_eq(v.restarts, 1u);
    progress_free(p);
}

/* --- metrics
 * ------------------------------------------------------------------------------------------------ */
static progress *busy_run(void)
{
    progress *p = progress_new();

    progress_note_run(p, &(progress_run){.n_ok = 5,
                                         .n_failed = 2,
                                         .n_done = 9,
                                         .n_all = 20,
                                         .n_running = 3,
                                         .prompt_tokens = 12345678901234,
                                         .completion_tokens = 77});
    note(p, "od\"d\\na\nme", 1, 0.125, 1 << 20);
    note(p, "laptop", 1, 0.25, 3);
    progress_note_up(p, "laptop", false);
    return p;
}

static prom *parse_valid(const char *text)
{
    prom *r = prom_parse(text);
    cr_assert_str_empty(r->wrong, "%s", r->wrong);
    return r;
}

static void check(const char *text, bool is_active)
{
    prom *r = parse_valid(text);

    cr_expect_eq(prom_get(r, "prima_run_active", NULL, NULL), is_active);
    cr_expect_eq(prom_get(r, "prima_requests_total", "status", "ok"), 5);
    cr_expect_eq(prom_get(r, "prima_requests_total", "status", "error"), 2);
    cr_expect_eq(prom_get(r, "prima_requests_left", NULL, NULL), 11);
    cr_expect_eq(prom_get(r, "prima_tokens_total", "kind", "prompt"), 12345678901234.0);
    cr_expect_eq(prom_get(r, "prima_tokens_total", "kind", "completion"), 77);
    cr_expect_eq(prom_get(r, "prima_sequences_running", NULL, NULL), is_active ? 3 : 0);
    cr_expect_eq(prom_get(r, "prima_restarts_total", NULL, NULL), 0);
    cr_expect_eq(prom_get(r, "prima_device_up", "device", "od\"d\\na\nme"), 1);
    cr_expect_eq(prom_get(r, "prima_device_up", "device", "laptop"), 0);
    cr_expect_float_eq(prom_get(r, "prima_device_compute_seconds_total", "device", "laptop"), 0.25, 1e-9);
    cr_expect_float_eq(prom_get(r, "prima_device_wait_seconds_total", "device", "laptop"), 0.75, 1e-9);
    cr_expect_float_eq(prom_get(r, "prima_device_send_seconds_total", "device", "laptop"), 0.5, 1e-9);
    cr_expect_eq(prom_get(r, "prima_device_receive_bytes_total", "device", "laptop"), 3);
    cr_expect_eq(prom_get(r, "prima_device_transmit_bytes_total", "device", "laptop"), 6);
    cr_expect_eq(prom_get(r, "prima_device_disk_read_bytes_total", "device", "laptop"), 15);
    cr_expect_eq(prom_get(r, "prima_device_disk_wait_seconds_total", "device", "laptop"), 0);
    cr_expect(!isnan(prom_get(r, "prima_tokens_per_second", NULL, NULL)));
    free(r);
}

Test(metrics, text)
{
    progress *p = busy_run();

    progress_look(p, &v);
    for (int is_active = 0; is_active < 2; is_active++) {
        char *text = metrics_text(&v, is_active);
        check(text, is_active);
        free(text);
    }
    progress_free(p);
}

Test(metrics, file_is_there_from_the_beginning_and_follows, .init = (void (*)(void))test_dir_new,
     .fini = test_dir_remove, .timeout = 20)
{
    progress *p = busy_run();
    metrics *m;
    char *text;

    cr_assert_eq(metrics_start(&m, in_dir("m.prom"), p, &err), PR_OK, "%s", err.msg);
    check(text = read_file(in_dir("m.prom")), true);
    free(text);
    progress_note_up(p, "laptop", true);
    for (int i = 0; i < 100; i++) { /* every 2 s */
        prom *r = parse_valid(text = read_file(in_dir("m.prom")));
        double up = prom_get(r, "prima_device_up", "device", "laptop");
        free(text);
        free(r);
        if (up == 1) break;
        cr_assert_lt(i, 99, "the file does not follow");
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    progress_note_up(p, "laptop", false);
    cr_assert_eq(metrics_stop(m, &err), PR_OK, "%s", err.msg);
    check(text = read_file(in_dir("m.prom")), false);
    free(text);
    progress_free(p);
}

Test(metrics, file_that_cannot_be_written)
{
    progress *p = progress_new();
    metrics *m;

    cr_expect_eq(metrics_start(&m, "/nonexistent/m.prom", p, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "/nonexistent"), "%s", err.msg);
    progress_free(p);
}
