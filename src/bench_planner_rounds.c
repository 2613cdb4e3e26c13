/* planner_rounds.csv: the best plan for each number of rounds k, predicted and simulated: what rounds are
 * worth. */
#include "planner/played.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/bench_planner.h"
#include "src/cmd.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char header[] =
    "schema,build,cluster,model,quant,ctx_tokens,rounds,layers,gpu_layers,predicted_ms,"
    "simulated_ms,bound,read_bytes_per_token,published_prima_ms";
static const char *const models[] = {"llama-1-30b", "llama-1-65b", "llama-3-70b"};

/* The plan that is taken when k is given: the formula's best, with the read buffers that play best. */
static int plan_for(const problem *p, uint32_t rounds, assignment *a, pr_err *err)
{
    problem one = *p;
    solution s;
    played choice;
    int rc;

    one.min_rounds = one.max_rounds = rounds;
    if ((rc = dp_solve(&one, &s, err))) return rc;
    *a = s.best;
    return played_choose(&one, a, &choice, err);
}

/* --- rows ------------------------------------------------------------------------------------------------
 */
static int write_row(csv *file, const bench_ring *r, const char *model, const planner_options *o,
                     const assignment *a, double published_ms, pr_err *err)
{
    char layers[1024], gpu_layers[1024], bound[64];

    ring_layers(r, a, false, layers, sizeof layers);
    ring_layers(r, a, true, gpu_layers, sizeof gpu_layers);
    ring_bound(r, a, bound, sizeof bound);
    csv_str(file, "prima/bench-planner-rounds/1");
    csv_str(file, prima_version);
    csv_str(file, r->m->c->name);
    csv_str(file, model);
    csv_str(file, r->f->quant);
    csv_int(file, (int64_t)o->ctx);
    csv_int(file, a->rounds);
    csv_str(file, layers);
    csv_str(file, gpu_layers);
    csv_num(file, a->pass_ms, 3);
    csv_num(file, ring_simulate(r, a, NULL), 3);
    csv_str(file, bound);
    csv_int(file, (int64_t)ceil(ring_read_bytes(a)));
    csv_num(file, published_ms, 0);
    return csv_row(file, err);
}

static int model_rows(csv *file, const planner_options *o, const machines *m, const published_times *times,
                      const char *model, pr_err *err)
{
    const published_time *published = published_find(times, model, "prima.cpp");
    model_facts f;
    bench_ring r;
    assignment a;
    int rc;

    if ((rc = models_read(&f, o, model, NULL, err)) || (rc = ring_make(&r, m, &f, o->ctx, 0, err))) return rc;
    for (uint32_t k = problem_first_rounds(&r.p); k <= problem_last_rounds(&r.p) && !rc; k++) {
        rc = plan_for(&r.p, k, &a, err);
        if (rc == PR_EINFEASIBLE) rc = PR_OK;
        else if (!rc) rc = write_row(file, &r, model, o, &a, published ? published->tpot_ms : NAN, err);
    }
    return rc;
}

int bench_planner_rounds(const planner_options *o, pr_err *err)
{
    char path[BENCH_PATH_BYTES];
    static published_times times;
    machines m;
    csv *file = NULL;
    int rc, rc2;

    if ((rc = paper_cluster(&m, &times, o, err))) return rc;
    snprintf(path, sizeof path, "%s/planner_rounds.csv", o->output);
    rc = csv_open(&file, path, header, false, err);
    for (size_t i = 0; i < sizeof models / sizeof *models && !rc; i++)
        rc = model_rows(file, o, &m, &times, models[i], err);
    rc2 = csv_close(file, rc ? NULL : err);
    machines_free(&m);
    return rc ? rc : rc2;
}
