/* Which device is the head, and in which order the ring runs. */
#ifndef PRIMA_PLANNER_ORDERS_H
#define PRIMA_PLANNER_ORDERS_H
#include "planner/candidate.h"

typedef struct {
    const search_input *in;
    uint64_t start_ns;
    uint32_t solves_left; /* what is tried is counted, not timed */
    bool cut;             /* rings that might be better were left out */
    bool found;
    candidate best;
    pr_err first_err; /* why the first ring failed: said when none works */
} orders;

/* Tries the rings that the options ask for with this workload (micro_batch is set) and keeps the best.
 * PR_OK also when none is feasible: then found stays as it was. */
int orders_try(orders *s, const workload *w, pr_err *err);

void orders_init(orders *s, const search_input *in); /* in is borrowed */
/* The best ring and micro-batch (w->micro_batch 0: chosen). PR_EINFEASIBLE: why nothing fits. */
int orders_try_all(orders *s, const workload *w, pr_err *err);

#endif
