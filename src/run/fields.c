/* The settings of a request (conventions 8): one table for numbers with their ranges, one for parameters of
 * the OpenAI API that are taken only with the value that changes nothing, and a function for each of the
 * others.
 *
 * null means "not given" everywhere, because clients like to write out every field. Keys are looked at in the
 * order of the line and the first thing wrong is the one reported. */
#include "src/base/hash.h"
#include "src/run/request.h"
#include <stdlib.h>
#include <string.h>

/* What the line says itself. */
typedef struct {
    bool max_tokens;
    int logprobs;     /* as a number; -1: not so */
    int top_logprobs; /* -1: not at all */
} given;

typedef struct {
    const char *name;
    size_t at; /* of the float in request */
    double lo, hi;
    bool above_lo, below_hi; /* lo, hi themselves are excluded */
} real_field;

#define AT(member) offsetof(request, sampling.member)
static const real_field real_fields[] = {
    {"temperature", AT(temperature), 0, 100, false, false},
    {"top_p", AT(top_p), 0, 1, true, false},
    {"min_p", AT(min_p), 0, 1, false, true},
    {"repeat_penalty", AT(repeat_penalty), 0, 100, true, false},
    {"presence_penalty", AT(presence_penalty), -2, 2, false, false},
    {"frequency_penalty", AT(frequency_penalty), -2, 2, false, false},
};

/* Two names for one setting. */
static const struct {
    const char *name, *means;
} synonyms[] = {
    {"max_completion_tokens", "max_tokens"},
    {"repetition_penalty", "repeat_penalty"},
};

/* Parameters that prima has no other value of; as compact JSON. NULL: any value, because it never matters. */
static const struct {
    const char *name, *neutral[3];
} neutral_fields[] = {
    {"model", {NULL}},
    {"user", {NULL}},
    {"n", {"1"}},
    {"best_of", {"1"}},
    {"stream", {"false"}},
    {"stream_options", {"{}"}},
    {"echo", {"false"}},
    {"suffix", {"\"\""}},
    {"tools", {"[]"}},
    {"tool_choice", {"\"none\"", "\"auto\""}},
    {"parallel_tool_calls", {"true", "false"}},
    {"functions", {"[]"}},
    {"function_call", {"\"none\"", "\"auto\""}},
    {"response_format", {"{\"type\":\"text\"}"}},
    {"logit_bias", {"{}"}},
    {"modalities", {"[\"text\"]"}},
    {"store", {"false"}},
    {"service_tier", {"\"auto\"", "\"default\""}},
};

static bool integer_in(request *r, const char *name, const json_t *v, json_int_t lo, json_int_t hi,
                       json_int_t *out)
{
    request_value buf;

    if (!json_is_integer(v) || json_integer_value(v) < lo || json_integer_value(v) > hi)
        return request_bad(r, REQ_INVALID_VALUE, name,
                           "%s must be an integer from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT
                           ", found %s",
                           name, lo, hi, request_found(v, &buf));
    *out = json_integer_value(v);
    return true;
}

static bool boolean(request *r, const char *name, const json_t *v, bool *out)
{
    request_value buf;

    if (!json_is_boolean(v))
        return request_bad(r, REQ_INVALID_VALUE, name, "%s must be true or false, found %s", name,
                           request_found(v, &buf));
    *out = json_is_true(v);
    return true;
}

static bool set_real(request *r, const char *name, const json_t *v, const real_field *f)
{
    request_value buf;
    double x = json_number_value(v);
    float narrow = (float)x;

    if (!json_is_number(v) || !(f->above_lo ? x > f->lo : x >= f->lo) ||
        !(f->below_hi ? x < f->hi : x <= f->hi))
        return request_bad(r, REQ_INVALID_VALUE, name, "%s must be a number from %g%s to %g%s, found %s",
                           name, f->lo, f->above_lo ? " (not itself)" : "", f->hi,
                           f->below_hi ? " (not itself)" : "", request_found(v, &buf));
    memcpy((char *)r + f->at, &narrow, sizeof narrow);
    return true;
}

static bool add_stop(request *r, const json_t *v)
{
    size_t n = json_string_length(v);
    request_value buf;
    request_stop *s = &r->stop[r->n_stop];

    if (!json_is_string(v) || n == 0)
        return request_bad(r, REQ_INVALID_VALUE, "stop",
                           "stop strings must be strings that are not empty, found %s",
                           request_found(v, &buf));
    if (!(s->text = malloc(n + 1))) return request_bad(r, REQ_INTERNAL, "stop", "out of memory");
    memcpy(s->text, json_string_value(v), n);
    s->text[n] = 0;
    s->n = n;
    r->n_stop++;
    return true;
}

static bool set_stop(request *r, const char *name, const json_t *v, given *g)
{
    enum { MAX = 16 };
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    request_value buf;

    (void)g;
    if (!json_is_array(v) && !json_is_string(v))
        return request_bad(r, REQ_INVALID_VALUE, name,
                           "stop must be a string or an array of strings, found %s", request_found(v, &buf));
    if (n > MAX)
        return request_bad(r, REQ_INVALID_VALUE, name, "stop may have at most %d strings, found %zu", MAX, n);
    if (n > 0 && !(r->stop = calloc(n, sizeof *r->stop)))
        return request_bad(r, REQ_INTERNAL, "stop", "out of memory");
    for (size_t i = 0; i < n; i++)
        if (!add_stop(r, json_is_array(v) ? json_array_get(v, i) : v)) return false;
    return true;
}

/* The settings that need more than a range. */
static bool set_max_tokens(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    if (!integer_in(r, name, v, 1, INT64_MAX, &n)) return false;
    r->max_tokens = (uint64_t)n > SIZE_MAX ? SIZE_MAX : (size_t)n;
    g->max_tokens = true;
    return true;
}

static bool set_top_k(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    (void)g;
    if (!integer_in(r, name, v, 0, INT32_MAX, &n)) return false;
    r->sampling.top_k = (int32_t)n;
    return true;
}

static bool set_repeat_last_n(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    (void)g;
    if (!integer_in(r, name, v, -1, INT32_MAX, &n)) return false;
    r->sampling.repeat_last_n = (int32_t)n;
    return true;
}

static bool set_seed(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    (void)g;
    if (!integer_in(r, name, v, 0, INT64_MAX, &n)) return false;
    r->sampling.seed = (uint64_t)n;
    return true;
}

static bool set_ignore_eos(request *r, const char *name, const json_t *v, given *g)
{
    (void)g;
    return boolean(r, name, v, &r->ignore_eos);
}

static bool set_top_logprobs(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    if (!integer_in(r, name, v, 0, 20, &n)) return false;
    g->top_logprobs = (int)n;
    return true;
}

/* true or false; without messages also a number, as /v1/completions has it: that of the alternatives. */
static bool set_logprobs(request *r, const char *name, const json_t *v, given *g)
{
    json_int_t n;

    if (!json_is_integer(v) || r->chat) return boolean(r, name, v, &r->logprobs);
    if (!integer_in(r, name, v, 0, 20, &n)) return false;
    r->logprobs = true;
    g->logprobs = (int)n;
    return true;
}

static const struct {
    const char *name;
    bool (*set)(request *r, const char *name, const json_t *v, given *g);
} other_fields[] = {
    {"max_tokens", set_max_tokens},
    {"top_k", set_top_k},
    {"repeat_last_n", set_repeat_last_n},
    {"seed", set_seed},
    {"stop", set_stop},
    {"logprobs", set_logprobs},
    {"top_logprobs", set_top_logprobs},
    {"ignore_eos", set_ignore_eos},
};

static bool check_neutral(request *r, const char *name, const json_t *v, const char *const accepted[3])
{
    char *text;
    bool same = false;

    if (!accepted[0]) return true;
    if (!(text = json_line(v))) return request_bad(r, REQ_INTERNAL, name, "out of memory");
    for (int i = 0; i < 3 && accepted[i]; i++) same = same || strcmp(text, accepted[i]) == 0;
    free(text);
    if (same) return true;
    return request_bad(r, REQ_UNSUPPORTED_PARAMETER, name,
                       "%s is not supported (accepted is only %s, which changes nothing); remove it", name,
                       accepted[0]);
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* One key of the body. null is "not given", but only for a name that is known. */
static bool field(request *r, const char *name, const json_t *v, const json_t *body, bool lenient, given *g)
{
    const char *means = name;
    request_value shown;

    for (size_t i = 0; i < COUNT(synonyms); i++)
        if (!strcmp(name, synonyms[i].name)) means = synonyms[i].means;
    if (means != name && !json_is_null(v) && json_object_get(body, means) &&
        !json_is_null(json_object_get(body, means)))
        return request_bad(r, REQ_INVALID_VALUE, name, "%s and %s are the same setting; give one of them",
                           name, means);
    for (size_t i = 0; i < COUNT(real_fields); i++)
        if (!strcmp(means, real_fields[i].name))
            return json_is_null(v) || set_real(r, name, v, &real_fields[i]);
    for (size_t i = 0; i < COUNT(other_fields); i++)
        if (!strcmp(means, other_fields[i].name))
            return json_is_null(v) || other_fields[i].set(r, name, v, g);
    for (size_t i = 0; i < COUNT(neutral_fields); i++)
        if (!strcmp(means, neutral_fields[i].name))
            return json_is_null(v) || check_neutral(r, name, v, neutral_fields[i].neutral);
    if (lenient) return true;
    return request_bad(r, REQ_UNKNOWN_PARAMETER, name, "unknown parameter %s; --lenient ignores such",
                       request_shown(name, &shown));
}

/* logprobs and top_logprobs together. */
static bool settle_logprobs(request *r, const given *g)
{
    if (g->top_logprobs > 0 && !r->logprobs)
        return request_bad(r, REQ_INVALID_VALUE, "top_logprobs", "top_logprobs needs logprobs: true");
    if (g->logprobs >= 0 && g->top_logprobs >= 0 && g->logprobs != g->top_logprobs)
        return request_bad(r, REQ_INVALID_VALUE, "top_logprobs",
                           "logprobs asks for %d alternatives, top_logprobs for %d", g->logprobs,
                           g->top_logprobs);
    r->top_logprobs = g->logprobs > g->top_logprobs ? g->logprobs : g->top_logprobs;
    if (r->top_logprobs < 0) r->top_logprobs = 0;
    return true;
}

/* Read elsewhere (request.c). */
static bool is_content(const request *r, const char *name)
{
    return !strcmp(name, "prompt") || !strcmp(name, "messages") || !strcmp(name, "metadata") ||
           (!r->openai && !strcmp(name, "id"));
}

bool fields_read(request *r, const json_t *body, const prompts_options *o, bool *max_tokens_given)
{
    given g = {.logprobs = -1, .top_logprobs = -1};
    json_t *object = (json_t *)body; /* jansson's iterators take no const; nothing is changed */

    r->max_tokens = REQUEST_MAX_TOKENS;
    r->sampling = sample_defaults;
    r->sampling.seed = hash_seed(o->seed, r->id);
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *name = json_object_iter_key(it);
        if (is_content(r, name)) continue;
        if (!field(r, name, json_object_iter_value(it), body, o->lenient, &g)) return false;
    }
    /* No sequence is longer than n_ctx: a window that wide is all of it, and needs no memory of its own. */
    if (r->sampling.repeat_last_n > 0 && (size_t)r->sampling.repeat_last_n >= o->n_ctx)
        r->sampling.repeat_last_n = -1;
    *max_tokens_given = g.max_tokens;
    return settle_logprobs(r, &g);
}
