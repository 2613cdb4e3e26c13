/* The completions file: one final line a request, appended whole, durable, resumable (conventions 9 and 10).
 */
#ifndef PRIMA_RUN_OUTPUT_H
#define PRIMA_RUN_OUTPUT_H
#include "src/run/prompts.h"

/* What a request's life looked like; times are CLOCK_MONOTONIC nanoseconds, 0 = did not happen. */
typedef struct {
    uint64_t run_start_ns, eligible_ns, admitted_ns, first_token_ns, last_token_ns;
    size_t slot;
    size_t prompt_tokens, cached_prompt_tokens, completion_tokens;
    double itl_p50_ms, itl_p95_ms, itl_p99_ms, itl_max_ms; /* NaN when fewer than 2 tokens */
} request_times;
/* Derived figures as conventions 11 define them; NaN = not applicable. */
typedef struct {
    double start_ms, queue_ms, ttft_ms, tpot_ms, e2e_ms, prefill_tps, decode_tps;
} request_rates;
request_rates request_rates_of(const request_times *t);

typedef struct {
    const char *token_text; /* bytes of the token (may be partial UTF-8) */
    size_t token_len;
    float logprob;
    const sample_candidate *top; /* n_top */
    size_t n_top;
} token_logprob;

typedef struct {
    const char *text; /* completion, valid UTF-8 (invalid bytes become U+FFFD when written) */
    size_t text_len;
    const char *finish_reason; /* "stop" | "length" */
    const char *stop_string;   /* matched stop string, or NULL */
    int32_t stop_token;        /* token id that stopped it, or -1 */
    const token_logprob *logprob;
    size_t n_logprob; /* 0 unless asked for */
} completion;

typedef struct {
    const char *path; /* "-" = stdout: no manifest, no resume, no lock */
    const char *input_path, *model_name;
    bool resume, retry_errors, force_resume, ordered, fsync_each;
    uint64_t created_s; /* for the OpenAI shape; 0 in reproducible runs */
    json_t *manifest;   /* facts that must agree on resume: {"model_sha256","plan_sha256","options",...};
                         * an object, borrowed; its keys stand in the manifest beside prima's own */
    json_t *info;       /* facts only noted in the manifest (version, host, ...); borrowed, may be NULL */
    const vocab *vocab; /* to write top_logprobs' token texts */
} output_options;

typedef struct output output;

/* Open or resume (resume without a file starts one). A path that is no regular file (/dev/null, a pipe) is
 * treated like "-". Takes the flock, refuses output == input (PR_EUSAGE), an existing output without resume
 * (PR_EUSAGE), manifest or input_sha256 differences (PR_EMISMATCH, unless force_resume; names the first
 * difference). Cuts a torn last line off into PATH.torn. run_id: 12 hex digits, kept over resume. */
int output_open(output **out, const output_options *o, const prompts *p, pr_err *err);
const char *output_run_id(const output *o);
bool output_done(const output *o, size_t index); /* has a final line from an earlier run (or this one) */
size_t output_count_ok(const output *o);         /* over all runs of this file */
size_t output_count_failed(const output *o);

/* An error line tried again with retry_errors stays in the file: of two lines with one id the later one
 * counts. It is not written again when it fails with the same code. With `ordered` the lines of each run (not
 * those of a run and its resumption) are in input order.
 *
 * One final line, one write(2) (with `ordered`, lines wait in memory for their predecessors). PR_ERESOURCE:
 * disk full etc.; what was written before stays whole (a partial line is cut off again). */
int output_completion(output *o, const request *r, const completion *c, const request_times *t, pr_err *err);
int output_error(output *o, const request *r, pr_err *err); /* from r->error */
/* fdatasync when a second has passed since the last one; call it once per step. */
int output_tick(output *o, pr_err *err);
/* Flush, fsync, unlock, close, free. Lines still waiting for order are written in index order. NULL is fine.
 */
int output_close(output *o, pr_err *err);

#endif
