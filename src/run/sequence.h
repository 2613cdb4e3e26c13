/* One request on its way: its tokens, the text made of them, when it stops, and how long everything took. */
#ifndef PRIMA_RUN_SEQUENCE_H
#define PRIMA_RUN_SEQUENCE_H
#include "src/run/output.h"

typedef struct {
    request req;
    size_t slot;
    token_list tokens; /* prompt, then completion */
    size_t n_prompt;
    size_t n_computed; /* tokens whose keys and values are in the cache or in the batch under way */
    size_t n_cached;   /* of the prompt, found in shared pages */
    int32_t *pages;    /* page table for prompt + max_tokens */
    size_t n_pages;
    sampler *sampler;
    char *text; /* completion so far, raw bytes */
    size_t text_len, text_cap;
    token_logprob *logprob; /* one a completion token when asked for */
    size_t n_logprob;
    double *gap_ms; /* inter-token gaps */
    size_t n_gaps;
    const char *finish_reason; /* NULL while it runs */
    const char *stop_string;
    int32_t stop_token;
    request_times times;
} sequence;

/* Takes over *r (which is zeroed). Returns NULL when out of memory (*r is then untouched). */
sequence *sequence_new(request *r, const vocab *v, size_t slot);
void sequence_free(sequence *s);

static inline size_t sequence_n_completion(const sequence *s)
{
    return s->tokens.n - s->n_prompt;
}

/* Choose and append the next token from the logits of the last one; sets finish_reason when it was the last.
 * eog: the vocabulary's end-of-generation ids, never chosen when the request ignores them. PR_ERESOURCE: out
 * of memory. */
int sequence_sample(sequence *s, const vocab *v, const float *logits, const int32_t *eog, size_t n_eog,
                    uint64_t now_ns, pr_err *err);

/* The completion as it will be written; pointers live as long as the sequence. Fills the percentiles of
 * s->times. */
completion sequence_completion(sequence *s);

#endif
