/* The quick question of the search: could any plan take less than a given time? The dynamic program of dp.c
 * with the time given, so that one walk over the devices answers it for a k, and devices can be added one by
 * one. */
#ifndef PRIMA_PLANNER_REACH_H
#define PRIMA_PLANNER_REACH_H
#include "planner/solve.h"

/* Prices of a device: [reach_rounds(p)][n_layers + 1], what l layers add to the time by the sum of costs, in
 * each number of rounds from the first, where the device's own bound is below the target; INFINITY: they
 * cannot. */
uint32_t reach_rounds(const problem *p);
size_t reach_row_size(const problem *p); /* numbers of one k */
void reach_prices(const problem *p, size_t device, double target_ms, double *prices);

/* Cheapest sums of one k: sum[l] of the devices so far with l layers in all. The first device starts from
 * reach_begin. Entries at or above the target become INFINITY. `after` must not be `before`. */
void reach_begin(const problem *p, double *sum);
void reach_add(const problem *p, const double *before, const double *price, double target_ms, double *after);

/* What the prices say of every k: no plan of k rounds takes less than from_ms[k] ([PROBLEM_MAX_ROUNDS + 1]);
 * INFINITY: none takes less than the target. price[i] is that of device i; scratch holds two rows. */
void reach_from(const problem *p, const double *const *price, double target_ms, double *scratch,
                double *from_ms);
/* The same with prices that it makes itself. PR_ERESOURCE: no memory. */
int reach_times(const problem *p, double target_ms, double *from_ms, pr_err *err);

/* dp_solve's plan, quicker: what it takes with about `guess` rounds tells which other rounds could be as
 * fast, and only these are solved (per_rounds_ms of the others stays NAN). */
int reach_solve(const problem *p, uint32_t guess, solution *s, pr_err *err);

#endif
