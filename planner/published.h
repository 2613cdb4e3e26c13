/* The paper's algorithm (halda.c) on our figures: for `prima plan --solver halda` and comparisons. */
#ifndef PRIMA_PLANNER_PUBLISHED_H
#define PRIMA_PLANNER_PUBLISHED_H
#include "planner/facts.h"
#include "planner/problem.h"
#include "planner/solve.h"
#include "src/base/err.h"

/* p as the published model sees it: the same times of a layer, no network, disk time added. os[i] is the
 * profile's ("Linux", "macOS", "Android"; others count as Linux). */
void published_problem(halda_problem *h, const problem *p, const model_facts *f, const char *const *os);

/* Its plan, with weak devices dropped as shipped, cut to the VRAM there is, rated by our model.
 * PR_EINFEASIBLE: it ends without a plan, or with one that does not fit. */
int published_solve(const problem *p, const model_facts *f, const char *const *os, assignment *a,
                    pr_err *err);

#endif
