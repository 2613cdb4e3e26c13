/* The plan of a ring whose layers are given: what a device reads of it is the same as in a run. */
#include "planner/plan.h"
#include "src/base/clock.h"
#include "src/bench_ring.h"
#include <stdio.h>
#include <stdlib.h>

/* Round r of k has floor((r+1) n / k) - floor(r n / k) of a device's n layers. */
static int deal_out(plan *p, const ring_shape *s, pr_err *err)
{
    uint32_t at = 0;

    for (size_t i = 0; i < s->devices; i++) {
        if (!(p->device[i].window = calloc(s->rounds, sizeof *p->device[i].window)))
            return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    for (uint32_t r = 0; r < s->rounds; r++) {
        for (size_t i = 0; i < s->devices; i++) {
            plan_device *d = &p->device[i];
            uint32_t n = (r + 1) * s->layers[i] / s->rounds - r * s->layers[i] / s->rounds;
            plan_place place = s->vram_bytes ? PLACE_GPU : PLACE_RAM;
            if (n)
                d->window[d->n_windows++] =
                    (plan_window){r, at, at + n - 1, place, 0, place == PLACE_GPU ? (uint32_t)s->gpu : 0};
            at += n;
        }
    }
    return PR_OK;
}

int ring_shape_plan(const ring_shape *s, const model *m, double greeting_s, char **text, size_t *n_bytes,
                    pr_err *err)
{
    plan *p = calloc(1, sizeof *p);
    int rc;

    if (!p) return pr_fail(err, PR_ERESOURCE, "out of memory");
    clock_rfc3339(p->created_at);
    snprintf(p->cluster_sha256, sizeof p->cluster_sha256, "%064d", 0);
    snprintf(p->model.name, sizeof p->model.name, "%s", m->hp.name);
    snprintf(p->model.arch, sizeof p->model.arch, "%s", model_arch_name(m->hp.arch));
    snprintf(p->model.quant, sizeof p->model.quant, "%s", m->hp.quant);
    snprintf(p->model.header_sha256, sizeof p->model.header_sha256, "%s", m->header_sha256);
    snprintf(p->kv_type, sizeof p->kv_type, "f16");
    snprintf(p->objective, sizeof p->objective, "throughput");
    snprintf(p->solver.status, sizeof p->solver.status, "heuristic");
    p->model.n_layers = m->hp.n_layers;
    p->ctx = RING_BENCH_CTX;
    p->slots = RING_BENCH_MOST;
    p->rounds = s->rounds;
    p->pieces = PROBLEM_PIECES;
    p->micro_batch = p->prefill_tokens = p->in_flight = 1;
    p->net.insecure = true;
    p->net.connect_s = p->net.peer_s = greeting_s;
    p->net.heartbeat_s = 1;
    p->n_devices = s->devices;
    for (size_t i = 0; i < p->n_devices; i++) {
        plan_device *d = &p->device[i];
        d->rank = (uint32_t)i;
        snprintf(d->name, sizeof d->name, "d%zu", i);
        snprintf(d->host, sizeof d->host, "127.0.0.1");
        d->port = 1;
        d->owns_embedding = d->owns_output = i == 0;
        d->bytes.budget_ram = (uint64_t)1 << 40;
        if (!s->vram_bytes) continue;
        d->n_gpus = 1;
        d->gpu[0] = (cluster_gpu){.index = (uint32_t)s->gpu, .vram_bytes = s->vram_bytes};
        d->bytes.budget_gpu = s->vram_bytes;
        d->output_on_gpu = i == 0;
    }
    rc = deal_out(p, s, err);
    if (!rc && !(*text = plan_text(p, n_bytes))) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    plan_free(p);
    return rc;
}
