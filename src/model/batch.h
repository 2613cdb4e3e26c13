/* A micro-batch: n tokens, a mix of prefill chunks and decode steps of any number of sequences. */
#ifndef PRIMA_MODEL_BATCH_H
#define PRIMA_MODEL_BATCH_H
#include <stddef.h>
#include <stdint.h>

/* Consecutive tokens of one sequence: batch tokens [first, first + n) at positions pos .. pos + n - 1. A
 * sequence has at most one run in a batch. The page table covers positions 0 .. pos + n - 1; pages are
 * numbered alike on every device. */
typedef struct {
    size_t first, n;
    size_t pos;
    const int32_t *pages;
} batch_run;

typedef struct {
    size_t n_tokens;
    const int32_t *token; /* [n_tokens] ids; read where the embedding is */
    size_t n_runs;
    const batch_run *run; /* in order of first; they cover all tokens */
    size_t n_out;
    const int32_t *out; /* [n_out] indices of the tokens whose logits are wanted, ascending */
    uint64_t number;    /* batches of one number are the same; 0: not known */
} batch;

#endif
