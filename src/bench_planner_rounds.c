/* planner_rounds.csv: the best plan for each number of rounds k, predicted and simulated: what rounds are
 * worth. */
#include "planner/solve.h"
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
static const double SLACK = 1e-9; /* relative, for sums in another order */

/* --- the plan behind a time ------------------------------------------------------------------------------
 */
typedef struct {
    double cost;
    uint32_t layers, gpu_layers; /* of the last device counted */
} choice;

/* The longest buffer whose reading keeps within limit_ms; false: none does. A shorter one costs more or the
 * same. */
static bool keep_within(const problem *p, size_t device, uint32_t rounds, double limit_ms, device_cost *c)
{
    uint32_t buffer = c->detail.buffer_pieces;

    while (c->bound_ms > limit_ms) {
        if (buffer == 0 || !problem_set_buffer(p, device, rounds, --buffer, c)) return false;
    }
    return true;
}

/* The cheapest (l, g) of one device for each l whose disk keeps within limit_ms. */
static void device_choices(const problem *p, size_t device, uint32_t rounds, double limit_ms, choice *out)
{
    uint32_t most_gpu = problem_max_gpu_layers(p, device);

    for (uint32_t l = 0; l <= p->n_layers; l++) {
        out[l] = (choice){INFINITY, l, 0};
        for (uint32_t g = 0; g <= l && g <= most_gpu; g++) {
            device_cost c;
            if (!problem_device_cost(p, device, rounds, l, g, false, &c)) continue;
            if (keep_within(p, device, rounds, limit_ms, &c) && c.cost_ms < out[l].cost)
                out[l] = (choice){c.cost_ms, l, g};
        }
    }
}

/* Cheapest sum of costs with every disk within limit_ms; table: [devices + 1][layers + 1]. */
static void cheapest(const problem *p, uint32_t rounds, double limit_ms, choice *table, choice *one,
                     assignment *a)
{
    size_t width = (size_t)p->n_layers + 1;

    for (size_t i = 0; i < (p->n_devices + 1) * width; i++) table[i] = (choice){INFINITY, 0, 0};
    table[0].cost = 0;
    for (size_t d = 0; d < p->n_devices; d++) {
        device_choices(p, d, rounds, limit_ms, one);
        for (size_t r = 0; r < width; r++)
            for (size_t l = 0; l <= r; l++) {
                double cost = table[d * width + r - l].cost + one[l].cost;
                choice *c = &table[(d + 1) * width + r];
                if (cost < c->cost) *c = (choice){cost, one[l].layers, one[l].gpu_layers};
            }
    }
    memset(a, 0, sizeof *a);
    a->rounds = rounds;
    a->n_devices = p->n_devices;
    for (size_t d = p->n_devices, r = p->n_layers; d-- > 0; r -= a->device[d].layers) {
        a->device[d].layers = table[(d + 1) * width + r].layers;
        a->device[d].gpu_layers = table[(d + 1) * width + r].gpu_layers;
    }
}

/* One device with everything and no hop. */
static bool alone(const problem *p, uint32_t rounds, double limit_ms, assignment *a)
{
    for (size_t d = 0; d < p->n_devices; d++)
        for (uint32_t g = 0; g <= p->n_layers; g++) {
            memset(a, 0, sizeof *a);
            a->rounds = rounds;
            a->device[d].layers = p->n_layers;
            a->device[d].gpu_layers = g;
            if (assignment_evaluate(p, a, NULL, NULL) && a->pass_ms <= limit_ms) return true;
        }
    return false;
}

/* The solver says how long the best plan for k rounds takes (dp.c, best_ms); knowing that, the plan is the
 * cheapest sum that keeps every disk within it. */
static int plan_for(const problem *p, uint32_t rounds, double best_ms, assignment *a, pr_err *err)
{
    size_t width = (size_t)p->n_layers + 1;
    choice *table = malloc((p->n_devices + 2) * width * sizeof *table);
    double limit = best_ms * (1 + SLACK);

    if (!table) return pr_fail(err, PR_ERESOURCE, "out of memory");
    cheapest(p, rounds, limit, table, table + (p->n_devices + 1) * width, a);
    free(table);
    if (assignment_evaluate(p, a, NULL, NULL) && a->pass_ms <= limit * (1 + SLACK)) return PR_OK;
    if (alone(p, rounds, limit * (1 + SLACK), a)) return PR_OK;
    return pr_fail(err, PR_EINTERNAL, "no plan of %u rounds takes %.6f ms, which the solver promised",
                   (unsigned)rounds, best_ms);
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
    solution s;
    assignment a;
    int rc;

    if ((rc = models_read(&f, o, model, NULL, err)) || (rc = ring_make(&r, m, &f, o->ctx, 0, err)) ||
        (rc = dp_solve(&r.p, &s, err)))
        return rc;
    for (uint32_t k = 1; k <= r.p.max_rounds && !rc; k++) {
        if (isnan(s.per_rounds_ms[k])) continue;
        rc = plan_for(&r.p, k, s.per_rounds_ms[k], &a, err);
        if (!rc) rc = write_row(file, &r, model, o, &a, published ? published->tpot_ms : NAN, err);
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
