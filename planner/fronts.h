/* For one number of rounds: what each device may do with each number of layers, as a Pareto front over its
 * GPU layers and its read buffer of (cost, bound) of problem.h. There are many buffers; only those are made
 * that matter between two times. For the solver (dp.c). */
#ifndef PRIMA_PLANNER_FRONTS_H
#define PRIMA_PLANNER_FRONTS_H
#include "planner/problem.h"

typedef struct {
    double cost, bound, bytes;
    uint32_t gpu_layers, buffer_pieces;
} option;

typedef struct {
    const problem *p;
    double weight; /* of the sum of costs */
    uint32_t max_gpu[PROBLEM_MAX_DEVICES];
    option *list; /* by device, layers, rising cost and falling bound */
    size_t n, capacity;
    size_t *first; /* [n_devices * (n_layers + 1) + 1] where those of a device and its layers begin */
} fronts;

bool fronts_init(fronts *f, const problem *p); /* p is borrowed; false: no memory, but to be cleared */
void fronts_clear(fronts *f);
/* All that a best plan can need whose time is in low_ms..high_ms. false: no memory. */
bool fronts_make(fronts *f, uint32_t rounds, double low_ms, double high_ms);
/* The cheapest option of a device for l layers whose bound is at most tau; NULL when there is none. */
const option *fronts_cheapest(const fronts *f, size_t device, uint32_t l, double tau);

#endif
