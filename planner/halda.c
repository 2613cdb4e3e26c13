/* The scheduler of the paper (arXiv 2504.08791) as published and shipped, halda.md 2-4: for comparison only,
 * dp.c is the planner. Its model adds all disk time, charges no network, and sorts the devices into four sets
 * by whether and how their memory overloads; the sets fix a linear problem for every number of rounds, its
 * solution the next sets, until they repeat.
 *
 * What is kept although it is wrong is listed in halda.md 6: one round always wins, sets that overload must
 * overload, the search may end without a plan. For fixed sets the inner problem is separable but for the sum
 * of windows, so it is solved exactly by dynamic programming instead of HiGHS. Ours is only the limit on
 * iterations: published, it may go round in circles. */
#include "planner/solve.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { SET_M1 = 1, SET_M2, SET_M3, SET_M4 } set;

enum { MAX_ITERATIONS = 200 };
static const double SLOWEST_DISK = 1e5; /* bytes/ms = 0.1 GB/s; slower ones are never planned to be read */
static const double EPSILON = 1e-6;     /* relative; closer objectives of two k are a tie */

typedef struct {
    uint32_t rounds;
    uint32_t w[PROBLEM_MAX_DEVICES], n[PROBLEM_MAX_DEVICES];
    double objective_ms;
} split;

typedef struct {
    const halda_problem *p;
    size_t n,
        member[PROBLEM_MAX_DEVICES]; /* devices that take part, as indices into p; member[0] is the head */
    set in[PROBLEM_MAX_DEVICES];
    bool forced[PROBLEM_MAX_DEVICES];
    double a[PROBLEM_MAX_DEVICES],
        b[PROBLEM_MAX_DEVICES]; /* ms per layer of the window, per GPU layer of it */
    double z[PROBLEM_MAX_DEVICES], z_gpu[PROBLEM_MAX_DEVICES];
    double kappa;
    int iterations;
    bool rolled_back;
} halda;

static const halda_device *member(const halda *h, size_t m)
{
    return &h->p->device[h->member[m]];
}

static double gpu_bytes(const halda_device *d)
{
    return d->os == HALDA_MACOS_METAL ? d->metal_bytes : d->vram_bytes;
}

static bool has_gpu(const halda_device *d)
{
    return d->gpu_gflops > 0 && d->os != HALDA_MACOS && gpu_bytes(d) > 0;
}

static double io_bytes(const halda *h, size_t m)
{
    return m == 0 ? h->p->input_row_bytes + h->p->output_bytes : 0;
}

/* --- sets and constants
 * --------------------------------------------------------------------------------------- */

typedef struct {
    double c_cpu, c_gpu, swapped_out;
    bool overloaded;
} load;

/* A device's memory under the split s: what it needs against what it has. */
static load load_of(const halda *h, size_t m, const split *s)
{
    const halda_device *d = member(h, m);
    double kv = h->p->kv_layer_bytes, l = (double)s->rounds * s->w[m], g = (double)s->rounds * s->n[m], need;
    load r = {.c_cpu = d->cpu_buffer_bytes};

    if (s->n[m] > 0) r.c_gpu = d->gpu_buffer_bytes;
    if (s->n[m] == s->w[m]) {
        r.c_cpu = d->cpu_buffer_all_gpu_bytes;
        if (d->gpu_buffer_all_gpu_bytes > 0) r.c_gpu = d->gpu_buffer_all_gpu_bytes;
    }
    if (d->os == HALDA_MACOS || d->os == HALDA_MACOS_METAL)
        need = l * (h->p->layer_bytes + kv) + io_bytes(h, m) + r.c_cpu;
    else need = (l - g) * (h->p->layer_bytes + kv) + io_bytes(h, m) + r.c_cpu;
    if (d->os == HALDA_MACOS_METAL) r.overloaded = need + r.c_gpu > d->metal_bytes;
    else if (d->os == HALDA_ANDROID) {
        r.swapped_out = fmin(fmax(0, need - d->ram_available_bytes), d->swap_bytes);
        r.overloaded = need > d->ram_available_bytes + r.swapped_out;
    } else r.overloaded = need > d->ram_available_bytes;
    return r;
}

static set set_of(const halda *h, size_t m, const load *r)
{
    const halda_device *d = member(h, m);

    if (h->forced[m] || d->disk_bytes_per_ms < SLOWEST_DISK || !r->overloaded) return SET_M4;
    return d->os == HALDA_MACOS ? SET_M1 : d->os == HALDA_MACOS_METAL ? SET_M2 : SET_M3;
}

static void constants_of(halda *h, size_t m, const load *r)
{
    const halda_device *d = member(h, m);
    double resident = h->p->layer_bytes + h->p->kv_layer_bytes, disk = d->disk_bytes_per_ms;
    double alpha = h->p->layer_flops / (d->cpu_gflops * 1e6) + d->kv_copy_cpu_ms;
    double beta = has_gpu(d) ? h->p->layer_flops / (d->gpu_gflops * 1e6) + d->kv_copy_gpu_ms - alpha : 0;
    double cap = d->ram_available_bytes + r->swapped_out - io_bytes(h, m) - r->c_cpu;

    h->a[m] = alpha;
    h->b[m] = beta;
    if (h->in[m] == SET_M1 || h->in[m] == SET_M3) {
        h->a[m] += resident / disk;
        h->b[m] = h->in[m] == SET_M3 && has_gpu(d) ? beta - resident / disk : 0;
        h->kappa += (r->c_cpu - d->ram_available_bytes - r->swapped_out) / disk;
    }
    if (h->in[m] == SET_M2) h->a[m] += h->p->layer_bytes / disk;
    if (m == 0) {
        h->a[m] /= h->p->master_priority;
        h->kappa += h->p->output_flops / (d->cpu_gflops * 1e6);
        if (disk > 0)
            h->kappa += (h->p->input_row_bytes + (h->in[m] == SET_M4 ? 0 : h->p->output_bytes)) / disk;
    }
    if (d->os == HALDA_MACOS_METAL) cap = d->metal_bytes - io_bytes(h, m) - r->c_cpu - r->c_gpu;
    h->z[m] = cap / (h->p->n_layers * resident);
    cap = gpu_bytes(d) - r->c_gpu;
    if (d->os == HALDA_MACOS_METAL && m == 0) cap -= h->p->output_bytes;
    h->z_gpu[m] = has_gpu(d) ? fmax(0, cap) / (h->p->n_layers * resident) : 0;
}

/* --- one k
 * ---------------------------------------------------------------------------------------------------- */

/* Range of n for a window of w layers; false: w is not allowed. */
static bool gpu_range(const halda *h, size_t m, double total, uint32_t w, double *low, double *high)
{
    const double slack = 1e-9;
    double ram = total * h->z[m];
    bool apple = member(h, m)->os == HALDA_MACOS || member(h, m)->os == HALDA_MACOS_METAL;

    *low = 0;
    *high = fmin(w, floor(total * h->z_gpu[m] + slack));
    if (h->in[m] == SET_M1 || h->in[m] == SET_M2) return w >= ram - slack;
    if (h->in[m] == SET_M3) *high = fmin(*high, floor(w - ram + slack));
    else if (apple) return w <= ram + slack;
    else *low = fmax(0, ceil(w - ram - slack));
    return *low <= *high;
}

typedef struct {
    double cost;
    uint32_t w, n;
} choice;

/* Best windows for k rounds; false: there are none. table: (devices + 1) x (total + 1). */
static bool solve_rounds(const halda *h, uint32_t k, choice *table, split *s)
{
    size_t total = h->p->n_layers / k, width = total + 1;
    double low, high;

    for (size_t i = 0; i < (h->n + 1) * width; i++) table[i] = (choice){INFINITY, 0, 0};
    table[0].cost = 0;
    for (size_t m = 0; m < h->n; m++)
        for (uint32_t w = 1; w <= total; w++) {
            if (!gpu_range(h, m, (double)total, w, &low, &high)) continue;
            double n = h->b[m] < 0 ? high : low, cost = h->a[m] * w + h->b[m] * n;
            for (size_t r = w; r <= total; r++) {
                choice *c = &table[(m + 1) * width + r];
                double sum = table[m * width + r - w].cost + cost;
                if (sum < c->cost) *c = (choice){sum, w, (uint32_t)n};
            }
        }
    if (isinf(table[h->n * width + total].cost)) return false;
    memset(s, 0, sizeof *s);
    s->rounds = k;
    s->objective_ms = k * table[h->n * width + total].cost + h->kappa;
    for (size_t m = h->n, r = total; m-- > 0; r -= s->w[m]) {
        s->w[m] = table[(m + 1) * width + r].w;
        s->n[m] = table[(m + 1) * width + r].n;
    }
    return true;
}

/* Smallest k wins a tie. */
static bool solve_sets(const halda *h, choice *table, split *best)
{
    bool any = false;
    split s;

    for (uint32_t k = 1; k <= h->p->n_layers / 2; k++) {
        if (h->p->n_layers % k || (h->p->fixed_rounds && k != h->p->fixed_rounds)) continue;
        if (!solve_rounds(h, k, table, &s)) continue;
        if (any && s.objective_ms >= best->objective_ms - EPSILON * fabs(best->objective_ms)) continue;
        *best = s;
        any = true;
    }
    return any;
}

/* --- the iteration
 * -------------------------------------------------------------------------------------------- */

static double budget_of(const halda_device *d)
{
    if (d->os == HALDA_MACOS_METAL) return d->metal_bytes;
    return d->ram_available_bytes + (d->os == HALDA_ANDROID ? d->swap_bytes : 0);
}

/* Windows in proportion to memory. What rounding leaves goes to the largest budget, what it lacks comes from
 * the smallest, which may end below one layer: then there is no start (halda.md 6.4). */
static bool start_of(const halda *h, split *s)
{
    size_t largest = 0, smallest = 0;
    long w[PROBLEM_MAX_DEVICES], rest = h->p->n_layers;
    double sum = 0;

    memset(s, 0, sizeof *s);
    s->rounds = 1;
    for (size_t m = 0; m < h->n; m++) sum += budget_of(member(h, m));
    for (size_t m = 0; m < h->n; m++) {
        w[m] = lround(h->p->n_layers * budget_of(member(h, m)) / sum);
        if (budget_of(member(h, m)) > budget_of(member(h, largest))) largest = m;
        if (budget_of(member(h, m)) < budget_of(member(h, smallest))) smallest = m;
    }
    for (size_t m = 0; m < h->n; m++)
        if (w[m] == 0) {
            w[m] = 1;
            w[largest]--;
        }
    for (size_t m = 0; m < h->n; m++) rest -= w[m];
    w[rest > 0 ? largest : smallest] += rest;
    for (size_t m = 0; m < h->n; m++) {
        if (w[m] < 1) return false;
        s->w[m] = (uint32_t)w[m];
        s->n[m] = has_gpu(member(h, m)) ? s->w[m] : 0;
    }
    return h->p->n_layers > 1;
}

/* GPU memory is left while somebody else overloads: force the slowest disk out of the overloading sets. True:
 * the solution is not taken and the sets are looked at again. */
static bool calibrate(halda *h, double old_total, const split *s)
{
    bool weak = false, room = false, over = false;
    size_t slowest = h->n;

    for (size_t m = 0; m < h->n; m++) {
        bool gpu = has_gpu(member(h, m));
        weak = weak || (s->w[m] == 1 && s->n[m] == 0);
        room = room || (gpu && s->n[m] < floor(old_total * h->z_gpu[m]));
        over = over || (gpu ? s->w[m] > s->n[m] : h->in[m] != SET_M4);
        if (h->in[m] == SET_M4) continue;
        if (slowest == h->n || member(h, m)->disk_bytes_per_ms < member(h, slowest)->disk_bytes_per_ms)
            slowest = m;
    }
    if (weak || !room || !over) return false;
    if (slowest < h->n) h->forced[slowest] = true;
    return true;
}

static bool same_split(const split *a, const split *b, size_t n)
{
    return a->rounds == b->rounds && !memcmp(a->w, b->w, n * sizeof *a->w) &&
           !memcmp(a->n, b->n, n * sizeof *a->n);
}

/* One run on h's members; false: it ends without a plan. */
static bool iterate(halda *h, choice *table, split *final)
{
    set before[PROBLEM_MAX_DEVICES] = {0};
    split now, best, rollback = {0};
    bool have_final = false, have_rollback = false;

    memset(h->forced, 0, sizeof h->forced);
    if (!start_of(h, &now)) return false;
    for (int i = 0; i < MAX_ITERATIONS; i++) {
        load loads[PROBLEM_MAX_DEVICES];
        for (size_t m = 0; m < h->n; m++) {
            loads[m] = load_of(h, m, &now);
            h->in[m] = set_of(h, m, &loads[m]);
        }
        if (!memcmp(before, h->in, h->n * sizeof *before)) break;
        memcpy(before, h->in, sizeof before);
        h->iterations++;
        h->kappa = 0;
        for (size_t m = 0; m < h->n; m++) constants_of(h, m, &loads[m]);
        if (!solve_sets(h, table, &best)) {
            h->rolled_back = true;
            *final = rollback;
            return have_rollback;
        }
        rollback = best;
        have_rollback = true;
        if (calibrate(h, h->p->n_layers / (double)now.rounds, &best)) continue;
        bool twice = have_final && same_split(final, &best, h->n);
        now = *final = best;
        have_final = true;
        if (twice) break;
    }
    return have_final;
}

/* Drop everybody but the head who got a window of one layer; false: there was nobody. */
static bool drop_weak(halda *h, const split *s)
{
    size_t kept = 0;

    for (size_t m = 0; m < h->n; m++)
        if (m == 0 || s->w[m] > 1) h->member[kept++] = h->member[m];
    bool dropped = kept < h->n;
    h->n = kept;
    return dropped;
}

int halda_solve(const halda_problem *p, halda_result *r, pr_err *err)
{
    halda h = {.p = p, .n = p->n_devices};
    choice *table = malloc((p->n_devices + 1) * ((size_t)p->n_layers + 1) * sizeof *table);
    bool found;
    split s;

    assert(p->n_devices > 0 && p->n_devices <= PROBLEM_MAX_DEVICES && p->n_layers > 0 &&
           p->master_priority > 0);
    memset(r, 0, sizeof *r);
    if (!table) return pr_fail(err, PR_ERESOURCE, "halda: out of memory");
    for (size_t m = 0; m < h.n; m++) h.member[m] = m;
    do found = iterate(&h, table, &s);
    while (found && p->select && drop_weak(&h, &s));
    free(table);
    if (!found)
        return pr_fail(
            err, PR_EINFEASIBLE,
            "halda: the paper's algorithm ends without a plan after %d iterations on %zu devices%s",
            h.iterations, h.n, h.rolled_back ? " (a set of constraints has no solution)" : "");
    r->rounds = s.rounds;
    r->objective_ms = s.objective_ms;
    r->iterations = h.iterations;
    r->rolled_back = h.rolled_back;
    for (size_t m = 0; m < h.n; m++) {
        r->window[h.member[m]] = s.w[m];
        r->gpu[h.member[m]] = s.n[m];
    }
    return PR_OK;
}
