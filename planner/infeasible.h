/* Why a problem has no plan, in words for its user. */
#ifndef PRIMA_PLANNER_INFEASIBLE_H
#define PRIMA_PLANNER_INFEASIBLE_H
#include "planner/problem.h"
#include "src/base/err.h"

/* PR_EINFEASIBLE, always: for a problem that has no plan. Names the device, which budget (RAM or VRAM) and
 * how many bytes are missing. */
int infeasible_explain(const problem *p, pr_err *err);

#endif
