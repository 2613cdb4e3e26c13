/* The pipeline of the head of a ring: micro-batches go out, logits come back. How the ring was made, and how
 * it is made again when a device is lost, is the business of its owner (ring.h). */
#ifndef PRIMA_RUN_PIPELINE_RING_H
#define PRIMA_RUN_PIPELINE_RING_H
#include "src/run/pipeline.h"
#include "src/run/stage.h"

/* A ring that is ready; all borrowed. */
typedef struct {
    engine *e;
    stage *s;
    mailbox *in;  /* from the last device */
    parcels *out; /* for micro-batches that begin: at least `depth` of them */
    size_t depth, max_tokens, max_prefill;
    const wire_limits *limits;
    uint64_t weights_bytes; /* of all devices */
} ring_links;

typedef struct {
    void *arg;
    /* The ring has broken for this reason: make it again (links are then the new ones), or give up with an
     * error. */
    int (*remake)(void *arg, const pr_err *why, ring_links *links, pr_err *err);
    /* Called between micro-batches and at least once a second while waiting. */
    int (*tick)(void *arg, pr_err *err);
    int (*report)(void *arg, pr_err *err); /* pipeline_ops.report */
} ring_owner;

int pipeline_ring(pipeline **out, const ring_links *links, const ring_owner *owner, pr_err *err);

#endif
