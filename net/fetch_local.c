/* A file of this machine as a source: it has ranges, a size, and an identity (which file, how long, changed
 * when) in place of an ETag. Copied by read and write in pieces that leave the stop flag and the progress
 * their turn. */
#include "net/fetch_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#define MTIME(st) ((st).st_mtimespec)
#else
#define MTIME(st) ((st).st_mtim)
#endif

static char *identity(const struct stat *st)
{
    char *s;

    if (asprintf(&s, "\"file-%llx-%llx-%llx-%llx.%09lx\"", (unsigned long long)st->st_dev,
                 (unsigned long long)st->st_ino, (unsigned long long)st->st_size,
                 (unsigned long long)MTIME(*st).tv_sec, (unsigned long)MTIME(*st).tv_nsec) < 0)
        return NULL;
    return s;
}

int local_head(const char *url, const char *path, fetch_facts *out, pr_err *err)
{
    struct stat st;

    if (!path)
        return pr_fail(err, PR_EUSAGE, "%.200s: not a file of this machine; expected file:///PATH", url);
    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    if (!S_ISREG(st.st_mode)) return pr_fail(err, PR_ERESOURCE, "%s: is no regular file", path);
    if (access(path, R_OK)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    out->url = strdup(url);
    out->etag = identity(&st);
    out->bytes = (uint64_t)st.st_size;
    out->has_bytes = out->has_ranges = true;
    return out->url && out->etag ? PR_OK : pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
}

static int unchanged(int fd, const char *path, const fetch_facts *x, pr_err *err)
{
    struct stat st;
    char *now;
    bool same;

    if (fstat(fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    if (!(now = identity(&st))) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    same = strcmp(now, x->etag) == 0;
    free(now);
    return same ? PR_OK
                : pr_fail(err, PR_EINTEGRITY,
                          "%s: has changed since it was looked at; start again to take the new one", path);
}

static int read_pieces(int fd, const char *path, const fetch_facts *x, uint64_t first, uint64_t end,
                       local_take take, void *arg, pr_err *err)
{
    enum { PIECE = 1 << 20 };
    char *buf = malloc(PIECE);
    int rc;

    if (!buf) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    rc = unchanged(fd, path, x, err);
    for (uint64_t at = first; !rc && at < end;) {
        size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t got = pread(fd, buf, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            rc = pr_fail_errno(err, PR_ERESOURCE, "%s: reading at %llu", path, (unsigned long long)at);
        else if (got == 0) rc = pr_fail(err, PR_EINTEGRITY, "%s: is shorter than it was", path);
        else if ((rc = unchanged(fd, path, x, err)) == PR_OK) rc = take(arg, at, buf, (size_t)got, err);
        at += got > 0 ? (uint64_t)got : 0;
    }
    free(buf);
    return rc;
}

int local_read(const char *path, const fetch_facts *x, uint64_t first, uint64_t end, local_take take,
               void *arg, pr_err *err)
{
    int fd, rc;

    if (!path)
        return pr_fail(err, PR_EUSAGE, "%.200s: not a file of this machine; expected file:///PATH", x->url);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    rc = read_pieces(fd, path, x, first, end, take, arg, err);
    close(fd);
    return rc;
}
