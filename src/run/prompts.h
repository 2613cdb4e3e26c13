/* JSONL in, every line checked (conventions 8).
 *
 * `prompt` and the text that the chat template makes of `messages` are tokenised alike, as by llama.cpp's
 * server: special tokens added as the model asks, control tokens recognised where the text spells them out,
 * never two BOS, no EOS at the end. A line whose own max_tokens does not fit the context is refused; the
 * default shrinks to what fits.
 *
 * The whole file is read once and validated before any weight is loaded; afterwards a line is parsed again
 * when it is admitted, so memory holds one small record a line, whatever the prompts' size. */
#ifndef PRIMA_RUN_PROMPTS_H
#define PRIMA_RUN_PROMPTS_H
#include "src/base/json.h"
#include "src/model/chat.h"
#include "src/model/sample.h"
#include "src/model/vocab.h"

/* Codes of error records; prompts_error_name gives the text of conventions 9. */
typedef enum {
    REQ_OK,
    REQ_INVALID_JSON,
    REQ_INVALID_UTF8,
    REQ_MISSING_FIELD,
    REQ_INVALID_VALUE,
    REQ_UNKNOWN_PARAMETER,
    REQ_UNSUPPORTED_PARAMETER,
    REQ_CONTEXT_LENGTH_EXCEEDED,
    REQ_TEMPLATE_UNKNOWN,
    REQ_INTERNAL
} request_code;
const char *request_code_name(request_code c);

typedef struct {
    request_code code;
    char message[256];
    char param[64]; /* the field it is about, or "" */
} request_error;

typedef struct {
    char *text;
    size_t n;
} request_stop;

/* One request, ready to run. Owned by the caller of prompts_get; request_clear frees what it holds. */
typedef struct {
    size_t index;           /* 0-based among the file's requests */
    size_t line;            /* 1-based in the file */
    char *id;               /* custom_id, id, or line-N when there is none that can be used */
    bool openai;            /* came as {"custom_id","method","url","body"}: answered in that shape */
    bool chat;              /* messages, not prompt */
    char input_sha256[65];  /* of the line's bytes without the line end */
    json_t *metadata;       /* echoed, also with an error; NULL when absent */
    request_error error;    /* code REQ_OK, or why the line cannot run (then nothing below is set) */
    token_list tokens;      /* the prompt, with BOS where the model asks for it (never two) */
    size_t max_tokens;      /* >= 1 */
    sample_params sampling; /* seed already made from run seed and id where the line gives none */
    request_stop *stop;     /* at most 16, none empty */
    size_t n_stop;
    bool ignore_eos;
    bool logprobs;
    int top_logprobs; /* 0..20 */
} request;
void request_clear(request *r);

typedef struct {
    const vocab *vocab;
    chat_template chat; /* CHAT_UNKNOWN: chat lines get template_unknown */
    size_t n_ctx;       /* prompt tokens + max_tokens must fit; else context_length_exceeded */
    uint64_t seed;      /* run seed */
    size_t max_tokens;  /* run-wide cap (--max-tokens); 0 = none */
    bool lenient;       /* unknown keys are ignored */
    bool strict;        /* --strict-input: the first bad line is PR_EUSAGE */
} prompts_options;

typedef struct prompts prompts;

/* Read and validate path ("-" = stdin, spooled to an unlinked temporary file). PR_EUSAGE: a duplicate id
 * (names both lines), a line over 16 MiB, strict and a bad line; PR_ERESOURCE: cannot be read. Empty lines
 * are skipped. *o is copied; the vocab must outlive it. */
int prompts_open(prompts **out, const char *path, const prompts_options *o, pr_err *err);
void prompts_close(prompts *p);
size_t prompts_count(const prompts *p); /* requests, good and bad */
size_t prompts_bad(const prompts *p);
const char *prompts_id(const prompts *p, size_t index);
bool prompts_find(const prompts *p, const char *id, size_t *index);     /* false: no line has this id */
void prompts_line_sha256(const prompts *p, size_t index, char hex[65]); /* as request.input_sha256 */
/* SHA-256 and size of the whole input, for the manifest. */
const char *prompts_sha256(const prompts *p);
uint64_t prompts_bytes(const prompts *p);
size_t prompts_total_tokens(const prompts *p); /* prompt tokens of the good lines */
size_t prompts_longest(const prompts *p); /* most tokens, prompt + max_tokens, that a good line may need */

/* Parse request `index` again into *r (zeroed first). Returns PR_OK also for a bad line (r->error says why);
 * PR_ERESOURCE when the file can no longer be read, PR_EMISMATCH when the line has changed since
 * prompts_open. */
int prompts_get(prompts *p, size_t index, request *r, pr_err *err);

#endif
