/* Which sequences run, and what the next micro-batch is: continuous batching, with several micro-batches on
 * their way at once.
 *
 * Up to n_slots sequences run at once. A sequence that waits for the logits of its last token is in one
 * micro-batch only; chunks of a long prompt may be in several, which the devices compute in the order of
 * making. A micro-batch holds one token of decoding sequences, at most its share (running sequences / depth),
 * so that all micro-batches are about as large, and fills the rest with prompts, the oldest first. A finished
 * sequence's place is free at once. */
#ifndef PRIMA_RUN_SCHEDULE_H
#define PRIMA_RUN_SCHEDULE_H
#include "src/run/micro_batch.h"
#include "src/run/pages.h"

typedef struct schedule schedule;

typedef struct {
    size_t n_slots;
    size_t depth;       /* micro-batches on their way at once, at least 1 */
    size_t max_tokens;  /* of a micro-batch, >= n_slots */
    size_t max_prefill; /* of its tokens at most so many of prompts, 1 .. max_tokens */
    size_t n_pages;     /* of every device's KV cache */
} schedule_options;

/* NULL: out of memory. */
schedule *schedule_new(const schedule_options *o);
void schedule_free(schedule *s); /* frees the sequences that still run */

size_t schedule_running(const schedule *s);
/* A free slot for a sequence of n_tokens (prompt + max_tokens), with the pages it may need; false: not now.
 */
bool schedule_has_room(const schedule *s, size_t n_tokens);
/* Takes over seq and gives it its slot and pages (schedule_has_room said yes). PR_ERESOURCE: out of memory.
 */
int schedule_admit(schedule *s, sequence *seq, pr_err *err);

/* The next micro-batch; NULL when `depth` of them are on their way, or nothing can be computed before one of
 * them comes back. */
micro_batch *schedule_next(schedule *s);
/* It has come back and its sequences have their tokens. */
void schedule_done(schedule *s, micro_batch *mb);
/* Micro-batches on their way. */
size_t schedule_in_flight(const schedule *s);
/* All KV caches are lost, and every micro-batch on its way: all sequences are computed again from their
 * tokens, prompt and completion so far. */
void schedule_replay(schedule *s);

/* Take a finished sequence out; its pages stay findable until they are needed. The caller frees it. */
void schedule_remove(schedule *s, sequence *seq);

#endif
