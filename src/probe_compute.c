/* Rates of products for each weight type and batch: repetitions on a rig (product_rig.h), their median and
 * spread. And, for who reads them, what no product can exceed: the multiply-add rates. */
#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/blas.h"
#include "src/multiply_rate.h"
#include "src/probe.h"
#include "src/product_rig.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPS = 5, LIMIT_SLICES = 40, BLAS_SIZE = 512, BLAS_MS = 200 };
static const uint32_t batches[] = {1, 2, 4, 8, 16, 64, 512};
enum { N_BATCHES = sizeof batches / sizeof *batches };

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure_type(product_rig *r, profile *p, uint32_t type, double ms)
{
    double last = 0;

    for (size_t b = 0; b < N_BATCHES && p->n_compute < PROFILE_MAX_COMPUTE; b++) {
        profile_compute *c = &p->compute[p->n_compute++];
        double slice = ms / N_BATCHES / (REPS + 1), rate[REPS];
        size_t rows = last > 0 ? product_rig_rows_within(r, batches[b], last, slice) : RIG_MAX_ROWS;

        log_progress("products: %s, %u tokens", quant_info(type)->name, batches[b]);
        product_rig_run(r, batches[b], rows, slice);
        for (size_t i = 0; i < REPS; i++) rate[i] = product_rig_run(r, batches[b], rows, slice);
        qsort(rate, REPS, sizeof *rate, rising);
        last = rate[REPS / 2];
        *c = (profile_compute){.gpu = -1,
                               .batch = batches[b],
                               .gflops = last,
                               .spread_pct = 100 * (rate[REPS - 1] - rate[0]) / last};
        snprintf(c->type, sizeof c->type, "%s", quant_info(type)->name);
    }
}

/* --- limits --------------------------------------------------------------------------------------------- */
typedef struct {
    multiply_rate best[POOL_MAX_THREADS];
} limits;

static void limit_item(void *arg, size_t first, size_t end, int thread)
{
    limits *l = arg;

    (void)thread;
    for (size_t i = first; i < end; i++) {
        for (int rep = 0; rep < LIMIT_SLICES; rep++) {
            multiply_rate m = multiply_rate_slice(cpu_features());
            l->best[i].int8 = fmax(l->best[i].int8, m.int8);
            l->best[i].f32 = fmax(l->best[i].f32, m.f32);
        }
    }
}

/* Of all threads together. Nothing is planned with it: said, not stored. */
static int measure_limits(profile *p, pr_err *err)
{
    limits *l = calloc(1, sizeof *l);
    int n = (int)p->threads < POOL_MAX_THREADS ? (int)p->threads : POOL_MAX_THREADS;
    double int8 = 0, f32 = 0, sgemm;
    pr_err why = {0};
    pool *workers = NULL;
    int rc = l ? pool_new(&workers, n, err) : pr_fail(err, PR_ERESOURCE, "out of memory");

    if (!rc) {
        log_progress("multiply-add rates");
        pool_run(workers, (size_t)n, 1, limit_item, l);
        pool_free(workers);
        for (int i = 0; i < n; i++) {
            int8 += l->best[i].int8;
            f32 += l->best[i].f32;
        }
        sgemm = blas_gop_per_s(cpu_features(), n, BLAS_SIZE, BLAS_SIZE, BLAS_SIZE, BLAS_MS, &why);
        if (int8 > 0)
            log_info("limits of products: %.0f Gop/s in 8 bits, %.0f in f32 (loops in registers)", int8, f32);
        if (sgemm > 0) log_info("limits of products: OpenBLAS reaches %.0f Gop/s in f32", sgemm);
        else log_info("limits of products: %s", why.msg);
    }
    free(l);
    return rc;
}

int probe_compute(profile *p, product_rig *r, double seconds, pr_err *err)
{
    size_t n_types = 0;
    int rc = PR_OK;

    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) n_types += product_rig_has(r, type);
    for (uint32_t type = 0; type < Q_TYPE_COUNT && !rc; type++) {
        if (!product_rig_has(r, type)) continue;
        rc = product_rig_load(r, type, err);
        if (!rc) measure_type(r, p, type, seconds * 1e3 / (double)n_types);
    }
    if (!rc) rc = measure_limits(p, err);
    log_progress("%s", "");
    return rc;
}
