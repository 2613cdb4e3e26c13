/* One ring with one micro-batch: its problem, solved. What the parts of the search (orders.c, fallback.c,
 * search.c) share. */
#ifndef PRIMA_PLANNER_CANDIDATE_H
#define PRIMA_PLANNER_CANDIDATE_H
#include "planner/cost.h"
#include "planner/search.h"
#include "planner/solve.h"

/* What a search is given; nothing of it changes but what is remembered. */
typedef struct {
    const cluster *c;
    profile *const *profiles;
    const model_facts *f;
    const search_options *o;
    struct stream_memo *memo; /* for its problems; may be NULL */
} search_input;

/* Cluster indices in the order of the ring, the head first. */
typedef struct {
    uint32_t i[CLUSTER_MAX_DEVICES];
    size_t n;
} ring_order;

typedef struct {
    ring_order order;
    workload w;
    problem pr;
    assignment a;
    double solved_ms; /* of a pass of the plan that the solver found: a may be changed for other reasons */
    double tpot_ms, output_tps;
} candidate;

/* Figures are rounded to what the plan file holds before they are solved, so that a plan that was read gives
 * the same numbers again. pins: with the layers that the user gave by hand. */
int candidate_problem(const search_input *in, const workload *w, const ring_order *order, bool pins,
                      problem *p, pr_err *err);
/* a->rounds is a guess, 0 = none. */
int candidate_solve(const search_input *in, const problem *p, const ring_order *order, assignment *a,
                    pr_err *err);
/* Time and rate for people, from k->a. */
void candidate_rate(candidate *k);
/* k->order, k->w and the guess k->a.rounds -> the rest, by solving. Devices without layers leave the ring, so
 * that hops go to the next that works, and the smaller ring is solved again. */
int candidate_make(const search_input *in, candidate *k, pr_err *err);
/* By more than noise: the first of equal candidates stays. */
bool candidate_is_better(const candidate *a, const candidate *b);
/* A problem like k's in objective and micro-batch whose pass takes less than this may be better than k; one
 * whose pass takes longer is not. */
double candidate_target_ms(const candidate *k, const workload *w);

#endif
