/* Solvers of a problem.h problem. */
#ifndef PRIMA_PLANNER_SOLVE_H
#define PRIMA_PLANNER_SOLVE_H
#include "planner/problem.h"
#include "src/base/err.h"

typedef struct {
    assignment best;
    double per_rounds_ms[PROBLEM_MAX_ROUNDS + 1]; /* best pass_ms for each k; NAN = infeasible or not tried */
    double solve_ms;
} solution;

/* dp.c: exact dynamic programming with a bisection over the disk bound (halda.md 7.2); any integer split,
 * devices may get nothing, k up to min(max_rounds, layers). Equal times (within 1e-9): fewer devices, then
 * fewer rounds; then the least sum of costs, then fewer bytes read. PR_EINFEASIBLE names device, budget and
 * missing bytes. */
int dp_solve(const problem *p, solution *s, pr_err *err);

/* The same plan when it takes at most limit_ms, quicker: no plan of k rounds takes less than from_ms[k] (of
 * [PROBLEM_MAX_ROUNDS + 1]), and once a plan is found the rounds that cannot be as fast are left out, whose
 * per_rounds_ms stays NAN. PR_EINFEASIBLE: no plan is within the limit. */
int dp_solve_within(const problem *p, const double *from_ms, double limit_ms, solution *s, pr_err *err);
/* Only what it takes. */
int dp_time_within(const problem *p, const double *from_ms, double limit_ms, double *ms, pr_err *err);

/* milp.c: GLPK's certificate for the plan of dp.c, over the same costs (problem_device_cost) for every k.
 * *bound_ms: no plan is faster (proven; at most found->pass_ms). *complete: that is as much as was asked for,
 * or the optimum; false when a limit cut the search. Without a time limit the answer depends on nothing but
 * the problem and found. */
typedef struct {
    double gap; /* relative; a bound within this of the plan is enough. 0: as near as times are, 1e-6 */
    uint32_t max_nodes;  /* of all searches together, as GLPK counts them */
    double time_limit_s; /* INFINITY: none */
    double known_ms;     /* what another plan is known to take: only whether one is faster than both is looked
                          * for, which is quicker where the plan was not chosen for its time alone. 0: none */
} milp_limits;
int milp_certify(const problem *p, const assignment *found, const milp_limits *limits, double *bound_ms,
                 bool *complete, pr_err *err);
/* What the bound proves, in the words of a plan file: "optimal" within a relative 2e-6, else "feasible".
 * *gap_pct: how much shorter than the plan the bound is. */
const char *milp_status(const assignment *found, double bound_ms, double *gap_pct);

/* halda.c: the paper's algorithm, faithful (halda.md 2-4), for comparison only. */
typedef struct {
    double cpu_gflops, gpu_gflops; /* s_q for the model's commonest type; gpu 0 = none */
    double ram_available_bytes, vram_bytes, metal_bytes, swap_bytes;
    double disk_bytes_per_ms;
    double kv_copy_cpu_ms, kv_copy_gpu_ms;
    double cpu_buffer_bytes, gpu_buffer_bytes; /* halda.md 2.6, with CPU layers */
    double cpu_buffer_all_gpu_bytes;           /* when all its layers are on the GPU */
    double gpu_buffer_all_gpu_bytes;           /* the same; 0 = as with CPU layers */
    enum { HALDA_LINUX, HALDA_MACOS, HALDA_MACOS_METAL, HALDA_ANDROID } os;
} halda_device;
typedef struct {
    uint32_t n_layers;
    double layer_bytes, kv_layer_bytes, input_row_bytes, output_bytes;
    double layer_flops, output_flops;
    size_t n_devices;
    halda_device device[PROBLEM_MAX_DEVICES];
    double master_priority; /* 1.01 */
    bool select;            /* the wrapper that drops devices with w = 1 */
    uint32_t fixed_rounds;  /* -k; 0 = all divisors */
} halda_problem;
typedef struct {
    uint32_t rounds;
    uint32_t window[PROBLEM_MAX_DEVICES], gpu[PROBLEM_MAX_DEVICES];
    double objective_ms;
    int iterations;
    bool rolled_back;
} halda_result;
int halda_solve(const halda_problem *p, halda_result *r,
                pr_err *err); /* PR_EINFEASIBLE when the paper's algorithm finds no plan */

#endif
