/* The parts of the search put together: rings and micro-batches are tried (orders.c), the best one is laid
 * out in whole layers and certified, and the plan says what it predicts. */
#include "planner/search.h"
#include "planner/advice.h"
#include "planner/explain.h"
#include "planner/fallback.h"
#include "planner/layout.h"
#include "planner/orders.h"
#include "planner/played.h"
#include "planner/stream.h"
#include "planner/ttft.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- whole layers ----------------------------------------------------------------------------------- */
typedef struct {
    const orders *s;
    candidate *k;
    played choice;
} again;

/* With a smaller budget: the same number of rounds when it was chosen by playing. */
static int solve_again(void *arg, const problem *cut, assignment *a, pr_err *err)
{
    const again *g = arg;

    if (g->choice.played_ms > 0) return played_again(cut, &g->choice, a, err);
    return candidate_solve(g->s->in, cut, &g->k->order, a, err);
}

static int lay_out(const orders *s, candidate *k, plan **out, bool *was_played, pr_err *err)
{
    again g = {s, k, {0}};
    int rc = PR_OK;

    if (!s->in->o->published) rc = played_choose(&k->pr, &k->a, &g.choice, err);
    if (!rc)
        rc =
            layout_plan(out, s->in->c, s->in->f, k->order.i, k->order.n, &k->pr, &k->a, solve_again, &g, err);
    *was_played = g.choice.played_ms > 0;
    candidate_rate(k);
    return rc;
}

/* --- what else a plan says -------------------------------------------------------------------------- */
static void add_unused(const orders *s, plan *p)
{
    const search_input *in = s->in;

    for (size_t d = 0; d < in->c->n_devices; d++) {
        plan_unused *u = &p->unused[p->n_unused];
        bool used = false;

        for (size_t i = 0; i < s->best.order.n; i++) used |= s->best.order.i[i] == d;
        if (used) continue;
        snprintf(u->name, sizeof u->name, "%s", in->c->device[d].name);
        snprintf(u->reason, sizeof u->reason, "%s",
                 in->o->published              ? "left out by the paper's algorithm"
                 : in->o->fixed_layers[d] == 0 ? "given no layers by hand"
                                               : "the plan without it is as fast or faster");
        p->n_unused++;
    }
}

static void certify(const orders *s, bool was_played, plan *p)
{
    const search_options *o = s->in->o;
    double bound_ms = 0, left_s = INFINITY;
    bool complete = false;
    const char *status;
    pr_err err;

    if (o->time_limit_s > 0) left_s = o->time_limit_s - clock_ms_since(s->start_ns) / 1e3;
    snprintf(p->solver.found_by, sizeof p->solver.found_by,
             o->published ? "halda"
             : was_played ? "dp+simulation"
                          : "dp");
    snprintf(p->solver.certified_by, sizeof p->solver.certified_by, "none");
    snprintf(p->solver.status, sizeof p->solver.status, o->published ? "heuristic" : "feasible");
    p->solver.gap_pct = NAN;
    if (left_s <= 0) return;
    milp_limits limits = {o->gap, SEARCH_NODES, left_s, s->best.solved_ms};
    if (milp_certify(&s->best.pr, &s->best.a, &limits, &bound_ms, &complete, &err)) {
        log_info("plan: no certificate: %s", err.msg);
        return;
    }
    snprintf(p->solver.certified_by, sizeof p->solver.certified_by, "glpk");
    status = milp_status(&s->best.a, bound_ms, &p->solver.gap_pct);
    if (complete && !s->cut && !o->published)
        snprintf(p->solver.status, sizeof p->solver.status, "%s", status);
}

static void predict(const orders *s, plan *p)
{
    const candidate *k = &s->best;
    const char *name[CLUSTER_MAX_DEVICES];
    double read = 0;

    for (size_t i = 0; i < k->order.n; i++) {
        name[i] = s->in->c->device[k->order.i[i]].name;
        read += k->a.device[i].read_bytes;
    }
    p->predicted.pass_ms = k->a.pass_ms;
    p->predicted.tpot_ms = k->tpot_ms;
    p->predicted.output_tps = k->output_tps;
    p->predicted.read_bytes_per_token = (uint64_t)ceil(read / k->w.micro_batch);
    p->predicted.ttft_tokens = k->w.ctx < SEARCH_TTFT_TOKENS ? k->w.ctx : SEARCH_TTFT_TOKENS;
    p->predicted.ttft_ms = ttft_ms(&k->pr, &k->a, p->predicted.ttft_tokens);
    explain_bottleneck(&k->pr, &k->a, name, p->predicted.bottleneck, sizeof p->predicted.bottleneck);
    if (s->in->o->published) snprintf(p->predicted.advice, sizeof p->predicted.advice, "--solver exact");
    else advice_for(&k->pr, &k->a, name, p->predicted.advice, sizeof p->predicted.advice);
}

static void fill_in(const orders *s, bool was_played, plan *p)
{
    const search_input *in = s->in;
    const workload *w = &s->best.w;

    snprintf(p->created_at, sizeof p->created_at, "%s", in->o->created_at);
    snprintf(p->solver.version, sizeof p->solver.version, "%s", in->o->version);
    snprintf(p->kv_type, sizeof p->kv_type, "%s", w->kv_type);
    snprintf(p->objective, sizeof p->objective, "%s", w->throughput ? "throughput" : "latency");
    p->ctx = w->ctx;
    p->slots = w->slots;
    p->micro_batch = w->micro_batch;
    for (size_t i = 0; i < in->c->n_devices; i++, p->n_profiles++) {
        memcpy(p->profile[i].name, in->c->device[i].name, sizeof p->profile[i].name);
        memcpy(p->profile[i].sha256, in->profiles[i]->sha256, sizeof p->profile[i].sha256);
    }
    cost_warn_links(in->c, in->profiles, s->best.order.i, s->best.order.n);
    add_unused(s, p);
    predict(s, p);
    fallback_add(in, &s->best, p);
    certify(s, was_played, p);
}

int search_plan(plan **out, const cluster *c, profile *const *profiles, const model_facts *f,
                const workload *w, const search_options *o, pr_err *err)
{
    const search_input in = {c, profiles, f, o, stream_memo_new()};
    orders *s = calloc(1, sizeof *s);
    bool was_played;
    pr_err own;
    int rc;

    *out = NULL;
    if (!s) {
        stream_memo_free(in.memo);
        return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    }
    orders_init(s, &in);
    if (!err) err = &own;
    if ((rc = orders_try_all(s, w, err)) == PR_OK &&
        (rc = lay_out(s, &s->best, out, &was_played, err)) == PR_OK) {
        fill_in(s, was_played, *out);
        rc = plan_check(*out, err);
        log_info("plan: solved in %.0f ms", clock_ms_since(s->start_ns));
    }
    if (rc) {
        plan_free(*out);
        *out = NULL;
    }
    free(s);
    stream_memo_free(in.memo);
    return rc;
}
