/* How many micro-batches should be on their way at once in a ring, and how large those of prompts should be,
 * from the figures of its plan. */
#ifndef PRIMA_RUN_DEPTH_H
#define PRIMA_RUN_DEPTH_H
#include "planner/plan.h"
#include <stddef.h>

enum { DEPTH_MAX = 16 };

/* For so many sequences at once: what the plan has decided when it is one for throughput and for as many;
 * else the least number from which on more of them would not make decoding faster by 5 %. With short hops and
 * equal devices that is one for each device; where a hop takes longer than a device computes, more. At least
 * one for each device where decoding does not suffer and nothing is streamed: chunks of prompts want that. */
size_t depth_best(const plan *p, size_t slots);

/* Tokens of a prompt in a micro-batch, of 32, 64, 128 and 256: the least from which on more of them would not
 * make a prompt of CHUNK_PROMPT tokens faster by 5 %. Small ones fill the ring sooner and hold up decoding
 * less; large ones read the weights less often. */
enum { CHUNK_PROMPT = 512, CHUNK_LEAST = 32, CHUNK_MOST = 256 };
size_t depth_chunk(const plan *p);

#endif
