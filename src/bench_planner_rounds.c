/* planner_rounds.csv: the best plan for each number of rounds k, predicted and simulated: what rounds are
 * worth. */
#include "planner/played.h"
#include "src/bench_planner.h"
#include <math.h>
#include <stdio.h>

static const char header[] =
    "schema,build,cluster,model,quant,ctx_tokens,rounds,layers,gpu_layers,predicted_ms,"
    "simulated_ms,bound,read_bytes_per_token,published_prima_ms";
static const char *const models[] = {"llama-1-30b", "llama-1-65b", "llama-3-70b", NULL};

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

static int write_row(const paper_rows *x, const bench_ring *r, const assignment *a, pr_err *err)
{
    char bound[64];

    ring_bound(r, a, bound, sizeof bound);
    row_begin(x->csv, "prima/bench-planner-rounds/1", r, x->model, x->o->ctx);
    row_plan(x->csv, r, a, NULL);
    csv_str(x->csv, bound);
    csv_int(x->csv, (int64_t)ceil(ring_read_bytes(a)));
    csv_num(x->csv, x->published_ms, 0);
    return csv_row(x->csv, err);
}

static int rows_of_model(paper_rows *x, pr_err *err)
{
    bench_ring r;
    assignment a;
    int rc = ring_make(&r, &x->m, &x->f, x->o->ctx, 0, err);

    if (rc) return rc;
    for (uint32_t k = problem_first_rounds(&r.p); k <= problem_last_rounds(&r.p) && !rc; k++) {
        rc = plan_for(&r.p, k, &a, err);
        if (rc == PR_EINFEASIBLE) rc = PR_OK;
        else if (!rc) rc = write_row(x, &r, &a, err);
    }
    return rc;
}

int bench_planner_rounds(const planner_options *o, pr_err *err)
{
    return paper_file(o, "planner_rounds.csv", header, models, rows_of_model, err);
}
