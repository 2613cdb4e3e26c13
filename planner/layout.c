/* Whole layers; see layout.h. */
#include "planner/layout.h"
#include <math.h>
#include <string.h>

enum { MAX_SHRINKS = 40 };

static int fail_in_size(const problem *p, size_t device, bool gpu, uint64_t bytes, pr_err *err)
{
    const problem_device *d = &p->device[device];

    return pr_fail(err, PR_EINFEASIBLE,
                   "no plan fits: %s: its layers, which differ in size, lack %llu bytes beyond its %s budget "
                   "of %.0f bytes",
                   d->name, (unsigned long long)bytes, gpu ? "VRAM" : "RAM",
                   gpu ? d->vram_bytes : d->ram_bytes);
}

/* With the budgets of p the device still does the same: so many layers, resident and streamed. */
static bool does_the_same(const problem *p, const assignment *a, size_t device)
{
    const assignment_device *d = &a->device[device];
    device_cost c;

    if (!problem_device_cost(p, device, a->rounds, d->layers, d->gpu_layers, false, &c)) return false;
    if (!d->streamed_pieces) return c.detail.streamed_pieces == 0;
    return problem_set_buffer(p, device, a->rounds, d->buffer_pieces, &c) &&
           c.detail.streamed_pieces == d->streamed_pieces;
}

/* Cuts a budget of p by the missing bytes, and at least so that the device has to do something else: what it
 * can hold changes in steps. */
static void cut_budget(problem *p, const assignment *a, size_t device, bool gpu, double missing)
{
    double *budget = gpu ? &p->device[device].vram_bytes : &p->device[device].ram_bytes;
    double low = 0, high = *budget, cut = fmax(0, *budget - missing);

    while (high - low > 0.5) {
        *budget = (low + high) / 2;
        if (does_the_same(p, a, device)) high = *budget;
        else low = *budget;
    }
    *budget = fmin(cut, low);
}

static size_t ring_place(const cluster *c, const uint32_t *order, const char *name)
{
    size_t i = 0;

    while (strcmp(c->device[order[i]].name, name)) i++;
    return i;
}

int layout_plan(plan **out, const cluster *c, const model_facts *f, const uint32_t *order, size_t n_order,
                const problem *pr, assignment *a, layout_solver solve, void *arg, pr_err *err)
{
    problem cut = *pr;

    for (int tries = 0;; tries++) {
        size_t device;
        uint64_t bytes;
        bool gpu;
        int rc = plan_build(out, c, f, order, n_order, pr, a, err);

        if (rc || !plan_lacks(*out, &device, &gpu, &bytes)) return rc;
        device = ring_place(c, order, (*out)->device[device].name);
        plan_free(*out);
        *out = NULL;
        cut_budget(&cut, a, device, gpu, (double)bytes);
        rc = tries < MAX_SHRINKS ? solve(arg, &cut, a, err) : PR_EINFEASIBLE;
        if (rc == PR_EINFEASIBLE) return fail_in_size(pr, device, gpu, bytes, err);
        if (rc) return rc;
    }
}
