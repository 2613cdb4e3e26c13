/* Memory read rate; see probe.h. Every thread scans a part of its own, so that no cache serves two of them.
 */
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/probe.h"
#include <math.h>
#include <string.h>

enum { PROBE_BYTES = 1 << 28, REPS = 5 };
#define SCAN_BYTES ((size_t)1 << 30) /* of all threads together, for a profile */

/* 64 bytes at a time, so that adding costs less than fetching: two accumulators, two streams of lines. */
typedef uint64_t line __attribute__((vector_size(64)));

typedef struct {
    const line *data;
    size_t n_lines; /* of each thread */
    line sum[POOL_MAX_THREADS];
} probe;

static void probe_item(void *arg, size_t first, size_t end, int thread)
{
    probe *p = arg;
    line s0 = {0}, s1 = {0};

    for (size_t part = first; part < end; part++) {
        const line *w = p->data + part * p->n_lines;
        for (size_t i = 0; i + 2 <= p->n_lines; i += 2) {
            s0 += w[i];
            s1 += w[i + 1];
        }
    }
    p->sum[thread] += s0 + s1;
}

/* Rates of REPS scans in bytes/s, rising. */
static int scan(double rate[REPS], mem_region *r, size_t bytes_each, int n_threads, pr_err *err)
{
    probe p = {.data = r->p, .n_lines = bytes_each / sizeof(line)};
    pool *workers = NULL;
    int rc = pool_new(&workers, n_threads, err);

    if (rc) return rc;
    for (int i = 0; i < REPS; i++) {
        uint64_t start = clock_ns();
        double now;
        int at = i;
        pool_run(workers, (size_t)n_threads, 1, probe_item, &p);
        now = (double)p.n_lines * sizeof(line) * n_threads / (clock_ms_since(start) / 1e3);
        for (; at > 0 && rate[at - 1] > now; at--) rate[at] = rate[at - 1];
        rate[at] = now;
    }
    pool_free(workers);
    return PR_OK;
}

static int region_new(mem_region *r, size_t n, int n_threads, pr_err *err)
{
    if (mem_region_new(r, n))
        return pr_fail_errno(err, PR_ERESOURCE,
                             "no memory (%zu bytes) to measure the read rate of %d threads", n, n_threads);
    memset(r->p, 1, r->n);
    return PR_OK;
}

double probe_read_gb_per_s(int n_threads, pr_err *err)
{
    double rate[REPS];
    mem_region r;
    int rc;

    if (region_new(&r, (size_t)PROBE_BYTES * (size_t)n_threads, n_threads, err)) return NAN;
    rc = scan(rate, &r, PROBE_BYTES, n_threads, err);
    mem_region_free(&r);
    return rc ? NAN : rate[REPS - 1] / 1e9;
}

int probe_memory(profile *p, int n_threads, pr_err *err)
{
    size_t limit = (size_t)mem_available_bytes() / 4, total = SCAN_BYTES;
    mem_region r;
    int rc, n = n_threads < PROFILE_MAX_THREADS ? n_threads : PROFILE_MAX_THREADS;

    if (limit && total > limit) total = limit;
    if ((rc = region_new(&r, total, n, err))) return rc;
    for (int i = 0; i < n && !rc; i++) {
        double rate[REPS];
        log_progress("memory: %d of %d threads", i + 1, n);
        rc = scan(rate, &r, total / (size_t)(i + 1), i + 1, err);
        p->mem_bytes_per_s[i] = rc ? 0 : rate[REPS / 2];
        p->n_mem = (size_t)i + 1;
        if (!rc)
            p->mem_spread_pct = fmax(p->mem_spread_pct, 100 * (rate[REPS - 1] - rate[0]) / rate[REPS / 2]);
    }
    log_progress("%s", "");
    mem_region_free(&r);
    return rc;
}
