/* Computing and reading at the same time: theta of the planner's model (halda.md 7.1), measured.
 *
 * Three rates are measured: products alone, the runtime's reader alone, and both at once for the same time.
 * Of its rate alone, computing keeps the share a, the disk the share b (1 = the other does not disturb).
 *
 * The model says: the disk of a device may run during the share theta of the device's own compute time C, so
 * that reading for a time D (both as they take alone) and computing end after D + (1 - theta) C when the disk
 * is what one waits for. Both at once for one second is such a case: it does C = a and D = b of work in 1:
 *
 *     1 = b + (1 - theta) a        hence        theta = 1 - (1 - b) / a        kept within 0..1
 *
 * Undisturbed, a = b = 1, gives 1; taking turns, a + b = 1, gives 0. So the model is exact where the disk is
 * the bound, which is where plans stream. Where computing is the bound, theta cannot say that it slows down
 * while the disk works: the model then misses (1 - a) / b of the reading time. compute_share = a and
 * disk_share = b therefore stand beside theta in the profile.
 *
 * One token is bound by memory, sixteen by the cores: the disk disturbs them in different ways, and both are
 * measured. Each repetition measures all three rates one after the other, so that a machine that grows slower
 * does so in all of them. */
#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/disk_best.h"
#include "src/disk_rate.h"
#include "src/probe.h"
#include "src/product_rig.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { REPS = 5 };
static const uint32_t batches[] = {1, 16};
enum { N_BATCHES = sizeof batches / sizeof *batches };
static const double LEAST_MS = 20; /* of a rate */

typedef struct {
    disk_rate *reader;
    double seconds;
    profile_disk figures;
    pr_err err;
    int rc;
} reading;

static void *read_beside(void *arg)
{
    reading *r = arg;

    r->rc = disk_rate_run(r->reader, r->seconds, 0, &r->figures, &r->err);
    return NULL;
}

static double share(double both, double alone)
{
    double s = alone > 0 ? both / alone : 0;
    return s < 0 ? 0 : s > 1 ? 1 : s;
}

static double theta_of(double a, double b)
{
    double theta = a > 0 ? 1 - (1 - b) / a : 0;
    return theta < 0 ? 0 : theta;
}

/* One repetition: the three rates. */
static int measure(profile_overlap *out, product_rig *rig, reading *r, uint32_t batch, size_t rows, double ms,
                   pr_err *err)
{
    double compute_alone = product_rig_run(rig, batch, rows, ms), compute_both, disk_alone;
    pthread_t thread;

    read_beside(r);
    disk_alone = r->figures.read_bytes_per_s;
    if (r->rc) return pr_fail(err, r->rc, "%s", r->err.msg);
    if (thread_start(&thread, read_beside, r))
        return pr_fail(err, PR_ERESOURCE, "no thread to read and compute at the same time");
    compute_both = product_rig_run(rig, batch, rows, ms);
    pthread_join(thread, NULL);
    if (r->rc) return pr_fail(err, r->rc, "%s", r->err.msg);
    out->compute_share = share(compute_both, compute_alone);
    out->disk_share = share(r->figures.read_bytes_per_s, disk_alone);
    out->theta = theta_of(out->compute_share, out->disk_share);
    return PR_OK;
}

static int by_theta(const void *a, const void *b)
{
    double x = ((const profile_overlap *)a)->theta, y = ((const profile_overlap *)b)->theta;
    return (x > y) - (x < y);
}

/* The repetitions of one batch. The first only warms up. */
static int measure_batch(profile_overlap *out, product_rig *rig, reading *r, uint32_t batch, double ms,
                         pr_err *err)
{
    profile_overlap rep[REPS + 1];
    double gflops = product_rig_run(rig, batch, RIG_MAX_ROWS, LEAST_MS);
    size_t rows = product_rig_rows_within(rig, batch, gflops, ms / 20); /* so that both end together */

    r->seconds = ms / 1e3;
    memset(rep, 0, sizeof rep);
    for (size_t i = 0; i <= REPS; i++) {
        int rc;
        log_progress("computing and reading at once: %u tokens (%zu of %d)", batch, i + 1, REPS + 1);
        if ((rc = measure(&rep[i], rig, r, batch, rows, ms, err))) return rc;
    }
    qsort(rep + 1, REPS, sizeof *rep, by_theta);
    *out = rep[1 + REPS / 2];
    out->batch = batch;
    out->reps = REPS;
    out->spread_pct = 100 * (rep[REPS].theta - rep[1].theta);
    return PR_OK;
}

int probe_overlap(profile *p, product_rig *rig, const char *path, double seconds, pr_err *err)
{
    const profile_disk *d = profile_disk_used(p);
    double ms = seconds * 1e3 / (N_BATCHES * (REPS + 1) * 3);
    disk_read_options o = {0};
    reading r = {0};
    int rc;

    if (!d || !disk_options_of(&o, d)) return PR_OK;
    if ((rc = product_rig_load(rig, product_rig_main_type(rig), err)) ||
        (rc = disk_rate_open(&r.reader, path, &o, err)))
        return rc;
    for (size_t i = 0; i < N_BATCHES && !rc; i++) {
        rc = measure_batch(&p->overlap[i], rig, &r, batches[i], ms < LEAST_MS ? LEAST_MS : ms, err);
        if (!rc) p->n_overlap = i + 1;
    }
    log_progress("%s", "");
    disk_rate_close(r.reader);
    return rc;
}
