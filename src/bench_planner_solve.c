/* planner_solve.csv: how long a plan takes to find, and to certify, for clusters of several sizes: the only
 * file of the suite that depends on the machine it runs on. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/bench_planner.h"
#include "src/cmd.h"
#include "src/probe.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char header[] =
    "schema,build,cpu_model,model,devices,layers,max_rounds,reps,solve_ms,solve_min_ms,"
    "solve_max_ms,rounds,predicted_ms,read_bytes_per_token,certificate_limit_ms,"
    "certificate_ms,total_ms,status,gap_pct,certificate_complete";
static const char MODEL[] = "llama-3-70b"; /* 80 layers */
enum { CTX = 1024, SEED = 1, MAX_REPS = 64 };
/* All devices together get at most this share of the model as RAM and VRAM, so that something must be
 * streamed, as long as that leaves each of them the least that machines_draw gives. MEAN_GIB: what it gives
 * on average. */
static const double SHARE_OF_MODEL = 0.8, MEAN_GIB = 12;

typedef struct {
    double solve_ms[MAX_REPS], certificate_ms, bound_ms;
    solution s;
    bool complete;
} timed;

static int time_ring(const planner_options *o, const problem *p, timed *t, pr_err *err)
{
    uint64_t start;
    int rc;

    for (size_t i = 0; i <= o->reps; i++) { /* the first is warm-up */
        start = clock_ns();
        if ((rc = dp_solve(p, &t->s, err))) return rc;
        t->solve_ms[i ? i - 1 : 0] = clock_ms_since(start);
    }
    start = clock_ns();
    rc = milp_certify(p, &t->s.best, &(milp_limits){0, 2000, o->certify_s, 0}, &t->bound_ms, &t->complete,
                      err);
    t->certificate_ms = clock_ms_since(start);
    return rc;
}

static int write_row(csv *file, const planner_options *o, const char *cpu, const bench_ring *r, timed *t,
                     pr_err *err)
{
    double median = timings_percentile(t->solve_ms, o->reps, 50), gap_pct;
    const char *status = milp_status(&t->s.best, t->bound_ms, &gap_pct);

    csv_str(file, "prima/bench-planner-solve/1");
    csv_str(file, prima_version);
    csv_str(file, cpu);
    csv_str(file, MODEL);
    csv_int(file, (int64_t)r->p.n_devices);
    csv_int(file, r->p.n_layers);
    csv_int(file, r->p.max_rounds);
    csv_int(file, (int64_t)o->reps);
    csv_num(file, median, 3);
    csv_num(file, t->solve_ms[0], 3);
    csv_num(file, t->solve_ms[o->reps - 1], 3);
    csv_int(file, t->s.best.rounds);
    csv_num(file, t->s.best.pass_ms, 3);
    csv_int(file, (int64_t)ceil(ring_read_bytes(&t->s.best)));
    csv_num(file, o->certify_s * 1e3, 0);
    csv_num(file, t->certificate_ms, 3);
    csv_num(file, median + t->certificate_ms, 3);
    csv_str(file, t->complete ? status : "feasible");
    csv_num(file, gap_pct, 3);
    csv_str(file, t->complete ? "yes" : "no");
    log_info("%3zu devices: solved in %.1f ms, certificate %.1f ms (%s)", r->p.n_devices, median,
             t->certificate_ms, t->complete ? status : "out of time");
    return csv_row(file, err);
}

static int size_row(csv *file, const planner_options *o, const char *cpu, const model_facts *f, size_t n,
                    pr_err *err)
{
    static const double GIB = 1073741824.0;
    double scale = fmin(1, SHARE_OF_MODEL * (double)f->file_bytes / (double)n / (MEAN_GIB * GIB));
    timed *t = calloc(1, sizeof *t);
    bench_ring r;
    machines m;
    int rc;

    if (!t) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!(rc = machines_draw(&m, SEED, n, scale, err))) {
        if (!(rc = ring_make(&r, &m, f, CTX, 0, err)) && !(rc = time_ring(o, &r.p, t, err)))
            rc = write_row(file, o, cpu, &r, t, err);
        machines_free(&m);
    }
    free(t);
    return rc;
}

static int all_sizes(csv *file, const planner_options *o, const char *cpu, const model_facts *f, pr_err *err)
{
    const char *at = o->devices;
    int rc = PR_OK;

    while (!rc) {
        char *end;
        unsigned long n = strtoul(at, &end, 10);
        if (end == at || n < 1 || n > PROBLEM_MAX_DEVICES || n > CLUSTER_MAX_DEVICES || (*end && *end != ','))
            return pr_fail(err, PR_EUSAGE, "--devices %s: expected numbers from 1 to %d separated by commas",
                           o->devices, (int)PROBLEM_MAX_DEVICES);
        rc = size_row(file, o, cpu, f, n, err);
        if (!*end) break;
        at = end + 1;
    }
    return rc;
}

int bench_planner_solve(const planner_options *o, pr_err *err)
{
    char path[BENCH_PATH_BYTES];
    model_facts *f = calloc(1, sizeof *f);
    profile *here = calloc(1, sizeof *here);
    csv *file = NULL;
    int rc = f && here ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory"), rc2;

    snprintf(path, sizeof path, "%s/planner_solve.csv", o->output);
    if (!rc) rc = models_read(f, o, MODEL, NULL, err);
    if (!rc) rc = csv_open(&file, path, header, false, err);
    if (!rc) {
        probe_machine(here, 1);
        rc = all_sizes(file, o, here->cpu_model, f, err);
    }
    rc2 = csv_close(file, rc ? NULL : err);
    free(f);
    free(here);
    return rc ? rc : rc2;
}
