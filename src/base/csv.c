/* CSV records, put together in memory and written with one write(2), so that a reader (or a crash) never sees
 * half of one unless the machine itself stopped in the middle; such a torn end is cut when the file is opened
 * again. An allocation that fails is remembered and reported by csv_row. */
#include "src/base/csv.h"
#include "src/base/file.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct csv {
    int fd;
    char *path;
    int n_fields, n_put; /* of the header, of the record so far */
    char *row;
    size_t n, room;
    bool out_of_memory;
};

static void put(csv *c, const char *s, size_t n)
{
    if (c->out_of_memory) return;
    if (c->room - c->n < n) {
        size_t room = 2 * c->room + n + 256;
        char *bigger = realloc(c->row, room);
        if (!bigger) {
            c->out_of_memory = true;
            return;
        }
        c->row = bigger;
        c->room = room;
    }
    memcpy(c->row + c->n, s, n);
    c->n += n;
}

static void begin_field(csv *c)
{
    if (c->n_put++) put(c, ",", 1);
}

void csv_str(csv *c, const char *s)
{
    begin_field(c);
    if (!s) return;
    if (!*s || !strpbrk(s, ",\"\r\n")) {
        put(c, s, strlen(s));
        return;
    }
    put(c, "\"", 1);
    for (; *s; s++) put(c, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    put(c, "\"", 1);
}

void csv_int(csv *c, int64_t v)
{
    char text[24];

    begin_field(c);
    put(c, text, (size_t)snprintf(text, sizeof text, "%" PRId64, v));
}

void csv_num(csv *c, double v, int decimals)
{
    char text[352]; /* the largest double has 309 digits before the point */

    assert(decimals >= 0 && decimals <= 17);
    begin_field(c);
    if (isfinite(v)) put(c, text, (size_t)snprintf(text, sizeof text, "%.*f", decimals, v));
}

int csv_row(csv *c, pr_err *err)
{
    int rc;

    assert(c->n_put == c->n_fields);
    put(c, "\n", 1);
    rc = c->out_of_memory ? pr_fail(err, PR_ERESOURCE, "%s: out of memory for a row", c->path)
                          : file_write_all(c->fd, c->row, c->n, c->path, err);
    c->n = 0;
    c->n_put = 0;
    c->out_of_memory = false;
    return rc;
}

/* Check the first line against the header and cut a last record that has no end. *is_empty: no header yet. */
static int check_existing(csv *c, const char *header, bool *is_empty, pr_err *err)
{
    char buf[16384];
    size_t n_header = strlen(header), matched = 0;
    bool in_quotes = false, in_header = true;
    off_t at = 0, end_of_last = 0;
    ssize_t got;

    while ((got = pread(c->fd, buf, sizeof buf, at)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            if (in_header) {
                if (buf[i] != (matched < n_header ? header[matched] : '\n')) goto differs;
                in_header = matched++ < n_header;
            }
            if (buf[i] == '"') in_quotes = !in_quotes;
            if (buf[i] == '\n' && !in_quotes) end_of_last = at + i + 1;
        }
        at += got;
    }
    if (got < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", c->path);
    if (end_of_last < at && ftruncate(c->fd, end_of_last))
        return pr_fail_errno(err, PR_ERESOURCE, "%s: cutting a torn last row", c->path);
    if (lseek(c->fd, end_of_last, SEEK_SET) < 0)
        return pr_fail_errno(err, PR_ERESOURCE, "%s: seeking", c->path);
    *is_empty = end_of_last == 0;
    return PR_OK;
differs:
    return pr_fail(err, PR_EMISMATCH,
                   "%s: its columns are not the ones to be appended (%s): use another file", c->path, header);
}

static int start_file(csv *c, const char *header, bool append, pr_err *err)
{
    int rc = PR_OK;
    bool is_empty = true;

    c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC | (append ? 0 : O_TRUNC), 0666);
    if (c->fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", c->path);
    if (append && (rc = check_existing(c, header, &is_empty, err))) return rc;
    if (!is_empty) return PR_OK;
    put(c, header, strlen(header));
    c->n_put = c->n_fields;
    return csv_row(c, err);
}

static void csv_free(csv *c)
{
    if (c->fd >= 0) close(c->fd);
    free(c->path);
    free(c->row);
    free(c);
}

int csv_open(csv **out, const char *path, const char *header, bool append, pr_err *err)
{
    csv *c = calloc(1, sizeof *c);
    int rc;

    if (!c || !(c->path = strdup(path))) {
        free(c);
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    c->fd = -1;
    c->n_fields = 1;
    for (const char *p = header; *p; p++) c->n_fields += *p == ',';
    rc = start_file(c, header, append, err);
    if (rc) csv_free(c);
    else *out = c;
    return rc;
}

int csv_close(csv *c, pr_err *err)
{
    int rc = PR_OK, fd;

    if (!c) return PR_OK;
    assert(c->n_put == 0);
    fd = c->fd;
    c->fd = -1;
    /* A pipe or /dev/stdout has nothing to sync and says EINVAL. */
    if (fsync(fd) && errno != EINVAL && errno != ENOTSUP)
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", c->path);
    if (close(fd) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: closing", c->path);
    csv_free(c);
    return rc;
}
