/* planner_sensitivity.csv: our plan for the paper's cluster when one assumed figure is another: which
 * assumptions a difference to the published times can come from. Every change applies to all devices alike.
 */
#include "planner/solve.h"
#include "src/bench_planner.h"

static const char header[] = "schema,build,cluster,model,quant,ctx_tokens,changed,rounds,layers,gpu_layers,"
                             "predicted_ms,simulated_ms,published_prima_ms,predicted_over_published";
static const char *const models[] = {"llama-3-8b",  "qwen2.5-14b", "llama-1-30b", "qwen2.5-32b",
                                     "llama-1-65b", "llama-3-70b", "qwen2.5-72b", NULL};

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

static int write_row(const paper_rows *x, const bench_ring *r, const char *changed, const assignment *a,
                     pr_err *err)
{
    row_begin(x->csv, "prima/bench-planner-sensitivity/1", r, x->model, x->o->ctx);
    csv_str(x->csv, changed);
    row_plan(x->csv, r, a, NULL);
    csv_num(x->csv, x->published_ms, 0);
    csv_num(x->csv, a->pass_ms / x->published_ms, 3);
    return csv_row(x->csv, err);
}

static int rows_of_model(paper_rows *x, pr_err *err)
{
    static bench_ring r; /* large, and so is a solution */
    static solution s;
    int rc = PR_OK;

    for (size_t i = 0; i < sizeof changes / sizeof *changes && !rc; i++) {
        if ((rc = ring_make(&r, &x->m, &x->f, x->o->ctx, 0, err))) break;
        apply(&changes[i], &r.p);
        if ((rc = dp_solve(&r.p, &s, err))) break;
        rc = write_row(x, &r, changes[i].name, &s.best, err);
    }
    return rc;
}

int bench_planner_sensitivity(const planner_options *o, pr_err *err)
{
    return paper_file(o, "planner_sensitivity.csv", header, models, rows_of_model, err);
}
