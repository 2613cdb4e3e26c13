/* Plans for tests of the ring: devices on this machine, as many layers each as the test says. */
#ifndef PRIMA_TESTS_RING_PLAN_H
#define PRIMA_TESTS_RING_PLAN_H
#include "planner/plan.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RING_PLAN_CTX = 256, RING_PLAN_SLOTS = 4 };

/* n_devices devices "d0", "d1", ... on 127.0.0.1 at these ports, which share n_layers evenly in each round.
 * NULL: out of memory. plan_free frees it, and the caller may change it before it becomes text. */
static inline plan *ring_plan_new(size_t n_devices, uint32_t rounds, uint32_t n_layers,
                                  const char *header_sha256, const uint16_t *port)
{
    plan *p = calloc(1, sizeof *p);

    if (!p) return NULL;
    snprintf(p->created_at, sizeof p->created_at, "2026-01-01T00:00:00Z");
    snprintf(p->cluster_sha256, sizeof p->cluster_sha256, "%064d", 0);
    snprintf(p->model.name, sizeof p->model.name, "test");
    snprintf(p->model.arch, sizeof p->model.arch, "llama");
    snprintf(p->model.quant, sizeof p->model.quant, "Q8_0");
    snprintf(p->model.header_sha256, sizeof p->model.header_sha256, "%s", header_sha256);
    snprintf(p->kv_type, sizeof p->kv_type, "f16");
    snprintf(p->objective, sizeof p->objective, "throughput");
    snprintf(p->solver.status, sizeof p->solver.status, "heuristic");
    p->model.n_layers = n_layers;
    p->model.file_bytes = 64 << 20;
    p->ctx = RING_PLAN_CTX;
    p->slots = RING_PLAN_SLOTS;
    p->micro_batch = 1;
    p->rounds = rounds;
    p->layer_bytes = 209920; /* of the demo model; what devices can do is made up */
    p->kv_layer_bytes = 524288;
    p->pieces = 8;
    p->prefill_tokens = 1;
    p->in_flight = (uint32_t)n_devices;
    p->net.secure = true;
    p->net.connect_s = 20;
    p->net.heartbeat_s = 0.2;
    p->net.peer_s = 5;
    p->n_devices = n_devices;
    for (size_t i = 0; i < n_devices; i++) {
        plan_device *d = &p->device[i];
        d->rank = (uint32_t)i;
        snprintf(d->name, sizeof d->name, "d%zu", i);
        snprintf(d->host, sizeof d->host, "127.0.0.1");
        d->port = port[i];
        d->owns_embedding = d->owns_output = i == 0;
        d->bytes.budget_ram = (uint64_t)1 << 30;
        d->cost =
            (problem_device){.cpu_ms = 5, .out_ms = 0.02, .hop_ms = 0.05, .ram_bytes = 1 << 30, .theta = 0.5};
        d->window = calloc(rounds, sizeof *d->window);
        if (!d->window) {
            plan_free(p);
            return NULL;
        }
        for (uint32_t r = 0; r < rounds; r++) {
            uint64_t at = (uint64_t)r * n_devices + i, all = (uint64_t)rounds * n_devices;
            uint32_t first = (uint32_t)(at * n_layers / all), end = (uint32_t)((at + 1) * n_layers / all);
            if (first < end) d->window[d->n_windows++] = (plan_window){r, first, end - 1, PLACE_RAM, 0, 0};
        }
    }
    return p;
}

#endif
