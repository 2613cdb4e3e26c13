/* Where micro-batches are computed: on this device alone (pipeline_local.c), or on a ring of devices of which
 * this is the head (pipeline_ring.c). The runner sees no difference but how many may be on their way at once.
 * One caller. */
#ifndef PRIMA_RUN_PIPELINE_H
#define PRIMA_RUN_PIPELINE_H
#include "src/run/engine.h"
#include "src/run/micro_batch.h"
#include "src/run/progress.h"
#include "src/run/timings.h"
#include "src/run/trace.h"

typedef enum {
    PIPE_DONE,  /* a micro-batch is finished */
    PIPE_RESET, /* devices were lost and replaced: nothing that was submitted comes back and all KV caches are
                 * empty: schedule_replay */
    PIPE_WAKE   /* nothing happened for a while, or a signal came */
} pipe_event;

typedef struct pipeline pipeline;
typedef struct {
    /* Takes mb on its way; the caller keeps to `depth`. */
    int (*submit)(pipeline *p, micro_batch *mb, pr_err *err);
    /* The next event; something is on its way. Micro-batches come back in the order of submission, with
     * logits that are valid until the next call of submit or next. PR_EPEER: a device is lost and nothing can
     * take its place. */
    int (*next)(pipeline *p, pipe_event *event, micro_batch **done, pr_err *err);
    /* Rows of timings for what was computed until now. */
    int (*report)(pipeline *p, pr_err *err);
    void (*free)(pipeline *p);
} pipeline_ops;

struct pipeline {
    const pipeline_ops *ops;
    size_t depth;       /* micro-batches that may be on their way at once, at least 1 */
    size_t max_tokens;  /* of a micro-batch */
    size_t max_prefill; /* of its tokens those of prompts: on a ring fewer than max_tokens, so that the chunks
                         * of a prompt follow each other through the devices */
    uint64_t weights_bytes; /* of all devices: what a pass reads */
};

/* This device alone; e holds all layers and is borrowed. t (may be NULL) gets a row at least every second
 * that something was computed; times count from start_ns. */
int pipeline_local(pipeline **out, engine *e, size_t max_tokens, timings *t, uint64_t start_ns, pr_err *err);
/* Before the first micro-batch: spans (of n_layers layers) go to the trace, and what was done to progress;
 * both may be NULL. */
int pipeline_local_watch(pipeline *p, uint32_t n_layers, trace *t, progress *g, pr_err *err);

#endif
