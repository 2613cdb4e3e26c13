/* Hidden states on their way, by the spans of the devices: all are processes of one machine and one clock, so
 * that the end of computing on one device and its beginning on the next can be compared. */
#include "src/base/mem.h"
#include "src/bench_ring.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int add(ring_spans *all, const span *x, size_t n, pr_err *err)
{
    if (all->n + n > all->cap) {
        size_t cap = 2 * (all->n + n);
        span *more = realloc(all->s, cap * sizeof *more);
        if (!more) return pr_fail(err, PR_ERESOURCE, "out of memory");
        all->s = more;
        all->cap = cap;
    }
    memcpy(all->s + all->n, x, n * sizeof *x);
    all->n += n;
    return PR_OK;
}

void ring_spans_clear(ring_spans *all)
{
    free(all->s);
    *all = (ring_spans){0};
}

int ring_spans_take(ring_spans *all, stage *s, pr_err *err)
{
    span x[SPANS_MAX];
    uint64_t dropped;
    size_t n;
    int rc = PR_OK;

    while (!rc && (n = stage_take_spans(s, x, SPANS_MAX, &dropped))) rc = add(all, x, n, err);
    return rc;
}

/* --- from process to process ------------------------------------------------------------------------------
 */
static bool write_all(int fd, const void *data, size_t n)
{
    const uint8_t *at = data;
    ssize_t done = 1;

    for (; n && (done = write(fd, at, n)) > 0; n -= (size_t)done) at += done;
    return !n;
}

static bool read_all(int fd, void *data, size_t n)
{
    uint8_t *at = data;
    ssize_t done = 1;

    for (; n && (done = read(fd, at, n)) > 0; n -= (size_t)done) at += done;
    return !n;
}

bool ring_spans_send(int fd, const ring_spans *all)
{
    return write_all(fd, &all->n, sizeof all->n) && write_all(fd, all->s, all->n * sizeof *all->s);
}

int ring_spans_recv(int fd, ring_spans *all, pr_err *err)
{
    span x[SPANS_MAX];
    size_t left, n;
    int rc = PR_OK;

    if (!read_all(fd, &left, sizeof left)) return pr_fail(err, PR_EPEER, "a worker has ended");
    for (; left && !rc; left -= n) {
        n = left < SPANS_MAX ? left : SPANS_MAX;
        if (!read_all(fd, x, n * sizeof *x)) return pr_fail(err, PR_EPEER, "a worker has ended");
        rc = add(all, x, n, err);
    }
    return rc;
}

/* --- what they tell
 * ------------------------------------------------------------------------------------------
 */
static int by_batch_and_start(const void *a, const void *b)
{
    const span *x = a, *y = b;

    if (x->batch != y->batch) return x->batch < y->batch ? -1 : 1;
    return x->start_ns < y->start_ns ? -1 : x->start_ns > y->start_ns;
}

static size_t keep_computing(span *s, size_t n, uint64_t since_ns)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        bool computes = s[i].kind == SPAN_WINDOW || s[i].kind == SPAN_LOGITS;
        if (computes && s[i].start_ns >= since_ns) s[kept++] = s[i];
    }
    return kept;
}

int ring_spans_link_us(ring_spans *all, uint64_t since_ns, double *us, pr_err *err)
{
    size_t n = keep_computing(all->s, all->n, since_ns), n_gaps = 0;
    double *gap = calloc(n + 1, sizeof *gap);

    if (!gap) return pr_fail(err, PR_ERESOURCE, "out of memory");
    qsort(all->s, n, sizeof *all->s, by_batch_and_start);
    for (size_t i = 1; i < n; i++) {
        const span *before = &all->s[i - 1], *x = &all->s[i];
        if (x->batch == before->batch) gap[n_gaps++] = (double)(x->start_ns - before->end_ns) / 1e3;
    }
    *us = timings_percentile(gap, n_gaps, 50);
    free(gap);
    return PR_OK;
}
