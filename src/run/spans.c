/* Spans of a device; see spans.h. */
#include "src/run/spans.h"
#include <stdlib.h>
#include <string.h>

/* --- keeping them -------------------------------------------------------------------------------------- */
int span_log_init(span_log *l, size_t cap, pr_err *err)
{
    *l = (span_log){.s = calloc(cap, sizeof *l->s), .cap = cap};
    return l->s ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory for %zu spans", cap);
}

void span_log_clear(span_log *l)
{
    free(l->s);
    *l = (span_log){0};
}

void span_log_add(span_log *l, const span *s)
{
    l->s[(l->first + l->n) % l->cap] = *s;
    if (l->n < l->cap) {
        l->n++;
        return;
    }
    l->first = (l->first + 1) % l->cap;
    l->dropped++;
}

size_t span_log_take(span_log *l, span *out, size_t max, uint64_t *dropped)
{
    size_t n = l->n < max ? l->n : max;

    for (size_t i = 0; i < n; i++) out[i] = l->s[(l->first + i) % l->cap];
    if (n) l->first = (l->first + n) % l->cap;
    l->n -= n;
    *dropped = l->dropped;
    l->dropped = 0;
    return n;
}

/* --- sending them ----------------------------------------------------------------------------------------
 */
enum { FIELDS = 9 };

static json_t *span_to_json(const span *s)
{
    const uint64_t field[FIELDS] = {s->kind,  s->start_ns, s->end_ns - s->start_ns,
                                    s->batch, s->more,     s->tokens,
                                    s->round, s->first,    s->end};
    json_t *a = json_array();

    for (size_t i = 0; a && i < FIELDS; i++) {
        if (json_array_append_new(a, json_integer((json_int_t)field[i])) == 0) continue;
        json_decref(a);
        return NULL;
    }
    return a;
}

json_t *spans_to_json(const span *s, size_t n, uint64_t dropped)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < n; i++) {
        if (json_array_append_new(list, span_to_json(&s[i])) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list ? json_pack("{s:s, s:I, s:o}", "type", "spans", "dropped", (json_int_t)dropped, "spans", list)
                : NULL;
}

static bool span_from_json(span *s, const json_t *a)
{
    uint64_t field[FIELDS];

    if (json_array_size(a) != FIELDS) return false;
    for (size_t i = 0; i < FIELDS; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
        field[i] = (uint64_t)json_integer_value(v);
        if (i > 4 && field[i] > UINT32_MAX) return false;
    }
    if (field[0] >= SPAN_KINDS || field[1] + field[2] > INT64_MAX || field[3] > INT64_MAX - 64) return false;
    *s = (span){.kind = (span_kind)field[0],
                .start_ns = field[1],
                .end_ns = field[1] + field[2],
                .batch = field[3],
                .more = field[4],
                .tokens = (uint32_t)field[5],
                .round = (uint32_t)field[6],
                .first = (uint32_t)field[7],
                .end = (uint32_t)field[8]};
    return true;
}

int spans_from_json(const json_t *m, span *out, size_t *n, uint64_t *dropped, pr_err *err)
{
    const json_t *list = json_object_get(m, "spans"), *lost = json_object_get(m, "dropped");

    if (!json_is_array(list) || json_array_size(list) > SPANS_MAX || !json_is_integer(lost) ||
        json_integer_value(lost) < 0)
        return pr_fail(err, PR_EPEER, "spans: expected a list of at most %d and a number", SPANS_MAX);
    *n = json_array_size(list);
    *dropped = (uint64_t)json_integer_value(lost);
    for (size_t i = 0; i < *n; i++) {
        if (!span_from_json(&out[i], json_array_get(list, i)))
            return pr_fail(err, PR_EPEER, "spans: span %zu is none", i);
    }
    return PR_OK;
}
