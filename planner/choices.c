/* The lists of choices.h. A device keeps, for each number of layers, the choices of GPU layers and read
 * buffer of which none is better in both cost and bound. Buffers are many, but few of them lead to a bound
 * between the target and what every plan takes by the sum of its costs: that is found first, without any
 * bound. */
#include "planner/choices.h"
#include <math.h>
#include <stdlib.h>

void choices_clear(choices *t)
{
    free(t->list);
    *t = (choices){0};
}

/* Among those from `first` on; false: out of memory. */
static bool add_choice(choices *t, size_t first, choice c)
{
    size_t kept = first;

    for (size_t i = first; i < t->n; i++) {
        if (t->list[i].cost <= c.cost && t->list[i].bound <= c.bound) return true;
    }
    for (size_t i = first; i < t->n; i++) {
        if (t->list[i].cost < c.cost || t->list[i].bound < c.bound) t->list[kept++] = t->list[i];
    }
    t->n = kept;
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 1024;
        choice *grown = realloc(t->list, capacity * sizeof *grown);
        if (!grown) return false;
        t->list = grown;
        t->capacity = capacity;
    }
    t->list[t->n++] = c;
    return true;
}

static bool is_slow(const choices *t, double cost, double bound)
{
    return t->fixed_ms + cost >= t->target_ms || bound >= t->target_ms;
}

/* Read buffers from the largest on, as long as one piece less can matter. */
static bool add_buffers(choices *t, size_t first, size_t device, uint32_t rounds, device_cost c)
{
    const problem *p = t->p;
    double weight = problem_sum_weight(p);

    for (;;) {
        choice one = {weight * c.cost_ms, c.bound_ms, c.detail.layers};
        uint32_t less = 1, buffer = c.detail.buffer_pieces;

        if (t->fixed_ms + one.cost >= t->target_ms) return true;
        if (!is_slow(t, one.cost, one.bound) && !add_choice(t, first, one)) return false;
        if (one.bound <= t->least_ms || buffer == 0) return true;
        if (one.bound > t->target_ms) { /* straight to the first that is fast enough */
            double piece_ms = p->layer_bytes / p->pieces / p->device[device].disk_bytes_per_ms;
            less = (uint32_t)fmin(fmax(1, floor((one.bound - t->target_ms) / piece_ms)), buffer);
        }
        if (!problem_set_buffer(p, device, rounds, buffer - less, &c) || c.bound_ms >= one.bound) return true;
    }
}

static bool add_device(choices *t, size_t device, uint32_t rounds, bool buffers)
{
    const problem *p = t->p;
    uint32_t most = problem_max_gpu_layers(p, device), last = problem_most_layers(p, device, t->target_ms);

    t->first[device] = t->n;
    for (uint32_t l = 0; l <= last; l++) {
        size_t first = t->n;
        for (uint32_t left = (l < most ? l : most) + 1; left > 0; left--) {
            device_cost c;
            if (problem_least_ms(p, device, l, left - 1) >= t->target_ms) {
                if (problem_gpu_is_fast(p, device)) break;
                continue;
            }
            if (!problem_device_cost(p, device, rounds, l, left - 1, l == p->n_layers, &c)) continue;
            choice one = {problem_sum_weight(p) * c.cost_ms, 0, l};
            if (buffers ? !add_buffers(t, first, device, rounds, c)
                        : !is_slow(t, one.cost, 0) && !add_choice(t, first, one))
                return false;
            if (problem_gpu_settles(p, device, l, left - 1)) break;
        }
    }
    t->first[device + 1] = t->n;
    return true;
}

static uint32_t layers_at(const choices *t, const choice_prices *u)
{
    uint32_t sum = 0;
    double least;

    for (size_t m = 0; m < t->p->n_devices; m++) {
        size_t i = choices_least(t, u, m, &least);
        sum += i < t->n ? t->list[i].layers : 0;
    }
    return sum;
}

/* By the sum of costs alone: the best price of a layer, by halving. */
static double least_sum(const choices *t)
{
    enum { STEPS = 30 };
    choice_prices u = {.sum = 1};
    double low = 0, high = t->target_ms, best = choices_bound(t, &u);

    for (int i = 0; i < STEPS && best < t->target_ms; i++) {
        u.layer = (low + high) / 2;
        best = fmax(best, choices_bound(t, &u));
        if (layers_at(t, &u) < t->p->n_layers) low = u.layer;
        else high = u.layer;
    }
    return best;
}

bool choices_make(choices *t, const problem *p, uint32_t rounds, double target_ms)
{
    t->p = p;
    t->fixed_ms = problem_sum_weight(p) * p->device[0].out_ms;
    t->target_ms = target_ms;
    for (int buffers = 0; buffers < 2; buffers++) {
        t->n = 0;
        for (size_t m = 0; m < p->n_devices; m++) {
            if (!add_device(t, m, rounds, buffers)) return false;
        }
        if (!buffers) t->least_ms = least_sum(t);
        if (t->least_ms >= target_ms) break;
    }
    return true;
}

double choices_worth(const choices *t, const choice_prices *u, size_t device, size_t i)
{
    const choice *c = &t->list[i];
    return u->sum * c->cost + u->bound[device] * c->bound - u->layer * c->layers;
}

size_t choices_least(const choices *t, const choice_prices *u, size_t device, double *least)
{
    size_t best = t->n;

    *least = INFINITY;
    for (size_t i = t->first[device]; i < t->first[device + 1]; i++) {
        double v = choices_worth(t, u, device, i);
        if (v >= *least) continue;
        *least = v;
        best = i;
    }
    return best;
}

double choices_bound(const choices *t, const choice_prices *u)
{
    double ms = u->sum * t->fixed_ms + u->layer * t->p->n_layers, least;

    for (size_t m = 0; m < t->p->n_devices; m++) {
        choices_least(t, u, m, &least);
        ms += least;
    }
    return ms;
}
