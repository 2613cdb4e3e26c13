/* Rates of each GPU; see probe_gpu.h. A repetition is as many passes as take MIN_REP_MS, so that what a call
 * costs by itself (about 10 us) does not count. Finding that number warms up: a GPU that was idle takes some
 * tenths of a second to raise its clocks. */
#include "src/probe_gpu.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/probe.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <stdio.h>
#include <string.h>

enum { REPS = 7, WARM_UP_MS = 300, MIN_REP_MS = 20, MAX_PASSES = 1 << 16, SMALL_BYTES = 4096 };
/* Memory to read: many times what the caches of a GPU hold (at most some 130 MB). Copied in chunks. */
#define MIN_READ_BYTES ((size_t)256 << 20)
#define MAX_READ_BYTES ((size_t)1 << 30)
#define CHUNK_BYTES    ((size_t)64 << 20)

void probe_gpu_list(profile *p)
{
    pr_err err = {0};
    int n = gpu_count(&err);

    p->n_gpus = 0;
    if (!n) log_info("GPU: %s", err.msg);
    if (n > PROFILE_MAX_GPUS) {
        log_warn("GPU: only the first %d of %d are used", PROFILE_MAX_GPUS, n);
        n = PROFILE_MAX_GPUS;
    }
    for (int i = 0; i < n; i++) {
        gpu_info info;
        /* One that cannot be asked ends the list: the place in it is the GPU's number. */
        if (gpu_describe(&info, i, &err)) {
            log_warn("GPU: only the first %d of %d are used: %s", i, n, err.msg);
            break;
        }
        profile_gpu *g = &p->gpu[p->n_gpus++];
        *g =
            (profile_gpu){.vram_total_bytes = info.vram_total_bytes, .vram_free_bytes = info.vram_free_bytes};
        snprintf(g->name, sizeof g->name, "%s", info.name);
    }
}

/* --- timing ------------------------------------------------------------------------------------------ */
typedef struct {
    gpu_probe *gpu;
    size_t bytes;      /* of a pass */
    uint64_t word_sum; /* of a pass over the device's memory */
} work;

/* Pieces of work: n passes. */
typedef int work_fn(const work *w, int n, pr_err *err);

static int read_memory(const work *w, int n, pr_err *err)
{
    uint64_t sum;
    int rc = gpu_probe_sum(w->gpu, w->bytes, n, &sum, err);

    if (!rc && sum != w->word_sum * (uint64_t)n)
        rc = pr_fail(err, PR_ERESOURCE, "it reads other bytes than were written to its memory");
    return rc;
}

static int copy_to(const work *w, int n, pr_err *err)
{
    return gpu_probe_copy(w->gpu, GPU_FROM_HOST, 0, w->bytes, n, err);
}

static int copy_from(const work *w, int n, pr_err *err)
{
    return gpu_probe_copy(w->gpu, GPU_TO_HOST, 0, w->bytes, n, err);
}

/* There and back, waited for each time, as hidden states are. */
static int copy_both(const work *w, int n, pr_err *err)
{
    int rc = PR_OK;

    for (int i = 0; i < n && !rc; i++)
        if (!(rc = copy_to(w, 1, err))) rc = copy_from(w, 1, err);
    return rc;
}

/* ms of a pass: the median of REPS, and 100 x (largest - smallest) / median. */
static int pass_ms(double *ms, double *spread_pct, work_fn *run, const work *w, pr_err *err)
{
    uint64_t begin = clock_ns();
    double took, rep[REPS];
    int n = 1, rc;

    for (;;) {
        uint64_t start = clock_ns();
        if ((rc = run(w, n, err))) return rc;
        took = clock_ms_since(start);
        if (took < MIN_REP_MS && n < MAX_PASSES) n *= 2;
        else if (clock_ms_since(begin) >= WARM_UP_MS) break;
    }
    for (int i = 0; i < REPS; i++) {
        uint64_t start = clock_ns();
        int at = i;
        if ((rc = run(w, n, err))) return rc;
        took = clock_ms_since(start) / n;
        for (; at > 0 && rep[at - 1] > took; at--) rep[at] = rep[at - 1];
        rep[at] = took;
    }
    *ms = rep[REPS / 2];
    *spread_pct = 100 * (rep[REPS - 1] - rep[0]) / *ms;
    return PR_OK;
}

/* Into *rate; *spread_pct grows to this one's. */
static int bytes_per_s(double *rate, double *spread_pct, work_fn *run, const work *w, pr_err *err)
{
    double ms = 0, spread = 0;
    int rc = pass_ms(&ms, &spread, run, w, err);

    if (rc) return rc;
    *rate = (double)w->bytes / ms * 1e3;
    if (spread > *spread_pct) *spread_pct = spread;
    return PR_OK;
}

/* --- one GPU ----------------------------------------------------------------------------------------- */
/* Numbers without a pattern into all of the device's memory that will be read; returns their sum. */
static int fill(work *w, pr_err *err)
{
    uint64_t *host = gpu_probe_host(w->gpu), x = 1, sum = 0;
    int rc = PR_OK;

    for (size_t i = 0; i < CHUNK_BYTES / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        host[i] = x;
        sum += x;
    }
    for (size_t at = 0; at < w->bytes && !rc; at += CHUNK_BYTES)
        rc = gpu_probe_copy(w->gpu, GPU_FROM_HOST, at, CHUNK_BYTES, 1, err);
    w->word_sum = sum * (w->bytes / CHUNK_BYTES);
    return rc;
}

static int measure(profile_gpu *g, gpu_probe *probe, size_t read_bytes, pr_err *err)
{
    work memory = {.gpu = probe, .bytes = read_bytes}, chunk = {.gpu = probe, .bytes = CHUNK_BYTES},
         small = {.gpu = probe, .bytes = SMALL_BYTES};
    double both_ms = 0, ignored;
    int rc = fill(&memory, err);

    if (!rc) rc = bytes_per_s(&g->mem_bytes_per_s, &g->spread_pct, read_memory, &memory, err);
    if (!rc) rc = bytes_per_s(&g->h2d_bytes_per_s, &g->spread_pct, copy_to, &chunk, err);
    if (!rc) rc = bytes_per_s(&g->d2h_bytes_per_s, &g->spread_pct, copy_from, &chunk, err);
    if (!rc) rc = pass_ms(&both_ms, &ignored, copy_both, &small, err);
    g->copy_latency_us = both_ms * 1e3 / 2;
    return rc;
}

static int probe_one(profile_gpu *g, int gpu, pr_err *err)
{
    size_t read_bytes = g->vram_free_bytes / 2 / CHUNK_BYTES * CHUNK_BYTES;
    gpu_probe *probe = NULL;
    int rc;

    if (read_bytes > MAX_READ_BYTES) read_bytes = MAX_READ_BYTES;
    if (read_bytes < MIN_READ_BYTES)
        return pr_fail(err, PR_ERESOURCE, "GPU %d: %zu MiB of its memory are free, %zu are needed", gpu,
                       (size_t)(g->vram_free_bytes >> 20), 2 * MIN_READ_BYTES >> 20);
    if ((rc = gpu_probe_open(&probe, gpu, read_bytes, CHUNK_BYTES, err))) return rc;
    rc = measure(g, probe, read_bytes, err);
    gpu_probe_close(probe);
    return rc;
}

void probe_gpu_rates(profile *p)
{
    for (size_t i = 0; i < p->n_gpus; i++) {
        profile_gpu *g = &p->gpu[i];
        pr_err err = {0};
        log_progress("GPU %zu: memory and copies", i);
        if (!probe_one(g, (int)i, &err)) continue;
        log_warn("GPU %zu (%s) is not measured: %s", i, g->name, err.msg);
        g->mem_bytes_per_s = g->h2d_bytes_per_s = g->d2h_bytes_per_s = 0;
        g->copy_latency_us = g->spread_pct = 0;
    }
    log_progress("%s", "");
}
