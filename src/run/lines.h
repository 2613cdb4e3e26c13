/* A file line by line, of any size, with a bounded buffer; reads at its own position (pread), so that others
 * may share the descriptor. */
#ifndef PRIMA_RUN_LINES_H
#define PRIMA_RUN_LINES_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    const char *path; /* for messages */
    size_t max;       /* longest line accepted, without its '\n' */
    size_t number;    /* of the line read last, 1-based */
    uint64_t offset;  /* where that line begins in the file */
    bool ended;       /* it had a '\n' */
    char *buf;
    size_t start, n, cap; /* unread bytes: buf[start, n) */
    uint64_t file_pos;    /* of the byte behind buf[n - 1] */
} lines;

void lines_start(lines *l, int fd, const char *path, size_t max);
void lines_end(lines *l);

/* The next line without its '\n' (valid until the next call), *text NULL at the end of the file. PR_EUSAGE:
 * longer than max; PR_ERESOURCE: cannot be read, out of memory. */
int lines_next(lines *l, const char **text, size_t *n, pr_err *err);

/* Fill buf[0, n) from offset. PR_ERESOURCE: cannot be read; PR_EMISMATCH: the file ends before. */
int lines_pread(int fd, void *buf, size_t n, uint64_t offset, const char *path, pr_err *err);

#endif
