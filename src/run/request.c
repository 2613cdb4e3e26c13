/* One line -> one request: UTF-8, JSON, which of the two shapes, its id, its settings, its prompt in tokens,
 * and whether they fit the context. The first thing wrong ends it. What can be known in spite of that (the
 * id, the shape, the metadata) is kept, so that the error record can be matched with its line. */
#include "src/run/request.h"
#include "src/base/utf8.h"
#include "src/run/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *request_code_name(request_code c)
{
    static const char *const names[] = {
        [REQ_OK] = "ok",
        [REQ_INVALID_JSON] = "invalid_json",
        [REQ_INVALID_UTF8] = "invalid_utf8",
        [REQ_MISSING_FIELD] = "missing_field",
        [REQ_INVALID_VALUE] = "invalid_value",
        [REQ_UNKNOWN_PARAMETER] = "unknown_parameter",
        [REQ_UNSUPPORTED_PARAMETER] = "unsupported_parameter",
        [REQ_CONTEXT_LENGTH_EXCEEDED] = "context_length_exceeded",
        [REQ_TEMPLATE_UNKNOWN] = "template_unknown",
        [REQ_INTERNAL] = "internal",
    };
    return names[c];
}

static void clear_settings(request *r)
{
    free(r->tokens.id);
    for (size_t i = 0; i < r->n_stop; i++) free(r->stop[i].text);
    free(r->stop);
    r->tokens = (token_list){0};
    r->stop = NULL;
    r->n_stop = r->max_tokens = 0;
    r->sampling = (sample_params){0};
    r->ignore_eos = r->logprobs = false;
    r->top_logprobs = 0;
}

void request_clear(request *r)
{
    clear_settings(r);
    free(r->id);
    json_decref(r->metadata);
    memset(r, 0, sizeof *r);
}

/* Whole characters and no control characters: it goes to terminals. */
static void tidy(char *s)
{
    text_trim(s);
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F) *s = '?';
}

bool request_bad(request *r, request_code code, const char *param, const char *fmt, ...)
{
    va_list ap;

    r->error.code = code;
    snprintf(r->error.param, sizeof r->error.param, "%s", param);
    va_start(ap, fmt);
    vsnprintf(r->error.message, sizeof r->error.message, fmt, ap);
    va_end(ap);
    tidy(r->error.param);
    tidy(r->error.message);
    return false;
}

const char *request_shown(const char *text, request_value *buf)
{
    snprintf(buf->text, sizeof buf->text - 6, "%s", text);
    tidy(buf->text);
    if (strlen(text) > strlen(buf->text)) strcat(buf->text, "...");
    return buf->text;
}

const char *request_found(const json_t *v, request_value *buf)
{
    request_value inner;

    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    case JSON_INTEGER:
        snprintf(buf->text, sizeof buf->text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return buf->text;
    case JSON_REAL: snprintf(buf->text, sizeof buf->text, "%g", json_real_value(v)); return buf->text;
    case JSON_STRING: break;
    }
    snprintf(buf->text, sizeof buf->text, "\"%.44s\"", request_shown(json_string_value(v), &inner));
    return buf->text;
}

/* The id, when the line has one that can be used; else line-N and, when there is one that cannot, an error.
 */
static bool read_id(request *r, const json_t *root)
{
    const char *key = r->openai ? "custom_id" : "id";
    const json_t *v = root ? json_object_get(root, key) : NULL;
    size_t n = json_is_string(v) ? json_string_length(v) : 0;
    request_value found;

    if (n >= 1 && n <= REQUEST_ID_MAX && strlen(json_string_value(v)) == n) {
        r->id = strdup(json_string_value(v));
        return r->id || request_bad(r, REQ_INTERNAL, key, "out of memory");
    }
    if ((r->id = malloc(32))) snprintf(r->id, 32, "line-%zu", r->line);
    if (!r->id) return request_bad(r, REQ_INTERNAL, key, "out of memory");
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(v))
        return request_bad(r, REQ_INVALID_VALUE, key, "%s must be a string, found %s", key,
                           request_found(v, &found));
    return request_bad(r, REQ_INVALID_VALUE, key, "%s must have 1 to %d bytes and no NUL, found %zu bytes",
                       key, REQUEST_ID_MAX, n);
}

/* Kept first, whatever is wrong with the line. */
static void keep_metadata(request *r, const json_t *body)
{
    json_t *v = json_object_get(body, "metadata");

    if (json_is_object(v)) r->metadata = json_incref(v);
}

static bool check_metadata(request *r, const json_t *body)
{
    const json_t *v = json_object_get(body, "metadata");
    request_value found;

    if (!v || json_is_null(v) || json_is_object(v)) return true;
    return request_bad(r, REQ_INVALID_VALUE, "metadata", "metadata must be an object, found %s",
                       request_found(v, &found));
}

static bool expect_text(request *r, const json_t *root, const char *key, const char *const allowed[2],
                        const char *what)
{
    const json_t *v = json_object_get(root, key);
    request_value found;

    if (!v) return request_bad(r, REQ_MISSING_FIELD, key, "%s is missing; it must be %s", key, what);
    for (int i = 0; i < 2 && allowed[i]; i++)
        if (json_is_string(v) && !strcmp(json_string_value(v), allowed[i])) return true;
    return request_bad(r, REQ_INVALID_VALUE, key, "%s must be %s, found %s", key, what,
                       request_found(v, &found));
}

/* The keys around `body`, as the OpenAI batch format has them. */
static bool check_envelope(request *r, json_t *root, bool lenient)
{
    static const char *const methods[2] = {"POST"}, *const urls[2] = {"/v1/chat/completions",
                                                                      "/v1/completions"};
    const json_t *body = json_object_get(root, "body");
    request_value found;

    for (void *it = json_object_iter(root); it && !lenient; it = json_object_iter_next(root, it)) {
        const char *key = json_object_iter_key(it);
        if (strcmp(key, "custom_id") && strcmp(key, "method") && strcmp(key, "url") && strcmp(key, "body"))
            return request_bad(r, REQ_UNKNOWN_PARAMETER, key,
                               "unknown key %s beside body; --lenient ignores such",
                               request_shown(key, &found));
    }
    if (!expect_text(r, root, "method", methods, "POST")) return false;
    if (!expect_text(r, root, "url", urls, "/v1/chat/completions or /v1/completions")) return false;
    if (!json_is_object(body))
        return request_bad(r, REQ_INVALID_VALUE, "body", "body must be an object, found %s",
                           request_found(body, &found));
    r->chat = !strcmp(json_string_value(json_object_get(root, "url")), urls[0]);
    return true;
}

/* prompt xor messages, and the one that the url asks for. */
static bool check_content(request *r, const json_t *body)
{
    const json_t *prompt = json_object_get(body, "prompt"), *messages = json_object_get(body, "messages");
    request_value found;

    if (prompt && messages)
        return request_bad(r, REQ_INVALID_VALUE, "prompt",
                           "prompt and messages exclude each other; give one of them");
    if (!r->openai) r->chat = messages != NULL;
    if (!r->openai && !prompt && !messages)
        return request_bad(r, REQ_MISSING_FIELD, "prompt", "prompt or messages is missing");
    if (r->chat && !messages)
        return request_bad(r, REQ_MISSING_FIELD, "messages",
                           "messages is missing; /v1/chat/completions needs it");
    if (!r->chat && !prompt)
        return request_bad(r, REQ_MISSING_FIELD, "prompt", "prompt is missing; /v1/completions needs it");
    if (!r->chat && !json_is_string(prompt))
        return request_bad(r, REQ_INVALID_VALUE, "prompt", "prompt must be a string, found %s",
                           request_found(prompt, &found));
    return true;
}

/* Special tokens are added as the model asks for them, and recognised where the text spells them out, as
 * llama.cpp's server does; but never two BOS (a template or the text may bring its own), and no EOS behind a
 * text that is to be continued. */
static bool tokenise(request *r, const char *text, size_t n, const vocab *v)
{
    pr_err err = {0};
    token_list *t = &r->tokens;
    int32_t bos = vocab_bos(v);

    if (vocab_encode(v, text, n, true, true, t, &err))
        return request_bad(r, REQ_INTERNAL, r->chat ? "messages" : "prompt", "%s", err.msg);
    if (vocab_add_bos(v) && t->n >= 2 && t->id[0] == bos && t->id[1] == bos)
        memmove(t->id, t->id + 1, --t->n * sizeof *t->id);
    if (vocab_add_eos(v) && t->n >= 1 && t->id[t->n - 1] == vocab_eos(v)) t->n--;
    return t->n > 0 || request_bad(r, REQ_INVALID_VALUE, r->chat ? "messages" : "prompt",
                                   "the prompt is empty, and this model begins with no token of its own");
}

/* A line that names max_tokens is refused when that does not fit, as the OpenAI API does; the default
 * shrinks. */
static bool fit(request *r, const prompts_options *o, bool max_tokens_given)
{
    size_t room = o->n_ctx > r->tokens.n ? o->n_ctx - r->tokens.n : 0;

    if (o->max_tokens > 0 && r->max_tokens > o->max_tokens) r->max_tokens = o->max_tokens;
    if (room == 0)
        return request_bad(
            r, REQ_CONTEXT_LENGTH_EXCEEDED, r->chat ? "messages" : "prompt",
            "the prompt has %zu tokens, max_tokens is %zu and the context (n_ctx) %zu: the prompt may have "
            "at most %zu",
            r->tokens.n, r->max_tokens, o->n_ctx, o->n_ctx > 0 ? o->n_ctx - 1 : 0);
    if (r->max_tokens <= room) return true;
    if (max_tokens_given)
        return request_bad(
            r, REQ_CONTEXT_LENGTH_EXCEEDED, "max_tokens",
            "the prompt has %zu tokens, max_tokens is %zu and the context (n_ctx) %zu: max_tokens may be at "
            "most %zu",
            r->tokens.n, r->max_tokens, o->n_ctx, room);
    r->max_tokens = room;
    return true;
}

static bool read_prompt(request *r, const json_t *body, const prompts_options *o, bool max_tokens_given)
{
    const json_t *prompt = json_object_get(body, "prompt");
    char *text = NULL;
    size_t n;
    bool ok;

    if (!r->chat) ok = tokenise(r, json_string_value(prompt), json_string_length(prompt), o->vocab);
    else
        ok = messages_read(r, json_object_get(body, "messages"), o, &text, &n) &&
             tokenise(r, text, n, o->vocab);
    free(text);
    return ok && fit(r, o, max_tokens_given);
}

static bool read_root(request *r, json_t *root, const prompts_options *o)
{
    bool max_tokens_given = false;
    const json_t *body;
    request_value found;

    r->openai = json_object_get(root, "body") != NULL;
    body = r->openai ? json_object_get(root, "body") : root;
    keep_metadata(r, body);
    if (!read_id(r, root)) return false;
    if (!json_is_object(root))
        return request_bad(r, REQ_INVALID_JSON, "", "the line must be a JSON object, found %s",
                           request_found(root, &found));
    if (r->openai && !check_envelope(r, root, o->lenient)) return false;
    return check_metadata(r, body) && check_content(r, body) && fields_read(r, body, o, &max_tokens_given) &&
           read_prompt(r, body, o, max_tokens_given);
}

void request_parse(request *r, const char *text, size_t n, const prompts_options *o)
{
    pr_err err = {0};
    size_t valid = utf8_valid(text, n);
    json_t *root = NULL;

    if (valid < n) {
        if (read_id(r, NULL))
            request_bad(r, REQ_INVALID_UTF8, "", "byte %zu of the line is not UTF-8", valid + 1);
    } else if (!(root = json_parse(text, n, &err))) {
        if (read_id(r, NULL)) request_bad(r, REQ_INVALID_JSON, "", "%s", err.msg);
    } else if (!read_root(r, root, o)) {
        clear_settings(r);
    }
    json_decref(root);
}
