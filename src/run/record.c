/* Lines of the completions file, in the shape of their input line (conventions 9).
 *
 * The shapes are spelled out as jansson pack formats, so that each can be compared with the conventions at a
 * glance. */
#include "src/run/record.h"
#include "src/base/utf8.h"
#include "src/run/text.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    if (!from_ns || !to_ns) return NAN;
    return to_ns >= from_ns ? (double)(to_ns - from_ns) / 1e6 : -((double)(from_ns - to_ns) / 1e6);
}

request_rates request_rates_of(const request_times *t)
{
    request_rates r = {.tpot_ms = NAN, .prefill_tps = NAN, .decode_tps = NAN};
    double decode_ms = ms_between(t->first_token_ns, t->last_token_ns);

    r.start_ms = ms_between(t->run_start_ns, t->admitted_ns);
    r.queue_ms = ms_between(t->eligible_ns, t->admitted_ns);
    r.ttft_ms = ms_between(t->admitted_ns, t->first_token_ns);
    r.e2e_ms = ms_between(t->admitted_ns, t->last_token_ns);
    if (r.ttft_ms > 0 && t->prompt_tokens >= t->cached_prompt_tokens)
        r.prefill_tps = (double)(t->prompt_tokens - t->cached_prompt_tokens) / (r.ttft_ms / 1e3);
    if (t->completion_tokens >= 2) {
        r.tpot_ms = decode_ms / (double)(t->completion_tokens - 1);
        if (decode_ms > 0) r.decode_tps = (double)(t->completion_tokens - 1) / (decode_ms / 1e3);
    }
    return r;
}

static json_t *number_or_null(double v)
{
    return isfinite(v) ? json_fixed(v, 3) : json_null();
}

static json_t *timings_of(const request_times *t)
{
    request_rates r = request_rates_of(t);

    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "queue_ms", number_or_null(r.queue_ms), "ttft_ms",
                     number_or_null(r.ttft_ms), "tpot_ms", number_or_null(r.tpot_ms), "e2e_ms",
                     number_or_null(r.e2e_ms), "prefill_tps", number_or_null(r.prefill_tps), "decode_tps",
                     number_or_null(r.decode_tps));
}

static json_t *usage_of(const request_times *t)
{
    return json_pack("{s:I,s:I,s:I}", "prompt_tokens", (json_int_t)t->prompt_tokens, "completion_tokens",
                     (json_int_t)t->completion_tokens, "total_tokens",
                     (json_int_t)(t->prompt_tokens + t->completion_tokens));
}

static json_t *stop_reason_of(const completion *c)
{
    if (c->stop_string) return text_json(c->stop_string, strlen(c->stop_string));
    return c->stop_token >= 0 ? json_integer(c->stop_token) : json_null();
}

/* --- log-probabilities ----------------------------------------------------------------------- */

/* JSON has no infinity; -9999 stands for it, as in the OpenAI API. */
static json_t *logprob_of(float v)
{
    return json_fixed(v >= -9999 ? (double)v : -9999, 6);
}

/* Bytes of a token, control tokens written out; buf grows as needed. */
typedef struct {
    char *p;
    size_t n, cap;
} piece;

static bool read_piece(piece *b, const vocab *v, int32_t id)
{
    b->n = vocab_piece(v, id, true, b->p, b->cap);
    if (b->n > b->cap) {
        char *bigger = realloc(b->p, b->n);
        if (!bigger) return false;
        b->p = bigger;
        b->cap = b->n;
        vocab_piece(v, id, true, b->p, b->cap);
    }
    return true;
}

static json_t *chat_token(const char *text, size_t n, float logprob)
{
    json_t *bytes = json_array();

    for (size_t i = 0; bytes && i < n; i++)
        if (json_array_append_new(bytes, json_integer((unsigned char)text[i]))) {
            json_decref(bytes);
            return NULL;
        }
    return json_pack("{s:o,s:o,s:o}", "token", text_json(text, n), "logprob", logprob_of(logprob), "bytes",
                     bytes);
}

/* {"content":[{token, logprob, bytes, top_logprobs:[{token, logprob, bytes}]}]} */
static json_t *chat_logprobs(const completion *c, const vocab *v)
{
    json_t *content = json_array();
    piece buf = {0};
    bool ok = content != NULL;

    for (size_t i = 0; ok && i < c->n_logprob; i++) {
        const token_logprob *t = &c->logprob[i];
        json_t *token = chat_token(t->token_text, t->token_len, t->logprob), *top = json_array();
        for (size_t k = 0; ok && k < t->n_top; k++)
            ok = read_piece(&buf, v, t->top[k].id) &&
                 !json_array_append_new(top, chat_token(buf.p, buf.n, t->top[k].logprob));
        ok = !json_object_set_new(token, "top_logprobs", top) && ok;
        ok = !json_array_append_new(content, token) && ok;
    }
    free(buf.p);
    if (ok) return json_pack("{s:o}", "content", content);
    json_decref(content);
    return NULL;
}

/* A token as a JSON object's key: its text or, when it is part of a character only, "bytes:\xe2\x80" as the
 * OpenAI API writes it (so that different tokens stay different keys). */
static char *key_of(const char *text, size_t n)
{
    bool whole = utf8_valid(text, n) == n && !memchr(text, 0, n);
    char *key = malloc(whole ? n + 1 : 4 * n + sizeof "bytes:"), *end = key;

    if (!key) return NULL;
    if (whole) {
        memcpy(key, text, n);
        key[n] = 0;
        return key;
    }
    end += sprintf(end, "bytes:");
    for (size_t i = 0; i < n; i++) end += sprintf(end, "\\x%02x", (unsigned char)text[i]);
    return key;
}

/* {token: logprob} of the best; of equal keys the first, which is the better, stays. */
static json_t *top_map(const token_logprob *t, const vocab *v, piece *buf)
{
    json_t *map = json_object();
    bool ok = map != NULL;

    for (size_t k = 0; ok && k < t->n_top; k++) {
        char *key = read_piece(buf, v, t->top[k].id) ? key_of(buf->p, buf->n) : NULL;
        ok = key &&
             (json_object_get(map, key) || !json_object_set_new(map, key, logprob_of(t->top[k].logprob)));
        free(key);
    }
    if (ok) return map;
    json_decref(map);
    return NULL;
}

/* {"tokens":[...],"token_logprobs":[...],"top_logprobs":[{token: logprob}] or null} */
static json_t *text_logprobs(const completion *c, const vocab *v, bool with_top)
{
    json_t *tokens = json_array(), *values = json_array(), *top = with_top ? json_array() : json_null();
    piece buf = {0};
    bool ok = tokens && values && top;

    for (size_t i = 0; ok && i < c->n_logprob; i++) {
        const token_logprob *t = &c->logprob[i];
        char *key = key_of(t->token_text, t->token_len);
        ok = key && !json_array_append_new(tokens, json_string(key)) &&
             !json_array_append_new(values, logprob_of(t->logprob)) &&
             (!with_top || !json_array_append_new(top, top_map(t, v, &buf)));
        free(key);
    }
    free(buf.p);
    if (ok)
        return json_pack("{s:o,s:o,s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", top);
    json_decref(tokens);
    json_decref(values);
    json_decref(top);
    return NULL;
}

static json_t *logprobs_of(const request *r, const completion *c, const vocab *v)
{
    if (!r->logprobs) return json_null();
    return r->chat ? chat_logprobs(c, v) : text_logprobs(c, v, r->top_logprobs > 0);
}

/* --- shapes ---------------------------------------------------------------------------------- */

/* {"index":0,"message":{...}|"text":...,"logprobs":...,"finish_reason":...} */
static json_t *choice_of(const record_facts *f, const request *r, const completion *c)
{
    json_t *text = text_json(c->text, c->text_len), *logprobs = logprobs_of(r, c, f->vocab);

    if (r->chat)
        return json_pack("{s:i,s:{s:s,s:o},s:o,s:s}", "index", 0, "message", "role", "assistant", "content",
                         text, "logprobs", logprobs, "finish_reason", c->finish_reason);
    return json_pack("{s:i,s:o,s:o,s:s}", "index", 0, "text", text, "logprobs", logprobs, "finish_reason",
                     c->finish_reason);
}

static json_t *openai_body(const record_facts *f, const request *r, const completion *c,
                           const request_times *t)
{
    return json_pack("{s:s,s:I,s:o,s:[o],s:o}", "object", r->chat ? "chat.completion" : "text_completion",
                     "created", (json_int_t)f->created_s, "model",
                     text_json(f->model_name, strlen(f->model_name)), "choices", choice_of(f, r, c), "usage",
                     usage_of(t));
}

/* c and t NULL: an error line. */
static json_t *openai_line(const record_facts *f, const request *r, const completion *c,
                           const request_times *t, json_t *error)
{
    json_t *response = json_null();
    char id[64], request_id[64];

    snprintf(id, sizeof id, "prima-%s-%zu", f->run_id, r->index);
    snprintf(request_id, sizeof request_id, "req-%s-%zu", f->run_id, r->index);
    if (c)
        response = json_pack("{s:i,s:s,s:o}", "status_code", 200, "request_id", request_id, "body",
                             openai_body(f, r, c, t));
    return json_pack("{s:s,s:s,s:o,s:o,s:{s:s,s:o,s:O*,s:o}}", "id", id, "custom_id", r->id, "response",
                     response, "error", error, "prima", "input_sha256", r->input_sha256, "stop_reason",
                     c ? stop_reason_of(c) : json_null(), "metadata", r->metadata, "timings",
                     t ? timings_of(t) : json_null());
}

static json_t *plain_line(const record_facts *f, const request *r, const completion *c,
                          const request_times *t, json_t *error)
{
    json_t *line = json_pack("{s:s,s:o,s:o,s:o,s:o}", "id", r->id, "text",
                             c ? text_json(c->text, c->text_len) : json_null(), "finish_reason",
                             c ? json_string(c->finish_reason) : json_null(), "stop_reason",
                             c ? stop_reason_of(c) : json_null(), "usage", t ? usage_of(t) : json_null());
    json_t *rest = json_pack("{s:s,s:O*,s:o,s:o}", "input_sha256", r->input_sha256, "metadata", r->metadata,
                             "error", error, "timings", t ? timings_of(t) : json_null());
    bool ok = line && rest;

    if (ok && c && r->logprobs) ok = !json_object_set_new(line, "logprobs", logprobs_of(r, c, f->vocab));
    if (ok) ok = !json_object_update(line, rest);
    json_decref(rest);
    if (ok) return line;
    json_decref(line);
    return NULL;
}

/* The text of v, which is taken over, and a line end. */
static char *finish(json_t *v)
{
    char *text = v ? json_line(v) : NULL, *line = NULL;
    size_t n = text ? strlen(text) : 0;

    json_decref(v);
    if (text) line = realloc(text, n + 2);
    if (line) memcpy(line + n, "\n", 2);
    else free(text);
    return line;
}

char *record_completion(const record_facts *f, const request *r, const completion *c, const request_times *t)
{
    return finish(r->openai ? openai_line(f, r, c, t, json_null()) : plain_line(f, r, c, t, json_null()));
}

char *record_error(const record_facts *f, const request *r)
{
    json_t *param = *r->error.param ? json_string(r->error.param) : json_null();
    json_t *error = json_pack("{s:s,s:s,s:o,s:I}", "code", request_code_name(r->error.code), "message",
                              r->error.message, "param", param, "line", (json_int_t)r->line);

    return finish(r->openai ? openai_line(f, r, NULL, NULL, error) : plain_line(f, r, NULL, NULL, error));
}
