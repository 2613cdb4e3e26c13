/* Which sequences run, and what the next micro-batch is: continuous batching.
 *
 * Up to n_slots sequences run at once. A micro-batch holds one token of every decoding sequence and fills the
 * rest with prefill chunks, oldest sequence first, up to max_tokens tokens. A finished sequence's place is
 * free at once. */
#ifndef PRIMA_RUN_SCHEDULE_H
#define PRIMA_RUN_SCHEDULE_H
#include "src/model/batch.h"
#include "src/run/pages.h"
#include "src/run/sequence.h"

typedef struct schedule schedule;

/* n_pages: of every device's KV cache. max_tokens >= n_slots. NULL: out of memory. */
schedule *schedule_new(size_t n_slots, size_t max_tokens, size_t n_pages);
void schedule_free(schedule *s); /* frees the sequences that still run */

size_t schedule_running(const schedule *s);
/* A free slot for a sequence of n_tokens (prompt + max_tokens), with the pages it may need; false: not now.
 */
bool schedule_has_room(const schedule *s, size_t n_tokens);
/* Takes over seq and gives it its slot and pages (schedule_has_room said yes). PR_ERESOURCE: out of memory.
 */
int schedule_admit(schedule *s, sequence *seq, pr_err *err);

/* The next micro-batch, valid until the next call; n_tokens == 0 when nothing runs. b->out[i] belongs to
 * *schedule_out(s, i). */
const batch *schedule_next(schedule *s);
sequence *schedule_out(const schedule *s, size_t i);
size_t schedule_prefill_tokens(const schedule *s); /* of the batch just made */

/* Take a finished sequence out; its pages stay findable until they are needed. The caller frees it. */
void schedule_remove(schedule *s, sequence *seq);

#endif
