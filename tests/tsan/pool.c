/* The pool under ThreadSanitizer: loops write plain memory that the caller reads, and the other way round,
 * with workers spinning, asleep, late and ending. A race makes the process stop with a report. Prints TAP. */
#include "src/base/pool.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N_ITEMS = 97, N_LOOPS = 2000 };

typedef struct {
    size_t in[N_ITEMS], out[N_ITEMS];
} job;

static void square(void *arg, size_t first, size_t end, int thread)
{
    job *j = arg;

    (void)thread;
    for (size_t i = first; i < end; i++) j->out[i] = j->in[i] * j->in[i];
}

static int loops_are_right(int n_threads)
{
    static job j;
    pool *p;
    int right = 1;

    if (pool_new(&p, n_threads, NULL)) return 0;
    for (size_t loop = 0; loop < N_LOOPS; loop++) {
        for (size_t i = 0; i < N_ITEMS; i++) j.in[i] = loop + i;
        pool_run(p, N_ITEMS, 1 + loop % 5, square, &j);
        for (size_t i = 0; i < N_ITEMS; i++) right &= j.out[i] == (loop + i) * (loop + i);
        if (loop % 400 == 0) /* long enough for the workers to go to sleep */
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    pool_free(p);
    return right;
}

int main(void)
{
    static const int threads[] = {2, 3, 8};
    int failed = 0;

    printf("1..3\n");
    for (int i = 0; i < 3; i++) {
        int right = loops_are_right(threads[i]);
        printf("%s %d - %d threads\n", right ? "ok" : "not ok", i + 1, threads[i]);
        failed |= !right;
    }
    return failed;
}
