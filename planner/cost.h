/* Cluster, profiles and model facts -> the numbers of problem.h. Pure functions; every choice of a figure is
 * here and nowhere else: how each is made stands in cost.c. */
#ifndef PRIMA_PLANNER_COST_H
#define PRIMA_PLANNER_COST_H
#include "planner/cluster.h"
#include "planner/facts.h"
#include "planner/problem.h"
#include "planner/profile.h"

typedef struct {
    uint32_t ctx, slots, micro_batch; /* micro_batch: tokens of a decode pass (1 for latency) */
    const char *kv_type;              /* "f16" */
    bool throughput;
    bool output_on_gpu;  /* the output projection goes to the head's first GPU, where it has one */
    uint32_t max_rounds; /* 0 = as many as PROBLEM_MAX_ROUNDS */
} workload;

/* Profile of device i of the cluster is profiles[i]; `order` lists cluster device indices in ring order,
 * order[0] is the head. theta is the profile's, or 0.5 where it has none. A device without ram uses
 * ram_available less reserve. fixed_layers and fixed_gpu_layers are -1. PR_EMISMATCH: a profile that measured
 * nothing the problem needs, or a budget larger than the machine (says what). PR_EUSAGE: a workload that
 * makes no sense. */
int cost_problem(problem *p, const cluster *c, profile *const *profiles, const model_facts *f,
                 const workload *w, const uint32_t *order, size_t n_order, pr_err *err);

/* ms of one layer / of the output projection for a batch on device profile p (gpu -1 = CPU): the products
 * alone. NAN when nothing was measured there. */
double cost_layer_ms(const profile *p, const model_facts *f, int gpu, uint32_t batch);
double cost_output_ms(const profile *p, const model_facts *f, int gpu, uint32_t batch);
/* ms to hand n_tokens hidden states (f32) over a link. */
double cost_hop_ms(const model_facts *f, uint32_t n_tokens, double mbit_per_s, double rtt_ms);

/* The link between two devices of the cluster: from the cluster file, else measured by the profile of one of
 * them, else assumed (1 Gbit/s, 0.5 ms): then returns false. */
bool cost_link(const cluster *c, profile *const *profiles, uint32_t from, uint32_t to, double *mbit_per_s,
               double *rtt_ms);
/* Logs a warning for each link of this ring that is assumed; returns how many. For the ring that was chosen:
 * cost_problem, which is called for every ring that is tried, says nothing. */
size_t cost_warn_links(const cluster *c, profile *const *profiles, const uint32_t *order, size_t n_order);

#endif
