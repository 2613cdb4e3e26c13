/* The fronts, kept sorted as they grow. Most numbers of layers are out by compute or disk alone, and most
 * numbers of GPU layers by problem_gpu_settles. */
#include "planner/fronts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double NOISE = 1e-9; /* relative, of times */

bool fronts_init(fronts *f, const problem *p)
{
    memset(f, 0, sizeof *f);
    f->p = p;
    f->weight = problem_sum_weight(p);
    f->first = calloc(p->n_devices * ((size_t)p->n_layers + 1) + 1, sizeof *f->first);
    for (size_t i = 0; i < p->n_devices; i++) f->max_gpu[i] = problem_max_gpu_layers(p, i);
    return f->first;
}

void fronts_clear(fronts *f)
{
    free(f->list);
    free(f->first);
}

/* Room for one more option. */
static bool grow(fronts *f)
{
    size_t capacity = f->capacity ? 2 * f->capacity : 4096;
    option *grown;

    if (f->n < f->capacity) return true;
    grown = realloc(f->list, capacity * sizeof *grown);
    if (!grown) return false;
    f->list = grown;
    f->capacity = capacity;
    return true;
}

/* Put an option into the front that begins at `first`, unless one there is as good in both. */
static bool add_option(fronts *f, size_t first, option o)
{
    size_t at = first, end = f->n;

    while (at < end) { /* to the first that costs as much or more */
        size_t middle = at + (end - at) / 2;
        if (f->list[middle].cost < o.cost) at = middle + 1;
        else end = middle;
    }
    if (at > first && f->list[at - 1].bound <= o.bound) return true;
    if (at < f->n && f->list[at].cost == o.cost) {
        const option *q = &f->list[at];
        if (q->bound < o.bound || (q->bound == o.bound && q->bytes <= o.bytes)) return true;
    }
    for (end = at; end < f->n && f->list[end].bound >= o.bound;) end++;
    if (end == at) { /* nothing to replace */
        if (!grow(f)) return false;
        end = at + 1;
        memmove(&f->list[end], &f->list[at], (f->n - at) * sizeof o);
        f->n++;
    } else {
        memmove(&f->list[at + 1], &f->list[end], (f->n - end) * sizeof o);
        f->n -= end - at - 1;
    }
    f->list[at] = o;
    return true;
}

/* Smaller buffers as long as one less can matter: from those whose bound is at most high_ms to the first with
 * a bound of at most low_ms. */
static bool add_buffers(fronts *f, size_t first, size_t device, uint32_t rounds, device_cost c, double low_ms,
                        double high_ms)
{
    const problem *p = f->p;
    double piece_ms = p->pieces ? p->layer_bytes / p->pieces / p->device[device].disk_bytes_per_ms : 0;

    for (;;) {
        const assignment_device *a = &c.detail;
        double before = c.bound_ms, too_many;

        if (c.bound_ms <= high_ms && f->weight * c.cost_ms <= high_ms) {
            option o = {c.cost_ms, c.bound_ms, a->read_bytes, a->gpu_layers, a->buffer_pieces};
            if (!add_option(f, first, o)) return false;
        }
        if (c.bound_ms <= low_ms || a->streamed_pieces == 0) return true;
        too_many = c.bound_ms > high_ms ? ceil((c.bound_ms - high_ms) / piece_ms * (1 - NOISE)) : 1;
        if (too_many >= a->buffer_pieces) return true;
        if (!problem_set_buffer(p, device, rounds, a->buffer_pieces - (uint32_t)too_many, &c)) return true;
        if (c.bound_ms >= before) return true; /* not the disk's */
    }
}

bool fronts_make(fronts *f, uint32_t rounds, double low_ms, double high_ms)
{
    uint32_t n_layers = f->p->n_layers;
    size_t at = 0;

    f->n = 0;
    for (size_t i = 0; i < f->p->n_devices; i++) {
        uint32_t most = problem_most_layers(f->p, i, high_ms);
        for (uint32_t l = 0; l <= n_layers; l++) {
            size_t first = f->n;
            f->first[at++] = first;
            if (l > most) continue;
            for (uint32_t left = l < f->max_gpu[i] ? l + 1 : f->max_gpu[i] + 1; left > 0; left--) {
                device_cost c; /* most GPU layers first: the others are then mostly refused at once */
                if (problem_least_ms(f->p, i, l, left - 1) > high_ms) {
                    if (problem_gpu_is_fast(f->p, i)) break;
                    continue;
                }
                if (!problem_device_cost(f->p, i, rounds, l, left - 1, false, &c)) continue;
                if (!add_buffers(f, first, i, rounds, c, low_ms, high_ms)) return false;
                if (problem_gpu_settles(f->p, i, l, left - 1)) break;
            }
        }
    }
    f->first[at] = f->n;
    return true;
}

const option *fronts_cheapest(const fronts *f, size_t device, uint32_t l, double tau)
{
    size_t at = device * ((size_t)f->p->n_layers + 1) + l;
    size_t low = f->first[at], end = f->first[at + 1], high = end;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (f->list[middle].bound <= tau) high = middle;
        else low = middle + 1;
    }
    return low < end ? &f->list[low] : NULL;
}
