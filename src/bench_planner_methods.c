/* The ways of dividing a model that the suite `planner` compares, all on the same problem and rated by the
 * same model of time: ours, the paper's algorithm, equal shares (dllama gives every device the same slice),
 * shares in proportion to memory (exo, and the paper's program without its scheduler), one device alone
 * (llama.cpp). What a device has no memory for is streamed as our runtime would, in one round: those tools
 * know no rounds and do not stream. */
#include "planner/played.h"
#include "planner/published.h"
#include "planner/simulate.h"
#include "planner/solve.h"
#include "src/bench_planner.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

int ring_make(bench_ring *r, const machines *m, const model_facts *f, size_t ctx, size_t head, pr_err *err)
{
    const workload w = {.ctx = (uint32_t)ctx, .slots = 1, .micro_batch = 1, .kv_type = "f16"};
    size_t n = m->c->n_devices;
    int rc;

    memset(r, 0, sizeof *r);
    r->m = m;
    r->f = f;
    for (size_t i = 0; i < n; i++) {
        r->order[i] = (uint32_t)((head + i) % n);
        r->os[i] = m->profiles[r->order[i]]->os;
    }
    rc = cost_problem(&r->p, m->c, m->profiles, f, &w, r->order, n, err);
    for (size_t i = 0; i < n; i++)
        snprintf(r->p.device[i].name, sizeof r->p.device[i].name, "%s", m->c->device[r->order[i]].name);
    return rc;
}

/* --- ours, theirs ----------------------------------------------------------------------------------------
 */
static int split_prima(const bench_ring *r, assignment *a, pr_err *err)
{
    solution s;
    played choice;
    int rc = dp_solve(&r->p, &s, err);

    if (rc) return rc;
    *a = s.best;
    return played_choose(&r->p, a, &choice, err);
}

static int split_halda(const bench_ring *r, assignment *a, pr_err *err)
{
    return published_solve(&r->p, r->f, r->os, a, err);
}

/* --- by rule ---------------------------------------------------------------------------------------------
 */
static double memory_of(const problem_device *d)
{
    return d->ram_bytes + d->vram_bytes;
}

static double equal(const problem_device *d)
{
    return d->ram_bytes > 0;
}

/* Layers in proportion to weight(device), the largest remainders rounded up. */
static void share_out(const problem *p, double (*weight)(const problem_device *), assignment *a)
{
    double sum = 0, rest[PROBLEM_MAX_DEVICES];
    uint32_t left = p->n_layers;

    for (size_t i = 0; i < p->n_devices; i++) sum += weight(&p->device[i]);
    for (size_t i = 0; i < p->n_devices; i++) {
        double exact = p->n_layers * weight(&p->device[i]) / sum;
        a->device[i].layers = (uint32_t)exact;
        rest[i] = exact - a->device[i].layers;
        left -= a->device[i].layers;
    }
    for (; left > 0; left--) {
        size_t most = 0;
        for (size_t i = 1; i < p->n_devices; i++)
            if (rest[i] > rest[most]) most = i;
        a->device[most].layers++;
        rest[most] = -1;
    }
}

/* As many of its layers on each GPU as fit, then our model's time. */
static int rate(const problem *p, assignment *a, pr_err *err)
{
    size_t lacking = 0;
    double missing = 0;
    problem_budget budget;

    for (size_t i = 0; i < p->n_devices; i++) {
        assignment_device *d = &a->device[i];
        d->gpu_layers = p->device[i].vram_bytes > 0 ? d->layers : 0;
        while (d->gpu_layers && problem_missing_bytes(p, i, d->layers, d->gpu_layers, &budget) > 0 &&
               budget == BUDGET_VRAM)
            d->gpu_layers--;
    }
    a->rounds = 1;
    a->n_devices = p->n_devices;
    if (assignment_evaluate(p, a, &lacking, &missing)) return PR_OK;
    return pr_fail(err, PR_EINFEASIBLE, "%s lacks %.0f bytes for %u layers", p->device[lacking].name, missing,
                   (unsigned)a->device[lacking].layers);
}

static int split_memory(const bench_ring *r, assignment *a, pr_err *err)
{
    memset(a, 0, sizeof *a);
    share_out(&r->p, memory_of, a);
    return rate(&r->p, a, err);
}

static int split_even(const bench_ring *r, assignment *a, pr_err *err)
{
    memset(a, 0, sizeof *a);
    share_out(&r->p, equal, a);
    return rate(&r->p, a, err);
}

static int split_single(const bench_ring *r, assignment *a, pr_err *err)
{
    memset(a, 0, sizeof *a);
    a->device[0].layers = r->p.n_layers;
    return rate(&r->p, a, err);
}

const bench_method bench_methods[] = {{"prima", split_prima, "prima.cpp"},
                                      {"halda", split_halda, "prima.cpp"},
                                      {"memory", split_memory, "prima.cpp by memory"},
                                      {"even", split_even, "dllama"},
                                      {"single", split_single, "llama.cpp"},
                                      {0}};

/* --- what a row says -------------------------------------------------------------------------------------
 */
void ring_layers(const bench_ring *r, const assignment *a, bool gpu, char *out, size_t cap)
{
    size_t at = 0, n = r->p.n_devices;

    *out = 0;
    for (size_t c = 0; c < n && at < cap; c++) {
        size_t i = (c + n - r->order[0]) % n; /* the ring is the cluster's list, turned */
        uint32_t layers = gpu ? a->device[i].gpu_layers : a->device[i].layers;
        at += (size_t)snprintf(out + at, cap - at, "%s%u", c ? ":" : "", (unsigned)layers);
    }
}

void ring_bound(const bench_ring *r, const assignment *a, char *out, size_t cap)
{
    if (a->bound == BOUND_DISK) snprintf(out, cap, "disk %s", r->p.device[a->bound_device].name);
    else snprintf(out, cap, "sum");
}

double ring_read_bytes(const assignment *a)
{
    double bytes = 0;

    for (size_t i = 0; i < a->n_devices; i++) bytes += a->device[i].read_bytes;
    return bytes;
}

double ring_simulate(const bench_ring *r, const assignment *a, pr_err *err)
{
    const sim_options o = {.passes = 60, .in_flight = 1};
    sim_result s;

    return simulate(&r->p, a, &o, &s, err) ? NAN : s.pass_ms;
}
