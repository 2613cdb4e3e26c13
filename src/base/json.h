/* Strict JSON over jansson: UTF-8, no duplicate keys, depth <= 64; and checked access to fields. */
#ifndef PRIMA_BASE_JSON_H
#define PRIMA_BASE_JSON_H
#include "src/base/err.h"
#include <jansson.h>
#include <stddef.h>

/* Parse exactly one JSON value of n bytes (NUL bytes inside strings allowed, nothing after it but white
 * space). Returns NULL and a PR_EUSAGE error "column N: ..." (from line 2 on "line L column N: ...") when it
 * is not that. Integers must fit 64 bits signed, reals a double. Caller decrefs. */
json_t *json_parse(const char *text, size_t n, pr_err *err);

/* Compact, keys in insertion order, UTF-8 as it is, control characters escaped, reals as the shortest decimal
 * that reads back as the same double; caller frees. NULL: out of memory. */
char *json_line(const json_t *v);

/* A real rounded to `decimals` (0..15) decimals, half away from zero: json_line prints no more than these
 * (12.3456 with 3: 12.346; 12.3: 12.3). v must be finite. NULL: out of memory. */
json_t *json_fixed(double v, int decimals);

#endif
