/* One request on its way; see sequence.h. Stop strings are searched in the bytes of the completion, only
 * where the newest token could have completed one; the text ends before the match. */
#include "src/run/sequence.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX = 1024 };

sequence *sequence_new(request *r, const vocab *v, size_t slot)
{
    sequence *s = calloc(1, sizeof *s);

    if (!s) return NULL;
    s->sampler = sampler_new(&r->sampling, vocab_size(v));
    s->gap_ms = malloc(r->max_tokens * sizeof *s->gap_ms);
    s->logprob = r->logprobs ? calloc(r->max_tokens, sizeof *s->logprob) : NULL;
    if (!s->sampler || !s->gap_ms || (r->logprobs && !s->logprob)) {
        sequence_free(s);
        return NULL;
    }
    s->req = *r;
    *r = (request){0};
    s->tokens = s->req.tokens;
    s->req.tokens = (token_list){0};
    s->n_prompt = s->tokens.n;
    s->slot = slot;
    s->stop_token = -1;
    for (size_t i = 0; i < s->n_prompt; i++) sampler_accept(s->sampler, s->tokens.id[i]);
    return s;
}

static void free_logprobs(sequence *s)
{
    for (size_t i = 0; i < s->n_logprob; i++) {
        free((char *)s->logprob[i].token_text);
        free((sample_candidate *)s->logprob[i].top);
    }
    free(s->logprob);
}

void sequence_free(sequence *s)
{
    if (!s) return;
    free_logprobs(s);
    sampler_free(s->sampler);
    request_clear(&s->req);
    free(s->tokens.id);
    free(s->pages);
    free(s->text);
    free(s->gap_ms);
    free(s);
}

static int append_text(sequence *s, const char *bytes, size_t n, pr_err *err)
{
    if (s->text_len + n + 1 > s->text_cap) {
        size_t cap = 2 * (s->text_len + n + 64);
        char *text = realloc(s->text, cap);
        if (!text) return pr_fail(err, PR_ERESOURCE, "out of memory for the text of %s", s->req.id);
        s->text = text;
        s->text_cap = cap;
    }
    memcpy(s->text + s->text_len, bytes, n);
    s->text_len += n;
    s->text[s->text_len] = 0;
    return PR_OK;
}

/* The earliest stop string that ends in the last n_new bytes cuts the text. */
static void apply_stop_strings(sequence *s, size_t n_new)
{
    size_t cut = s->text_len + 1;

    for (size_t i = 0; i < s->req.n_stop; i++) {
        const request_stop *stop = &s->req.stop[i];
        size_t before = n_new + stop->n - 1, from = s->text_len > before ? s->text_len - before : 0;
        const char *hit = memmem(s->text + from, s->text_len - from, stop->text, stop->n);
        if (hit && (size_t)(hit - s->text) < cut) {
            cut = (size_t)(hit - s->text);
            s->stop_string = stop->text;
        }
    }
    if (cut > s->text_len) return;
    s->text_len = cut;
    s->text[cut] = 0;
    s->finish_reason = "stop";
}

static int record_logprob(sequence *s, const float *logits, const vocab *v, int32_t id, const char *piece,
                          size_t n, pr_err *err)
{
    size_t n_top = (size_t)s->req.top_logprobs;
    token_logprob *lp = &s->logprob[s->n_logprob];
    sample_candidate *top = malloc((n_top + 1) * sizeof *top);
    char *text = malloc(n + 1);

    if (!top || !text) {
        free(top);
        free(text);
        return pr_fail(err, PR_ERESOURCE, "out of memory for log-probabilities");
    }
    memcpy(text, piece, n);
    text[n] = 0;
    *lp = (token_logprob){text, n, sample_logprobs(logits, vocab_size(v), id, top, n_top), top, n_top};
    s->n_logprob++;
    // cppcheck-suppress memleak ; free_logprobs frees text through *lp
    return PR_OK;
}

static void record_time(sequence *s, uint64_t now_ns)
{
    if (!s->times.first_token_ns) s->times.first_token_ns = now_ns;
    else s->gap_ms[s->n_gaps++] = (double)(now_ns - s->times.last_token_ns) / 1e6;
    s->times.last_token_ns = now_ns;
}

int sequence_sample(sequence *s, const vocab *v, const float *logits, const int32_t *eog, size_t n_eog,
                    uint64_t now_ns, pr_err *err)
{
    int32_t id = sampler_next(s->sampler, logits, eog, s->req.ignore_eos ? n_eog : 0);
    char piece[PIECE_MAX];
    size_t n = vocab_piece(v, id, false, piece, sizeof piece);
    int rc;

    if (n > sizeof piece) n = sizeof piece;
    token_list_push(&s->tokens, id);
    sampler_accept(s->sampler, id);
    record_time(s, now_ns);
    if (vocab_is_eog(v, id)) {
        s->finish_reason = "stop";
        s->stop_token = id;
        return PR_OK;
    }
    if (s->req.logprobs && (rc = record_logprob(s, logits, v, id, piece, n, err))) return rc;
    if ((rc = append_text(s, piece, n, err))) return rc;
    apply_stop_strings(s, n);
    if (!s->finish_reason && sequence_n_completion(s) >= s->req.max_tokens) s->finish_reason = "length";
    return PR_OK;
}

completion sequence_completion(sequence *s)
{
    size_t n = s->n_gaps;

    s->times.slot = s->slot;
    s->times.prompt_tokens = s->n_prompt;
    s->times.cached_prompt_tokens = s->n_cached;
    s->times.completion_tokens = sequence_n_completion(s);
    s->times.itl_p50_ms = timings_percentile(s->gap_ms, n, 50);
    s->times.itl_p95_ms = timings_percentile(s->gap_ms, n, 95);
    s->times.itl_p99_ms = timings_percentile(s->gap_ms, n, 99);
    s->times.itl_max_ms = timings_percentile(s->gap_ms, n, 100);
    return (completion){.text = s->text ? s->text : "",
                        .text_len = s->text_len,
                        .finish_reason = s->finish_reason,
                        .stop_string = s->stop_string,
                        .stop_token = s->stop_token,
                        .logprob = s->logprob,
                        .n_logprob = s->n_logprob};
}
