/* Rates of products for each weight type and batch: repetitions on a rig (product_rig.h), their median and
 * spread. */
#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/probe.h"
#include "src/product_rig.h"
#include <stdio.h>
#include <stdlib.h>

enum { REPS = 5 };
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
    log_progress("%s", "");
    return rc;
}
