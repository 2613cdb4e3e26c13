/* The latency and throughput model (halda.md 7.1 and 7.6), the only place where it stands.
 *
 * A device keeps what fits of its CPU layers in RAM and streams the excess E from disk once a pass,
 * cyclically. With one round nothing of E can be read ahead behind the other devices; with k rounds a buffer
 * of S = E/(k-1) hides all of it, at the price of reading X = E + S bytes. A pass lasts as long as all
 * windows one after the other, or as long as the busiest disk needs: the larger of the two. */
#include "planner/problem.h"
#include <math.h>

typedef struct {
    double available; /* [A] for weights of CPU layers; negative: not even the rest fits */
    double excess;    /* [E] */
} ram_use;

static ram_use ram_of(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers)
{
    const problem_device *d = &p->device[device];
    double cpu_layers = (double)(layers - gpu_layers);
    ram_use r;

    r.available = d->ram_bytes - p->kv_layer_bytes * cpu_layers;
    if (cpu_layers > 0) r.available -= d->cpu_buffer_bytes;
    if (device == 0) r.available -= d->head_bytes;
    r.excess = fmax(0, p->layer_bytes * cpu_layers - fmax(0, r.available));
    return r;
}

static double vram_missing(const problem *p, size_t device, uint32_t gpu_layers)
{
    const problem_device *d = &p->device[device];

    if (gpu_layers == 0) return 0;
    return gpu_layers * (p->layer_bytes + p->kv_layer_bytes) + d->gpu_buffer_bytes - d->vram_bytes;
}

double problem_missing_bytes(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers,
                             problem_budget *budget)
{
    ram_use ram = ram_of(p, device, layers, gpu_layers);
    double vram = vram_missing(p, device, gpu_layers);
    double missing = fmax(0, -ram.available);

    if (vram > 0) {
        *budget = BUDGET_VRAM;
        return vram;
    }
    *budget = BUDGET_RAM;
    if (p->device[device].disk_bytes_per_ms <= 0) missing += ram.excess;
    return missing;
}

/* Buffer and reads for an excess of E bytes; returns the time that cannot hide behind the other devices. */
static double stream(assignment_device *a, uint32_t rounds, double available, double disk_bytes_per_ms)
{
    double hidden_rounds = rounds - 1;

    if (a->excess_bytes <= 0) return 0;
    if (rounds > 1) a->buffer_bytes = fmin(a->excess_bytes / hidden_rounds, available);
    a->read_bytes = a->excess_bytes + a->buffer_bytes;
    a->disk_ms = a->read_bytes / disk_bytes_per_ms;
    return fmax(0, a->excess_bytes - hidden_rounds * a->buffer_bytes) / disk_bytes_per_ms;
}

bool problem_device_cost(const problem *p, size_t device, uint32_t rounds, uint32_t layers,
                         uint32_t gpu_layers, bool alone, device_cost *out)
{
    const problem_device *d = &p->device[device];
    assignment_device a = {.layers = layers, .gpu_layers = gpu_layers};
    problem_budget budget;
    double exposed_ms;

    if (gpu_layers > layers) return false;
    if (d->fixed_layers >= 0 && layers != (uint32_t)d->fixed_layers) return false;
    if (d->fixed_gpu_layers >= 0 && gpu_layers != (uint32_t)d->fixed_gpu_layers) return false;
    if (problem_missing_bytes(p, device, layers, gpu_layers, &budget) > 0) return false;

    ram_use ram = ram_of(p, device, layers, gpu_layers);
    a.excess_bytes = ram.excess;
    a.compute_ms = (layers - gpu_layers) * d->cpu_ms;
    if (gpu_layers > 0) a.compute_ms += gpu_layers * d->gpu_ms;
    if (layers > 0 && !alone) a.net_ms = rounds * d->hop_ms;
    exposed_ms = stream(&a, rounds, ram.available, d->disk_bytes_per_ms);
    a.stall_ms = fmax(0, exposed_ms - d->theta * a.compute_ms);

    out->detail = a;
    out->bound_ms = a.disk_ms + (1 - d->theta) * a.compute_ms;
    if (p->throughput) out->cost_ms = fmax(a.compute_ms + (device == 0 ? d->out_ms : 0), a.net_ms);
    else out->cost_ms = a.compute_ms + a.stall_ms + a.net_ms;
    return true;
}

static void lower_bound(assignment *a, double ms, assignment_bound bound, size_t device)
{
    if (ms <= a->pass_ms) return;
    a->pass_ms = ms;
    a->bound = bound;
    a->bound_device = device;
}

bool assignment_evaluate(const problem *p, assignment *a, size_t *lacking_device, double *missing)
{
    double sum_ms = p->throughput ? 0 : p->device[0].out_ms, lacks = 0;
    size_t i, n_active = 0, n_layers = 0;
    problem_budget budget;
    device_cost c;

    a->n_devices = p->n_devices;
    if (missing) *missing = 0;
    for (i = 0; i < p->n_devices; i++) {
        n_layers += a->device[i].layers;
        n_active += a->device[i].layers > 0;
        if (a->device[i].gpu_layers > a->device[i].layers) return false;
    }
    for (i = 0; i < p->n_devices && lacks <= 0; i++) {
        lacks = problem_missing_bytes(p, i, a->device[i].layers, a->device[i].gpu_layers, &budget);
        if (lacks > 0 && lacking_device) *lacking_device = i;
        if (lacks > 0 && missing) *missing = lacks;
    }
    if (lacks > 0 || n_layers != p->n_layers || a->rounds == 0) return false;

    a->pass_ms = -1;
    for (i = 0; i < p->n_devices; i++) {
        uint32_t layers = a->device[i].layers;
        if (!problem_device_cost(p, i, a->rounds, layers, a->device[i].gpu_layers, n_active == 1, &c))
            return false;
        a->device[i] = c.detail;
        if (p->throughput)
            lower_bound(a, c.cost_ms, c.cost_ms > c.detail.net_ms ? BOUND_COMPUTE : BOUND_NET, i);
        else sum_ms += c.cost_ms;
    }
    if (!p->throughput) lower_bound(a, sum_ms, BOUND_SUM, 0);
    for (i = 0; i < p->n_devices; i++) {
        const assignment_device *d = &a->device[i];
        lower_bound(a, d->disk_ms + (1 - p->device[i].theta) * d->compute_ms, BOUND_DISK, i);
    }
    return true;
}
