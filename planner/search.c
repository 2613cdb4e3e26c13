/* The choices around the solver: head, ring order, micro-batch; then whole layers, certificate, fallbacks.
 *
 * A ring order is a list of cluster indices, the head first. Figures are rounded to what the plan file holds
 * before they are solved, so that a plan that was read gives the same numbers again. */
#include "planner/search.h"
#include "planner/explain.h"
#include "planner/published.h"
#include "planner/solve.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ORDERS = 720, MAX_SHRINKS = 20, MAX_ADVICE_DEVICES = 16 };

typedef struct {
    uint32_t i[CLUSTER_MAX_DEVICES];
    size_t n;
} ring_order;

/* A solved candidate. */
typedef struct {
    ring_order order;
    workload w;
    problem pr;
    assignment a;
    double tpot_ms, output_tps;
} candidate;

typedef struct {
    const cluster *c;
    profile *const *profiles;
    const model_facts *f;
    const search_options *o;
    uint64_t start_ns;
    bool cut; /* by the time limit */
    bool found;
    candidate best;
    pr_err first_err; /* why the first order failed: said when none works */
    /* Orders that were solved: the head and each device's hop decide everything else. */
    size_t n_seen;
    struct {
        uint32_t head;
        double hop_ms[SEARCH_ALL_ORDERS];
    } seen[MAX_ORDERS];
} search;

/* Orders have half of the time, the certificate gets what is left. */
static bool out_of_time(const search *s)
{
    return clock_ms_since(s->start_ns) > s->o->time_limit_s * 1e3 / 2;
}

/* --- problems ------------------------------------------------------------------------------------------ */
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
        double *ms[] = {&d->cpu_ms, &d->gpu_ms, &d->out_ms, &d->hop_ms, &d->theta};
        double *bytes[] = {&d->ram_bytes, &d->cpu_buffer_bytes, &d->head_bytes, &d->vram_bytes,
                           &d->gpu_buffer_bytes};
        for (size_t j = 0; j < sizeof ms / sizeof *ms; j++) *ms[j] = rounded(*ms[j], 1e6);
        for (size_t j = 0; j < sizeof bytes / sizeof *bytes; j++) *bytes[j] = rounded(*bytes[j], 1);
        d->disk_bytes_per_ms = rounded(d->disk_bytes_per_ms, 1e3);
    }
}

static int make_problem(const search *s, const workload *w, const ring_order *order, bool pins, problem *p,
                        pr_err *err)
{
    int rc = cost_problem(p, s->c, s->profiles, s->f, w, order->i, order->n, err);

    if (rc) return rc;
    round_figures(p);
    for (size_t i = 0; i < p->n_devices; i++) {
        p->device[i].fixed_gpu_layers = -1;
        p->device[i].fixed_layers = pins ? s->o->fixed_layers[order->i[i]] : -1;
    }
    return PR_OK;
}

/* --- why nothing fits ------------------------------------------------------------------------------------
 */
/* RAM that a device lacks for n layers, with as many of them on its GPU as help. */
static double missing_for(const problem *p, size_t device, uint32_t n)
{
    double least = INFINITY;

    for (uint32_t g = 0; g <= n; g++) {
        problem_budget b;
        double missing = problem_missing_bytes(p, device, n, g, &b);
        if (missing > 0 && b == BUDGET_VRAM) break;
        least = fmin(least, missing);
    }
    return least;
}

static uint32_t most_layers(const problem *p, size_t device)
{
    uint32_t n = p->n_layers;

    while (n > 0 && missing_for(p, device, n) > 0) n--;
    return n;
}

/* A device lacks RAM for the layers it must have; the head always must hold its own part. */
static int check_pins(const search *s, const problem *p, const ring_order *order, pr_err *err)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        int pinned = p->device[i].fixed_layers;
        double missing = missing_for(p, i, pinned < 0 ? 0 : (uint32_t)pinned);

        if (missing > 0)
            return pr_fail(
                err, PR_EINFEASIBLE,
                "no plan fits: %s with %d layers lacks %.0f bytes beyond its RAM budget of %.0f bytes",
                s->c->device[order->i[i]].name, pinned < 0 ? 0 : pinned, missing, p->device[i].ram_bytes);
    }
    return PR_OK;
}

/* dp_solve's answer in names: the device that lacks the fewest bytes for what the others cannot hold. */
static int explain_infeasible(const search *s, const problem *p, const ring_order *order, pr_err *err)
{
    uint32_t most[CLUSTER_MAX_DEVICES], held = 0, pinned = 0;
    size_t nearest = 0;
    double least = INFINITY;
    int rc = check_pins(s, p, order, err);

    if (rc) return rc;
    for (size_t i = 0; i < p->n_devices; i++) {
        int fixed = p->device[i].fixed_layers;
        held += most[i] = fixed < 0 ? most_layers(p, i) : (uint32_t)fixed;
        pinned += fixed < 0 ? 0 : (uint32_t)fixed;
    }
    for (size_t i = 0; i < p->n_devices && held < p->n_layers; i++) {
        double missing =
            p->device[i].fixed_layers < 0 ? missing_for(p, i, most[i] + p->n_layers - held) : INFINITY;
        if (missing >= least) continue;
        least = missing;
        nearest = i;
    }
    if (!isfinite(least))
        return pr_fail(err, PR_EINFEASIBLE, "no plan fits: %u layers are given by hand, the model has %u",
                       (unsigned)pinned, (unsigned)p->n_layers);
    return pr_fail(err, PR_EINFEASIBLE,
                   "no plan fits: the devices hold %u of %u layers; nearest is %s, which lacks %.0f bytes "
                   "beyond its RAM budget of %.0f bytes",
                   (unsigned)held, (unsigned)p->n_layers, s->c->device[order->i[nearest]].name, least,
                   p->device[nearest].ram_bytes);
}

static int solve(const search *s, const problem *p, const ring_order *order, assignment *a, pr_err *err)
{
    solution found;
    int rc;

    if (s->o->published) {
        const char *os[CLUSTER_MAX_DEVICES];
        for (size_t i = 0; i < order->n; i++) os[i] = s->profiles[order->i[i]]->os;
        return published_solve(p, s->f, os, a, err);
    }
    rc = dp_solve(p, &found, err);
    if (rc == PR_EINFEASIBLE) return explain_infeasible(s, p, order, err);
    if (!rc) *a = found.best;
    return rc;
}

/* --- one candidate ---------------------------------------------------------------------------------------
 */
/* Time and rate for people. With throughput, slots / micro_batch batches are in flight and none is faster
 * than one pass through the whole ring. */
static void rate(candidate *k)
{
    double sum_ms = k->pr.device[0].out_ms, in_flight;

    k->tpot_ms = k->a.pass_ms;
    k->output_tps = 1e3 / k->a.pass_ms;
    if (!k->w.throughput) return;
    for (size_t i = 0; i < k->pr.n_devices; i++) {
        const assignment_device *d = &k->a.device[i];
        sum_ms += d->compute_ms + d->stall_ms + d->net_ms;
    }
    in_flight = ceil((double)k->w.slots / k->w.micro_batch);
    k->tpot_ms = fmax(in_flight * k->a.pass_ms, sum_ms);
    k->output_tps = 1e3 * k->w.slots / k->tpot_ms;
}

/* Solves again without the devices that got nothing, as long as there are some: hops then go to the next
 * device that works. */
static int drop_unused(const search *s, candidate *k, pr_err *err)
{
    for (;;) {
        ring_order used = {.n = 0};
        int rc;

        for (size_t i = 0; i < k->order.n; i++) {
            if (i > 0 && !k->a.device[i].layers) continue;
            k->a.device[used.n] = k->a.device[i];
            used.i[used.n++] = k->order.i[i];
        }
        if (used.n == k->order.n) return PR_OK;
        k->order = used;
        if ((rc = make_problem(s, &k->w, &used, true, &k->pr, err))) return rc;
        if (s->o->published && assignment_evaluate(&k->pr, &k->a, NULL, NULL)) return PR_OK;
        if ((rc = solve(s, &k->pr, &used, &k->a, err))) return rc;
    }
}

static bool was_seen(search *s, const problem *p, const ring_order *order)
{
    size_t at = s->n_seen;

    if (order->n > SEARCH_ALL_ORDERS || at == MAX_ORDERS) return false;
    memset(&s->seen[at], 0, sizeof s->seen[at]);
    s->seen[at].head = order->i[0];
    for (size_t i = 0; i < order->n; i++) {
        size_t slot = 0; /* by cluster index, so that orders compare */
        for (size_t j = 0; j < order->n; j++) slot += order->i[j] < order->i[i];
        s->seen[at].hop_ms[slot] = p->device[i].hop_ms;
    }
    for (size_t j = 0; j < at; j++) {
        if (memcmp(&s->seen[j], &s->seen[at], sizeof s->seen[at]) == 0) return true;
    }
    s->n_seen++;
    return false;
}

static bool is_better(const candidate *a, const candidate *b)
{
    static const double NOISE = 1e-9; /* the first of equal orders stays */

    return a->w.throughput ? a->output_tps > b->output_tps * (1 + NOISE)
                           : a->tpot_ms < b->tpot_ms * (1 - NOISE);
}

static int try_order(search *s, const workload *w, const ring_order *order, pr_err *err)
{
    candidate k = {.order = *order, .w = *w};
    int rc = make_problem(s, w, order, true, &k.pr, err);

    if (rc) return rc;
    if (was_seen(s, &k.pr, order)) return PR_OK;
    rc = solve(s, &k.pr, order, &k.a, err);
    if (!rc) rc = drop_unused(s, &k, err);
    if (rc == PR_EINFEASIBLE) {
        if (!s->first_err.code && err) s->first_err = *err;
        return PR_OK;
    }
    if (rc) return rc;
    rate(&k);
    if (s->found && !is_better(&k, &s->best)) return PR_OK;
    s->found = true;
    s->best = k;
    return PR_OK;
}

/* --- orders ----------------------------------------------------------------------------------------------
 */
/* Every order of i[at..n); the first one first, so that ties go to the order of the cluster file. */
static int try_permutations(search *s, const workload *w, ring_order *order, size_t at, pr_err *err)
{
    int rc = PR_OK;

    if (s->found && out_of_time(s)) {
        s->cut = true;
        return PR_OK;
    }
    if (at + 1 >= order->n) return try_order(s, w, order, err);
    for (size_t j = at; j < order->n && !rc; j++) {
        uint32_t moved = order->i[j];
        memmove(&order->i[at + 1], &order->i[at], (j - at) * sizeof moved);
        order->i[at] = moved;
        rc = try_permutations(s, w, order, at + 1, err);
        memmove(&order->i[at], &order->i[at + 1], (j - at) * sizeof moved);
        order->i[j] = moved;
    }
    return rc;
}

/* The ring of the cluster file, turned so that it begins with `head`. */
static ring_order turned(const cluster *c, size_t head)
{
    ring_order order = {.n = c->n_devices};

    for (size_t i = 0; i < order.n; i++) order.i[i] = (uint32_t)((head + i) % order.n);
    return order;
}

static int try_orders(search *s, const workload *w, pr_err *err)
{
    const char *head = s->o->head;
    ring_order order = turned(s->c, 0);
    int rc = PR_OK;

    s->n_seen = 0;
    if (!head) return try_order(s, w, &order, err);
    if (strcmp(head, "auto") == 0) {
        if (s->c->n_devices <= SEARCH_ALL_ORDERS) return try_permutations(s, w, &order, 0, err);
        for (size_t i = 0; i < s->c->n_devices && !rc && !s->cut; i++) {
            order = turned(s->c, i);
            rc = try_order(s, w, &order, err);
            s->cut = s->found && out_of_time(s);
        }
        return rc;
    }
    for (size_t i = 0; i < s->c->n_devices; i++) {
        if (strcmp(s->c->device[i].name, head)) continue;
        order = turned(s->c, i);
        return try_order(s, w, &order, err);
    }
    return pr_fail(err, PR_EUSAGE, "--head %s: the cluster has no device of that name", head);
}

static int try_all(search *s, const workload *w, pr_err *err)
{
    workload now = *w;
    int rc = PR_OK;

    if (!now.throughput) now.micro_batch = 1;
    if (now.micro_batch) rc = try_orders(s, &now, err);
    else
        for (now.micro_batch = 1; now.micro_batch <= w->slots && !rc && !s->cut; now.micro_batch *= 2)
            rc = try_orders(s, &now, err);
    if (rc || s->found) return rc;
    return pr_fail(err, s->first_err.code, "%s", s->first_err.msg);
}

/* --- whole layers ------------------------------------------------------------------------------------------
 */
/* The solver works with mean layers; where the real ones of a device are too large its budget is cut by the
 * difference and the problem solved again. The plan keeps the true budgets. */
static int lay_out(const search *s, candidate *k, plan **out, pr_err *err)
{
    problem cut = k->pr;

    for (int tries = 0;; tries++) {
        size_t device, i;
        uint64_t bytes;
        bool gpu;
        int rc = plan_build(out, s->c, s->f, k->order.i, k->order.n, &k->pr, &k->a, err);

        if (rc || !plan_lacks(*out, &device, &gpu, &bytes)) return rc;
        for (i = 0; strcmp(s->c->device[k->order.i[i]].name, (*out)->device[device].name);) i++;
        plan_free(*out);
        *out = NULL;
        if (gpu) cut.device[i].vram_bytes = fmax(0, cut.device[i].vram_bytes - (double)bytes);
        else cut.device[i].ram_bytes = fmax(0, cut.device[i].ram_bytes - (double)bytes);
        if (tries == MAX_SHRINKS)
            return pr_fail(
                err, PR_EINFEASIBLE,
                "no plan fits: %s: its layers, which differ in size, need %llu bytes more than its %s "
                "budget",
                s->c->device[k->order.i[i]].name, (unsigned long long)bytes, gpu ? "GPU" : "RAM");
        if ((rc = solve(s, &cut, &k->order, &k->a, err))) return rc;
        rate(k);
    }
}

/* --- what else a plan says
 * ----------------------------------------------------------------------------------- */
static void add_unused(const search *s, const candidate *k, plan *p)
{
    for (size_t d = 0; d < s->c->n_devices; d++) {
        plan_unused *u = &p->unused[p->n_unused];
        bool used = false;

        for (size_t i = 0; i < k->order.n; i++) used |= k->order.i[i] == d;
        if (used) continue;
        snprintf(u->name, sizeof u->name, "%s", s->c->device[d].name);
        snprintf(u->reason, sizeof u->reason, "%s",
                 s->o->published              ? "left out by the paper's algorithm"
                 : s->o->fixed_layers[d] == 0 ? "given no layers by hand"
                                              : "the plan without it is as fast or faster");
        p->n_unused++;
    }
}

static void fallback_layers(const search *s, const candidate *k, char *out, size_t cap)
{
    size_t at = 0;

    *out = 0;
    for (size_t i = 0; i < k->order.n && at < cap; i++) {
        if (i > 0 && !k->a.device[i].layers) continue;
        at += (size_t)snprintf(out + at, cap - at, "%s%s=%u", i ? "," : "", s->c->device[k->order.i[i]].name,
                               k->a.device[i].layers);
    }
}

/* The ring without one of its devices, which now may use devices that the plan leaves out; pins are void. */
static void add_fallback(const search *s, const candidate *best, size_t lost, plan *p)
{
    plan_fallback *f = &p->fallback[p->n_fallbacks++];
    candidate k = {.w = best->w};
    solution found;

    snprintf(f->lost, sizeof f->lost, "%s", s->c->device[best->order.i[lost]].name);
    for (size_t i = 0; i < best->order.n; i++) {
        if (i != lost) k.order.i[k.order.n++] = best->order.i[i];
    }
    for (size_t d = 0; d < p->n_unused; d++) {
        for (uint32_t i = 0; i < s->c->n_devices; i++) {
            if (strcmp(s->c->device[i].name, p->unused[d].name) == 0) k.order.i[k.order.n++] = i;
        }
    }
    if (!k.order.n || make_problem(s, &k.w, &k.order, false, &k.pr, NULL) || dp_solve(&k.pr, &found, NULL))
        return;
    k.a = found.best;
    rate(&k);
    f->rounds = k.a.rounds;
    f->tpot_ms = k.tpot_ms;
    fallback_layers(s, &k, f->layers, sizeof f->layers);
}

/* A prompt's first token: one pass with all its tokens over the same layers, memory as it is. */
static double first_token_ms(const search *s, const candidate *k, uint32_t n_tokens)
{
    workload w = k->w;
    problem p;
    assignment a = k->a;

    w.micro_batch = n_tokens;
    w.throughput = false;
    if (make_problem(s, &w, &k->order, false, &p, NULL)) return 0;
    p.kv_layer_bytes = k->pr.kv_layer_bytes;
    for (size_t i = 0; i < p.n_devices; i++) {
        problem_device *d = &p.device[i];
        const problem_device *have = &k->pr.device[i];
        d->ram_bytes = have->ram_bytes;
        d->cpu_buffer_bytes = have->cpu_buffer_bytes;
        d->head_bytes = have->head_bytes;
        d->vram_bytes = have->vram_bytes;
        d->gpu_buffer_bytes = have->gpu_buffer_bytes;
        d->out_ms = have->out_ms; /* only the last token's logits are needed */
    }
    return assignment_evaluate(&p, &a, NULL, NULL) ? a.pass_ms : 0;
}

/* The MILP may choose the read buffer's size, which the solver's closed form does not: with streaming a small
 * gap is common, and then the plan is called feasible, with the gap. */
static void certify(const search *s, const candidate *k, plan *p)
{
    double bound_ms = 0, left_s = s->o->time_limit_s - clock_ms_since(s->start_ns) / 1e3;
    bool complete = false;
    const char *status;
    pr_err err;

    snprintf(p->solver.found_by, sizeof p->solver.found_by, s->o->published ? "halda" : "dp");
    snprintf(p->solver.certified_by, sizeof p->solver.certified_by, "none");
    snprintf(p->solver.status, sizeof p->solver.status, s->o->published ? "heuristic" : "feasible");
    p->solver.gap_pct = NAN;
    if (left_s <= 0) return;
    if (milp_certify(&k->pr, &k->a, left_s, &bound_ms, &complete, &err)) {
        log_info("plan: no certificate: %s", err.msg);
        return;
    }
    snprintf(p->solver.certified_by, sizeof p->solver.certified_by, "glpk");
    status = milp_status(&k->a, bound_ms, &p->solver.gap_pct);
    if (complete && !s->cut && !s->o->published)
        snprintf(p->solver.status, sizeof p->solver.status, "%s", status);
}

static void predict(const search *s, const candidate *k, plan *p)
{
    const char *name[CLUSTER_MAX_DEVICES];
    double read = 0;

    for (size_t i = 0; i < k->order.n; i++) {
        name[i] = s->c->device[k->order.i[i]].name;
        read += k->a.device[i].read_bytes;
    }
    p->predicted.pass_ms = k->a.pass_ms;
    p->predicted.tpot_ms = k->tpot_ms;
    p->predicted.output_tps = k->output_tps;
    p->predicted.read_bytes_per_token = (uint64_t)ceil(read / k->w.micro_batch);
    p->predicted.ttft_tokens = k->w.ctx < SEARCH_TTFT_TOKENS ? k->w.ctx : SEARCH_TTFT_TOKENS;
    p->predicted.ttft_ms = first_token_ms(s, k, p->predicted.ttft_tokens);
    explain_bottleneck(&k->pr, &k->a, name, p->predicted.bottleneck, sizeof p->predicted.bottleneck);
    if (s->o->published) snprintf(p->predicted.advice, sizeof p->predicted.advice, "--solver exact");
    else if (k->order.n <= MAX_ADVICE_DEVICES)
        explain_advice(&k->pr, &k->a, name, p->predicted.advice, sizeof p->predicted.advice);
    else
        snprintf(p->predicted.advice, sizeof p->predicted.advice, "not tried with more than %d devices",
                 MAX_ADVICE_DEVICES);
}

static void fill_in(const search *s, const candidate *k, plan *p)
{
    snprintf(p->created_at, sizeof p->created_at, "%s", s->o->created_at);
    snprintf(p->solver.version, sizeof p->solver.version, "%s", s->o->version);
    snprintf(p->kv_type, sizeof p->kv_type, "%s", k->w.kv_type);
    snprintf(p->objective, sizeof p->objective, "%s", k->w.throughput ? "throughput" : "latency");
    p->ctx = k->w.ctx;
    p->slots = k->w.slots;
    p->micro_batch = k->w.micro_batch;
    for (size_t i = 0; i < s->c->n_devices; i++, p->n_profiles++) {
        memcpy(p->profile[i].name, s->c->device[i].name, sizeof p->profile[i].name);
        memcpy(p->profile[i].sha256, s->profiles[i]->sha256, sizeof p->profile[i].sha256);
    }
    cost_warn_links(s->c, s->profiles, k->order.i, k->order.n);
    add_unused(s, k, p);
    predict(s, k, p);
    for (size_t i = 0; i < k->order.n; i++) add_fallback(s, k, i, p);
    certify(s, k, p);
}

int search_plan(plan **out, const cluster *c, profile *const *profiles, const model_facts *f,
                const workload *w, const search_options *o, pr_err *err)
{
    search *s = calloc(1, sizeof *s);
    pr_err own;
    int rc;

    *out = NULL;
    if (!s) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    *s = (search){.c = c, .profiles = profiles, .f = f, .o = o, .start_ns = clock_ns()};
    if (!err) err = &own;
    if ((rc = try_all(s, w, err)) == PR_OK && (rc = lay_out(s, &s->best, out, err)) == PR_OK) {
        fill_in(s, &s->best, *out);
        rc = plan_check(*out, err);
        log_info("plan: solved in %.0f ms", clock_ms_since(s->start_ns));
    }
    if (rc) {
        plan_free(*out);
        *out = NULL;
    }
    free(s);
    return rc;
}
