/* What a device of the ring does when a micro-batch arrives: compute the window of its round, hand it on.
 *
 * Head and workers do the same; the head also begins (embedding) and ends (logits) each micro-batch, in
 * pipeline_ring.c. Micro-batches of the same round that wait together are computed as one product (the bits
 * do not depend on it) and go on as the frames they were. */
#ifndef PRIMA_RUN_STAGE_H
#define PRIMA_RUN_STAGE_H
#include "src/run/engine.h"
#include "src/run/spans.h"
#include "src/run/wire.h"

typedef struct {
    engine *e;                 /* NULL: a device that only hands on, for measuring hops */
    const layer_range *window; /* [n_rounds], as the engine has them */
    uint32_t n_rounds, n_layers;
    uint16_t rank, previous, n_ranks; /* previous: whose frames arrive */
    wire_limits limits;               /* of a frame */
    size_t merge_tokens; /* computed together at most: the engine's max_tokens, >= limits.max_tokens */
    bool trace;          /* keep spans */
} stage_options;

/* What was done since the beginning. */
typedef struct {
    uint64_t since_ns;                       /* when that was: another one counts from nothing */
    uint64_t passes, tokens, prefill_tokens; /* windows computed; their tokens; those in runs of several */
    uint64_t merged;                         /* frames that were computed together with another one */
    uint64_t batch;                          /* the last one: where it is, for "last seen at" */
    uint32_t layer;
    double compute_ms, wait_ms; /* computing, at the head also embedding and logits; waiting for frames */
    double gpu_ms;              /* of compute_ms, while GPUs were at work */
    uint64_t gpu_bytes;         /* of their memory */
    double disk_wait_ms, disk_busy_ms; /* of the time in windows, waiting for weights; reading them */
    uint64_t disk_bytes;
} stage_counts;

typedef struct stage stage;
int stage_new(stage **out, const stage_options *o, pr_err *err); /* *o is copied, what it points to is not */
void stage_free(stage *s);

/* FRAME_WALK: a token that goes round before anything is computed; each device adds its windows. It may carry
 * rows of zeros where a micro-batch has hidden states: how long those take is then seen. */
typedef struct {
    uint32_t rank, round, first, end;
} walk_step;
size_t stage_walk_bytes(size_t n_ranks, size_t n_rounds); /* payload of a whole walk */
/* Adds ours and sends it on. rows: at the head, <= limits.max_tokens; else 0. */
void stage_walk(stage *s, parcel *x, uint32_t rows);
/* At the head, when it has come back: every rank in order, every layer once? PR_EMISMATCH says what is wrong.
 */
int stage_walk_check(const stage *s, const parcel *x, pr_err *err);

/* The ring as it is made now: frames of this session come through `in` and leave through `next`. */
void stage_join(stage *s, uint64_t session, mailbox *in, link_out *next);

/* A worker's life: until the mailbox is broken (its error), or a frame is not what the plan says (PR_EPEER).
 */
int stage_serve(stage *s, pr_err *err);

/* Its parts, for the head. Takes first, and what can be computed with it, from the mailbox; computes; sends.
 */
int stage_pass(stage *s, parcel *first, pr_err *err);
/* The first window of a micro-batch that begins here: hidden is embedded already, in stage_hidden. x: where
 * it travels (given back on failure). */
int stage_begin(stage *s, uint64_t id, const batch *b, parcel *x, pr_err *err);
float *stage_hidden(stage *s); /* [merge_tokens][n_embd] */

stage_counts stage_about(stage *s); /* any thread */
/* The head has taken a frame from its mailbox for which it waited since then. */
void stage_note_arrival(stage *s, const frame *f, uint64_t since_ns);
/* The head has computed what is no window: SPAN_EMBED or SPAN_LOGITS of so many tokens of a micro-batch. */
void stage_note_work(stage *s, span_kind kind, uint64_t id, size_t n_tokens, uint64_t since_ns);
/* link_sent: a frame has been written. */
void stage_note_sent(void *s, const frame *f, uint64_t start_ns, uint64_t end_ns);
/* The oldest spans, at most max, with how many were lost before them; 0 without `trace`. Any thread. */
size_t stage_take_spans(stage *s, span *out, size_t max, uint64_t *dropped);
uint32_t stage_n_layers(const stage *s);

#endif
