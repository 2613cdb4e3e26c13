/* prima bench ring as a user runs it, on the demo model: what its rows hold, and that the columns agree with
 * each other and with the delays of the links. */
#include "src/bench_ring.h"
#include "tests/common/csv_table.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(bench_ring, .init = (void (*)(void))test_dir_new, .fini = test_dir_remove, .timeout = 120);

static void bench(const char *test, const char *reps)
{
    setenv("PRIMA_LOG", "error", 1);
    prima_result r =
        prima_run(NULL, (const char *const[]){"bench", "ring", "-m", "datasets/demo/demo.gguf", "--only",
                                              test, "-r", reps, "-o", in_dir("."), NULL});
    cr_assert_eq(r.status, 0, "exit %d: %s", r.status, r.err);
    read_table(in_dir("ring.csv"), true);
    cr_assert_gt(n_rows, 0);
}

static bool is(size_t row, const char *column, const char *text)
{
    return !strcmp(get(row, column), text);
}

static bool is_none(size_t row, const char *column)
{
    return is(row, column, "");
}

/* With one repetition a median is the figure itself. */
Test(bench_ring, what_several_in_flight_reach)
{
    bench("tg10", "1");
    for (size_t i = 0; i < n_rows; i++) {
        double base = number(i, "base_tps"), ring = number(i, "ring_tps"), ceiling = number(i, "ceiling_tps");
        cr_expect(is(i, "schema", "prima/bench-ring/2") && is_none(i, "hop_us"));
        cr_expect(is(i, "sequences", "16") || is(i, "sequences", "32"));
        cr_expect_float_eq(number(i, "ring_over_base"), ring / base, 2e-4);
        cr_expect_eq(is(i, "base", "no delay"), number(i, "link_delay_ms") > 0);
        cr_expect_eq(is_none(i, "ceiling_tps"), number(i, "link_delay_ms") > 0);
        cr_expect_eq(is_none(i, "ring_over_ceiling"), is_none(i, "ceiling_tps"));
        if (is_none(i, "ceiling_tps")) continue;
        cr_expect(ceiling > base / 50 && ceiling < base * 50, "row %zu: %g and %g", i, ceiling, base);
        cr_expect_float_eq(number(i, "ring_over_ceiling"), ring / ceiling, 2e-4);
    }
}

/* A hidden state takes at least as long as its link, and what a token takes longer is mostly that. */
Test(bench_ring, what_a_link_takes)
{
    bench("tg24", "2");
    for (size_t i = 0; i < n_rows; i++) {
        double delay_us = 1e3 * number(i, "link_delay_ms"), link = number(i, "link_us");
        cr_expect(delay_us >= 1000 && is(i, "sequences", "1") && is_none(i, "ceiling_tps"));
        cr_expect(link >= delay_us && number(i, "hop_us") >= 0.9 * delay_us, "row %zu: %g of %g us", i, link,
                  delay_us);
        cr_expect_lt(link, delay_us + 50000, "row %zu: %g us on a busy machine", i, link);
    }
}

Test(bench_ring, hops_alone)
{
    bench("hop", "1");
    for (size_t i = 0; i < n_rows; i++) {
        cr_expect(number(i, "hop_us") > 0 && is_none(i, "ring_tps") && is_none(i, "link_us"));
        cr_expect(is_none(i, "base") && is_none(i, "least_ratio"));
    }
}

/* --- spans
 * --------------------------------------------------------------------------------------------------- */
static span at(span_kind kind, uint64_t id, uint64_t start_us, uint64_t end_us)
{
    return (span){.kind = kind, .batch = id, .start_ns = start_us * 1000, .end_ns = end_us * 1000};
}

/* Three tokens, in the order in which devices tell; the first one began too early. */
Test(bench_ring_spans, a_link_is_what_lies_between_computing)
{
    span s[] = {
        at(SPAN_EMBED, 1, 0, 5),        at(SPAN_WINDOW, 1, 5, 100),     at(SPAN_LOGITS, 1, 107, 110),
        at(SPAN_WINDOW, 2, 1000, 1100), at(SPAN_LOGITS, 2, 1900, 1950), at(SPAN_SEND, 2, 1101, 1120),
        at(SPAN_WINDOW, 3, 2500, 2600), at(SPAN_LOGITS, 3, 2620, 2700), at(SPAN_WINDOW, 2, 1400, 1600),
        at(SPAN_WAIT, 2, 1150, 1399),   at(SPAN_WINDOW, 2, 1150, 1300),
    };
    ring_spans all = {.s = s, .n = sizeof s / sizeof *s, .cap = 0};
    double us;

    cr_assert_eq(ring_spans_link_us(&all, 500000, &us, NULL), PR_OK);
    cr_expect_float_eq(us, 75, 1e-9, "of 20, 50, 100 and 300 us, but %g", us);
}

Test(bench_ring_spans, none_is_no_number)
{
    ring_spans all = {0};
    double us;

    cr_assert_eq(ring_spans_link_us(&all, 0, &us, NULL), PR_OK);
    cr_expect(isnan(us));
}

/* More than fit into one message, or into a socket's buffer. */
Test(bench_ring_spans, go_from_process_to_process, .timeout = 20)
{
    enum { N = 20000 };
    ring_spans sent = {.s = calloc(N, sizeof(span)), .n = N}, got = {0};
    int pair[2], status;

    for (size_t i = 0; i < N; i++) sent.s[i] = at(SPAN_WINDOW, i, i, 2 * i);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t pid = fork();
    if (!pid) {
        close(pair[0]); /* or it would wait for itself */
        _exit(!ring_spans_send(pair[1], &sent));
    }
    close(pair[1]);
    cr_assert_eq(ring_spans_recv(pair[0], &got, NULL), PR_OK);
    cr_assert_eq(got.n, N);
    cr_expect_eq(memcmp(got.s, sent.s, N * sizeof *got.s), 0);
    cr_expect(waitpid(pid, &status, 0) == pid && !status);
    cr_expect_eq(ring_spans_recv(pair[0], &got, NULL), PR_EPEER, "nobody is there any more");
    ring_spans_clear(&got);
    ring_spans_clear(&sent);
}
