/* planner_halda.csv: how far the paper's algorithm is from the best plan, over random clusters: under our
 * model of time and under its own, in which it is a heuristic too (halda.md 6.4). The best plan under its own
 * model is found by dynamic programming: the model adds the devices' times, so they are separable. */
#include "planner/published.h"
#include "planner/solve.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/bench_planner.h"
#include "src/cmd.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char header[] =
    "schema,build,ctx_tokens,clusters_of,clusters,no_plan,no_plan_pct,optimal_pct,ratio_p50,ratio_p90,ratio_"
    "max,"
    "own_model_optimal_pct,own_model_ratio_p50,own_model_ratio_p90,own_model_ratio_max";
static const char *const models[] = {"qwen2.5-14b", "llama-1-30b", "llama-3-70b"};
enum { N_MODELS = 3, LEAST_DEVICES = 2, MOST_DEVICES = 5, CTX = 1024 };
static const double OPTIMAL = 1 + 1e-6; /* ratios up to this are the optimum: sums in another order */

typedef struct {
    size_t model, devices;
    bool planned;
    double ratio, own_ratio; /* its time to the best one's; NAN without a plan */
} trial;

/* --- its own model of time (halda.md 2) ------------------------------------------------------------------
 */
static double read_again_bytes(const halda_problem *p, size_t m, uint32_t l, uint32_t g)
{
    const halda_device *d = &p->device[m];
    double cpu_layers = d->os == HALDA_MACOS ? l : l - g;
    double need = cpu_layers * (p->layer_bytes + p->kv_layer_bytes) + (l > g ? d->cpu_buffer_bytes : 0);

    if (m == 0) need += p->input_row_bytes + p->output_bytes;
    if (need > d->ram_available_bytes) return need - d->ram_available_bytes;
    return m == 0 ? p->input_row_bytes : 0;
}

/* INFINITY: more on the GPU than it holds. */
static double own_device_ms(const halda_problem *p, size_t m, uint32_t l, uint32_t g)
{
    const halda_device *d = &p->device[m];
    double ms = (l - g) * p->layer_flops / (d->cpu_gflops * 1e6);

    if (g > 0) ms += g * p->layer_flops / (d->gpu_gflops * 1e6);
    if (g > 0 && g * (p->layer_bytes + p->kv_layer_bytes) + d->gpu_buffer_bytes > d->vram_bytes)
        return INFINITY;
    if (m == 0) ms += p->output_flops / (d->cpu_gflops * 1e6);
    return ms + read_again_bytes(p, m, l, g) / d->disk_bytes_per_ms;
}

static double own_plan_ms(const halda_problem *p, const assignment *a)
{
    double ms = 0;

    for (size_t m = 0; m < p->n_devices; m++)
        ms += own_device_ms(p, m, a->device[m].layers, a->device[m].gpu_layers);
    return ms;
}

static double own_best_ms(const halda_problem *p)
{
    double sum[FACTS_MAX_LAYERS + 1], next[FACTS_MAX_LAYERS + 1], one[FACTS_MAX_LAYERS + 1];

    for (uint32_t r = 0; r <= p->n_layers; r++) sum[r] = r ? INFINITY : 0;
    for (size_t m = 0; m < p->n_devices; m++) {
        for (uint32_t l = 0; l <= p->n_layers; l++) {
            one[l] = own_device_ms(p, m, l, 0);
            for (uint32_t g = 1; g <= l && p->device[m].gpu_gflops > 0; g++)
                one[l] = fmin(one[l], own_device_ms(p, m, l, g));
            next[l] = INFINITY;
        }
        for (uint32_t r = 0; r <= p->n_layers; r++)
            for (uint32_t l = 0; l <= r; l++) next[r] = fmin(next[r], sum[r - l] + one[l]);
        memcpy(sum, next, sizeof sum);
    }
    return sum[p->n_layers];
}

/* --- one cluster -----------------------------------------------------------------------------------------
 */
static int try_ring(const bench_ring *r, trial *t, pr_err *err)
{
    static solution best; /* large */
    assignment a;
    halda_problem own;
    int rc = published_solve(&r->p, r->f, r->os, &a, err), rc2;

    if (rc && rc != PR_EINFEASIBLE) return rc;
    t->planned = !rc;
    t->ratio = t->own_ratio = NAN;
    if (rc) return PR_OK;
    if ((rc2 = dp_solve(&r->p, &best, err))) return rc2;
    published_problem(&own, &r->p, r->f, r->os);
    t->ratio = a.pass_ms / best.best.pass_ms;
    t->own_ratio = own_plan_ms(&own, &a) / own_best_ms(&own);
    return PR_OK;
}

static int try_cluster(const model_facts *facts, uint64_t seed, trial *t, pr_err *err)
{
    machines m;
    bench_ring r;
    int rc;

    t->model = seed % N_MODELS;
    t->devices = LEAST_DEVICES + seed / N_MODELS % (MOST_DEVICES - LEAST_DEVICES + 1);
    if ((rc = machines_draw(&m, seed, t->devices, 1, err))) return rc;
    if (!(rc = ring_make(&r, &m, &facts[t->model], CTX, 0, err))) rc = try_ring(&r, t, err);
    machines_free(&m);
    return rc;
}

/* --- rows ------------------------------------------------------------------------------------------------
 */
/* Share of 1..OPTIMAL among all clusters (no plan is a miss), median, 90th percentile and largest of the
 * others. */
static void write_ratios(csv *file, double *ratio, size_t n, size_t n_clusters)
{
    size_t optimal = 0;

    for (size_t i = 0; i < n; i++) optimal += ratio[i] <= OPTIMAL;
    csv_num(file, n_clusters ? 100.0 * (double)optimal / (double)n_clusters : NAN, 1);
    csv_num(file, timings_percentile(ratio, n, 50), 3);
    csv_num(file, timings_percentile(ratio, n, 90), 3);
    csv_num(file, n ? ratio[n - 1] : NAN, 3);
}

/* The trials of one model (N_MODELS: all) and number of devices (0: all). */
static int write_row(csv *file, const char *name, const trial *t, size_t n, size_t model, size_t devices,
                     double *ratio, pr_err *err)
{
    double *own_ratio = ratio + n;
    size_t n_clusters = 0, n_planned = 0;

    for (size_t i = 0; i < n; i++) {
        if ((model < N_MODELS && t[i].model != model) || (devices && t[i].devices != devices)) continue;
        n_clusters++;
        if (!t[i].planned) continue;
        ratio[n_planned] = t[i].ratio;
        own_ratio[n_planned++] = t[i].own_ratio;
    }
    csv_str(file, "prima/bench-planner-halda/1");
    csv_str(file, prima_version);
    csv_int(file, CTX);
    csv_str(file, name);
    csv_int(file, (int64_t)n_clusters);
    csv_int(file, (int64_t)(n_clusters - n_planned));
    csv_num(file, n_clusters ? 100.0 * (double)(n_clusters - n_planned) / (double)n_clusters : NAN, 1);
    write_ratios(file, ratio, n_planned, n_clusters);
    write_ratios(file, own_ratio, n_planned, n_clusters);
    return csv_row(file, err);
}

static int write_rows(csv *file, const trial *t, size_t n, pr_err *err)
{
    double *ratio = calloc(2 * n, sizeof *ratio);
    char name[64];
    int rc;

    if (!ratio) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = write_row(file, "all", t, n, N_MODELS, 0, ratio, err);
    for (size_t m = 0; m < N_MODELS && !rc; m++) rc = write_row(file, models[m], t, n, m, 0, ratio, err);
    for (size_t d = LEAST_DEVICES; d <= MOST_DEVICES && !rc; d++) {
        snprintf(name, sizeof name, "%zu devices", d);
        rc = write_row(file, name, t, n, N_MODELS, d, ratio, err);
    }
    free(ratio);
    return rc;
}

static int try_all(const planner_options *o, trial *t, pr_err *err)
{
    model_facts *facts = calloc(N_MODELS, sizeof *facts);
    int rc = facts ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    for (size_t i = 0; i < N_MODELS && !rc; i++) rc = models_read(&facts[i], o, models[i], NULL, err);
    for (size_t i = 0; i < o->clusters && !rc; i++) {
        log_progress("planner_halda.csv: cluster %zu of %zu", i + 1, o->clusters);
        rc = try_cluster(facts, i, &t[i], err);
    }
    log_progress("%s", "");
    free(facts);
    return rc;
}

int bench_planner_halda(const planner_options *o, pr_err *err)
{
    trial *t = calloc(o->clusters, sizeof *t);
    char path[BENCH_PATH_BYTES];
    csv *file = NULL;
    int rc = t ? try_all(o, t, err) : pr_fail(err, PR_ERESOURCE, "out of memory"), rc2;

    snprintf(path, sizeof path, "%s/planner_halda.csv", o->output);
    if (!rc) rc = csv_open(&file, path, header, false, err);
    if (!rc) rc = write_rows(file, t, o->clusters, err);
    rc2 = csv_close(file, rc ? NULL : err);
    free(t);
    return rc ? rc : rc2;
}
