/* Strict reading and compact writing of JSON.
 *
 * jansson parses; what it allows and we do not is checked here: nesting deeper than 64 (before it recurses).
 * Writing is our own, because jansson 2.14 prints reals with a fixed number of digits: 12.345
 * becomes 12.345000000000001. We print the shortest decimal that reads back as the same double, so a value
 * rounded to three decimals shows three. */
#include "src/base/json.h"
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

/* Offset of the bracket that opens level 65, or n. */
static size_t too_deep_at(const char *text, size_t n)
{
    bool in_string = false;
    size_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MAX_DEPTH) return i;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return n;
}

static int fail_at(pr_err *err, int line, int column, const char *what)
{
    if (line > 1) return pr_fail(err, PR_EUSAGE, "line %d column %d: %s", line, column, what);
    return pr_fail(err, PR_EUSAGE, "column %d: %s", column, what);
}

json_t *json_parse(const char *text, size_t n, pr_err *err)
{
    size_t deep = too_deep_at(text, n);
    json_error_t e;
    json_t *v;

    if (deep < n) {
        int line = 1, column = 1;
        for (size_t i = 0; i < deep; i++) {
            column = text[i] == '\n' ? 1 : column + 1;
            line += text[i] == '\n';
        }
        fail_at(err, line, column, "nested deeper than 64 levels");
        return NULL;
    }
    v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!v) fail_at(err, e.line, e.column > 0 ? e.column : 1, e.text);
    return v;
}

/* Text that grows; `failed` sticks. */
typedef struct {
    char *text;
    size_t n, room;
    bool failed;
} buffer;

static void put(buffer *b, const char *s, size_t n)
{
    if (b->failed) return;
    if (b->room - b->n < n) {
        size_t room = b->room + n > 2 * b->room ? b->room + n + 256 : 2 * b->room;
        char *bigger = realloc(b->text, room);
        if (!bigger) {
            b->failed = true;
            return;
        }
        b->text = bigger;
        b->room = room;
    }
    memcpy(b->text + b->n, s, n);
    b->n += n;
}

__attribute__((format(printf, 2, 3))) static void put_format(buffer *b, const char *fmt, ...)
{
    char text[40];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof text);
    put(b, text, (size_t)n);
}

/* The letter of the two-character escape of c, 0 when it has none. */
static char short_escape(char c)
{
    switch (c) {
    case '"':
    case '\\': return c;
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

/* jansson holds only valid UTF-8: it goes out as it is, but for quotes, backslashes and control characters.
 */
static void put_string(buffer *b, const char *s, size_t n)
{
    size_t start = 0; /* of what is not yet written */

    put(b, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        char letter = short_escape(s[i]);
        if (!letter && c >= 0x20 && c != 0x7F) continue;
        put(b, s + start, i - start);
        start = i + 1;
        if (letter) put_format(b, "\\%c", letter);
        else put_format(b, "\\u%04x", c);
    }
    put(b, s + start, n - start);
    put(b, "\"", 1);
}

/* The shortest of 15, 16 and 17 digits that reads back as v; always with '.' or 'e', so it stays a real. */
static void put_real(buffer *b, double v)
{
    char text[40];

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    put(b, text, strlen(text));
    if (!strpbrk(text, ".e")) put(b, ".0", 2);
}

static void put_value(buffer *b, const json_t *v);

static void put_array(buffer *b, const json_t *v)
{
    put(b, "[", 1);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i) put(b, ",", 1);
        put_value(b, json_array_get(v, i));
    }
    put(b, "]", 1);
}

static void put_object(buffer *b, const json_t *v)
{
    json_t *object = (json_t *)v; /* jansson's iterators take no const; nothing is changed */
    bool first = true;

    put(b, "{", 1);
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        if (!first) put(b, ",", 1);
        first = false;
        put_string(b, key, strlen(key));
        put(b, ":", 1);
        put_value(b, json_object_iter_value(it));
    }
    put(b, "}", 1);
}

static void put_value(buffer *b, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: put_object(b, v); break;
    case JSON_ARRAY: put_array(b, v); break;
    case JSON_STRING: put_string(b, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER: put_format(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v)); break;
    case JSON_REAL: put_real(b, json_real_value(v)); break;
    case JSON_TRUE: put(b, "true", 4); break;
    case JSON_FALSE: put(b, "false", 5); break;
    case JSON_NULL: put(b, "null", 4); break;
    }
}

char *json_line(const json_t *v)
{
    buffer b = {0};

    put_value(&b, v);
    put(&b, "", 1);
    if (!b.failed) return b.text;
    free(b.text);
    return NULL;
}

json_t *json_fixed(double v, int decimals)
{
    double scale = pow(10, decimals), scaled = v * scale;

    assert(decimals >= 0 && decimals <= 15);
    /* From 2^52 on a double has no fraction to round, and the product could overflow. */
    if (fabs(scaled) < 4503599627370496.0) v = round(scaled) / scale;
    return json_real(v + 0.0); /* -0 becomes 0 */
}
