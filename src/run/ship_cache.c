/* A model's cached copy; see ship_cache.h. */
#include "src/run/ship_cache.h"
#include "src/base/cache.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    JOURNAL_MAX_BYTES = 64 << 20,
    LINE_BYTES = 128,
    WRITE_BACK_BYTES = 8 << 20, /* so much is written before the disk is set to work */
    MIN_ROOM_BYTES = 16 << 20,  /* left free: the journal, blocks half filled, and other programs */
    SEAL_AGE_S = 2              /* some file systems count time in steps of two seconds */
};
static const char magic[] = "prima/parts/1";

struct ship_cache {
    char header_sha256[HASH_HEX_BYTES];
    char folder[PATH_MAX], journal_path[PATH_MAX], path[PATH_MAX];
    int journal; /* -1: not open */
    int *fd;     /* [n_fds] the parts of the model, for writing */
    size_t n_fds;
    gguf *g;
    char (*sha256)[HASH_HEX_BYTES]; /* of the tensors that are there; "" for the others */
    char *lines;                    /* to be appended to the journal when the files are on the disk */
    size_t n_lines, cap_lines;
    uint64_t dirty_bytes; /* written, and the disk not yet asked for it */
    int64_t sealed;       /* the last line of the journal; 0: it is no seal */
};

/* --- the folder ---------------------------------------------------------------------------------------- */
static int join_path(char out[PATH_MAX], const char *folder, const char *name, pr_err *err)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX ? PR_OK : pr_fail(err, PR_ERESOURCE, "%s: path too long", folder);
}

static bool is_sha256(const char *s)
{
    return strspn(s, "0123456789abcdef") == HASH_HEX_BYTES - 1 && s[HASH_HEX_BYTES - 1] == 0;
}

int ship_cache_open(ship_cache **out, const char *header_sha256, pr_err *err)
{
    ship_cache *c = calloc(1, sizeof *c);
    char name[160];
    int rc;

    if (!c) return pr_fail(err, PR_ERESOURCE, "out of memory");
    c->journal = -1;
    if (!is_sha256(header_sha256)) { /* it becomes part of a path */
        free(c);
        return pr_fail(err, PR_EMISMATCH, "the plan's header_sha256 is no SHA-256 digest");
    }
    snprintf(c->header_sha256, sizeof c->header_sha256, "%s", header_sha256);
    snprintf(name, sizeof name, "models/%s/parts", c->header_sha256);
    if (!(rc = cache_path(c->journal_path, sizeof c->journal_path, name, err))) {
        snprintf(c->folder, sizeof c->folder, "%.*s", (int)(strlen(c->journal_path) - strlen("/parts")),
                 c->journal_path);
        c->journal = open(c->journal_path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (c->journal < 0) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", c->journal_path);
    }
    /* A file that grows past the process's limit must be an error like a full disk, not a signal. */
    signal(SIGXFSZ, SIG_IGN);
    if (rc) ship_cache_close(c);
    else *out = c;
    return rc;
}

static void forget(ship_cache *c)
{
    for (size_t i = 0; i < c->n_fds; i++) close(c->fd[i]);
    free(c->fd);
    gguf_close(c->g);
    free(c->sha256);
    c->fd = NULL;
    c->n_fds = 0;
    c->g = NULL;
    c->sha256 = NULL;
    c->n_lines = 0;
    c->dirty_bytes = 0;
    c->sealed = 0;
}

void ship_cache_close(ship_cache *c)
{
    if (!c) return;
    forget(c);
    if (c->journal >= 0) close(c->journal);
    free(c->lines);
    free(c);
}

int ship_cache_lock(ship_cache *c, bool *locked, pr_err *err)
{
    *locked = !flock(c->journal, LOCK_EX | LOCK_NB);
    if (*locked || errno == EWOULDBLOCK || errno == EINTR) return PR_OK;
    if (errno != ENOLCK && errno != ENOTSUP && errno != ENOSYS)
        return pr_fail_errno(err, PR_ERESOURCE, "%s: locking", c->journal_path);
    log_warn("%s: this file system has no locks; see that no other worker fills this cache", c->journal_path);
    *locked = true;
    return PR_OK;
}

const char *ship_cache_path(const ship_cache *c)
{
    return c->path;
}

const gguf *ship_cache_gguf(const ship_cache *c)
{
    return c->g;
}

bool ship_cache_has(const ship_cache *c, size_t tensor)
{
    return c->sha256[tensor][0] != 0;
}

int ship_cache_check_room(const ship_cache *c, uint64_t n, pr_err *err)
{
    struct statvfs s;
    uint64_t room;

    if (!n || statvfs(c->folder, &s)) return PR_OK; /* writing will tell */
    room = (uint64_t)s.f_bavail * s.f_frsize;
    if (room >= n + MIN_ROOM_BYTES) return PR_OK;
    return pr_fail(err, PR_ERESOURCE,
                   "%s: %" PRIu64 " bytes are needed for this device's part of the model and %" PRIu64
                   " are free: %" PRIu64
                   " bytes are missing (%d MiB stay free); free some, or set PRIMA_CACHE "
                   "to a folder on a larger disk",
                   c->folder, n, room, n + MIN_ROOM_BYTES - room, MIN_ROOM_BYTES >> 20);
}

static int sync_folder(const ship_cache *c, pr_err *err)
{
    int fd = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = PR_OK;

    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s", c->folder);
    if (fsync(fd) && errno != EINVAL) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", c->folder);
    close(fd);
    return rc;
}

/* --- the journal --------------------------------------------------------------------------------------- */
__attribute__((format(printf, 3, 4))) static int add_line(ship_cache *c, pr_err *err, const char *fmt, ...)
{
    va_list ap;

    if (c->cap_lines - c->n_lines < LINE_BYTES) {
        size_t cap = c->cap_lines ? c->cap_lines * 2 : 4096;
        char *bigger = realloc(c->lines, cap);
        if (!bigger) return pr_fail(err, PR_ERESOURCE, "out of memory");
        c->lines = bigger;
        c->cap_lines = cap;
    }
    va_start(ap, fmt);
    c->n_lines += (size_t)vsnprintf(c->lines + c->n_lines, LINE_BYTES, fmt, ap);
    va_end(ap);
    return PR_OK;
}

static int write_lines(ship_cache *c, pr_err *err)
{
    int rc;

    if (!c->n_lines) return PR_OK;
    rc = file_write_all(c->journal, c->lines, c->n_lines, c->journal_path, err);
    c->n_lines = 0;
    if (!rc && file_sync(c->journal)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", c->journal_path);
    return rc;
}

/* One line without its newline; false: not one of ours. */
static bool read_line(ship_cache *c, const char *line)
{
    char word[8], sha[HASH_HEX_BYTES] = "";
    long long number;
    int end = 0;

    if (sscanf(line, "%7s %lld%n", word, &number, &end) != 2 || number < 0) return false;
    c->sealed = 0;
    if (!strcmp(word, "seal") && !line[end]) {
        c->sealed = number;
        return true;
    }
    if ((uint64_t)number >= gguf_n_tensors(c->g)) return false;
    if (!strcmp(word, "part")) {
        if (line[end] != ' ' || !is_sha256(line + end + 1)) return false;
        memcpy(sha, line + end + 1, HASH_HEX_BYTES);
    } else if (strcmp(word, "lost") || line[end]) {
        return false;
    }
    memcpy(c->sha256[number], sha, HASH_HEX_BYTES);
    return true;
}

/* Cut the journal after n bytes. */
static int cut_journal(ship_cache *c, size_t n, pr_err *err)
{
    if (!ftruncate(c->journal, (off_t)n)) return PR_OK;
    return pr_fail_errno(err, PR_ERESOURCE, "%s: cutting", c->journal_path);
}

static int read_journal(ship_cache *c, pr_err *err)
{
    char *text, *line, *end, first[LINE_BYTES];
    size_t n;
    int rc = file_slurp(&text, &n, c->journal_path, JOURNAL_MAX_BYTES, err);

    if (rc) return rc;
    snprintf(first, sizeof first, "%s %s", magic, c->header_sha256);
    for (line = text; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        bool good = line == text ? !strcmp(line, first) : read_line(c, line);
        if (!good) break;
    }
    if ((size_t)(line - text) < n) {
        log_warn("%s: cut off after byte %zu, where a line is torn", c->journal_path, (size_t)(line - text));
        rc = cut_journal(c, (size_t)(line - text), err);
    }
    if (!rc && line == text) {
        rc = add_line(c, err, "%s\n", first);
        if (!rc) rc = write_lines(c, err);
    }
    free(text);
    return rc;
}

/* --- the files ----------------------------------------------------------------------------------------- */
/* File i of n, as gguf_open finds it; with ".new" while it is made. */
static int file_path(const ship_cache *c, size_t i, size_t n, bool fresh, char out[PATH_MAX], pr_err *err)
{
    char name[64];

    if (n == 1) snprintf(name, sizeof name, "model.gguf%s", fresh ? ".new" : "");
    else snprintf(name, sizeof name, "model-%05zu-of-%05zu.gguf%s", i + 1, n, fresh ? ".new" : "");
    return join_path(out, c->folder, name, err);
}

/* How many files there are: the number in the first one's name; 0: none. */
static size_t find_files(ship_cache *c)
{
    char pattern[PATH_MAX];

    for (size_t n = 1; n <= 999; n++)
        if (!file_path(c, 0, n, false, pattern, NULL) && !access(pattern, F_OK)) return n;
    return 0;
}

static int open_files(ship_cache *c, size_t n, pr_err *err)
{
    char path[PATH_MAX];
    int rc = file_path(c, 0, n, false, c->path, err);

    if (rc || (rc = gguf_open(&c->g, c->path, err))) return rc;
    c->sha256 = calloc(gguf_n_tensors(c->g) + 1, sizeof *c->sha256);
    c->fd = malloc(n * sizeof *c->fd);
    if (!c->sha256 || !c->fd) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < n; i++) {
        if ((rc = file_path(c, i, n, false, path, err))) return rc;
        if ((c->fd[i] = open(path, O_RDWR | O_CLOEXEC)) < 0)
            return pr_fail_errno(err, PR_ERESOURCE, "%s", path);
        c->n_fds++;
    }
    return PR_OK;
}

int ship_cache_reset(ship_cache *c, pr_err *err)
{
    size_t n = find_files(c);
    char path[PATH_MAX];
    int rc = cut_journal(c, 0, err); /* first: it must never tell of what is not there */

    forget(c);
    for (size_t i = 0; i < n && !rc; i++) {
        if ((rc = file_path(c, i, n, false, path, err))) break;
        if (unlink(path) && errno != ENOENT) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: removing", path);
    }
    return rc;
}

/* File i under its other name, which rename_files takes away: a model is there whole or not at all. */
static int make_file(ship_cache *c, size_t i, size_t n, const void *header, uint64_t header_bytes,
                     uint64_t file_bytes, pr_err *err)
{
    char path[PATH_MAX];
    int rc = file_path(c, i, n, true, path, err), fd;

    if (rc) return rc;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: creating", path);
    rc = file_write_all(fd, header, (size_t)header_bytes, path, err);
    if (!rc && ftruncate(fd, (off_t)file_bytes))
        rc =
            pr_fail_errno(err, PR_ERESOURCE,
                          "%s: a sparse file of %" PRIu64 " bytes cannot be made there (set PRIMA_CACHE to a "
                          "folder on another file system)",
                          path, file_bytes);
    if (!rc && file_sync_all(fd)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", path);
    if (close(fd) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: closing", path);
    if (rc) unlink(path);
    return rc;
}

/* The first file, which find_files looks for, comes last. */
static int rename_files(ship_cache *c, size_t n, pr_err *err)
{
    char fresh[PATH_MAX], path[PATH_MAX];
    int rc;

    for (size_t i = n; i-- > 0;) {
        if ((rc = file_path(c, i, n, true, fresh, err)) || (rc = file_path(c, i, n, false, path, err)))
            return rc;
        if (rename(fresh, path)) return pr_fail_errno(err, PR_ERESOURCE, "%s: renaming", fresh);
    }
    return sync_folder(c, err);
}

/* The headers of all files one behind the other: how many they are, and how long the files in all. */
static int count_files(const uint8_t *header, size_t n, size_t *n_files, uint64_t *total, pr_err *err)
{
    uint64_t header_bytes, file_bytes;
    int rc = PR_OK;

    *n_files = 0;
    *total = 0;
    for (size_t at = 0; at < n && !rc; at += (size_t)header_bytes) {
        rc = gguf_measure(header + at, n - at, &header_bytes, &file_bytes, err);
        *total += file_bytes;
        ++*n_files;
    }
    return rc;
}

int ship_cache_make(ship_cache *c, const void *header, size_t n, uint64_t max_file_bytes, pr_err *err)
{
    const uint8_t *p = header;
    char sha[HASH_HEX_BYTES];
    uint64_t total, header_bytes, file_bytes;
    size_t n_files;
    int rc;

    hash_sha256_hex(header, n, sha);
    if (strcmp(sha, c->header_sha256))
        return pr_fail(err, PR_EINTEGRITY, "a header with digest %.12s came, the plan has %.12s", sha,
                       c->header_sha256);
    if ((rc = ship_cache_reset(c, err)) || (rc = count_files(p, n, &n_files, &total, err))) return rc;
    if (total > max_file_bytes)
        return pr_fail(err, PR_EMISMATCH, "the header speaks of %" PRIu64 " bytes, the plan of %" PRIu64,
                       total, max_file_bytes);
    for (size_t i = 0; i < n_files && !rc; i++, p += header_bytes) {
        rc = gguf_measure(p, n - (size_t)(p - (const uint8_t *)header), &header_bytes, &file_bytes, err);
        if (!rc) rc = make_file(c, i, n_files, p, header_bytes, file_bytes, err);
    }
    if (rc || (rc = rename_files(c, n_files, err)) || (rc = ship_cache_load(c, false, err))) return rc;
    return c->g ? PR_OK
                : pr_fail(err, PR_EINTEGRITY, "%s: the header reads back other than it was written",
                          c->folder);
}

/* --- what is there ------------------------------------------------------------------------------------- */
static bool is_same(const ship_cache *c, size_t tensor, const char *sha256)
{
    const gguf_tensor *t = gguf_tensor_at(c->g, tensor);
    char sha[HASH_HEX_BYTES];

    hash_sha256_hex(t->data, t->n_bytes, sha);
    gguf_drop_pages(t->data, t->n_bytes);
    return strcmp(sha, sha256) == 0;
}

static bool is_sealed(const ship_cache *c)
{
    struct stat st;

    if (!c->sealed) return false;
    for (size_t i = 0; i < c->n_fds; i++)
        if (fstat(c->fd[i], &st) || st.st_mtime != (time_t)c->sealed) return false;
    return true;
}

static int verify_all(ship_cache *c, pr_err *err)
{
    size_t n = gguf_n_tensors(c->g), lost = 0;
    int rc = PR_OK;

    for (size_t i = 0; i < n && !rc; i++) {
        if (!ship_cache_has(c, i)) continue;
        log_progress("verifying the cached model: tensor %zu of %zu", i + 1, n);
        if (is_same(c, i, c->sha256[i])) continue;
        log_warn("%s: tensor %s is damaged and will be fetched again when needed", c->path,
                 gguf_tensor_at(c->g, i)->name);
        c->sha256[i][0] = 0;
        lost++;
        rc = add_line(c, err, "lost %zu\n", i);
    }
    log_progress("%s", "");
    if (lost) c->sealed = 0;
    return rc ? rc : write_lines(c, err);
}

/* A header that is not the one wanted, or none that can be read. */
static int begin_anew(ship_cache *c, const char *why, pr_err *err)
{
    log_warn("%s: %s: it will be fetched again", c->folder, why);
    return ship_cache_reset(c, err);
}

int ship_cache_load(ship_cache *c, bool verify, pr_err *err)
{
    size_t n = find_files(c);
    char sha[HASH_HEX_BYTES];
    pr_err e = {0};
    int rc;

    forget(c);
    if (!n) return cut_journal(c, 0, err);
    if ((rc = open_files(c, n, &e)) == PR_EINTEGRITY) return begin_anew(c, e.msg, err);
    if (rc) return pr_fail(err, rc, "%s", e.msg);
    gguf_header_sha256(c->g, sha);
    if (strcmp(sha, c->header_sha256)) return begin_anew(c, "the cached header is damaged", err);
    if ((rc = read_journal(c, err))) return rc;
    if (is_sealed(c) && !verify) return PR_OK;
    return verify_all(c, err);
}

/* --- writing ------------------------------------------------------------------------------------------- */
int ship_cache_write(ship_cache *c, size_t tensor, uint64_t at, const void *data, size_t n, pr_err *err)
{
    const gguf_tensor *t = gguf_tensor_at(c->g, tensor);
    int fd = c->fd[t->part];

    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const uint8_t *)data + done, n - done, (off_t)(t->file_offset + at + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: writing", gguf_part_path(c->g, t->part));
        done += (size_t)put;
    }
    c->dirty_bytes += n;
#if defined(__linux__) && !defined(__ANDROID__) /* whose older libraries lack sync_file_range */
    /* Let the disk begin, so that the fsync later does not hold up the head for long. */
    if (c->dirty_bytes >= WRITE_BACK_BYTES) {
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        c->dirty_bytes = 0;
    }
#endif
    return PR_OK;
}

int ship_cache_keep(ship_cache *c, size_t tensor, const char *sha256, bool *same, pr_err *err)
{
    *same = is_same(c, tensor, sha256);
    if (!*same) return PR_OK;
    memcpy(c->sha256[tensor], sha256, HASH_HEX_BYTES);
    return add_line(c, err, "part %zu %s\n", tensor, sha256);
}

int ship_cache_settle(ship_cache *c, pr_err *err)
{
    if (!c->n_lines) return PR_OK;
    for (size_t i = 0; i < c->n_fds; i++)
        if (file_sync(c->fd[i]))
            return pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", gguf_part_path(c->g, i));
    return write_lines(c, err);
}

int ship_cache_seal(ship_cache *c, pr_err *err)
{
    int64_t when = ((int64_t)time(NULL) - SEAL_AGE_S) / 2 * 2;
    const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)when}};
    int rc = ship_cache_settle(c, err);

    if (rc || is_sealed(c)) return rc;
    for (size_t i = 0; i < c->n_fds; i++)
        if (futimens(c->fd[i], t) || file_sync_all(c->fd[i]))
            return pr_fail_errno(err, PR_ERESOURCE, "%s: setting its time", gguf_part_path(c->g, i));
    if ((rc = add_line(c, err, "seal %lld\n", (long long)when)) || (rc = write_lines(c, err))) return rc;
    c->sealed = when;
    return PR_OK;
}
