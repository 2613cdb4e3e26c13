/* A plan for people: what runs where, what binds. */
#ifndef PRIMA_PLANNER_EXPLAIN_H
#define PRIMA_PLANNER_EXPLAIN_H
#include "planner/plan.h"
#include "planner/problem.h"
#include "planner/profile.h"
#include <stdio.h>

/* The table: one line and one bar a device, then the predictions. */
void explain_plan(const plan *p, FILE *o);

/* Which of a profile's measurements the plan counts on for a device that streams: a line. */
void explain_reader(const char *device, const profile *p, FILE *o);

/* What decides the time of an assignment: "desk: compute, 61 % of a pass". name[i] of problem device i. */
void explain_bottleneck(const problem *pr, const assignment *a, const char *const *name, char *out,
                        size_t cap);

#endif
