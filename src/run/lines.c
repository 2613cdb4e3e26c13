/* Lines through one buffer, which grows to the longest line and never beyond the bound. */
#include "src/run/lines.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_BYTES = 1 << 16 };

void lines_start(lines *l, int fd, const char *path, size_t max)
{
    memset(l, 0, sizeof *l);
    l->fd = fd;
    l->path = path;
    l->max = max;
}

void lines_end(lines *l)
{
    free(l->buf);
    l->buf = NULL;
}

/* Read more behind what is there; *got 0 at the end of the file. */
static int fill(lines *l, size_t *got, pr_err *err)
{
    ssize_t n;

    if (l->start > 0) {
        memmove(l->buf, l->buf + l->start, l->n - l->start);
        l->n -= l->start;
        l->start = 0;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : FIRST_BYTES;
        char *bigger = realloc(l->buf, cap);
        if (!bigger) return pr_fail(err, PR_ERESOURCE, "%s: out of memory for a line", l->path);
        l->buf = bigger;
        l->cap = cap;
    }
    do n = pread(l->fd, l->buf + l->n, l->cap - l->n, (off_t)l->file_pos);
    while (n < 0 && errno == EINTR);
    if (n < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", l->path);
    l->n += (size_t)n;
    l->file_pos += (uint64_t)n;
    *got = (size_t)n;
    return PR_OK;
}

int lines_next(lines *l, const char **text, size_t *n, pr_err *err)
{
    size_t seen = 0, got; /* bytes without a '\n' at the start of what is unread */
    char *end = NULL;
    int rc;

    for (;;) {
        if (l->n - l->start > seen) end = memchr(l->buf + l->start + seen, '\n', l->n - l->start - seen);
        seen = end ? (size_t)(end - l->buf) - l->start : l->n - l->start;
        if (seen > l->max)
            return pr_fail(err, PR_EUSAGE, "%s: line %zu is longer than %zu bytes; split it or take it out",
                           l->path, l->number + 1, l->max);
        if (end) break;
        if ((rc = fill(l, &got, err))) return rc;
        if (got == 0) break;
    }
    *text = NULL;
    *n = seen;
    l->ended = end != NULL;
    if (!end && seen == 0) return PR_OK;
    *text = l->buf + l->start;
    l->offset = l->file_pos - (l->n - l->start);
    l->number++;
    l->start += seen + (end != NULL);
    return PR_OK;
}

int lines_pread(int fd, void *buf, size_t n, uint64_t offset, const char *path, pr_err *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)buf + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
        if (got == 0)
            return pr_fail(err, PR_EMISMATCH, "%s: ends before byte %llu; it has been cut while in use", path,
                           (unsigned long long)(offset + n));
        done += (size_t)got;
    }
    return PR_OK;
}
