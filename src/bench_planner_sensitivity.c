/* planner_sensitivity.csv: our plan for the paper's cluster when one assumed figure is another: which
 * assumptions a difference to the published times can come from. Every change applies to all devices alike.
 */
#include "planner/solve.h"
#include "src/base/csv.h"
#include "src/bench_planner.h"
#include "src/cmd.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char header[] = "schema,build,cluster,model,quant,ctx_tokens,changed,rounds,layers,gpu_layers,"
                             "predicted_ms,simulated_ms,published_prima_ms,predicted_over_published";
static const char *const models[] = {"llama-3-8b",  "qwen2.5-14b", "llama-1-30b", "qwen2.5-32b",
                                     "llama-1-65b", "llama-3-70b", "qwen2.5-72b"};

/* Factors of what a device has; what is added to its VRAM where it has some; theta, or -1 to leave it. */
typedef struct {
    const char *name;
    double cpu, gpu, disk, hop, ram, vram_gib, theta;
} change;
static const change changes[] = {{"nothing", 1, 1, 1, 1, 1, 0, -1},
                                 {"CPUs 25 % slower", 0.75, 1, 1, 1, 1, 0, -1},
                                 {"CPUs 25 % faster", 1.25, 1, 1, 1, 1, 0, -1},
                                 {"GPUs 25 % slower", 1, 0.75, 1, 1, 1, 0, -1},
                                 {"GPUs 25 % faster", 1, 1.25, 1, 1, 1, 0, -1},
                                 {"disks 25 % slower", 1, 1, 0.75, 1, 1, 0, -1},
                                 {"disks 25 % faster", 1, 1, 1.25, 1, 1, 0, -1},
                                 {"hops take half", 1, 1, 1, 0.5, 1, 0, -1},
                                 {"hops take double", 1, 1, 1, 2, 1, 0, -1},
                                 {"RAM 10 % less", 1, 1, 1, 1, 0.9, 0, -1},
                                 {"RAM 10 % more", 1, 1, 1, 1, 1.1, 0, -1},
                                 {"VRAM 0.4 GiB more", 1, 1, 1, 1, 1, 0.4, -1},
                                 {"VRAM 0.8 GiB more", 1, 1, 1, 1, 1, 0.8, -1},
                                 {"disks rest while computing", 1, 1, 1, 1, 1, 0, 0},
                                 {"disks run while computing", 1, 1, 1, 1, 1, 0, 1}};

static void apply(const change *c, problem *p)
{
    static const double GIB = 1073741824.0;

    for (size_t i = 0; i < p->n_devices; i++) {
        problem_device *d = &p->device[i];
        d->cpu_ms /= c->cpu;
        d->out_ms /= c->cpu;
        d->gpu_ms /= c->gpu;
        d->disk_bytes_per_ms *= c->disk;
        d->hop_ms *= c->hop;
        d->ram_bytes *= c->ram;
        if (d->vram_bytes > 0) d->vram_bytes += c->vram_gib * GIB;
        if (c->theta >= 0) d->theta = c->theta;
    }
}

static int write_row(csv *file, const bench_ring *r, const char *model, size_t ctx, const char *changed,
                     const assignment *a, double published_ms, pr_err *err)
{
    char layers[1024], gpu_layers[1024];

    ring_layers(r, a, false, layers, sizeof layers);
    ring_layers(r, a, true, gpu_layers, sizeof gpu_layers);
    csv_str(file, "prima/bench-planner-sensitivity/1");
    csv_str(file, prima_version);
    csv_str(file, r->m->c->name);
    csv_str(file, model);
    csv_str(file, r->f->quant);
    csv_int(file, (int64_t)ctx);
    csv_str(file, changed);
    csv_int(file, a->rounds);
    csv_str(file, layers);
    csv_str(file, gpu_layers);
    csv_num(file, a->pass_ms, 3);
    csv_num(file, ring_simulate(r, a, NULL), 3);
    csv_num(file, published_ms, 0);
    csv_num(file, a->pass_ms / published_ms, 3);
    return csv_row(file, err);
}

static int model_rows(csv *file, const planner_options *o, const machines *m, const published_times *times,
                      const char *model, pr_err *err)
{
    const published_time *published = published_find(times, model, "prima.cpp");
    static bench_ring r; /* large, and so is a solution */
    static solution s;
    model_facts f;
    int rc = models_read(&f, o, model, NULL, err);

    for (size_t i = 0; i < sizeof changes / sizeof *changes && !rc; i++) {
        if ((rc = ring_make(&r, m, &f, o->ctx, 0, err))) break;
        apply(&changes[i], &r.p);
        if ((rc = dp_solve(&r.p, &s, err))) break;
        rc = write_row(file, &r, model, o->ctx, changes[i].name, &s.best,
                       published ? published->tpot_ms : NAN, err);
    }
    return rc;
}

int bench_planner_sensitivity(const planner_options *o, pr_err *err)
{
    static published_times times;
    char path[BENCH_PATH_BYTES];
    machines m;
    csv *file = NULL;
    int rc, rc2;

    if ((rc = paper_cluster(&m, &times, o, err))) return rc;
    snprintf(path, sizeof path, "%s/planner_sensitivity.csv", o->output);
    rc = csv_open(&file, path, header, false, err);
    for (size_t i = 0; i < sizeof models / sizeof *models && !rc; i++)
        rc = model_rows(file, o, &m, &times, models[i], err);
    rc2 = csv_close(file, rc ? NULL : err);
    machines_free(&m);
    return rc ? rc : rc2;
}
