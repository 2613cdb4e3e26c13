/* One line of the prompts file -> one request (inside src/run: prompts.c reads the file, these parse and
 * check a line). */
#ifndef PRIMA_RUN_REQUEST_H
#define PRIMA_RUN_REQUEST_H
#include "src/run/prompts.h"

#define REQUEST_LINE_MAX   ((size_t)16 << 20)
#define REQUEST_ID_MAX     256
#define REQUEST_MAX_TOKENS 256 /* when the line gives none */

/* Parse text[0, n): a line without its end. r is zeroed but for index, line and input_sha256. What is wrong
 * is in r->error afterwards; r->id is NULL only when memory is gone. */
void request_parse(request *r, const char *text, size_t n, const prompts_options *o);

/* Note the error in r->error; returns false so that checks can `return request_bad(...)`. */
bool request_bad(request *r, request_code code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* For messages: the beginning of a text; a JSON value such as `"abc"`, `7`, `an array`. buf holds the answer.
 */
typedef struct {
    char text[48];
} request_value;
const char *request_shown(const char *text, request_value *buf);
const char *request_found(const json_t *v, request_value *buf);

/* The settings among the keys of body: everything but prompt, messages, metadata and (plain shape) id.
 * r->openai and r->chat are set. *max_tokens_given: the line itself names max_tokens. */
bool fields_read(request *r, const json_t *body, const prompts_options *o, bool *max_tokens_given);

/* The messages of a chat line -> the text of the prompt by the template (malloc'ed, *n bytes). */
bool messages_read(request *r, const json_t *messages, const prompts_options *o, char **text, size_t *n);

#endif
