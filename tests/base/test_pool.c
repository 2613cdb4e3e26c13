/* Every item exactly once, whatever the number of threads; results visible to the caller; hundreds of
 * thousands of loops. */
#include "src/base/clock.h"
#include "src/base/pool.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ITEMS 5000

typedef struct {
    int threads;
    size_t n, chunk;
} pool_case;

typedef struct {
    unsigned char done[MAX_ITEMS]; /* plain bytes: the pool must make them visible */
    size_t n, chunk;
    int threads;
    atomic_int wrong;
} tally;

static void count_items(void *arg, size_t first, size_t end, int thread)
{
    tally *t = arg;

    if (first >= end || end > t->n || end - first > t->chunk || thread < 0 || thread >= t->threads)
        atomic_fetch_add(&t->wrong, 1);
    for (size_t i = first; i < end && i < t->n; i++) t->done[i]++;
}

ParameterizedTestParameters(pool, every_item_once)
{
    static const int threads[] = {1, 2, 3, 7, 16, 64};
    static const size_t sizes[] = {0, 1, 2, 3, 63, 64, 65, 1000, MAX_ITEMS},
                        chunks[] = {1, 2, 7, 64, MAX_ITEMS + 1};
    static pool_case cases[6 * 9 * 5];
    size_t k = 0;

    for (size_t t = 0; t < 6; t++)
        for (size_t s = 0; s < 9; s++)
            for (size_t c = 0; c < 5; c++) cases[k++] = (pool_case){threads[t], sizes[s], chunks[c]};
    return cr_make_param_array(pool_case, cases, k);
}

ParameterizedTest(pool_case *c, pool, every_item_once, .timeout = 60)
{
    static tally t;
    pool *p;

    cr_assert_eq(pool_new(&p, c->threads, NULL), 0);
    cr_assert_eq(pool_threads(p), c->threads);
    for (int round = 0; round < 20; round++) {
        memset(t.done, 0, sizeof t.done);
        t.n = c->n;
        t.chunk = c->chunk;
        t.threads = c->threads;
        pool_run(p, c->n, c->chunk, count_items, &t);
        for (size_t i = 0; i < c->n; i++)
            cr_assert_eq(t.done[i], 1, "item %zu of %zu: %d times", i, c->n, t.done[i]);
    }
    cr_assert_eq(atomic_load(&t.wrong), 0);
    pool_free(p);
}

static void add_thread(void *arg, size_t first, size_t end, int thread)
{
    atomic_size_t *sums = arg;

    atomic_fetch_add_explicit(&sums[thread], end - first, memory_order_relaxed);
}

Test(pool, a_hundred_thousand_loops, .timeout = 120)
{
    static atomic_size_t sums[4];
    size_t total = 0, n_loops = 100000;
    pool *p;

    cr_assert_eq(pool_new(&p, 4, NULL), 0);
    for (size_t i = 0; i < n_loops; i++) pool_run(p, 1 + i % 9, 1, add_thread, sums);
    for (int t = 0; t < 4; t++) total += atomic_load(&sums[t]);
    size_t expected = 0;
    for (size_t i = 0; i < n_loops; i++) expected += 1 + i % 9;
    cr_assert_eq(total, expected);
    pool_free(p);
}

static void note_thread(void *arg, size_t first, size_t end, int thread)
{
    atomic_int *seen = arg;
    struct timespec nap = {.tv_nsec = 2000000};

    (void)first;
    (void)end;
    atomic_store(&seen[thread], 1);
    nanosleep(&nap, NULL);
}

/* Workers that have gone to sleep come back: items that wait let every thread have one. */
Test(pool, sleeping_workers_wake, .timeout = 60)
{
    atomic_int seen[5];
    struct timespec nap = {.tv_nsec = 30000000};
    pool *p;

    cr_assert_eq(pool_new(&p, 5, NULL), 0);
    for (int round = 0; round < 3; round++) {
        for (int t = 0; t < 5; t++) atomic_init(&seen[t], 0);
        nanosleep(&nap, NULL);                  /* far beyond the spin */
        pool_run(p, 500, 1, note_thread, seen); /* 200 ms for each: time to get a core */
        for (int t = 0; t < 5; t++)
            cr_assert(atomic_load(&seen[t]), "round %d: thread %d did nothing", round, t);
    }
    pool_free(p);
}

static void finish_late(void *arg, size_t first, size_t end, int thread)
{
    int *done = arg;
    struct timespec nap = {.tv_nsec = 3000000};

    nanosleep(&nap, NULL);
    for (size_t i = first; i < end; i++) done[i] = thread + 1;
}

/* The caller has nothing left to take, but others are still at their last item. */
Test(pool, returns_when_the_last_item_is_done, .timeout = 60)
{
    pool *p;

    cr_assert_eq(pool_new(&p, 4, NULL), 0);
    for (int round = 0; round < 20; round++) {
        int done[7] = {0};
        pool_run(p, 7, 1, finish_late, done);
        for (int i = 0; i < 7; i++) cr_assert_neq(done[i], 0, "round %d: item %d is not done", round, i);
    }
    pool_free(p);
}

static void on_caller(void *arg, size_t first, size_t end, int thread)
{
    size_t *n = arg;

    cr_assert_eq(thread, 0);
    *n += end - first;
}

Test(pool, one_chunk_runs_on_the_caller)
{
    size_t n = 0;
    pool *p;

    cr_assert_eq(pool_new(&p, 3, NULL), 0);
    pool_run(p, 10, 10, on_caller, &n);
    pool_run(p, 7, 1000, on_caller, &n);
    cr_assert_eq(n, 17);
    pool_free(p);
}

Test(pool, most_threads_start_and_end)
{
    static atomic_size_t sums[POOL_MAX_THREADS];
    size_t total = 0;
    pool *p;

    cr_assert_eq(pool_new(&p, POOL_MAX_THREADS, NULL), 0);
    pool_run(p, 10000, 1, add_thread, sums);
    for (int t = 0; t < POOL_MAX_THREADS; t++) total += atomic_load(&sums[t]);
    cr_assert_eq(total, 10000);
    pool_free(p);
    pool_free(NULL);
    for (int i = 0; i < 200; i++) { /* freed before its threads have looked around */
        cr_assert_eq(pool_new(&p, 4, NULL), 0);
        pool_free(p);
    }
}

/* Threads beyond the cores must not make a loop slow: nobody waits for a worker that did not get a core. */
Test(pool, more_threads_than_cores, .timeout = 60)
{
    static atomic_size_t sums[64];
    uint64_t start = clock_ns();
    pool *p;

    cr_assert_eq(pool_new(&p, 64, NULL), 0);
    for (int i = 0; i < 5000; i++) pool_run(p, 128, 1, add_thread, sums);
    cr_assert_lt(clock_ms_since(start), 10000, "64 threads: %.0f ms for 5000 small loops",
                 clock_ms_since(start));
    pool_free(p);
}

Test(pool, default_threads_is_sane)
{
    int n = pool_default_threads();

    cr_assert(n >= 1 && n <= POOL_MAX_THREADS);
}
