/* What the files of the suite `planner` about the paper's cluster have in common: the columns that name a
 * case and those of a plan, and a file with rows for some models. */
#include "src/bench_planner.h"
#include "src/cmd.h"
#include <math.h>
#include <stdio.h>

void row_begin(csv *file, const char *schema, const bench_ring *r, const char *model, size_t ctx)
{
    csv_str(file, schema);
    csv_str(file, prima_version);
    csv_str(file, r->m->c->name);
    csv_str(file, model);
    csv_str(file, r->f->quant);
    csv_int(file, (int64_t)ctx);
}

void row_plan(csv *file, const bench_ring *r, const assignment *a, pr_err *refused)
{
    char layers[1024], gpu_layers[1024];

    ring_layers(r, a, false, layers, sizeof layers);
    ring_layers(r, a, true, gpu_layers, sizeof gpu_layers);
    csv_int(file, a->rounds);
    csv_str(file, layers);
    csv_str(file, gpu_layers);
    csv_num(file, a->pass_ms, 3);
    csv_num(file, ring_simulate(r, a, refused), 3);
}

static int model_rows(paper_rows *x, paper_rows_fn rows, pr_err *err)
{
    const published_time *published = published_find(&x->times, x->model, "prima.cpp");
    int rc = models_read(&x->f, x->o, x->model, NULL, err);

    x->published_ms = published ? published->tpot_ms : NAN;
    return rc ? rc : rows(x, err);
}

int paper_file(const planner_options *o, const char *name, const char *header, const char *const *models,
               paper_rows_fn rows, pr_err *err)
{
    static paper_rows x; /* large: a model and all published figures */
    char path[BENCH_PATH_BYTES];
    int rc, rc2;

    x.o = o;
    if ((rc = paper_cluster(&x.m, &x.times, o, err))) return rc;
    snprintf(path, sizeof path, "%s/%s", o->output, name);
    rc = csv_open(&x.csv, path, header, false, err);
    for (; *models && !rc; models++) {
        x.model = *models;
        rc = model_rows(&x, rows, err);
    }
    rc2 = csv_close(x.csv, rc ? NULL : err);
    machines_free(&x.m);
    return rc ? rc : rc2;
}
