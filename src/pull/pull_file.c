/* One file of a pull on the disk; see pull_file.h.
 *
 * A file takes its final name by link(2), which never replaces what is there. Where links do not exist (FAT),
 * rename(2) after a look. */
#include "src/pull/pull_file.h"
#include "src/base/log.h"
#include "src/pull/verify.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_TRIES = 60 };

static char *join(const char *a, const char *b, const char *c)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = malloc(n);

    if (s) snprintf(s, n, "%s%s%s", a, b, c);
    return s;
}

int pull_file_init(pull_file *x, const source_file *from, const char *dir, pr_err *err)
{
    bool slash = *dir && dir[strlen(dir) - 1] == '/';

    *x = (pull_file){.from = from, .lock = -1};
    x->path = strcmp(dir, ".") ? join(dir, slash ? "" : "/", from->name) : strdup(from->name);
    x->part = x->path ? join(x->path, ".part", "") : NULL;
    x->bad = x->path ? join(x->path, ".bad", "") : NULL;
    return x->bad && x->part ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

void pull_file_clear(pull_file *x)
{
    if (x->lock >= 0) close(x->lock);
    fetch_facts_clear(&x->facts);
    free(x->get.range);
    free(x->path);
    free(x->part);
    free(x->bad);
}

/* --- already there ------------------------------------------------------------------------------------- */
static int is_another(const pull_file *x, pr_err *err, const char *what, const char *is, const char *should)
{
    return pr_fail(err, PR_EMISMATCH,
                   "%s is there already and is another file: its %s is %s, and the source's %s. Nothing was "
                   "changed: move it away, or "
                   "give another folder with -o",
                   x->path, what, is, should);
}

static bool is_newer(const struct stat *a, const struct stat *b)
{
#ifdef __APPLE__
    return a->st_mtimespec.tv_sec > b->st_mtimespec.tv_sec ||
           (a->st_mtimespec.tv_sec == b->st_mtimespec.tv_sec &&
            a->st_mtimespec.tv_nsec > b->st_mtimespec.tv_nsec);
#else
    return a->st_mtim.tv_sec > b->st_mtim.tv_sec ||
           (a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec > b->st_mtim.tv_nsec);
#endif
}

/* The sidecar's hash into x->found when the file has not been written to since. */
static int believe_sidecar(pull_file *x, const struct stat *file, char said[HASH_HEX_BYTES], pr_err *err)
{
    struct stat st;
    char *name;
    int rc = verify_sidecar_read(x->path, said, err);

    if (rc || !*said) return rc;
    if (!(name = join(x->path, ".sha256", ""))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!stat(name, &st) && !is_newer(file, &st)) memcpy(x->found, said, sizeof x->found);
    free(name);
    return PR_OK;
}

/* The file has the right size: does it have the right content? */
static int look_inside(pull_file *x, const struct stat *st, meter *m, const volatile int *stop, pr_err *err)
{
    char said[HASH_HEX_BYTES];
    int rc = believe_sidecar(x, st, said, err);

    if (rc) return rc;
    if (*said && *x->expected && strcmp(said, x->expected) != 0)
        return is_another(x, err, "SHA-256", said, x->expected);
    if (!*x->found && (*said || *x->expected)) {
        meter_begin(m, x->bytes);
        meter_file(m, "checking", x->from->name, 0);
        rc = verify_hash(x->path, x->found, m, stop, err);
        meter_end(m);
        if (rc) return rc;
        if (*x->expected && strcmp(x->found, x->expected) != 0)
            return is_another(x, err, "SHA-256", x->found, x->expected);
        if (*said && strcmp(said, x->found) != 0)
            return pr_fail(
                err, PR_EINTEGRITY,
                "%s is damaged: its SHA-256 is %s, its .sha256 says %s. Move it away and pull again", x->path,
                x->found, said);
        if ((rc = verify_sidecar_write(x->path, x->found, err))) return rc;
    }
    x->is_there = true;
    x->is_known = *x->found != 0;
    if (access(x->part, F_OK)) fetch_discard(x->path); /* a journal that an end at the last moment left */
    return PR_OK;
}

int pull_file_look(pull_file *x, meter *m, const volatile int *stop, pr_err *err)
{
    char is[32], should[32];
    struct stat st;

    if (stat(x->path, &st)) return errno == ENOENT ? PR_OK : pr_fail_errno(err, PR_ERESOURCE, "%s", x->path);
    if (!S_ISREG(st.st_mode)) return is_another(x, err, "kind", "no file", "one");
    if ((uint64_t)st.st_size == x->bytes) return look_inside(x, &st, m, stop, err);
    snprintf(is, sizeof is, "%jd bytes", (intmax_t)st.st_size);
    snprintf(should, sizeof should, "%" PRIu64, x->bytes);
    return is_another(x, err, "size", is, should);
}

/* --- room ---------------------------------------------------------------------------------------------- */
uint64_t pull_file_missing(const pull_file *x)
{
    uint64_t wanted = 0, have;
    struct stat st;

    if (x->is_there || fetch_is_done(x->path, &x->facts, x->get.range, x->get.n)) return 0;
    for (size_t i = 0; i < x->get.n; i++) wanted += x->get.range[i].end - x->get.range[i].first;
    have = stat(x->part, &st) ? 0 : (uint64_t)st.st_blocks * 512;
    return wanted > have ? wanted - have : 0;
}

/* --- .part --------------------------------------------------------------------------------------------- */
/* A second pull of the same parts may hold this one for a moment, until it finds the next one locked by us.
 */
static bool lock_soon(int fd)
{
    const struct timespec pause = {.tv_nsec = 50000000};

    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK && errno != EINTR) return false;
        nanosleep(&pause, NULL);
    }
    return false;
}

int pull_file_lock(pull_file *x, pr_err *err)
{
    struct stat mine, there;

    x->lock = open(x->part, O_RDWR | O_CLOEXEC);
    if (x->lock < 0 || fstat(x->lock, &mine)) return pr_fail_errno(err, PR_ERESOURCE, "%s", x->part);
    if (!lock_soon(x->lock) || stat(x->part, &there) || mine.st_ino != there.st_ino)
        return pr_fail(err, PR_ERESOURCE, "%s: another prima pull is at this file; wait for it", x->path);
    if ((uint64_t)mine.st_size != x->bytes)
        return pr_fail(err, PR_EINTEGRITY, "%s has %jd bytes, expected %" PRIu64, x->part,
                       (intmax_t)mine.st_size, x->bytes);
    return PR_OK;
}

void pull_file_set_aside(pull_file *x)
{
    if (rename(x->part, x->bad))
        log_warn("%s: cannot be renamed to %s: %s", x->part, x->bad, strerror(errno));
    fetch_discard(x->path);
}

int pull_file_check(pull_file *x, meter *m, const volatile int *stop, pr_err *err)
{
    int rc = verify_hash(x->part, x->found, m, stop, err);

    if (rc || !*x->expected || strcmp(x->found, x->expected) == 0) return rc;
    pull_file_set_aside(x);
    return pr_fail(err, PR_EINTEGRITY,
                   "%s: wrong bytes came: sha256 %s, expected %s (%s). They are in %s, and the next call "
                   "fetches the file anew; remove it, or, if "
                   "it was the expected hash that was wrong, rename it",
                   x->from->name, x->found, x->expected, x->expected_from, x->bad);
}

/* --- the final name ------------------------------------------------------------------------------------ */
static int move(const pull_file *x, pr_err *err)
{
    if (link(x->part, x->path) == 0) {
        unlink(x->part);
        return PR_OK;
    }
    if (errno != EEXIST && access(x->path, F_OK)) {
        if (rename(x->part, x->path) == 0) return PR_OK;
        return pr_fail_errno(err, PR_ERESOURCE, "%s: renaming to %s", x->part, x->from->name);
    }
    return pr_fail(err, PR_EMISMATCH,
                   "%s has come into being meanwhile: move it away, and call again (all bytes are in %s)",
                   x->path, x->part);
}

static int sync_folder(const char *path, pr_err *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, rc = PR_OK;

    if (fd < 0) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: opening its folder", path);
    else if (fsync(fd) && errno != EINVAL)
        rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync of its folder", path);
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

/* The sidecar comes first: a process that ends between the two leaves one too many, which the next call
 * writes anew, and not a file that nobody can check any more. */
int pull_file_place(pull_file *x, pr_err *err)
{
    int rc = PR_OK;

    if (*x->found && access(x->path, F_OK)) rc = verify_sidecar_write(x->path, x->found, err);
    if (rc || (rc = move(x, err)) || (rc = sync_folder(x->path, err))) return rc;
    fetch_discard(x->path);
    x->is_there = true;
    return PR_OK;
}
