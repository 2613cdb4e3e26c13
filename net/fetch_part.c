/* PATH.part: opened, locked, as long as the whole, with room on the disk; and its journal.
 *
 * The lock is flock on the descriptor: it ends with the process, however that ends. A record lock on the same
 * file is there only because it tells who holds it. Order of every restart: first the journal says that
 * nothing is done, then the data goes; so that a crash between the two costs time and no correctness. */
#include "net/fetch_impl.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

static const uint64_t MARGIN_BYTES = (uint64_t)1 << 30; /* what a disk should have left for everything else */

/* --- lock ------------------------------------------------------------------------------------------- */
static int locked_by_other(int fd, const char *path, pr_err *err)
{
    struct flock k = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (errno != EWOULDBLOCK) return pr_fail_errno(err, PR_ERESOURCE, "%s: locking", path);
    if (fcntl(fd, F_GETLK, &k) == 0 && k.l_type != F_UNLCK && k.l_pid > 0)
        return pr_fail(err, PR_ERESOURCE,
                       "%s: another process (pid %ld) is fetching this file; wait for it or end it", path,
                       (long)k.l_pid);
    return pr_fail(err, PR_ERESOURCE, "%s: another process is fetching this file; wait for it or end it",
                   path);
}

/* The file that has this name now, locked: between opening and locking, its owner may have renamed it. */
static int open_locked(int *out, const char *path, pr_err *err)
{
    enum { MOST_TRIES = 10 };

    for (int i = 0; i < MOST_TRIES; i++) {
        struct flock k = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        struct stat here, there;
        int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666), rc = PR_OK;
        if (fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: creating", path);
        if (fstat(fd, &here)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", path);
        else if (!S_ISREG(here.st_mode)) rc = pr_fail(err, PR_ERESOURCE, "%s: is no regular file", path);
        else if (flock(fd, LOCK_EX | LOCK_NB)) rc = locked_by_other(fd, path, err);
        else if (!stat(path, &there) && there.st_dev == here.st_dev && there.st_ino == here.st_ino) {
            fcntl(fd, F_SETLK, &k);
            *out = fd;
            return PR_OK;
        }
        close(fd);
        if (rc) return rc;
    }
    return pr_fail(err, PR_ERESOURCE, "%s: other processes keep replacing it", path);
}

/* --- whose bytes ------------------------------------------------------------------------------------ */
bool fetch_names_content(const char *etag, const fetch_facts *x)
{
    return *x->sha256 && answer_tag_is(etag, x->sha256);
}

/* Why a journal is not of this resource; NULL: it is. */
static const char *other(const journal *j, const char *key, const fetch_facts *x, uint64_t file_bytes)
{
    if (j->size != x->bytes) return "its size is another";
    if (file_bytes != j->size) return "the file beside the journal is not as long as it says";
    if (strcmp(j->etag, x->etag) != 0) return "it has changed on the server";
    if (!*j->etag) return "the server gives nothing to tell one version from another";
    if (strcmp(j->url, key) != 0 && !fetch_names_content(j->etag, x)) return "it came from another address";
    return NULL;
}

bool part_is(const part *p, const char *path, const fetch_facts *x)
{
    struct stat here, there;
    char *key;
    bool same;

    if (p->lost || strcmp(p->path, path) != 0 || p->size != x->bytes || strcmp(p->etag, x->etag) != 0)
        return false;
    if (stat(p->part, &there) || fstat(p->fd, &here) || there.st_ino != here.st_ino ||
        there.st_dev != here.st_dev)
        return false;
    key = fetch_url_key(x->url);
    same = key && strcmp(key, p->key) == 0;
    free(key);
    return same;
}

void part_close(part *p)
{
    if (!p) return;
    if (p->fd >= 0) close(p->fd);
    free(p->path);
    free(p->part);
    free(p->journal);
    free(p->key);
    free(p->etag);
    free(p->commit);
    set_clear(&p->done);
    set_clear(&p->saved);
    set_clear(&p->before);
    free(p);
}

static int part_new(part **out, const char *path, const fetch_facts *x, pr_err *err)
{
    part *p = calloc(1, sizeof *p);

    if (p) {
        p->fd = -1;
        p->size = x->bytes;
        p->path = strdup(path);
        if (asprintf(&p->part, "%s.part", path) < 0) p->part = NULL;
        if (asprintf(&p->journal, "%s.part.json", path) < 0) p->journal = NULL;
        p->key = fetch_url_key(x->url);
        p->etag = strdup(x->etag);
        p->commit = strdup(x->commit);
    }
    if (!p || !p->path || !p->part || !p->journal || !p->key || !p->etag || !p->commit) {
        part_close(p);
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    *out = p;
    return PR_OK;
}

/* What is there already, or start over. */
static int resume(part *p, const fetch_facts *x, pr_err *err)
{
    struct stat st;
    journal j = {0};
    pr_err why = {0};
    const char *reason = NULL;

    if (fstat(p->fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", p->part);
    if (access(p->journal, F_OK)) reason = "";
    else if (journal_read(&j, p->journal, &why)) reason = why.msg;
    else if ((reason = other(&j, p->key, x, (uint64_t)st.st_size))) journal_clear(&j);
    if (!reason) {
        p->done = j.done;
        j.done = (range_set){0};
        journal_clear(&j);
        return PR_OK;
    }
    if (*reason) log_warn("%s: what was fetched before cannot be used (%s): starting over", p->path, reason);
    return part_restart(p, err);
}

/* Journals that a process was killed over while writing them. */
static void sweep(const char *journal_path)
{
    const char *slash = strrchr(journal_path, '/'), *name = slash ? slash + 1 : journal_path;
    char *dir_path = slash ? strndup(journal_path, (size_t)(slash - journal_path) + 1) : strdup(".");
    DIR *dir = dir_path ? opendir(dir_path) : NULL;
    size_t n = strlen(name);

    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strncmp(e->d_name, name, n) != 0 || strncmp(e->d_name + n, ".tmp", 4) != 0) continue;
        const char *pid = e->d_name + n + 4;
        if (*pid && pid[strspn(pid, "0123456789")] == 0) unlinkat(dirfd(dir), e->d_name, 0);
    }
    if (dir) closedir(dir);
    free(dir_path);
}

/* Where it is written, not where a link of somebody's leads. */
static int check_journal(const char *path, pr_err *err)
{
    struct stat st;

    if (lstat(path, &st) || S_ISREG(st.st_mode)) return PR_OK;
    return pr_fail(err, PR_ERESOURCE, "%s: is no regular file: remove it, then call again", path);
}

int part_open(part **out, const char *path, const fetch_facts *x, pr_err *err)
{
    part *p = NULL;
    int rc;

    if ((rc = part_new(&p, path, x, err))) return rc;
    if (!(rc = open_locked(&p->fd, p->part, err)) && !(rc = check_journal(p->journal, err))) {
        sweep(p->journal);
        rc = resume(p, x, err);
    }
    if (rc) part_close(p);
    else *out = p;
    return rc;
}

/* --- room ------------------------------------------------------------------------------------------- */
static uint64_t missing_bytes(const part *p, const range_set *want)
{
    uint64_t sum = 0;
    fetch_range gap;

    for (size_t i = 0; i < want->n; i++)
        for (uint64_t at = want->r[i].first; set_next(&p->done, false, at, want->r[i].end, &gap);
             at = gap.end)
            sum += gap.end - gap.first;
    return sum;
}

/* Blocks can be reserved at no cost: not where the reserved ones are memory, or written as zeros. */
static bool reserves_cheaply(int fd)
{
#ifdef __linux__
    enum { TMPFS = 0x01021994, RAMFS = (int)0x858458f6 };
    struct statfs s;
    return fstatfs(fd, &s) == 0 && (int)s.f_type != TMPFS && (int)s.f_type != RAMFS;
#else
    (void)fd;
    return false;
#endif
}

static int too_little_room(const part *p, uint64_t missing, uint64_t there, pr_err *err)
{
    return pr_fail(
        err, PR_ERESOURCE,
        "%s: disk full: %llu bytes are still to be fetched and 1 GiB shall stay free, but there are only "
        "%llu bytes; make room or choose another folder, then call again",
        p->path, (unsigned long long)missing, (unsigned long long)there);
}

int part_reserve(part *p, const range_set *want, bool whole, pr_err *err)
{
    uint64_t missing = missing_bytes(p, want), held, spare, there;
    struct stat st;
    struct statvfs fs;

    if (fstat(p->fd, &st) || fstatvfs(p->fd, &fs)) return pr_fail_errno(err, PR_ERESOURCE, "%s", p->part);
    held = (uint64_t)st.st_blocks * 512;
    spare = held > p->done.total ? held - p->done.total
                                 : 0; /* reserved before, or left by bytes that do not count */
    there = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (missing > spare && there < missing - spare + MARGIN_BYTES)
        return too_little_room(p, missing, there, err);
    if ((uint64_t)st.st_size != p->size && ftruncate(p->fd, (off_t)p->size))
        return pr_fail_errno(err, PR_ERESOURCE, "%s: making it %llu bytes long", p->part,
                             (unsigned long long)p->size);
#ifdef __linux__
    if (whole && missing > spare && reserves_cheaply(p->fd) && fallocate(p->fd, 0, 0, (off_t)p->size) &&
        (errno == ENOSPC || errno == EDQUOT))
        return too_little_room(p, missing, there, err);
#else
    (void)whole;
    (void)reserves_cheaply;
#endif
    return PR_OK;
}

/* --- bytes ------------------------------------------------------------------------------------------ */
int part_put(part *p, uint64_t offset, const void *data, size_t n, pr_err *err)
{
    const char *from = data;
    uint64_t at = offset;

    for (size_t left = n; left > 0;) {
        ssize_t put = pwrite(p->fd, from, left, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) p->full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
        if (put < 0)
            return pr_fail_errno(err, PR_ERESOURCE, "%s: writing at %llu", p->part, (unsigned long long)at);
        from += put;
        at += (uint64_t)put;
        left -= (size_t)put;
    }
    if (!set_add(&p->done, offset, offset + n))
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", p->part);
    return PR_OK;
}

char *part_journal_text(part *p)
{
    if (!set_copy(&p->before, &p->saved) || !set_copy(&p->saved, &p->done)) return NULL;
    return journal_text(p->key, p->etag, p->commit, p->size, &p->done);
}

static int write_journal(part *p, pr_err *err)
{
    char *text = journal_text(p->key, p->etag, p->commit, p->size, &p->done);
    int rc;

    if (!text) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", p->journal);
    rc = file_write_atomic(p->journal, text, strlen(text), err);
    free(text);
    if (!rc && !set_copy(&p->saved, &p->done))
        rc = pr_fail(err, PR_ERESOURCE, "%s: out of memory", p->journal);
    return rc;
}

int part_restart(part *p, pr_err *err)
{
    int rc;

    set_clear(&p->done);
    if ((rc = write_journal(p, err))) return rc;
    if (ftruncate(p->fd, 0)) return pr_fail_errno(err, PR_ERESOURCE, "%s: emptying it", p->part);
    return PR_OK;
}

/* The journal needs a block of its own, and a full disk has none: bytes that the journal on the disk does not
 * know of make room for it. */
static bool give_back(part *p)
{
#ifdef __linux__
    enum { BLOCK = 4096, MOST = 256 << 10 };
    fetch_range news = {0};

    for (size_t i = 0; i < p->done.n; i++) {
        for (uint64_t at = p->done.r[i].first; set_next(&p->saved, false, at, p->done.r[i].end, &news);
             at = news.end) {
            uint64_t end = news.end / BLOCK * BLOCK, first = MEM_ALIGN_UP(news.first, BLOCK);
            if (first >= end) continue;
            if (end - first > MOST) first = end - MOST;
            return set_remove(&p->done, first, end) &&
                   !fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
                              (off_t)(end - first));
        }
    }
#else
    (void)p;
#endif
    return false;
}

void part_not_journaled(part *p)
{
    set_copy(&p->saved, &p->before); /* it is the smaller one: there is room */
}

int part_save(part *p, pr_err *err)
{
    int rc;

    if (p->lost) return pr_fail(err, PR_ERESOURCE, "%s: the disk has lost bytes of it", p->part);
    if (file_sync_all(p->fd)) {
        p->lost = true;
        return pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", p->part);
    }
    errno = 0;
    if (!(rc = write_journal(p, err)) || errno != ENOSPC || !give_back(p)) return rc;
    return write_journal(p, err);
}

/* --- without a server ------------------------------------------------------------------------------- */
bool fetch_is_done(const char *path, const fetch_facts *x, const fetch_range *r, size_t n)
{
    char *part_path = NULL, *journal_path = NULL, *key = x->url ? fetch_url_key(x->url) : NULL;
    struct stat st;
    journal j = {0};
    bool done = false;

    if (asprintf(&part_path, "%s.part", path) < 0) part_path = NULL;
    if (asprintf(&journal_path, "%s.part.json", path) < 0) journal_path = NULL;
    if (part_path && journal_path && !stat(part_path, &st) && S_ISREG(st.st_mode) &&
        !journal_read(&j, journal_path, NULL)) {
        done = (uint64_t)st.st_size == j.size && (!x->has_bytes || x->bytes == j.size) &&
               (!key || fetch_names_content(j.etag, x) || strcmp(key, j.url) == 0) &&
               (!x->etag || !*x->etag || strcmp(x->etag, j.etag) == 0);
        for (size_t i = 0; done && i < n; i++) done = set_covers(&j.done, r[i].first, r[i].end);
    }
    journal_clear(&j);
    free(part_path);
    free(journal_path);
    free(key);
    return done;
}

void fetch_discard(const char *path)
{
    static const char *const ends[] = {".part.json",
                                       ".part"}; /* in this order: never a journal without its file */

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *p = NULL;
        if (asprintf(&p, "%s%s", path, ends[i]) < 0) return;
        unlink(p);
        free(p);
    }
}
