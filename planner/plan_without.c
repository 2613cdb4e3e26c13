/* The ring without a device, while a job runs. A device hands on to the next but one at the speed that it
 * had to the lost one: nothing better is known. */
#include "planner/layout.h"
#include "planner/played.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The cluster that the plan was made of, as far as a plan needs it. */
static cluster *cluster_of(const plan *p)
{
    cluster *c = calloc(1, sizeof *c);

    if (!c) return NULL;
    memcpy(c->sha256, p->cluster_sha256, sizeof c->sha256);
    c->secure = p->net.secure;
    c->insecure_spelled_out = p->net.insecure;
    memcpy(c->key_file, p->net.key_file, sizeof c->key_file);
    c->connect_s = p->net.connect_s;
    c->heartbeat_s = p->net.heartbeat_s;
    c->peer_s = p->net.peer_s;
    c->n_devices = p->n_devices;
    for (size_t i = 0; i < p->n_devices; i++) {
        cluster_device *d = &c->device[i];
        const plan_device *from = &p->device[i];
        memcpy(d->name, from->name, sizeof d->name);
        memcpy(d->host, from->host, sizeof d->host);
        memcpy(d->ssh, from->ssh, sizeof d->ssh);
        memcpy(d->user, from->user, sizeof d->user);
        memcpy(d->model, from->model, sizeof d->model);
        d->port = from->port;
        d->threads = from->threads;
        memcpy(d->reader, from->reader, sizeof d->reader);
        memcpy(d->gpu, from->gpu, sizeof d->gpu);
        d->n_gpus = from->n_gpus;
    }
    return c;
}

/* The problem of all devices but one, and which of the plan's devices each is. */
static int problem_without(const plan *p, const char *lost, problem *pr, uint32_t *order, pr_err *err)
{
    size_t n = 0;
    assignment a;
    int rc = plan_problem(p, pr, &a, err);

    if (rc) return rc;
    for (size_t i = 0; i < p->n_devices; i++) {
        if (strcmp(p->device[i].name, lost) == 0) continue;
        pr->device[n] = p->device[i].cost;
        order[n++] = (uint32_t)i;
    }
    if (n == p->n_devices || order[0] != 0)
        return pr_fail(err, PR_EINTERNAL, "a plan without %s: it is not a worker of the plan", lost);
    pr->n_devices = n;
    pr->min_rounds = 1;
    pr->max_rounds = p->model.n_layers < PROBLEM_MAX_ROUNDS ? p->model.n_layers : PROBLEM_MAX_ROUNDS;
    return PR_OK;
}

static int solve_again(void *arg, const problem *cut, assignment *a, pr_err *err)
{
    return played_again(cut, arg, a, err);
}

/* What plan_build leaves to its caller. */
static void fill_in(plan *out, const plan *p, const assignment *a)
{
    memcpy(out->created_at, p->created_at, sizeof out->created_at);
    memcpy(out->profile, p->profile, sizeof out->profile);
    out->n_profiles = p->n_profiles;
    memcpy(out->kv_type, p->kv_type, sizeof out->kv_type);
    memcpy(out->objective, p->objective, sizeof out->objective);
    out->ctx = p->ctx;
    out->slots = p->slots;
    out->micro_batch = p->micro_batch;
    snprintf(out->solver.found_by, sizeof out->solver.found_by, "dp+simulation");
    snprintf(out->solver.certified_by, sizeof out->solver.certified_by, "none");
    snprintf(out->solver.status, sizeof out->solver.status, "feasible");
    memcpy(out->solver.version, p->solver.version, sizeof out->solver.version);
    out->solver.gap_pct = NAN;
    out->predicted.pass_ms = out->predicted.tpot_ms = a->pass_ms;
    out->predicted.output_tps = a->pass_ms > 0 ? 1e3 / a->pass_ms : 0;
}

static int solve(problem *pr, assignment *a, played *choice, pr_err *err)
{
    solution s;
    int rc = dp_solve(pr, &s, err);

    if (rc) return rc;
    *a = s.best;
    return played_choose(pr, a, choice, err);
}

int plan_without(plan **out, const plan *p, const char *lost, const model_facts *f, pr_err *err)
{
    uint32_t order[CLUSTER_MAX_DEVICES];
    cluster *c = cluster_of(p);
    problem pr;
    assignment a;
    played choice;
    int rc;

    *out = NULL;
    if (!c) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    if ((rc = problem_without(p, lost, &pr, order, err)) == PR_OK &&
        (rc = solve(&pr, &a, &choice, err)) == PR_OK)
        rc = layout_plan(out, c, f, order, pr.n_devices, &pr, &a, solve_again, &choice, err);
    free(c);
    if (rc) return rc;
    fill_in(*out, p, &a);
    if ((rc = plan_check(*out, err))) {
        plan_free(*out);
        *out = NULL;
    }
    return rc;
}
