/* From an assignment of mean layers to a plan of real ones. */
#ifndef PRIMA_PLANNER_LAYOUT_H
#define PRIMA_PLANNER_LAYOUT_H
#include "planner/plan.h"

/* Another assignment for smaller budgets; codes of dp_solve. */
typedef int (*layout_solver)(void *arg, const problem *cut, assignment *a, pr_err *err);

/* The solver works with mean layers; where the real ones of a device are too large its budget is cut and the
 * problem solved again. The plan keeps the true budgets of pr. *a becomes what was laid out. PR_EINFEASIBLE
 * names the device and the missing bytes. Otherwise as plan_build. */
int layout_plan(plan **out, const cluster *c, const model_facts *f, const uint32_t *order, size_t n_order,
                const problem *pr, assignment *a, layout_solver solve, void *arg, pr_err *err);

#endif
