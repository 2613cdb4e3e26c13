/* For one number of rounds: what every device may do (layers, GPU layers, read buffer) and what that costs,
 * as a list to choose one of; and what prices for layers, time and disks prove about all ways to choose (weak
 * duality). For the certificate (milp.c).
 *
 * A plan takes T = max(fixed + sum of costs, largest bound), costs weighted as in problem.h. */
#ifndef PRIMA_PLANNER_CHOICES_H
#define PRIMA_PLANNER_CHOICES_H
#include "planner/problem.h"

typedef struct {
    double cost, bound; /* of device_cost, the cost times problem_sum_weight */
    uint32_t layers;
} choice;

typedef struct {
    const problem *p;
    double fixed_ms;  /* in the sum whatever is chosen: the output projection */
    double least_ms;  /* no plan takes less: of choices with smaller bounds only the cheapest are here */
    double target_ms; /* only plans faster than this matter: slower choices are not here */
    choice *list;
    size_t n, capacity;
    size_t first[PROBLEM_MAX_DEVICES + 1]; /* of device m: [first[m], first[m + 1]) */
} choices;

/* Fills in the list, using what t holds from before; begin with *t = {0}. False: out of memory. */
bool choices_make(choices *t, const problem *p, uint32_t rounds, double target_ms);
void choices_clear(choices *t);

/* Prices: T is worth sum + all of bound, at most 1. None is negative but that of a layer, which may be. */
typedef struct {
    double sum, layer, bound[PROBLEM_MAX_DEVICES];
} choice_prices;

/* What a choice of a device adds at these prices, and the choice that adds least: its index, or t->n when the
 * device has none (then *least is INFINITY). */
double choices_worth(const choices *t, const choice_prices *u, size_t device, size_t i);
size_t choices_least(const choices *t, const choice_prices *u, size_t device, double *least);
/* No plan in the list takes less, whatever the prices are. INFINITY: a device has no choice. */
double choices_bound(const choices *t, const choice_prices *u);

#endif
