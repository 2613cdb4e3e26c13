/* The exact solver (halda.md 7.2): a problem is separable per device but for the sum of layers and the
 * slowest disk.
 *
 * For every number of rounds k and every device, the options for each number of layers are the Pareto front
 * over its GPU layers of (cost, disk bound). With a threshold tau on the bounds the best sum of costs f(tau)
 * is a resource allocation, solved by dynamic programming over the devices. f does not grow with tau, so the
 * best of max(tau, f(tau)) lies where the two cross, found by bisection over the bounds that occur.
 * Throughput is the same with the largest cost in place of the sum. A second walk at the best time found
 * picks the plan: fewest devices, then fewest rounds, then the cheapest sum, then fewest bytes read. Plans of
 * one device pay no hop and are looked at one by one. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double TIE = 1e-9; /* relative: times closer than this are equal */

typedef struct {
    double cost, bound, bytes;
    uint32_t gpu_layers;
} option;

typedef struct {
    double cost, bytes;
} label;

typedef struct {
    const problem *p;
    uint32_t n_layers, rounds;
    uint32_t max_gpu[PROBLEM_MAX_DEVICES];
    option *options; /* by device, layers, rising cost and falling bound */
    size_t n_options, capacity;
    size_t *first; /* [n_devices * (n_layers + 1) + 1] where the options of a device and its layers begin */
    double *row, *next_row, *price; /* [n_layers + 1] */
    double *candidates;
    size_t candidates_capacity;
} dp;

static void dp_clear(dp *d)
{
    free(d->options);
    free(d->first);
    free(d->row);
    free(d->next_row);
    free(d->price);
    free(d->candidates);
}

static bool dp_init(dp *d, const problem *p)
{
    size_t n = (size_t)p->n_layers + 1, i;
    problem_budget budget;

    memset(d, 0, sizeof *d);
    d->p = p;
    d->n_layers = p->n_layers;
    d->first = calloc(p->n_devices * n + 1, sizeof *d->first);
    d->row = calloc(n, sizeof *d->row);
    d->next_row = calloc(n, sizeof *d->next_row);
    d->price = calloc(n, sizeof *d->price);
    for (i = 0; i < p->n_devices; i++)
        while (p->device[i].vram_bytes > 0 && d->max_gpu[i] < p->n_layers) {
            uint32_t g = d->max_gpu[i] + 1;
            if (problem_missing_bytes(p, i, g, g, &budget) > 0 && budget == BUDGET_VRAM) break;
            d->max_gpu[i] = g;
        }
    return d->first && d->row && d->next_row && d->price;
}

/* --- options
 * -------------------------------------------------------------------------------------------------- */

/* Put an option into the front that begins at `first`, unless one there is as good in both. */
static bool add_option(dp *d, size_t first, option o)
{
    size_t at = d->n_options, end;

    for (size_t i = first; i < d->n_options; i++) {
        const option *q = &d->options[i];
        bool same = q->cost == o.cost && q->bound == o.bound;
        if (q->cost <= o.cost && q->bound <= o.bound && !(same && o.bytes < q->bytes)) return true;
    }
    while (at > first && d->options[at - 1].cost >= o.cost) at--;
    for (end = at; end < d->n_options && d->options[end].bound >= o.bound;) end++;
    if (end == at) { /* nothing to replace: make room */
        if (d->n_options == d->capacity) {
            size_t capacity = d->capacity ? 2 * d->capacity : 4096;
            option *grown = realloc(d->options, capacity * sizeof *grown);
            if (!grown) return false;
            d->options = grown;
            d->capacity = capacity;
        }
        end = at + 1;
        memmove(&d->options[end], &d->options[at], (d->n_options - at) * sizeof o);
        d->n_options++;
    } else {
        memmove(&d->options[at + 1], &d->options[end], (d->n_options - end) * sizeof o);
        d->n_options -= end - at - 1;
    }
    d->options[at] = o;
    return true;
}

static bool make_options(dp *d, uint32_t rounds)
{
    size_t at = 0;

    d->rounds = rounds;
    d->n_options = 0;
    for (size_t i = 0; i < d->p->n_devices; i++)
        for (uint32_t l = 0; l <= d->n_layers; l++) {
            size_t first = d->n_options;
            d->first[at++] = first;
            for (uint32_t left = l < d->max_gpu[i] ? l + 1 : d->max_gpu[i] + 1; left > 0; left--) {
                device_cost c; /* most GPU layers first: the others are then mostly refused at once */
                if (!problem_device_cost(d->p, i, rounds, l, left - 1, false, &c)) continue;
                option o = {c.cost_ms, c.bound_ms, c.detail.read_bytes, left - 1};
                if (!add_option(d, first, o)) return false;
            }
        }
    d->first[at] = d->n_options;
    return true;
}

/* The cheapest option of a device for l layers whose bound is at most tau; NULL when there is none. */
static const option *cheapest(const dp *d, size_t device, uint32_t l, double tau)
{
    size_t at = device * ((size_t)d->n_layers + 1) + l;

    for (size_t i = d->first[at]; i < d->first[at + 1]; i++)
        if (d->options[i].bound <= tau) return &d->options[i];
    return NULL;
}

/* --- the best time for one k
 * ---------------------------------------------------------------------------------- */

/* f(tau): the least sum (throughput: the least maximum) of costs with every bound at most tau. */
static double best_costs(dp *d, double tau)
{
    bool throughput = d->p->throughput;

    for (uint32_t r = 0; r <= d->n_layers; r++) d->row[r] = INFINITY;
    d->row[0] = throughput ? 0 : d->p->device[0].out_ms;
    for (size_t i = 0; i < d->p->n_devices; i++) {
        for (uint32_t l = 0; l <= d->n_layers; l++) {
            const option *o = cheapest(d, i, l, tau);
            d->price[l] = o ? o->cost : INFINITY;
            d->next_row[l] = INFINITY;
        }
        for (uint32_t r = 0; r <= d->n_layers; r++)
            for (uint32_t l = 0; l <= r; l++) {
                double rest = d->row[r - l], price = d->price[l];
                double v = !throughput ? rest + price : rest > price ? rest : price;
                if (v < d->next_row[r]) d->next_row[r] = v;
            }
        double *swap = d->row;
        d->row = d->next_row;
        d->next_row = swap;
    }
    return d->row[d->n_layers];
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Bounds above `floor_ms`, sorted; false when memory is short. */
static bool collect_candidates(dp *d, double floor_ms, size_t *n)
{
    if (d->candidates_capacity < d->n_options) {
        free(d->candidates);
        d->candidates = malloc(d->capacity * sizeof *d->candidates);
        d->candidates_capacity = d->candidates ? d->capacity : 0;
        if (!d->candidates) return false;
    }
    *n = 0;
    for (size_t i = 0; i < d->n_options; i++)
        if (d->options[i].bound > floor_ms) d->candidates[(*n)++] = d->options[i].bound;
    qsort(d->candidates, *n, sizeof *d->candidates, by_value);
    return true;
}

/* Best time with the options of this k, a hop charged for every device in use; INFINITY: infeasible. */
static bool best_time(dp *d, double *ms)
{
    double unbounded = best_costs(d, INFINITY), before;
    size_t low = 0, high, n;

    *ms = unbounded;
    if (!isfinite(unbounded)) return true;
    before = best_costs(d, unbounded); /* f just below the first candidate */
    if (before <= unbounded) return true;
    if (!collect_candidates(d, unbounded, &n)) return false;
    for (high = n - 1; low < high;) {
        size_t middle = low + (high - low) / 2;
        double f = best_costs(d, d->candidates[middle]);
        if (f <= d->candidates[middle]) high = middle;
        else {
            low = middle + 1;
            before = f;
        }
    }
    *ms = fmin(d->candidates[low], before);
    return true;
}

/* --- plans of one device
 * -------------------------------------------------------------------------------------- */

/* Best plan for this k in which one device has all layers; INFINITY: there is none. */
static double best_alone(const dp *d, uint32_t rounds, assignment *best)
{
    const problem *p = d->p;
    device_cost c;

    best->pass_ms = INFINITY;
    for (size_t i = 0; i < p->n_devices; i++)
        for (uint32_t g = 0; g <= d->max_gpu[i]; g++) {
            assignment a = {.rounds = rounds};
            if (!problem_device_cost(p, i, rounds, p->n_layers, g, true, &c)) continue;
            a.device[i].layers = p->n_layers;
            a.device[i].gpu_layers = g;
            if (!assignment_evaluate(p, &a, NULL, NULL)) continue;
            double better_by = best->pass_ms - a.pass_ms;
            bool tie = fabs(better_by) <= TIE * a.pass_ms;
            if (tie ? a.device[i].read_bytes < best->device[best->bound_device].read_bytes : better_by > 0) {
                *best = a;
                best->bound_device = i;
            }
        }
    return best->pass_ms;
}

/* --- picking the plan
 * ----------------------------------------------------------------------------------------- */

static bool less(label a, label b)
{
    double slack = isinf(b.cost) ? 0 : 1e-12 * fabs(b.cost);
    return a.cost < b.cost - slack || (a.cost <= b.cost + slack && a.bytes < b.bytes);
}

/* Labels [device + 1][devices in use][layers placed]: the cheapest way, and the layers it gave the last
 * device. */
typedef struct {
    label *best;
    uint32_t *taken;
    size_t n_used, n_layers; /* extents less one */
} table;

static size_t table_at(const table *t, size_t device, size_t used, size_t layers)
{
    return (device * (t->n_used + 1) + used) * (t->n_layers + 1) + layers;
}

static void fill_device(const dp *d, table *t, size_t device, double limit_ms)
{
    for (uint32_t l = 0; l <= d->n_layers; l++) {
        const option *o = cheapest(d, device, l, limit_ms);
        if (!o || o->cost > limit_ms) continue;
        label own = {d->p->throughput ? 0 : o->cost, o->bytes};
        for (size_t used = l > 0; used <= t->n_used; used++)
            for (size_t r = l; r <= d->n_layers; r++) {
                label rest = t->best[table_at(t, device, used - (l > 0), r - l)];
                label sum = {rest.cost + own.cost, rest.bytes + own.bytes};
                size_t at = table_at(t, device + 1, used, r);
                if (isinf(rest.cost) || !less(sum, t->best[at])) continue;
                t->best[at] = sum;
                t->taken[at] = l;
            }
    }
}

static void walk_back(const dp *d, const table *t, size_t used, double limit_ms, assignment *a)
{
    uint32_t layers = d->n_layers;

    memset(a, 0, sizeof *a);
    a->rounds = d->rounds;
    for (size_t i = d->p->n_devices; i-- > 0;) {
        uint32_t l = t->taken[table_at(t, i + 1, used, layers)];
        a->device[i].layers = l;
        a->device[i].gpu_layers = cheapest(d, i, l, limit_ms)->gpu_layers;
        layers -= l;
        used -= l > 0;
    }
}

/* A plan of this k within limit_ms with the fewest devices, at most max_used: their number, 0 = none. -1: no
 * memory. */
static int pick(const dp *d, double limit_ms, size_t max_used, assignment *a)
{
    table t = {.n_used = max_used, .n_layers = d->n_layers};
    size_t n = (d->p->n_devices + 1) * (max_used + 1) * ((size_t)d->n_layers + 1), used;
    int found = -1;

    t.best = malloc(n * sizeof *t.best);
    t.taken = calloc(n, sizeof *t.taken);
    if (!t.best || !t.taken) goto done;
    for (size_t i = 0; i < n; i++) t.best[i] = (label){INFINITY, 0};
    t.best[0] = (label){d->p->throughput ? 0 : d->p->device[0].out_ms, 0};
    for (size_t i = 0; i < d->p->n_devices; i++) fill_device(d, &t, i, limit_ms);
    found = 0;
    for (used = 1; used <= max_used && !found; used++)
        if (t.best[table_at(&t, d->p->n_devices, used, d->n_layers)].cost <= limit_ms) {
            walk_back(d, &t, used, limit_ms, a);
            if (assignment_evaluate(d->p, a, NULL, NULL)) found = (int)used;
        }
done:
    free(t.best);
    free(t.taken);
    return found;
}

/* Among all k whose best time is within limit_ms: fewest devices, then fewest rounds. False: no memory. */
static bool pick_plan(dp *d, uint32_t max_rounds, double limit_ms, solution *s)
{
    size_t fewest = d->p->n_devices + 1;
    assignment a;

    for (uint32_t k = 1; k <= max_rounds && fewest > 1; k++) {
        if (!(s->per_rounds_ms[k] <= limit_ms)) continue;
        if (best_alone(d, k, &a) <= limit_ms) {
            assignment_evaluate(d->p, &a, NULL, NULL);
            s->best = a;
            return true;
        }
        if (!make_options(d, k)) return false;
        int used = pick(d, limit_ms, fewest - 1, &a);
        if (used < 0) return false;
        if (used == 0) continue;
        fewest = (size_t)used;
        s->best = a;
    }
    return true;
}

/* --- nothing fits
 * --------------------------------------------------------------------------------------------- */

static void name_of(const problem *p, size_t device, char name[40])
{
    if (p->device[device].name[0]) snprintf(name, 40, "%s", p->device[device].name);
    else snprintf(name, 40, "device %zu", device);
}

/* Layers that a device can hold at least and at most; false: not even none. */
static bool room_of(const dp *d, size_t device, uint32_t *least, uint32_t *most)
{
    device_cost c;
    bool any = false;

    for (uint32_t l = 0; l <= d->n_layers; l++)
        for (uint32_t g = 0; g <= l && g <= d->max_gpu[device]; g++) {
            if (!problem_device_cost(d->p, device, 1, l, g, false, &c)) continue;
            if (!any) *least = l;
            any = true;
            *most = l;
        }
    return any;
}

static int explain_alone(const dp *d, size_t device, pr_err *err)
{
    const problem_device *v = &d->p->device[device];
    uint32_t layers = v->fixed_layers > 0 ? (uint32_t)v->fixed_layers : 0, gpu = 0;
    problem_budget budget;
    char name[40];

    name_of(d->p, device, name);
    if (v->fixed_gpu_layers > 0) gpu = (uint32_t)v->fixed_gpu_layers;
    if (gpu > d->n_layers || layers > d->n_layers || (v->fixed_layers >= 0 && gpu > layers))
        return pr_fail(err, PR_EINFEASIBLE,
                       "%s: %u layers with %u on the GPU are asked for, the model has %u", name, layers, gpu,
                       d->n_layers);
    if (layers < gpu) layers = gpu;
    if (v->fixed_gpu_layers < 0) gpu = layers < d->max_gpu[device] ? layers : d->max_gpu[device];
    double missing = problem_missing_bytes(d->p, device, layers, gpu, &budget);
    return pr_fail(err, PR_EINFEASIBLE,
                   "%s: %s budget of %.0f bytes: %.0f bytes are missing for %s %u layers", name,
                   budget == BUDGET_RAM ? "RAM" : "VRAM", budget == BUDGET_RAM ? v->ram_bytes : v->vram_bytes,
                   missing, device == 0 ? "the head and" : "its", layers);
}

/* Says which budget is short, on the device where the fewest bytes would help. */
static int explain(const dp *d, pr_err *err)
{
    const problem *p = d->p;
    uint32_t least[PROBLEM_MAX_DEVICES] = {0}, most[PROBLEM_MAX_DEVICES] = {0};
    size_t sum_least = 0, sum_most = 0, where = 0;
    double fewest = INFINITY;
    problem_budget budget;
    char name[40];

    for (size_t i = 0; i < p->n_devices; i++) {
        if (!room_of(d, i, &least[i], &most[i])) return explain_alone(d, i, err);
        sum_least += least[i];
        sum_most += most[i];
    }
    if (sum_least > p->n_layers)
        return pr_fail(err, PR_EINFEASIBLE, "fixed layers add up to %zu, the model has %u", sum_least,
                       p->n_layers);
    for (size_t i = 0; i < p->n_devices; i++) {
        uint32_t wanted = most[i] + (uint32_t)(p->n_layers - sum_most);
        uint32_t gpu = wanted < d->max_gpu[i] ? wanted : d->max_gpu[i];
        if (p->device[i].fixed_layers >= 0 || p->device[i].fixed_gpu_layers >= 0) continue;
        double missing = problem_missing_bytes(p, i, wanted, gpu, &budget);
        if (missing >= fewest) continue;
        fewest = missing;
        where = i;
    }
    if (isinf(fewest))
        return pr_fail(err, PR_EINFEASIBLE, "the fixed layers leave room for %zu of %u layers", sum_most,
                       p->n_layers);
    name_of(p, where, name);
    return pr_fail(
        err, PR_EINFEASIBLE,
        "%s: RAM budget of %.0f bytes: %.0f bytes are missing (all devices together hold %zu of %u "
        "layers)%s",
        name, p->device[where].ram_bytes, fewest, sum_most, p->n_layers,
        p->device[where].disk_bytes_per_ms > 0 ? "; only the KV cache must fit, layers are streamed" : "");
}

int dp_solve(const problem *p, solution *s, pr_err *err)
{
    uint64_t start = clock_ns();
    uint32_t max_rounds = p->max_rounds < p->n_layers ? p->max_rounds : p->n_layers;
    double best_ms = INFINITY, ms;
    int rc = PR_OK;
    assignment alone;
    dp d;

    assert(p->n_devices > 0 && p->n_devices <= PROBLEM_MAX_DEVICES && p->n_layers > 0 && p->max_rounds > 0);
    if (max_rounds > PROBLEM_MAX_ROUNDS) max_rounds = PROBLEM_MAX_ROUNDS;
    memset(s, 0, sizeof *s);
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) s->per_rounds_ms[k] = NAN;
    bool memory = dp_init(&d, p);
    for (uint32_t k = 1; k <= max_rounds && memory; k++) {
        memory = make_options(&d, k) && best_time(&d, &ms);
        if (!memory) break;
        ms = fmin(ms, best_alone(&d, k, &alone));
        if (isfinite(ms)) s->per_rounds_ms[k] = ms;
        best_ms = fmin(best_ms, ms);
    }
    if (memory && isinf(best_ms)) rc = explain(&d, err);
    else if (!memory || !pick_plan(&d, max_rounds, best_ms * (1 + TIE), s))
        rc = pr_fail(err, PR_ERESOURCE, "planner: out of memory");
    dp_clear(&d);
    s->solve_ms = clock_ms_since(start);
    return rc;
}
