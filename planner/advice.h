/* What would make a plan faster. */
#ifndef PRIMA_PLANNER_ADVICE_H
#define PRIMA_PLANNER_ADVICE_H
#include "planner/problem.h"
#include <stddef.h>

/* The best of 25 % more RAM, a 25 % faster disk or link on one device at a time, by solving again; name[i] of
 * problem device i. With more than ADVICE_ALL_ROUNDS devices only rounds next to the plan's are tried. */
enum { ADVICE_ALL_ROUNDS = 16 };
void advice_for(const problem *p, const assignment *a, const char *const *name, char *out, size_t cap);

#endif
