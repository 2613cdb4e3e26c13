/* The exact solver (halda.md 7.2): a problem is separable per device but for the sum of layers and the
 * slowest disk.
 *
 * For every number of rounds k and every device, the options for each number of layers are the Pareto front
 * over its GPU layers and its read buffer of (cost, bound). With a threshold tau on the bounds the best sum
 * of costs f(tau) is a resource allocation, solved by dynamic programming over the devices. f does not grow
 * with tau, so the best of max(tau, f(tau)) lies where the two cross, found by bisection over the bounds that
 * occur. There are many buffers, so the front is only made between two times that enclose the best one: at
 * first f without a threshold, and what a plan needs that was found on the way; then some halvings nearer.
 *
 * A second walk at the best time found picks the plan: fewest devices, then fewest rounds, then the cheapest
 * sum, then fewest bytes read. Plans of one device pay other hops and are looked at one by one. */
#include "planner/fronts.h"
#include "planner/infeasible.h"
#include "planner/solve.h"
#include "src/base/clock.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TIE = 1e-9; /* relative: times closer than this are equal */

typedef struct {
    double cost, bytes;
} label;

typedef struct {
    const problem *p;
    uint32_t n_layers, rounds;
    double weight;          /* of the sum of costs */
    fronts f;               /* of `rounds` */
    double most_ms;         /* no option is slower */
    double *row, *next_row; /* [n_layers + 1] */
    double *candidates;
    size_t candidates_capacity;
} dp;

static void dp_clear(dp *d)
{
    fronts_clear(&d->f);
    free(d->row);
    free(d->next_row);
    free(d->candidates);
}

static bool dp_init(dp *d, const problem *p)
{
    size_t n = (size_t)p->n_layers + 1;

    memset(d, 0, sizeof *d);
    d->p = p;
    d->n_layers = p->n_layers;
    d->weight = problem_sum_weight(p);
    d->row = calloc(n, sizeof *d->row);
    d->next_row = calloc(n, sizeof *d->next_row);
    return fronts_init(&d->f, p) && d->row && d->next_row;
}

static bool make_options(dp *d, uint32_t rounds, double low_ms, double high_ms)
{
    d->rounds = rounds;
    d->most_ms = high_ms;
    return fronts_make(&d->f, rounds, low_ms, high_ms);
}

/* --- the best time for one k -------------------------------------------------------------------------- */

/* Adds device i to the sums of those before it: the first has no layers before it, behind the last only the
 * sum of all counts, and no sum that is too large leads to anything. */
static void add_costs(dp *d, size_t device, double tau)
{
    uint32_t n = d->n_layers, first = 0, end = n + 1;
    bool is_last = device + 1 == d->p->n_devices;
    double *swap = d->row;

    while (first <= n && !(d->weight * d->row[first] <= d->most_ms)) first++;
    while (end > first && !(d->weight * d->row[end - 1] <= d->most_ms)) end--;
    for (uint32_t r = 0; r <= n; r++) d->next_row[r] = INFINITY;
    for (uint32_t l = 0; l <= n; l++) {
        uint32_t r = is_last && n - l > first ? n - l : first;
        const option *o = first < end ? fronts_cheapest(&d->f, device, l, tau) : NULL;
        if (!o) continue;
        for (; r < end && r + l <= n; r++) {
            double v = d->row[r] + o->cost;
            if (v < d->next_row[r + l]) d->next_row[r + l] = v;
        }
    }
    d->row = d->next_row;
    d->next_row = swap;
}

/* f(tau): the least time by the sum of costs with every bound at most tau; INFINITY when there is no plan
 * within most_ms. */
static double best_costs(dp *d, double tau)
{
    double ms;

    for (uint32_t r = 0; r <= d->n_layers; r++) d->row[r] = INFINITY;
    d->row[0] = d->p->device[0].out_ms;
    for (size_t i = 0; i < d->p->n_devices; i++) add_costs(d, i, tau);
    ms = d->weight * d->row[d->n_layers];
    return ms <= d->most_ms ? ms : INFINITY;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Bounds above `floor_ms`, sorted; false when memory is short. */
static bool collect_candidates(dp *d, double floor_ms, size_t *n)
{
    if (d->candidates_capacity < d->f.n) {
        free(d->candidates);
        d->candidates = malloc(d->f.capacity * sizeof *d->candidates);
        d->candidates_capacity = d->candidates ? d->f.capacity : 0;
        if (!d->candidates) return false;
    }
    *n = 0;
    for (size_t i = 0; i < d->f.n; i++)
        if (d->f.list[i].bound > floor_ms) d->candidates[(*n)++] = d->f.list[i].bound;
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
        d->most_ms = INFINITY; /* any sum will do */
        f = best_costs(d, tau);
        *ms = fmax(tau, f);
        if (isfinite(f)) return true;
    }
}

/* Brings both closer to the best time, with the options of one threshold at a time, of which there are few:
 * where f(tau) <= tau the best time lies between f(tau) and tau, else between tau and f(tau). *most_ms
 * INFINITY: no plan takes that. */
static bool narrow(dp *d, uint32_t rounds, double *least_ms, double *most_ms)
{
    enum { STEPS = 5 };
    static const double NEAR = 1e-3;
    double tau = *most_ms;

    for (int i = 0; i < STEPS && (i == 0 || *most_ms - *least_ms > NEAR * *most_ms); i++) {
        if (!make_options(d, rounds, tau, tau)) return false;
        if (i > 0) d->most_ms = *most_ms;
        double f = best_costs(d, tau);
        if (i == 0 && !(f <= tau)) {
            *most_ms = INFINITY;
            return true;
        }
        if (f <= tau) *most_ms = tau;
        else *most_ms = fmin(*most_ms, f);
        *least_ms = fmax(*least_ms, fmin(f, tau));
        tau = (*least_ms + *most_ms) / 2;
    }
    return true;
}

/* The least time of at most most_ms with the options of this k, where none is below least_ms; INFINITY: there
 * is none. */
static bool time_between(dp *d, uint32_t rounds, double least_ms, double most_ms, double *ms)
{
    double before;
    size_t low = 0, high, n;

    *ms = INFINITY;
    if (!narrow(d, rounds, &least_ms, &most_ms)) return false;
    if (isinf(most_ms)) return true;
    if (!make_options(d, rounds, least_ms, most_ms)) return false;
    before = best_costs(d, least_ms); /* f just below the first candidate */
    if (!collect_candidates(d, least_ms, &n)) return false;
    for (high = n; low < high;) {
        size_t middle = low + (high - low) / 2;
        double f = best_costs(d, d->candidates[middle]);
        if (f <= d->candidates[middle]) high = middle;
        else {
            low = middle + 1;
            before = f;
        }
    }
    *ms = fmin(fmax(least_ms, before), low < n ? d->candidates[low] : INFINITY);
    if (*ms > most_ms) *ms = INFINITY;
    return true;
}

/* Best time of this k, hops charged as if several devices were in use; INFINITY: infeasible. */
static bool best_time(dp *d, uint32_t rounds, double *ms)
{
    double least, most;

    if (!make_options(d, rounds, INFINITY, INFINITY)) return false;
    *ms = least = best_costs(d, INFINITY);
    if (!isfinite(least)) return true;
    if (!find_plan(d, least, &most)) return false;
    *ms = most;
    return most <= least || time_between(d, rounds, least, most, ms);
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
        for (uint32_t g = 0; g <= d->f.max_gpu[i]; g++) {
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
        const option *o = fronts_cheapest(&d->f, device, l, limit_ms);
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
        const option *o = fronts_cheapest(&d->f, i, l, limit_ms);
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

/* --- all k -------------------------------------------------------------------------------------------- */

static bool begin(dp *d, const problem *p, solution *s)
{
    assert(p->n_devices > 0 && p->n_devices <= PROBLEM_MAX_DEVICES && p->n_layers > 0 && p->max_rounds > 0);
    memset(s, 0, sizeof *s);
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) s->per_rounds_ms[k] = NAN;
    return dp_init(d, p);
}

static int no_memory(pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "planner: out of memory");
}

int dp_solve(const problem *p, solution *s, pr_err *err)
{
    uint64_t start = clock_ns();
    double best_ms = INFINITY, ms;
    int rc = PR_OK;
    assignment alone;
    dp d;

    bool memory = begin(&d, p, s);
    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p) && memory; k++) {
        memory = best_time(&d, k, &ms);
        if (!memory) break;
        ms = fmin(ms, best_alone(&d, k, ms, &alone));
        if (isfinite(ms)) s->per_rounds_ms[k] = ms;
        best_ms = fmin(best_ms, ms);
    }
    if (memory && isinf(best_ms)) rc = infeasible_explain(p, err);
    else if (!memory || !pick_plan(&d, best_ms * (1 + TIE), s)) rc = no_memory(err);
    dp_clear(&d);
    s->solve_ms = clock_ms_since(start);
    return rc;
}

/* The k that is not solved yet and has the least from_ms, if that is within limit_ms; 0: none. */
static uint32_t next_rounds(const problem *p, const double *from_ms, const bool *solved, double limit_ms)
{
    uint32_t next = 0;

    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p); k++) {
        if (solved[k] || !(from_ms[k] <= limit_ms)) continue;
        if (!next || from_ms[k] < from_ms[next]) next = k;
    }
    return next;
}

/* Solves rounds as long as they may be within *limit_ms, which shrinks to the best time and its ties; none
 * found leaves it as it was. False: no memory. */
static bool solve_within(dp *d, const double *from_ms, double *limit_ms, double *per_rounds_ms)
{
    bool solved[PROBLEM_MAX_ROUNDS + 1] = {false};
    double ms;
    assignment alone;

    for (uint32_t k; (k = next_rounds(d->p, from_ms, solved, *limit_ms));) {
        solved[k] = true;
        if (isinf(*limit_ms) ? !best_time(d, k, &ms) : !time_between(d, k, from_ms[k], *limit_ms, &ms))
            return false;
        ms = fmin(ms, best_alone(d, k, fmin(ms, *limit_ms), &alone));
        if (!(ms <= *limit_ms) || isinf(ms)) continue;
        per_rounds_ms[k] = ms;
        *limit_ms = fmin(*limit_ms, ms * (1 + TIE));
    }
    return true;
}

static int none_within(double limit_ms, pr_err *err)
{
    return pr_fail(err, PR_EINFEASIBLE, "planner: no plan takes less than %.3f ms", limit_ms);
}

int dp_solve_within(const problem *p, const double *from_ms, double limit_ms, solution *s, pr_err *err)
{
    uint64_t start = clock_ns();
    int rc = PR_OK;
    dp d;

    if (!begin(&d, p, s) || !solve_within(&d, from_ms, &limit_ms, s->per_rounds_ms) ||
        !pick_plan(&d, limit_ms, s))
        rc = no_memory(err);
    else if (!s->best.rounds) rc = none_within(limit_ms, err);
    dp_clear(&d);
    s->solve_ms = clock_ms_since(start);
    return rc;
}

int dp_time_within(const problem *p, const double *from_ms, double limit_ms, double *ms, pr_err *err)
{
    solution s;
    int rc = PR_OK;
    dp d;

    *ms = INFINITY;
    if (!begin(&d, p, &s) || !solve_within(&d, from_ms, &limit_ms, s.per_rounds_ms)) rc = no_memory(err);
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) *ms = fmin(*ms, s.per_rounds_ms[k]);
    if (!rc && isinf(*ms)) rc = none_within(limit_ms, err);
    dp_clear(&d);
    return rc;
}
