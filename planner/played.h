/* The last choice of a plan by the simulator: how many rounds, and how much more read buffer than the formula
 * asks for. The formula is a lower bound and treats windows as equal; where something is streamed in many
 * rounds the plan that it likes best is not the one that runs best (simulate.c says why). */
#ifndef PRIMA_PLANNER_PLAYED_H
#define PRIMA_PLANNER_PLAYED_H
#include "planner/solve.h"

enum { PLAYED_MORE = 2 }; /* pieces more than the formula's buffer that are tried */

typedef struct {
    uint32_t rounds, more; /* pieces added to each read buffer */
    double played_ms;      /* a pass, as played; 0: nothing is streamed, nothing was played */
} played;

/* best: what the solver found for p. Tries the best plan of every number of rounds whose formula is below
 * what the fastest played one takes, and puts the fastest into *best. PR_ERESOURCE: memory. */
int played_choose(const problem *p, assignment *best, played *out, pr_err *err);
/* The plan of the same choice for a problem with other budgets; errors of dp_solve. */
int played_again(const problem *p, const played *choice, assignment *out, pr_err *err);

#endif
