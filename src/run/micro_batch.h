/* A batch on its way: made by the schedule, computed by a pipeline, given back to the schedule. */
#ifndef PRIMA_RUN_MICRO_BATCH_H
#define PRIMA_RUN_MICRO_BATCH_H
#include "src/model/batch.h"
#include "src/run/sequence.h"

typedef struct {
    uint64_t id;         /* rising from 1 in the order of making, over the whole run */
    batch b;             /* its arrays, and the page tables of its runs, live until schedule_done */
    size_t n_prefill;    /* of its tokens: those of prompts */
    sequence **out;      /* [b.n_out] whose next token the logits decide */
    const float *logits; /* set by the pipeline: of b.out[i] at logits + i * logits_stride */
    size_t logits_stride;
    uint64_t start_ns, end_ns; /* set by the pipeline: submitted, logits there */
} micro_batch;

#endif
