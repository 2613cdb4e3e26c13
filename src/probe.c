/* Memory read rate; see probe.h. */
#include "src/probe.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include <math.h>
#include <string.h>

enum { PROBE_BYTES = 1 << 28 };

typedef struct {
    const uint64_t *data;
    size_t n_words, n_threads;
    uint64_t sum[POOL_MAX_THREADS * 8];
} probe;

static void probe_item(void *arg, size_t first, size_t end, int thread)
{
    probe *p = arg;
    uint64_t s[8] = {0};

    for (size_t part = first; part < end; part++) {
        const uint64_t *w = p->data + part * p->n_words;
        for (size_t i = 0; i + 8 <= p->n_words; i += 8) {
            for (size_t j = 0; j < 8; j++) s[j] += w[i + j];
        }
    }
    for (size_t j = 0; j < 8; j++) p->sum[(size_t)thread * 8] += s[j];
}

double probe_read_gb_per_s(int n_threads, pr_err *err)
{
    mem_region r;
    pool *workers = NULL;
    probe p = {.n_words = PROBE_BYTES / 8};
    double best = 0;

    if (pool_new(&workers, n_threads, err)) return NAN;
    if (mem_region_new(&r, (size_t)PROBE_BYTES * (size_t)n_threads)) {
        pr_fail_errno(err, PR_ERESOURCE, "no memory to measure the read rate of %d threads", n_threads);
        pool_free(workers);
        return NAN;
    }
    memset(r.p, 1, r.n);
    p.data = r.p;
    for (int i = 0; i < 3; i++) {
        uint64_t start = clock_ns();
        double gbs;
        pool_run(workers, (size_t)n_threads, 1, probe_item, &p);
        gbs = (double)PROBE_BYTES * n_threads / (clock_ms_since(start) * 1e6);
        if (gbs > best) best = gbs;
    }
    mem_region_free(&r);
    pool_free(workers);
    return best;
}
