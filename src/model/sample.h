/* Logits -> token, seeded and reproducible: the result depends on the logits, the parameters, the tokens so
 * far and the number of draws so far only.
 *
 * Order: repeat/presence/frequency penalties over the last repeat_last_n tokens (prompt and completion), then
 * temperature 0 = arg max (lowest id wins ties); else top-k, top-p (of what top-k left, at temperature 1),
 * min-p, temperature last, as llama.cpp's default chain. Of equal logits the lower id is the better one at
 * every cut. The draw is a number u in [0, 1): the first id, in rising order, at which the cumulated
 * probability exceeds u. */
#ifndef PRIMA_MODEL_SAMPLE_H
#define PRIMA_MODEL_SAMPLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    float temperature;                         /* 0 = greedy; 0..2 (wider accepted up to 100) */
    float top_p;                               /* (0, 1], 1 = off */
    int32_t top_k;                             /* 0 = off */
    float min_p;                               /* [0, 1), 0 = off */
    float repeat_penalty;                      /* > 0, 1 = off */
    int32_t repeat_last_n;                     /* 0 = off, -1 = all */
    float presence_penalty, frequency_penalty; /* -2..2, 0 = off */
    uint64_t seed;
} sample_params;
extern const sample_params sample_defaults; /* greedy */

typedef struct {
    int32_t id;
    float logprob;
} sample_candidate;

/* One sequence's generator: a counter-based stream from the seed; draw n is a function of (seed, n), so a
 * resumed or replayed sequence continues exactly. */
typedef struct sampler sampler;
sampler *sampler_new(const sample_params *p, size_t n_vocab); /* NULL: out of memory */
void sampler_free(sampler *s);
/* Tell it a token of the sequence (prompt tokens first, then each chosen one). */
void sampler_accept(sampler *s, int32_t id);
/* Choose the next token from logits[n_vocab] (left unchanged; NaN counts as -inf; all -inf: id 0). banned:
 * ids never chosen (ignore_eos), n_banned may be 0. */
int32_t sampler_next(sampler *s, const float *logits, const int32_t *banned, size_t n_banned);

/* Log-probabilities (natural log) of the unpenalised softmax: of `id`, and the n_top best in order (ties:
 * lower id first). */
float sample_logprobs(const float *logits, size_t n_vocab, int32_t id, sample_candidate *top, size_t n_top);

#endif
