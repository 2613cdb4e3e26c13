/* What a device did and when: spans of its own monotonic clock, kept in a ring until the head takes them, and
 * the message that carries them there. How they become a file: trace.h. */
#ifndef PRIMA_RUN_SPANS_H
#define PRIMA_RUN_SPANS_H
#include "src/base/json.h"
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    SPAN_WINDOW, /* layers of a round */
    SPAN_EMBED,  /* head: tokens -> hidden states */
    SPAN_LOGITS, /* head: hidden states -> logits */
    SPAN_WAIT,   /* for a frame */
    SPAN_SEND,   /* a frame is being written */
    SPAN_READ,   /* streamed weights, from disk */
    SPAN_KINDS
} span_kind;

typedef struct {
    span_kind kind;
    uint64_t start_ns, end_ns;
    uint64_t batch; /* the micro-batch, or the first of those that were computed together */
    uint64_t
        more; /* bit i: micro-batch `batch` + 1 + i as well. Of SPAN_READ, which has no micro-batch: bytes */
    uint32_t tokens, round;
    uint32_t first, end; /* layers of SPAN_WINDOW */
} span;

enum { SPAN_MORE_BITS = 63 };

/* --- keeping them; the caller's lock ------------------------------------------------------------------- */
typedef struct {
    span *s; /* [cap]; NULL: none are kept */
    size_t cap, first, n;
    uint64_t dropped; /* since the last span_log_take */
} span_log;

enum { SPAN_LOG_CAP = 1 << 16 }; /* some seconds of the smallest models, hours of large ones */

int span_log_init(span_log *l, size_t cap, pr_err *err);
void span_log_clear(span_log *l);
void span_log_add(span_log *l, const span *s); /* when it is full, the oldest makes room */
/* The oldest, at most max; *dropped: how many were lost before them. */
size_t span_log_take(span_log *l, span *out, size_t max, uint64_t *dropped);

/* --- sending them ----------------------------------------------------------------------------------------
 */
enum { SPANS_MAX = 512 }; /* in a message */

/* {type: "spans", dropped, spans: [[kind, start_ns, duration_ns, batch, more, tokens, round, first, end],
 * ...]}; NULL: out of memory. */
json_t *spans_to_json(const span *s, size_t n, uint64_t dropped);
/* out: [SPANS_MAX]. PR_EPEER: not such a message. */
int spans_from_json(const json_t *m, span *out, size_t *n, uint64_t *dropped, pr_err *err);

#endif
