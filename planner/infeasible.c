/* What to say when no plan exists: the device that must hold what it cannot, or the one where the fewest
 * bytes would help. */
#include "planner/infeasible.h"
#include <math.h>
#include <stdio.h>

enum { AMOUNT_BYTES = 700 }; /* two doubles in digits may be long */

static void name_of(const problem *p, size_t device, char name[40])
{
    if (p->device[device].name[0]) snprintf(name, 40, "%s", p->device[device].name);
    else snprintf(name, 40, "device %zu", device);
}

/* Layers that a device can hold at least and at most; false: not even none. */
static bool room_of(const problem *p, size_t device, uint32_t *least, uint32_t *most)
{
    uint32_t max_gpu = problem_max_gpu_layers(p, device);
    device_cost c;
    bool any = false;

    for (uint32_t l = 0; l <= p->n_layers; l++)
        for (uint32_t g = 0; g <= l && g <= max_gpu; g++) {
            if (!problem_device_cost(p, device, 1, l, g, false, &c)) continue;
            if (!any) *least = l;
            any = true;
            *most = l;
        }
    return any;
}

/* The least that is missing for so many layers, with as many of them on the GPU as help. */
static double missing_for(const problem *p, size_t device, uint32_t layers, problem_budget *budget)
{
    uint32_t max_gpu = problem_max_gpu_layers(p, device);
    double least = INFINITY;

    for (uint32_t g = 0; g <= layers && g <= max_gpu; g++) {
        problem_budget b;
        double missing = problem_missing_bytes(p, device, layers, g, &b);
        if (missing >= least) continue;
        least = missing;
        *budget = b;
    }
    return least;
}

/* "12345 bytes beyond its RAM budget of 678 bytes" */
static void amount(const problem *p, size_t device, double missing, problem_budget b, char text[AMOUNT_BYTES])
{
    const problem_device *d = &p->device[device];

    snprintf(text, AMOUNT_BYTES, "%.0f bytes beyond its %s budget of %.0f bytes", ceil(missing),
             b == BUDGET_RAM ? "RAM" : "VRAM", b == BUDGET_RAM ? d->ram_bytes : d->vram_bytes);
}

/* A device that cannot hold what it must: its pinned layers, or as the head its own part. */
static int explain_one(const problem *p, size_t device, pr_err *err)
{
    const problem_device *d = &p->device[device];
    uint32_t layers = d->fixed_layers > 0 ? (uint32_t)d->fixed_layers : 0;
    uint32_t gpu = d->fixed_gpu_layers > 0 ? (uint32_t)d->fixed_gpu_layers : 0;
    problem_budget budget = BUDGET_RAM;
    char name[40], text[AMOUNT_BYTES], what[60];
    double missing;

    name_of(p, device, name);
    if (gpu > p->n_layers || layers > p->n_layers || (d->fixed_layers >= 0 && gpu > layers))
        return pr_fail(err, PR_EINFEASIBLE,
                       "no plan fits: %s: %u layers with %u on the GPU are asked for, the model has %u", name,
                       layers, gpu, p->n_layers);
    if (layers < gpu) layers = gpu;
    if (d->fixed_gpu_layers < 0) missing = missing_for(p, device, layers, &budget);
    else missing = problem_missing_bytes(p, device, layers, gpu, &budget);
    amount(p, device, missing, budget, text);
    if (layers > 0) snprintf(what, sizeof what, "with %u layers", layers);
    else snprintf(what, sizeof what, "as the head, without layers,");
    return pr_fail(err, PR_EINFEASIBLE, "no plan fits: %s %s lacks %s", name, what, text);
}

/* The free device that lacks the fewest bytes for what all together cannot hold. */
static int explain_nearest(const problem *p, const uint32_t *most, size_t sum_most, pr_err *err)
{
    double fewest = INFINITY;
    problem_budget budget = BUDGET_RAM;
    char name[40], text[AMOUNT_BYTES];
    size_t where = 0;

    for (size_t i = 0; i < p->n_devices; i++) {
        uint32_t wanted = most[i] + (uint32_t)(p->n_layers - sum_most);
        problem_budget b = BUDGET_RAM;
        if (p->device[i].fixed_layers >= 0 || p->device[i].fixed_gpu_layers >= 0) continue;
        double missing = missing_for(p, i, wanted, &b);
        if (missing >= fewest) continue;
        fewest = missing;
        budget = b;
        where = i;
    }
    if (isinf(fewest))
        return pr_fail(err, PR_EINFEASIBLE, "no plan fits: the fixed layers leave room for %zu of %u layers",
                       sum_most, p->n_layers);
    name_of(p, where, name);
    amount(p, where, fewest, budget, text);
    return pr_fail(err, PR_EINFEASIBLE,
                   "no plan fits: the devices hold %zu of %u layers; nearest is %s, which lacks %s%s",
                   sum_most, p->n_layers, name, text,
                   p->device[where].disk_bytes_per_ms > 0
                       ? "; only the KV cache and a read buffer must fit, layers are streamed"
                       : "");
}

int infeasible_explain(const problem *p, pr_err *err)
{
    uint32_t most[PROBLEM_MAX_DEVICES] = {0};
    size_t sum_least = 0, sum_most = 0;

    for (size_t i = 0; i < p->n_devices; i++) {
        uint32_t least = 0;
        if (!room_of(p, i, &least, &most[i])) return explain_one(p, i, err);
        sum_least += least;
        sum_most += most[i];
    }
    if (sum_least > p->n_layers)
        return pr_fail(err, PR_EINFEASIBLE, "no plan fits: %zu layers are given by hand, the model has %u",
                       sum_least, p->n_layers);
    return explain_nearest(p, most, sum_most, err);
}
