/* Text as it is written out, and what to write when it is not UTF-8 (inside src/run). */
#ifndef PRIMA_RUN_TEXT_H
#define PRIMA_RUN_TEXT_H
#include <jansson.h>
#include <stddef.h>

/* A copy in which every maximal part of an ill-formed sequence is one U+FFFD, as the Unicode standard
 * recommends (3.9) and web browsers do. malloc'ed, NUL-terminated, *n_out bytes; NULL: out of memory. */
char *text_repair(const char *s, size_t n, size_t *n_out);

/* Any bytes as a JSON string, repaired where necessary; NULL: out of memory. */
json_t *text_json(const char *s, size_t n);

/* Cut a string that was truncated in the middle of a character back to whole ones. */
void text_trim(char *s);

#endif
