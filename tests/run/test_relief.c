/* Weights are given back while memory is short and taken again afterwards, step by step. The pressure is a
 * file of the test's. That the same is computed meanwhile: test_streaming.c. */
#include "src/base/clock.h"
#include "src/run/engine.h"
#include "src/run/relief.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pr_err err;

/* What /proc/pressure/memory says: microseconds waited since the beginning. Who reads it keeps it open, so it
 * is written over; all texts are of one size. */
static void waited(unsigned long long us)
{
    const char *path = in_dir("proc/pressure/memory");
    FILE *f = fopen(path, "r+");

    if (!f) f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f,
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=%020llu\nfull avg10=0.00 avg60=0.00 avg300=0.00 "
            "total=0\n",
            us);
    fclose(f);
}

static void begin(void)
{
    test_dir_new();
    mkdir(in_dir("proc"), 0755);
    mkdir(in_dir("proc/pressure"), 0755);
    waited(1000);
}

TestSuite(relief, .init = begin, .fini = test_dir_remove, .timeout = 60);

/* Looks until the bytes given back are not what they were any more, or half a minute has passed. busy_pct of
 * the time is waited, however long a sleep takes on a busy machine. */
static uint64_t look(relief *x, residency *r, uint64_t was, unsigned long long *us, unsigned busy_pct)
{
    uint64_t start = clock_ns(), last = start;

    while (clock_ms_since(start) < 30000 && residency_about(r).given_bytes == was) {
        usleep(10000);
        *us += (unsigned long long)(clock_ms_since(last) * 10 * busy_pct);
        last = clock_ns();
        waited(*us);
        cr_assert_eq(relief_look(x, &err), PR_OK, "%s", err.msg);
    }
    return residency_about(r).given_bytes;
}

Test(relief, gives_and_takes_step_by_step)
{
    const uint32_t first = 0, streamed = 10;
    unsigned long long us = 1000;
    uint64_t given = 0, now, all;
    residency_bytes need;
    pool *p;
    model m;
    residency *r;
    relief *x;

    cr_assert_eq(model_open(&m, "datasets/demo/demo.gguf", &err), PR_OK, "%s", err.msg);
    cr_assert_eq(pool_new(&p, 1, &err), PR_OK);
    const residency_options o = {.n_windows = 1,
                                 .first = &first,
                                 .end = &m.hp.n_layers,
                                 .streamed = &streamed,
                                 .buffer_pieces = 3,
                                 .pack_dir = in_dir("packs")};
    cr_assert_eq(residency_need(&need, &m.hp, &o, &err), PR_OK);
    cr_assert_eq(residency_new(&r, &m, &o, p, NULL, &err), PR_OK, "%s", err.msg);
    all = residency_about(r).pass_bytes;
    const relief_options ro = {.resident_bytes = need.weights,
                               .step_pct = 25,
                               .give_s = 0.01,
                               .take_s = 0.05,
                               .pressure = {.poll_s = 0.02, .calm_s = 0.06, .root = in_dir("")}};
    cr_assert_eq(relief_new(&x, r, &ro, &err), PR_OK, "%s", err.msg);

    for (int i = 0; i < 4; i++, given = now) { /* waiting more than half of the time */
        now = look(x, r, given, &us, 60);
        cr_assert_gt(now, given, "step %d", i);
        cr_assert_lt((double)(now - given), 0.4 * (double)need.weights, "a step");
        cr_assert_eq(residency_about(r).pass_bytes, all + now);
    }
    for (int i = 0; i < 8 && given; i++, given = now) { /* over */
        now = look(x, r, given, &us, 0);
        cr_assert_lt(now, given, "step back %d", i);
    }
    cr_assert_eq(given, 0);
    cr_assert_eq(residency_about(r).pass_bytes, all);
    relief_free(x);
    weights_free(residency_take_weights(r, 0));
    residency_free(r);
    pool_free(p);
    model_close(&m);
}
