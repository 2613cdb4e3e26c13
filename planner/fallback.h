/* A plan for the loss of each one device. */
#ifndef PRIMA_PLANNER_FALLBACK_H
#define PRIMA_PLANNER_FALLBACK_H
#include "planner/candidate.h"

/* Adds to p->fallback what the others, also those that the plan leaves out, do without each device of `best`,
 * in the order of its ring. Pins are void then. p->unused is filled in. With many devices only the rounds
 * around the plan's are looked at. */
void fallback_add(const search_input *in, const candidate *best, plan *p);

#endif
