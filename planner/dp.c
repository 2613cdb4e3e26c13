/* The exact solver (halda.md 7.2): a problem is separable per device but for the sum of layers and the
 * slowest disk.
 *
 * For every number of rounds k and every device, the options for each number of layers are the Pareto front
 * over its GPU layers and its read buffer of (cost, bound). With a threshold tau on the bounds the best sum
 * of costs f(tau) is a resource allocation, solved by dynamic programming over the devices. f does not grow
 * with tau, so the best of max(tau, f(tau)) lies where the two cross, found by bisection over the bounds that
 * occur. There are many buffers, so the front is only made between two times that enclose the best one: f
 * without a threshold, and what a plan needs that was found on the way.
 *
 * A second walk at the best time found picks the plan: fewest devices, then fewest rounds, then the cheapest
 * sum, then fewest bytes read. Plans of one device pay other hops and are looked at one by one. */
#include "planner/infeasible.h"
#include "planner/solve.h"
#include "src/base/clock.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TIE = 1e-9; /* relative: times closer than this are equal */

typedef struct {
    double cost, bound, bytes;
    uint32_t gpu_layers, buffer_pieces;
} option;

typedef struct {
    double cost, bytes;
} label;

typedef struct {
    const problem *p;
    uint32_t n_layers, rounds;
    double weight; /* of the sum of costs */
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

    memset(d, 0, sizeof *d);
    d->p = p;
    d->n_layers = p->n_layers;
    d->weight = problem_sum_weight(p);
    d->first = calloc(p->n_devices * n + 1, sizeof *d->first);
    d->row = calloc(n, sizeof *d->row);
    d->next_row = calloc(n, sizeof *d->next_row);
    d->price = calloc(n, sizeof *d->price);
    for (i = 0; i < p->n_devices; i++) d->max_gpu[i] = problem_max_gpu_layers(p, i);
    return d->first && d->row && d->next_row && d->price;
}

/* --- options ------------------------------------------------------------------------------------------ */

/* Room for one more option. */
static bool grow(dp *d)
{
    size_t capacity = d->capacity ? 2 * d->capacity : 4096;
    option *grown;

    if (d->n_options < d->capacity) return true;
    grown = realloc(d->options, capacity * sizeof *grown);
    if (!grown) return false;
    d->options = grown;
    d->capacity = capacity;
    return true;
}

/* Put an option into the front that begins at `first`, unless one there is as good in both. */
static bool add_option(dp *d, size_t first, option o)
{
    size_t at = first, end = d->n_options;

    while (at < end) { /* to the first that costs as much or more */
        size_t middle = at + (end - at) / 2;
        if (d->options[middle].cost < o.cost) at = middle + 1;
        else end = middle;
    }
    if (at > first && d->options[at - 1].bound <= o.bound) return true;
    if (at < d->n_options && d->options[at].cost == o.cost) {
        const option *q = &d->options[at];
        if (q->bound < o.bound || (q->bound == o.bound && q->bytes <= o.bytes)) return true;
    }
    for (end = at; end < d->n_options && d->options[end].bound >= o.bound;) end++;
    if (end == at) { /* nothing to replace */
        if (!grow(d)) return false;
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

/* Smaller buffers as long as one less can matter: from those whose bound is at most high_ms to the first with
 * a bound of at most low_ms. */
static bool add_buffers(dp *d, size_t first, size_t device, device_cost c, double low_ms, double high_ms)
{
    const problem *p = d->p;
    double piece_ms = p->pieces ? p->layer_bytes / p->pieces / p->device[device].disk_bytes_per_ms : 0;

    for (;;) {
        const assignment_device *a = &c.detail;
        double before = c.bound_ms, too_many;

        if (c.bound_ms <= high_ms && d->weight * c.cost_ms <= high_ms) {
            option o = {c.cost_ms, c.bound_ms, a->read_bytes, a->gpu_layers, a->buffer_pieces};
            if (!add_option(d, first, o)) return false;
        }
        if (c.bound_ms <= low_ms || a->streamed_pieces == 0) return true;
        too_many = c.bound_ms > high_ms ? ceil((c.bound_ms - high_ms) / piece_ms * (1 - TIE)) : 1;
        if (too_many >= a->buffer_pieces) return true;
        if (!problem_set_buffer(p, device, d->rounds, a->buffer_pieces - (uint32_t)too_many, &c)) return true;
        if (c.bound_ms >= before) return true; /* not the disk's */
    }
}

/* All that a best plan can need whose time is in low_ms..high_ms. */
static bool make_options(dp *d, uint32_t rounds, double low_ms, double high_ms)
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
                if (!add_buffers(d, first, i, c, low_ms, high_ms)) return false;
                if (problem_prefers_gpu(d->p, i)) break;
            }
        }
    d->first[at] = d->n_options;
    return true;
}

/* The cheapest option of a device for l layers whose bound is at most tau; NULL when there is none. */
static const option *cheapest(const dp *d, size_t device, uint32_t l, double tau)
{
    size_t at = device * ((size_t)d->n_layers + 1) + l;
    size_t low = d->first[at], end = d->first[at + 1], high = end;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->options[middle].bound <= tau) high = middle;
        else low = middle + 1;
    }
    return low < end ? &d->options[low] : NULL;
}

/* --- the best time for one k -------------------------------------------------------------------------- */

/* f(tau): the least time by the sum of costs with every bound at most tau; INFINITY when there is no plan. */
static double best_costs(dp *d, double tau)
{
    for (uint32_t r = 0; r <= d->n_layers; r++) d->row[r] = INFINITY;
    d->row[0] = d->p->device[0].out_ms;
    for (size_t i = 0; i < d->p->n_devices; i++) {
        for (uint32_t l = 0; l <= d->n_layers; l++) {
            const option *o = cheapest(d, i, l, tau);
            d->price[l] = o ? o->cost : INFINITY;
            d->next_row[l] = INFINITY;
        }
        for (uint32_t l = 0; l <= d->n_layers; l++) {
            if (isinf(d->price[l])) continue;
            for (uint32_t r = l; r <= d->n_layers; r++) {
                double v = d->row[r - l] + d->price[l];
                if (v < d->next_row[r]) d->next_row[r] = v;
            }
        }
        double *swap = d->row;
        d->row = d->next_row;
        d->next_row = swap;
    }
    double sum = d->row[d->n_layers];
    return isinf(sum) ? INFINITY : d->weight * sum;
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

/* A time that some plan keeps, where none needs less than least_ms and one exists. The options are those of
 * no threshold. */
static bool find_plan(dp *d, double least_ms, double *ms)
{
    double tau = least_ms;
    size_t n;

    if (tau <= 0) { /* the sum does not count */
        if (!collect_candidates(d, 0, &n)) return false;
        tau = n ? d->candidates[0] : 0;
    }
    for (;; tau *= 2) {
        double f;
        if (!make_options(d, d->rounds, tau, tau)) return false;
        f = best_costs(d, tau);
        *ms = fmax(tau, f);
        if (isfinite(f)) return true;
    }
}

/* Best time with the options of this k, hops charged as if several devices were in use; INFINITY: infeasible.
 */
static bool best_time(dp *d, uint32_t rounds, double *ms)
{
    double least, most, before;
    size_t low = 0, high, n;

    if (!make_options(d, rounds, INFINITY, INFINITY)) return false;
    *ms = least = best_costs(d, INFINITY);
    if (!isfinite(least)) return true;
    if (!find_plan(d, least, &most)) return false;
    *ms = most;
    if (most <= least) return true;
    if (!make_options(d, rounds, least, most)) return false;
    before = best_costs(d, least); /* f just below the first candidate */
    if (!collect_candidates(d, least, &n)) return false;
    for (high = n; low < high;) {
        size_t middle = low + (high - low) / 2;
        double f = best_costs(d, d->candidates[middle]);
        if (f <= d->candidates[middle]) high = middle;
        else {
            low = middle + 1;
            before = f;
        }
    }
    *ms = fmin(before, low < n ? d->candidates[low] : most);
    return true;
}

/* --- plans of one device ------------------------------------------------------------------------------ */

/* What the other devices must do without layers: the head's embeddings on their way; false: they cannot. */
static bool idle_cost(const dp *d, size_t device, uint32_t rounds, double *cost_ms, double *bound_ms)
{
    device_cost c;

    *cost_ms = d->p->device[0].out_ms;
    *bound_ms = 0;
    for (size_t i = 0; i < d->p->n_devices; i++) {
        if (i == device) continue;
        if (!problem_device_cost(d->p, i, rounds, 0, 0, false, &c)) return false;
        *cost_ms += c.cost_ms;
        *bound_ms = fmax(*bound_ms, c.bound_ms);
    }
    return true;
}

/* Best plan for this k in which one device has all layers, if it takes at most limit_ms; INFINITY: there is
 * none. */
static double best_alone(const dp *d, uint32_t rounds, double limit_ms, assignment *best)
{
    const problem *p = d->p;
    double rest_ms, rest_bound_ms, best_bytes = INFINITY;

    best->pass_ms = INFINITY;
    for (size_t i = 0; i < p->n_devices; i++) {
        if (p->device[i].fixed_layers >= 0 && (uint32_t)p->device[i].fixed_layers != p->n_layers) continue;
        if (!idle_cost(d, i, rounds, &rest_ms, &rest_bound_ms)) continue;
        for (uint32_t g = 0; g <= d->max_gpu[i]; g++) {
            device_cost c, least;
            double enough = fmin(limit_ms, best->pass_ms) * (1 + TIE);
            if (!problem_device_cost(p, i, rounds, p->n_layers, g, true, &c)) continue;
            least = c;
            problem_set_buffer(p, i, rounds, 2, &least);
            if (d->weight * (rest_ms + c.cost_ms) > enough) continue;
            if (fmax(least.bound_ms, rest_bound_ms) > enough) continue;
            assignment a = {.rounds = rounds};
            a.device[i].layers = p->n_layers;
            a.device[i].gpu_layers = g;
            if (!assignment_evaluate(p, &a, NULL, NULL) || a.pass_ms > enough) continue;
            bool tie = fabs(best->pass_ms - a.pass_ms) <= TIE * a.pass_ms;
            if (tie && a.device[i].read_bytes >= best_bytes) continue;
            *best = a;
            best_bytes = a.device[i].read_bytes;
        }
    }
    return best->pass_ms;
}

/* --- picking the plan --------------------------------------------------------------------------------- */

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
        if (!o) continue;
        label own = {o->cost, o->bytes};
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
        const option *o = cheapest(d, i, l, limit_ms);
        a->device[i].gpu_layers = o->gpu_layers;
        a->device[i].buffer_pieces = o->buffer_pieces;
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
    t.best[0] = (label){d->p->device[0].out_ms, 0};
    for (size_t i = 0; i < d->p->n_devices; i++) fill_device(d, &t, i, limit_ms);
    found = 0;
    for (used = 1; used <= max_used && !found; used++) {
        double sum = t.best[table_at(&t, d->p->n_devices, used, d->n_layers)].cost;
        if (isinf(sum) || d->weight * sum > limit_ms) continue;
        walk_back(d, &t, used, limit_ms, a);
        if (assignment_evaluate(d->p, a, NULL, NULL)) found = (int)used;
    }
done:
    free(t.best);
    free(t.taken);
    return found;
}

/* Among all k whose best time is within limit_ms: fewest devices, then fewest rounds. False: no memory. */
static bool pick_plan(dp *d, double limit_ms, solution *s)
{
    size_t fewest = (d->p->n_devices < d->n_layers ? d->p->n_devices : d->n_layers) + 1;
    assignment a;

    for (uint32_t k = problem_first_rounds(d->p); k <= problem_last_rounds(d->p) && fewest > 1; k++) {
        if (!(s->per_rounds_ms[k] <= limit_ms)) continue;
        if (best_alone(d, k, limit_ms, &a) <= limit_ms) {
            s->best = a;
            return true;
        }
        if (!make_options(d, k, limit_ms, limit_ms)) return false;
        int used = pick(d, limit_ms, fewest - 1, &a);
        if (used < 0) return false;
        if (used == 0) continue;
        fewest = (size_t)used;
        s->best = a;
    }
    return true;
}

int dp_solve(const problem *p, solution *s, pr_err *err)
{
    uint64_t start = clock_ns();
    double best_ms = INFINITY, ms;
    int rc = PR_OK;
    assignment alone;
    dp d;

    assert(p->n_devices > 0 && p->n_devices <= PROBLEM_MAX_DEVICES && p->n_layers > 0 && p->max_rounds > 0);
    memset(s, 0, sizeof *s);
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) s->per_rounds_ms[k] = NAN;
    bool memory = dp_init(&d, p);
    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p) && memory; k++) {
        memory = best_time(&d, k, &ms);
        if (!memory) break;
        ms = fmin(ms, best_alone(&d, k, ms, &alone));
        if (isfinite(ms)) s->per_rounds_ms[k] = ms;
        best_ms = fmin(best_ms, ms);
    }
    if (memory && isinf(best_ms)) rc = infeasible_explain(p, err);
    else if (!memory || !pick_plan(&d, best_ms * (1 + TIE), s))
        rc = pr_fail(err, PR_ERESOURCE, "planner: out of memory");
    dp_clear(&d);
    s->solve_ms = clock_ms_since(start);
    return rc;
}
