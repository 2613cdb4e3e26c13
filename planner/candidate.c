/* Cluster and order -> problem -> assignment -> what a token takes. */
#include "planner/candidate.h"
#include "planner/published.h"
#include "planner/reach.h"
#include <math.h>

static const double NOISE = 1e-9; /* relative, of times */
enum { FIRST_GUESS = 6 }; /* rounds: common where something streams, and soon left where nothing does */

static double rounded(double v, double steps)
{
    return isfinite(v) && v > 0 ? rint(v * steps) / steps : 0;
}

/* To the decimals of the plan file (plan_file.c). */
static void round_figures(problem *p)
{
    p->layer_bytes = rounded(p->layer_bytes, 1e3);
    p->kv_layer_bytes = rounded(p->kv_layer_bytes, 1e3);
    for (size_t i = 0; i < p->n_devices; i++) {
        problem_device *d = &p->device[i];
        double *ms[] = {&d->cpu_ms, &d->gpu_ms,         &d->out_ms,         &d->hop_ms,
                        &d->theta,  &d->prefill_cpu_ms, &d->prefill_gpu_ms, &d->prefill_hop_ms};
        double *bytes[] = {&d->ram_bytes,  &d->cpu_buffer_bytes, &d->head_bytes,
                           &d->vram_bytes, &d->gpu_buffer_bytes, &d->gpu_output_bytes};
        for (size_t j = 0; j < sizeof ms / sizeof *ms; j++) *ms[j] = rounded(*ms[j], 1e6);
        for (size_t j = 0; j < sizeof bytes / sizeof *bytes; j++) *bytes[j] = rounded(*bytes[j], 1);
        d->disk_bytes_per_ms = rounded(d->disk_bytes_per_ms, 1e3);
    }
}

int candidate_problem(const search_input *in, const workload *w, const ring_order *order, bool pins,
                      problem *p, pr_err *err)
{
    int rc = cost_problem(p, in->c, in->profiles, in->f, w, order->i, order->n, err);

    if (rc) return rc;
    p->memo = in->memo;
    round_figures(p);
    for (size_t i = 0; i < p->n_devices; i++)
        p->device[i].fixed_layers = pins ? in->o->fixed_layers[order->i[i]] : -1;
    return PR_OK;
}

int candidate_solve(const search_input *in, const problem *p, const ring_order *order, assignment *a,
                    pr_err *err)
{
    solution found;
    int rc;

    if (in->o->published) {
        const char *os[CLUSTER_MAX_DEVICES];
        for (size_t i = 0; i < order->n; i++) os[i] = in->profiles[order->i[i]]->os;
        return published_solve(p, in->f, os, a, err);
    }
    if ((rc = reach_solve(p, a->rounds ? a->rounds : FIRST_GUESS, &found, err)) == PR_OK) *a = found.best;
    return rc;
}

static double in_flight(const workload *w)
{
    return ceil((double)w->slots / w->micro_batch);
}

void candidate_rate(candidate *k)
{
    k->tpot_ms = k->a.pass_ms * (k->w.throughput ? in_flight(&k->w) : 1);
    k->output_tps = 1e3 * (k->w.throughput ? k->w.slots : 1) / k->tpot_ms;
}

int candidate_make(const search_input *in, candidate *k, pr_err *err)
{
    int rc;

    if ((rc = candidate_problem(in, &k->w, &k->order, true, &k->pr, err)) ||
        (rc = candidate_solve(in, &k->pr, &k->order, &k->a, err)))
        return rc;
    for (;;) {
        ring_order used = {.n = 0};

        for (size_t i = 0; i < k->order.n; i++) {
            if (i > 0 && !k->a.device[i].layers) continue;
            k->a.device[used.n] = k->a.device[i];
            used.i[used.n++] = k->order.i[i];
        }
        if (used.n == k->order.n) break;
        k->order = used;
        if ((rc = candidate_problem(in, &k->w, &used, true, &k->pr, err))) return rc;
        if (in->o->published && assignment_evaluate(&k->pr, &k->a, NULL, NULL)) break;
        if ((rc = candidate_solve(in, &k->pr, &used, &k->a, err))) return rc;
    }
    if (k->pr.device[0].gpu_output_bytes > 0 && !k->a.device[0].gpu_layers)
        return pr_fail(err, PR_EINFEASIBLE, "no plan fits: the output projection alone on a GPU");
    k->solved_ms = k->a.pass_ms;
    candidate_rate(k);
    return PR_OK;
}

bool candidate_is_better(const candidate *a, const candidate *b)
{
    return a->w.throughput ? a->output_tps > b->output_tps * (1 + NOISE)
                           : a->tpot_ms < b->tpot_ms * (1 - NOISE);
}

double candidate_target_ms(const candidate *k, const workload *w)
{
    return (w->throughput ? k->tpot_ms / in_flight(w) : k->tpot_ms) * (1 - NOISE);
}
