/* What the parts of the suite `planner` (bench_planner*.c) share: a cluster with its profiles, a ring of it
 * as a problem, the methods that are compared, published figures. */
#ifndef PRIMA_BENCH_PLANNER_H
#define PRIMA_BENCH_PLANNER_H
#include "planner/cluster.h"
#include "planner/cost.h"
#include "planner/facts.h"
#include "planner/problem.h"
#include "planner/profile.h"
#include "src/base/csv.h"
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_MAX_MODELS = 64, BENCH_MAX_SIZES = 16, BENCH_PATH_BYTES = 4096 };

typedef struct {
    const char *output, *datasets, *models, *devices;
    size_t ctx, clusters, reps;
    double certify_s;
} planner_options;

/* --- inputs (bench_planner_input.c) ----------------------------------------------------------------------
 */
typedef struct {
    cluster *c;
    profile *profiles[CLUSTER_MAX_DEVICES];
} machines;

int machines_read(machines *m, const char *cluster_path, pr_err *err);
/* Devices drawn from a seed, for figures over many clusters, as in the comparison of halda.md 6.4: 2-16 GiB
 * of RAM, CPUs of 40-300 GFLOP/s at one token, disks of 0.15-3.5 GB/s; a quarter are Macs without Metal, half
 * of the others have a GPU of 4-12 GiB and 2000-8000 GFLOP/s; links of 300-1000 Mbit/s and 0.5-7 ms. RAM and
 * VRAM are multiplied by memory_scale; at least 1 GiB of RAM is left, 2.5 GiB on the head. */
int machines_draw(machines *m, uint64_t seed, size_t n_devices, double memory_scale, pr_err *err);
void machines_free(machines *m);

typedef struct {
    char stem[64]; /* of datasets/shapes/STEM.yaml */
} model_name;
/* Sorted; `only` is "a,b" or NULL for all. PR_EUSAGE names what is not there. */
int models_list(model_name *out, size_t *n, const planner_options *o, pr_err *err);
int models_read(model_facts *f, const planner_options *o, const char *stem, const char *quant, pr_err *err);

/* --- a ring (bench_planner_methods.c) --------------------------------------------------------------------
 */
typedef struct {
    const machines *m;
    const model_facts *f;
    uint32_t order[CLUSTER_MAX_DEVICES]; /* cluster indices; order[0] is the head */
    const char *os[CLUSTER_MAX_DEVICES];
    problem p;
} bench_ring;

/* The cluster's ring turned so that `head` is its first device; one sequence of ctx tokens, latency. */
int ring_make(bench_ring *r, const machines *m, const model_facts *f, size_t ctx, size_t head, pr_err *err);

typedef struct {
    const char *name;
    /* Fills in rounds, layers, GPU layers, and rates them by our model; PR_EINFEASIBLE says why there is no
     * plan. */
    int (*split)(const bench_ring *r, assignment *a, pr_err *err);
    const char *published; /* the tool of the published figures that worked in that way */
} bench_method;
extern const bench_method bench_methods[]; /* name NULL at the end; the first is ours */

/* "22:0:16:0": layers (gpu: GPU layers) in the order of the cluster file. */
void ring_layers(const bench_ring *r, const assignment *a, bool gpu, char *out, size_t cap);
/* What decides the time: "sum", or "disk d3-desktop". */
void ring_bound(const bench_ring *r, const assignment *a, char *out, size_t cap);
double ring_read_bytes(const assignment *a);
/* Steady-state time of a pass, simulated; NAN and *err when the simulator refuses it. */
double ring_simulate(const bench_ring *r, const assignment *a, pr_err *err);

/* --- published figures (bench_planner_published.c) -------------------------------------------------------
 */
enum { PUBLISHED_MAX = 256 };
typedef struct {
    char shape[64], tool[32], weights[16]; /* weights: "" = Q4_K */
    bool oom;
    double tpot_ms; /* NAN when oom */
    double ttft_ms; /* NAN when not reported; for a prompt whose length was not published */
} published_time;
typedef struct {
    size_t n;
    published_time time[PUBLISHED_MAX];
} published_times;

int published_read(published_times *t, const char *path, pr_err *err);
/* NULL: not reported. */
const published_time *published_find(const published_times *t, const char *shape, const char *tool);

/* The paper's cluster and what was measured on it. */
int paper_cluster(machines *m, published_times *t, const planner_options *o, pr_err *err);

/* --- rows (bench_planner_rows.c) -------------------------------------------------------------------------
 */
/* Columns schema to ctx_tokens; columns rounds, layers, gpu_layers, predicted_ms, simulated_ms. refused: why
 * it cannot be simulated; may be NULL. */
void row_begin(csv *file, const char *schema, const bench_ring *r, const char *model, size_t ctx);
void row_plan(csv *file, const bench_ring *r, const assignment *a, pr_err *refused);

/* A file about the paper's cluster; `rows` writes those of x->model (with its usual weights). */
typedef struct {
    const planner_options *o;
    csv *csv;
    machines m;
    published_times times;
    const char *model;
    model_facts f;
    double published_ms; /* a token of the paper's program; NAN: not reported */
} paper_rows;
typedef int (*paper_rows_fn)(paper_rows *x, pr_err *err);
/* models: names, NULL at the end. */
int paper_file(const planner_options *o, const char *name, const char *header, const char *const *models,
               paper_rows_fn rows, pr_err *err);

/* --- the files -------------------------------------------------------------------------------------------
 */
int bench_planner_table(const planner_options *o, pr_err *err);       /* planner.csv */
int bench_planner_rounds(const planner_options *o, pr_err *err);      /* planner_rounds.csv */
int bench_planner_sensitivity(const planner_options *o, pr_err *err); /* planner_sensitivity.csv */
int bench_planner_halda(const planner_options *o, pr_err *err);       /* planner_halda.csv */
int bench_planner_solve(const planner_options *o, pr_err *err);       /* planner_solve.csv */

#endif
