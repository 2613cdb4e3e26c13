/* Reading a completions file that an earlier run left (inside src/run). */
#ifndef PRIMA_RUN_RESUME_H
#define PRIMA_RUN_RESUME_H
#include "src/run/prompts.h"

/* One line of it: error is REQ_OK for a completion. */
typedef struct {
    size_t line;
    const char *id, *input_sha256;
    request_code error;
} resume_line;
typedef int (*resume_fn)(void *arg, const resume_line *l, pr_err *err);

/* Give every line to fn, until one returns an error. *length: where the whole lines end; what is behind it is
 * a torn last line (no line end, or not a completion line at all). PR_EMISMATCH: a line further up is not one
 * of ours (skipped with `force`). */
int resume_read(int fd, const char *path, bool force, resume_fn fn, void *arg, uint64_t *length, pr_err *err);

/* Move everything behind `length` to PATH.torn (replacing an older one). */
int resume_cut(int fd, const char *path, uint64_t length, pr_err *err);

#endif
