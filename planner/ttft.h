/* Time to the first token. */
#ifndef PRIMA_PLANNER_TTFT_H
#define PRIMA_PLANNER_TTFT_H
#include "planner/problem.h"

/* ms until a prompt of n_tokens has gone through the ring of this plan, alone, and its first token is there.
 * The prompt goes in chunks of p->prefill_tokens (a last, shorter one takes its share, but no less than a
 * decode pass), each right behind the one before, in the rounds that the others leave free: the busiest
 * device, disk or link works for all of them without a pause, but for the others' part of one round. One
 * chunk takes a pass. What a device streams is read once for each chunk. 0: prefill is not known (problem.h).
 */
double ttft_ms(const problem *p, const assignment *a, uint32_t n_tokens);

#endif
