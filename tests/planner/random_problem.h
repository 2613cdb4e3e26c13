/* Random small clusters for the tests of the solvers, and the best plan of one found by trying everything. */
#ifndef PRIMA_TESTS_PLANNER_RANDOM_PROBLEM_H
#define PRIMA_TESTS_PLANNER_RANDOM_PROBLEM_H
#include "planner/problem.h"
#include "tests/planner/slower.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline double uniform(uint64_t *s, double low, double high)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*s >> 11) / 9007199254740992.0;
}

static inline uint32_t up_to(uint64_t *s, uint32_t n) /* 0 .. n */
{
    return (uint32_t)uniform(s, 0, n + 1);
}

/* 1-4 devices, up to 14 layers of 100 MB; every third device has a GPU for up to four layers, some no disk to
 * stream from, some problems pins, a KV cache, or throughput as the aim. */
static inline problem random_problem(uint64_t seed)
{
    uint64_t s = seed * 7919 + 1;
    problem p = {.layer_bytes = 1e8, .kv_layer_bytes = up_to(&s, 1) * uniform(&s, 0, 3e7)};

    for (int i = 0; i < 10; i++) uniform(&s, 0, 1);
    p.n_devices = 1 + up_to(&s, 3);
    p.n_layers = 1 + up_to(&s, 13);
    p.max_rounds = 1 + up_to(&s, 7);
    p.throughput = up_to(&s, 4) == 0;
    double theta = uniform(&s, 0, 1), hop = up_to(&s, 3) ? uniform(&s, 0, 6) : 0;
    for (size_t i = 0; i < p.n_devices; i++) {
        problem_device *d = &p.device[i];
        bool gpu = up_to(&s, 2) == 0;
        d->cpu_ms = uniform(&s, 2, 40);
        d->gpu_ms = uniform(&s, 0.5, 45);
        d->out_ms = uniform(&s, 0, 20);
        d->hop_ms = hop;
        d->ram_bytes = uniform(&s, 0.5e8, 9e8);
        d->cpu_buffer_bytes = uniform(&s, 0, 4e7);
        d->head_bytes = uniform(&s, 0, 6e7);
        d->vram_bytes = gpu ? uniform(&s, 0, 5e8) : 0;
        d->gpu_buffer_bytes = uniform(&s, 0, 5e7);
        d->disk_bytes_per_ms = up_to(&s, 5) ? uniform(&s, 1e5, 3e6) : 0;
        d->theta = theta;
        d->fixed_layers = up_to(&s, 15) == 0 ? (int)up_to(&s, p.n_layers / 2) : -1;
        d->fixed_gpu_layers = up_to(&s, 15) == 0 ? (int)up_to(&s, 2) : -1;
    }
    return p;
}

/* The same with layers in pieces, mostly eight, and with throughput some micro-batches in flight. */
static inline problem random_pieces_problem(uint64_t seed)
{
    uint64_t s = seed * 104729 + 3;
    problem p = random_problem(seed);

    for (int i = 0; i < 10; i++) uniform(&s, 0, 1);
    p.pieces = up_to(&s, 1) ? PROBLEM_PIECES : 1 + up_to(&s, 11);
    if (p.throughput && up_to(&s, 2)) p.in_flight = 1 + up_to(&s, 5);
    return p;
}

/* --- everything tried: all splits, GPU layers, read buffers and rounds -------------------------------- */

typedef struct {
    double ms; /* INFINITY: infeasible */
    size_t used;
    uint32_t rounds;
    double per_rounds_ms[PROBLEM_MAX_ROUNDS + 1];
} tried;

typedef struct {
    double cost, bound;
} choice;

enum { MAX_CHOICES = 1500 };
typedef struct {
    size_t n;
    choice c[MAX_CHOICES];
} choices;

typedef struct {
    const problem *p;
    uint32_t k;
    choices *of;   /* [device][layers] */
    double within; /* plans at most this long count for `used` */
    double ms;
    size_t used;
} trial;

static inline void add_choice(choices *of, choice c)
{
    size_t n = 0;

    for (size_t i = 0; i < of->n; i++)
        if (of->c[i].cost <= c.cost && of->c[i].bound <= c.bound) return;
    for (size_t i = 0; i < of->n; i++)
        if (of->c[i].cost < c.cost || of->c[i].bound < c.bound) of->c[n++] = of->c[i];
    if (n == MAX_CHOICES) abort();
    of->c[n++] = c;
    of->n = n;
}

/* All buffers, also those that are too large to be worth it. */
static inline void add_choices(trial *t, size_t device, uint32_t l, uint32_t g)
{
    choices *of = &t->of[device * (t->p->n_layers + 1) + l];
    device_cost c;

    if (!problem_device_cost(t->p, device, t->k, l, g, false, &c)) return;
    add_choice(of, (choice){c.cost_ms, c.bound_ms});
    for (uint32_t b = 0; b <= t->p->pieces * l; b++)
        if (problem_set_buffer(t->p, device, t->k, b, &c)) add_choice(of, (choice){c.cost_ms, c.bound_ms});
}

static inline void try_from(trial *t, size_t device, uint32_t left, double cost, double bound, size_t used)
{
    double ms = fmax(cost * problem_sum_weight(t->p), bound);

    if (ms > fmax(t->ms, t->within)) return;
    if (device == t->p->n_devices) {
        if (left > 0 || used < 2) return; /* plans of one device have other hops: tried apart */
        t->ms = fmin(t->ms, ms);
        if (ms <= t->within && used < t->used) t->used = used;
        return;
    }
    for (uint32_t l = 0; l <= left; l++) {
        const choices *of = &t->of[device * (t->p->n_layers + 1) + l];
        for (size_t i = 0; i < of->n; i++)
            try_from(t, device + 1, left - l, cost + of->c[i].cost, fmax(bound, of->c[i].bound),
                     used + (l > 0));
    }
}

static inline void try_alone(trial *t)
{
    for (size_t i = 0; i < t->p->n_devices; i++)
        for (uint32_t g = 0; g <= t->p->n_layers; g++)
            for (uint32_t b = 0; b <= t->p->pieces * t->p->n_layers; b++) {
                assignment a = {.rounds = t->k};
                a.device[i].layers = t->p->n_layers;
                a.device[i].gpu_layers = g;
                a.device[i].buffer_pieces = b;
                if (!assignment_evaluate(t->p, &a, NULL, NULL)) continue;
                t->ms = fmin(t->ms, a.pass_ms);
                if (a.pass_ms <= t->within) t->used = 1;
                if (a.device[i].streamed_pieces == 0) break;
            }
}

/* Best time for k rounds, and the fewest devices of a plan that takes at most within_ms. */
static inline double try_rounds(const problem *p, uint32_t k, double within_ms, size_t *used)
{
    trial t = {.p = p, .k = k, .within = within_ms, .ms = INFINITY, .used = 99};

    t.of = calloc(p->n_devices * (p->n_layers + 1), sizeof *t.of);
    if (!t.of) abort();
    for (size_t i = 0; i < p->n_devices; i++)
        for (uint32_t l = 0; l <= p->n_layers; l++)
            for (uint32_t g = 0; g <= l; g++) add_choices(&t, i, l, g);
    try_from(&t, 0, p->n_layers, p->device[0].out_ms, 0, 0);
    try_alone(&t);
    free(t.of);
    *used = t.used;
    return t.ms;
}

static inline tried try_everything(const problem *p)
{
    tried r = {.ms = INFINITY, .used = 99};
    uint32_t last = p->max_rounds < p->n_layers ? p->max_rounds : p->n_layers;
    size_t used;

    for (uint32_t k = 1; k <= last; k++) {
        r.per_rounds_ms[k] = try_rounds(p, k, 0, &used);
        r.ms = fmin(r.ms, r.per_rounds_ms[k]);
    }
    for (uint32_t k = 1; k <= last && isfinite(r.ms); k++) {
        double within = r.ms * (1 + 1e-9);
        if (r.per_rounds_ms[k] > within) continue;
        try_rounds(p, k, within, &used);
        if (used < r.used) {
            r.used = used;
            r.rounds = k;
        }
    }
    return r;
}

#endif
