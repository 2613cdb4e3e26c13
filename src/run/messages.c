/* Chat messages -> the text of the prompt.
 *
 * Contents are strings, or arrays of {"type":"text","text":...} parts as the OpenAI API has them, which are
 * joined. Like llama.cpp, the rendered text is tokenised as one: a message that spells out a control token of
 * the model ("<|im_end|>") gets that token. Whoever puts foreign text into prompts should know. */
#include "src/run/request.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A chat_message and what of it is not borrowed from the JSON. */
typedef struct {
    chat_message *msg;
    char **joined; /* [n] NULL where the content is one string */
    size_t n;
} conversation;

static void conversation_clear(conversation *c)
{
    for (size_t i = 0; c->joined && i < c->n; i++) free(c->joined[i]);
    free(c->joined);
    free(c->msg);
}

__attribute__((format(printf, 5, 6))) static bool bad_at(request *r, request_code code, size_t i,
                                                         const char *key, const char *fmt, ...)
{
    char param[64], what[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(param, sizeof param, "messages[%zu]%s%s", i, *key ? "." : "", key);
    return request_bad(r, code, param, "%s %s", param, what);
}

/* Keys that exported conversations carry along; null changes nothing. */
static bool is_nullable(const char *key)
{
    static const char *const names[] = {"name",       "refusal",       "audio",
                                        "tool_calls", "function_call", "annotations"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(key, names[i])) return true;
    return false;
}

static bool check_keys(request *r, const json_t *message, size_t i, bool lenient)
{
    json_t *object = (json_t *)message; /* jansson's iterators take no const; nothing is changed */
    request_value shown;

    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        if (!strcmp(key, "role") || !strcmp(key, "content")) continue;
        if (is_nullable(key)) {
            if (json_is_null(json_object_iter_value(it))) continue;
            return bad_at(r, REQ_UNSUPPORTED_PARAMETER, i, key, "is not supported (accepted is only null)");
        }
        if (!lenient)
            return bad_at(r, REQ_UNKNOWN_PARAMETER, i, request_shown(key, &shown),
                          "is unknown; --lenient ignores such");
    }
    return true;
}

static const char *role_of(request *r, const json_t *message, size_t i)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const json_t *v = json_object_get(message, "role");
    request_value found;

    for (size_t k = 0; json_is_string(v) && k < sizeof roles / sizeof *roles; k++)
        if (json_string_length(v) == strlen(roles[k]) && !strcmp(json_string_value(v), roles[k]))
            return roles[k];
    if (!v) bad_at(r, REQ_MISSING_FIELD, i, "role", "is missing");
    else
        bad_at(r, REQ_INVALID_VALUE, i, "role", "must be system, user or assistant, found %s",
               request_found(v, &found));
    return NULL;
}

/* The texts of the parts, joined; *n is their length. */
static char *join_parts(request *r, const json_t *parts, size_t i, size_t *n)
{
    char *text, *end;
    request_value found;

    *n = 0;
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *part = json_array_get(parts, k), *type = json_object_get(part, "type"),
                     *v = json_object_get(part, "text");
        if (json_is_string(type) && strcmp(json_string_value(type), "text") != 0) {
            bad_at(r, REQ_UNSUPPORTED_PARAMETER, i, "content",
                   "has a part of type %s; only text is supported", request_found(type, &found));
            return NULL;
        }
        if (!json_is_string(type) || !json_is_string(v)) {
            bad_at(r, REQ_INVALID_VALUE, i, "content",
                   "part %zu must be {\"type\": \"text\", \"text\": \"...\"}", k);
            return NULL;
        }
        *n += json_string_length(v);
    }
    if (!(text = end = malloc(*n + 1))) {
        request_bad(r, REQ_INTERNAL, "messages", "out of memory");
        return NULL;
    }
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *v = json_object_get(json_array_get(parts, k), "text");
        memcpy(end, json_string_value(v), json_string_length(v));
        end += json_string_length(v);
    }
    *end = 0;
    return text;
}

static bool read_message(request *r, const json_t *message, size_t i, bool lenient, chat_message *m,
                         char **joined)
{
    const json_t *content = json_object_get(message, "content");
    request_value found;

    if (!json_is_object(message))
        return bad_at(r, REQ_INVALID_VALUE, i, "", "must be an object, found %s",
                      request_found(message, &found));
    if (!check_keys(r, message, i, lenient) || !(m->role = role_of(r, message, i))) return false;
    if (!content) return bad_at(r, REQ_MISSING_FIELD, i, "content", "is missing");
    if (json_is_array(content)) {
        m->content = *joined = join_parts(r, content, i, &m->content_len);
        return *joined != NULL;
    }
    if (!json_is_string(content))
        return bad_at(r, REQ_INVALID_VALUE, i, "content", "must be a string, found %s",
                      request_found(content, &found));
    m->content = json_string_value(content);
    m->content_len = json_string_length(content);
    return true;
}

static bool render(request *r, const conversation *c, const prompts_options *o, char **text, size_t *n)
{
    pr_err err = {0};
    int rc;

    if (o->chat == CHAT_UNKNOWN)
        return request_bad(
            r, REQ_TEMPLATE_UNKNOWN, "messages",
            "the model's chat template is not one that prima knows; name one with --chat-template");
    rc = chat_apply(o->chat, c->msg, c->n, true, text, n, &err);
    if (!rc) return true;
    return request_bad(r, rc == PR_EUSAGE ? REQ_INVALID_VALUE : REQ_INTERNAL, "messages", "%s", err.msg);
}

bool messages_read(request *r, const json_t *messages, const prompts_options *o, char **text, size_t *n)
{
    conversation c = {.n = json_array_size(messages)};
    request_value found;
    bool ok = true;

    if (!json_is_array(messages) || c.n == 0)
        return request_bad(r, REQ_INVALID_VALUE, "messages",
                           "messages must be an array of messages, found %s",
                           json_is_array(messages) ? "an empty one" : request_found(messages, &found));
    c.msg = calloc(c.n, sizeof *c.msg);
    c.joined = calloc(c.n, sizeof *c.joined);
    if (!c.msg || !c.joined) ok = request_bad(r, REQ_INTERNAL, "messages", "out of memory");
    for (size_t i = 0; ok && i < c.n; i++)
        ok = read_message(r, json_array_get(messages, i), i, o->lenient, &c.msg[i], &c.joined[i]);
    ok = ok && render(r, &c, o, text, n);
    conversation_clear(&c);
    return ok;
}
