/* Whole files in memory and writes that survive a crash. No buffering of our own: what a function has
 * reported as written is with the kernel, and file_write_atomic has it on the disk. */
#include "src/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Read until the end or until cap bytes are there; *n is what came. The buffer grows as data comes, so a
 * file that claims to be large costs nothing. */
static int read_up_to(int fd, char **text, size_t *n, size_t cap, const char *path, pr_err *err)
{
    size_t room = 0, have = 0;
    char *buf = NULL;

    for (;;) {
        if (have == room) {
            size_t want = room ? room * 2 : 64 * 1024;
            if (want > cap || want < room) want = cap;
            char *bigger = realloc(buf, want + 1);
            if (!bigger) {
                free(buf);
                return pr_fail(err, PR_ERESOURCE, "%s: out of memory after %zu bytes", path, have);
            }
            buf = bigger;
            room = want;
        }
        ssize_t got = read(fd, buf + have, room - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            int rc = pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
            free(buf);
            return rc;
        }
        have += (size_t)got;
        if (got == 0 || have == cap) break;
    }
    buf[have] = 0;
    *text = buf;
    *n = have;
    return PR_OK;
}

int file_slurp(char **text, size_t *n, const char *path, size_t max, pr_err *err)
{
    int is_stdin = strcmp(path, "-") == 0, rc, fd;
    const char *name = is_stdin ? "standard input" : path;
    char *got = NULL;
    size_t n_got = 0;

    if (max > SIZE_MAX - 2) max = SIZE_MAX - 2;
    fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", name);
    rc = read_up_to(fd, &got, &n_got, max + 1, name, err);
    if (!is_stdin) close(fd);
    if (rc) return rc;
    if (n_got > max) {
        free(got);
        return pr_fail(err, PR_EUSAGE, "%s: larger than the %zu bytes allowed for such a file", name, max);
    }
    *text = got;
    *n = n_got;
    return PR_OK;
}

int file_write_all(int fd, const void *data, size_t n, const char *path, pr_err *err)
{
    const char *p = data;

    while (n > 0) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: writing", path);
        p += put;
        n -= (size_t)put;
    }
    return PR_OK;
}

/* --- onto the disk ------------------------------------------------------------------------------------- */
int file_sync_all(int fd)
{
#ifdef F_FULLFSYNC
    if (fcntl(fd, F_FULLFSYNC) != -1) return 0; /* not every file system can */
#endif
    return fsync(fd);
}

int file_sync(int fd)
{
#ifdef __APPLE__
    return file_sync_all(fd); /* its headers do not declare fdatasync */
#else
    return fdatasync(fd);
#endif
}

/* Make a rename durable: fsync the directory that holds path. */
static int sync_parent(const char *path, pr_err *err)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    int fd, rc = PR_OK;

    if (n >= sizeof dir) return pr_fail(err, PR_ERESOURCE, "%s: path too long", path);
    memcpy(dir, path, n);
    dir[n] = 0;
    fd = open(n ? dir : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: opening its folder", path);
    /* Some network file systems cannot fsync a folder and say EINVAL: nothing more can be done there. */
    if (fsync(fd) && errno != EINVAL) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync of its folder", path);
    close(fd);
    return rc;
}

/* A pipe, a terminal or /dev/null: there is nothing to replace, so write into it. */
static int write_in_place(const char *path, const void *data, size_t n, pr_err *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), rc;

    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    rc = file_write_all(fd, data, n, path, err);
    if (close(fd) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: closing", path);
    return rc;
}

/* Write, fsync and rename into place; `old` is the file there now, or NULL. */
static int replace_file(const char *path, const struct stat *old, const void *data, size_t n, pr_err *err)
{
    char tmp[PATH_MAX];
    int fd, rc, len = snprintf(tmp, sizeof tmp, "%s.tmp%ld", path, (long)getpid());

    if (len < 0 || (size_t)len >= sizeof tmp) return pr_fail(err, PR_ERESOURCE, "%s: path too long", path);
    unlink(tmp); /* left by a process of the same number that was killed here */
    fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: creating", tmp);
    rc = file_write_all(fd, data, n, tmp, err);
    if (!rc && old && fchmod(fd, old->st_mode & 0777))
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: setting its mode", tmp);
    if (!rc && file_sync_all(fd)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", tmp);
    if (close(fd) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: closing", tmp);
    if (!rc && rename(tmp, path)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: renaming to %s", tmp, path);
    if (rc) unlink(tmp);
    else rc = sync_parent(path, err);
    return rc;
}

int file_write_atomic(const char *path, const void *data, size_t n, pr_err *err)
{
    struct stat st;
    char real[PATH_MAX];

    if (stat(path, &st)) return replace_file(path, NULL, data, n, err);
    if (!S_ISREG(st.st_mode)) return write_in_place(path, data, n, err);
    /* Replace what a symbolic link points to, not the link. */
    if (!realpath(path, real)) return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
    return replace_file(real, &st, data, n, err);
}

int64_t file_written_ns(const struct stat *st)
{
#ifdef __APPLE__
    return (int64_t)st->st_mtimespec.tv_sec * 1000000000 + st->st_mtimespec.tv_nsec;
#else
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
#endif
}
