/* What the fault server answers: a file of the folder, what the hub says, or what a rule makes of it. */
#include "tests/pull/fault.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void answer_init(answer *a)
{
    memset(a, 0, sizeof *a);
    a->status = 200;
    a->fd = -1;
}

static void drop_body(answer *a)
{
    if (a->fd >= 0) close(a->fd);
    free(a->text);
    a->fd = -1;
    a->text = NULL;
    a->bytes = 0;
    a->etag[0] = '\0';
    a->takes_ranges = false;
}

void answer_clear(answer *a)
{
    drop_body(a);
}

void answer_header(answer *a, const char *fmt, ...)
{
    const size_t n = strlen(a->headers);
    va_list args;

    va_start(args, fmt);
    vsnprintf(a->headers + n, sizeof a->headers - n - 2, fmt, args);
    va_end(args);
    strcat(a->headers, "\r\n");
}

void answer_text(answer *a, int status, const char *fmt, ...)
{
    va_list args;

    drop_body(a);
    a->status = status;
    va_start(args, fmt);
    int n = vasprintf(&a->text, fmt, args);
    va_end(args);
    if (n < 0) {
        fprintf(stderr, "fault_server: out of memory\n");
        exit(1);
    }
    a->bytes = (uint64_t)n;
}

void answer_file(answer *a, const char *path)
{
    struct stat s;

    drop_body(a);
    a->status = 200;
    if ((a->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || fstat(a->fd, &s) || !S_ISREG(s.st_mode)) {
        answer_text(a, 404, "not found\n");
        return;
    }
    a->bytes = (uint64_t)s.st_size;
    a->takes_ranges = true;
    snprintf(a->etag, sizeof a->etag, "\"%llx-%llx\"", (unsigned long long)s.st_mtime,
             (unsigned long long)s.st_size);
}

void answer_request(answer *a, const char *folder, const request *q, const fault *f)
{
    char path[2 * FAULT_TEXT];

    if (!hub_answer(q, a)) {
        if (strstr(q->path, "/../")) answer_text(a, 404, "not found\n");
        else {
            snprintf(path, sizeof path, "%s%s", folder, q->path);
            answer_file(a, path);
        }
    }
    if (f->redirect[0]) {
        answer_text(a, f->status ? f->status : 302, "moved\n");
        answer_header(a, "Location: %s", f->redirect);
    } else if (f->status) {
        answer_text(a, f->status, "status %d by line %u of the rules\n", f->status, f->line);
    }
    if (f->etag[0]) snprintf(a->etag, sizeof a->etag, "%s", strcmp(f->etag, "none") ? f->etag : "");
    if (f->header[0]) answer_header(a, "%s", f->header);
    if (f->no_ranges) a->takes_ranges = false;
    if (f->truncate >= 0 && (uint64_t)f->truncate < a->bytes) a->bytes = (uint64_t)f->truncate;
}

void answer_range(answer *a, const request *q, const fault *f, uint64_t *first, uint64_t *end)
{
    unsigned long long from = 0, to = 0;
    int n;

    *first = 0;
    *end = a->bytes;
    if (a->status != 200 || !a->takes_ranges) return;
    answer_header(a, "Accept-Ranges: bytes");
    if (!q->range[0] || (q->if_range[0] && strcmp(q->if_range, a->etag) != 0)) return;
    if ((n = sscanf(q->range, "bytes=%llu-%llu", &from, &to)) < 1) return;
    if (n == 1 || to >= a->bytes) to = a->bytes - 1;
    if (from >= a->bytes || from > to) {
        const unsigned long long all = a->bytes;
        answer_text(a, 416, "no such range\n");
        answer_header(a, "Content-Range: bytes */%llu", all);
        *end = a->bytes;
        return;
    }
    a->status = 206;
    *first = from;
    *end = to + 1;
    if (f->content_range[0]) {
        answer_header(a, "Content-Range: %s", f->content_range);
    } else {
        answer_header(a, "Content-Range: bytes %llu-%llu/%llu", from + (unsigned long long)f->shift,
                      to + (unsigned long long)f->shift, (unsigned long long)a->bytes);
    }
}
