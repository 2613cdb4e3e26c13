/* From cluster, profiles and model to a whole plan: which device is the head, in which order the ring runs,
 * how large a micro-batch is; solved, certified, laid out in whole layers, with a fallback for the loss of
 * each device and what would help. */
#ifndef PRIMA_PLANNER_SEARCH_H
#define PRIMA_PLANNER_SEARCH_H
#include "planner/cluster.h"
#include "planner/cost.h"
#include "planner/facts.h"
#include "planner/plan.h"
#include "planner/profile.h"
#include "src/base/err.h"

/* How much is tried is counted (SEARCH_SOLVES, SEARCH_NODES), so that the same inputs give the same plan on
 * every machine. */
typedef struct {
    const char *head;    /* NULL: the first of the cluster; "auto": the best one, and up to SEARCH_ALL_ORDERS
                          * devices the best order of the ring; else a device's name */
    double time_limit_s; /* 0 = none. For orders and certificate together; a plan that was cut by it is
                          * "feasible", and may differ from one run to the next */
    double gap;          /* relative: a certificate that the plan is within this of the best is enough */
    bool published;      /* the paper's algorithm instead of ours (latency only; pins are void) */
    int fixed_layers[CLUSTER_MAX_DEVICES]; /* by cluster index; -1 = free */
    const char *version, *created_at;      /* as they stand in the file */
} search_options;

enum { SEARCH_ALL_ORDERS = 6, SEARCH_SOLVES = 200, SEARCH_NODES = 2000, SEARCH_TTFT_TOKENS = 512 };

/* w->micro_batch 0: chosen (1 for latency; the best for throughput, with the layers, what is resident and
 * the rounds that go with it).
 * PR_EINFEASIBLE names device, budget and missing bytes. Caller frees with plan_free. */
int search_plan(plan **out, const cluster *c, profile *const *profiles, const model_facts *f,
                const workload *w, const search_options *o, pr_err *err);

#endif
