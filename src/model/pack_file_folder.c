/* A pack's folder: layers.pack, the journal beside it, and who may touch them.
 *
 * The lock is that of the journal, held while a layer is built or checked and given back in between. Whoever
 * has taken it reads the journal anew, so nothing is remembered that another process may have changed. Each
 * process that uses the pack holds a shared lock of layers.pack besides: while two do, records may be added
 * and mended, but not replaced by those of another model. */
#include "src/base/cache.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/model/pack_file_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum {
    MIN_ROOM_BYTES = 16 << 20, /* left free: the journal, and other programs */
    SEAL_AGE_S = 2,            /* some file systems count time in steps of two seconds */
    POLL_US = 10000
};

/* --- names --------------------------------------------------------------------------------------------- */
static int path_too_long(const char *dir, pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "%s: the path is too long", dir);
}

int pack_folder_names(pack_file *f, const char *dir, pr_err *err)
{
    char cache[PATH_MAX];
    int n, rc;

    if (!dir) { /* the name behind it: so that CACHE/packs is made too */
        if ((rc = cache_path(cache, sizeof cache, "packs/", err))) return rc;
        cache[strlen(cache) - 1] = 0;
        dir = cache;
    }
    n = snprintf(f->folder, sizeof f->folder, "%s/%s-%d", dir, f->m->header_sha256, LAYER_LAYOUT);
    if (n < 0 || (size_t)n >= sizeof f->folder) return path_too_long(dir, err);
    n = snprintf(f->path, sizeof f->path, "%s/layers.pack", f->folder);
    if (n < 0 || (size_t)n >= sizeof f->path) return path_too_long(dir, err);
    snprintf(f->journal_path, sizeof f->journal_path, "%s", f->path);
    *strrchr(f->journal_path, '.') = 0;
    return PR_OK;
}

/* The folder of packs and that of this model; what lies above must be there, so that a disk that is not
 * mounted is noticed. */
static int make_folders(const pack_file *f, pr_err *err)
{
    char above[PATH_MAX];

    snprintf(above, sizeof above, "%s", f->folder);
    *strrchr(above, '/') = 0;
    if (mkdir(above, 0755) && errno != EEXIST)
        return pr_fail_errno(err, PR_ERESOURCE, "%s: making the folder for packs", above);
    if (!mkdir(f->folder, 0755) || errno == EEXIST) return PR_OK;
    return pr_fail_errno(err, PR_ERESOURCE, "%s: making the pack's folder (name another with --pack-dir)",
                         f->folder);
}

/* --- locks --------------------------------------------------------------------------------------------- */
/* 1: obtained, or there are no locks here; 0: somebody else has it; -1: errno. */
static int try_lock(int fd, int kind, const char *path)
{
    if (!flock(fd, kind | LOCK_NB)) return 1;
    if (errno == EWOULDBLOCK || errno == EINTR) return 0;
    if (errno != ENOLCK && errno != ENOTSUP && errno != ENOSYS) return -1;
    log_debug("%s: this file system has no locks; see that no other program builds this pack", path);
    return 1;
}

int pack_lock(pack_file *f, pr_err *err)
{
    bool said = false;

    for (;;) {
        int got = try_lock(f->journal, f->read_only ? LOCK_SH : LOCK_EX, f->journal_path);
        if (got < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: locking", f->journal_path);
        if (pack_stopped(f)) return pack_interrupted(f, err);
        if (got) return PR_OK;
        if (!said) log_info("%s: another process builds layers of this pack: waiting", f->folder);
        said = true;
        log_progress("%s: waiting for another process that packs layers", f->label);
        usleep(POLL_US);
    }
}

void pack_unlock(pack_file *f)
{
    flock(f->journal, LOCK_UN);
}

bool pack_is_ours_alone(pack_file *f)
{
    bool alone = try_lock(f->fd, LOCK_EX, f->path) > 0;

    /* Also a failed attempt may have cost the shared one; nobody can have come in between: the lock of the
     * journal is ours. */
    try_lock(f->fd, LOCK_SH, f->path);
    return alone;
}

/* --- the files ----------------------------------------------------------------------------------------- */
static bool is_forbidden(int error)
{
    return error == EROFS || error == EACCES || error == EPERM;
}

/* For writing, else for reading. */
static int open_file(pack_file *f, const char *path, int flags, int *fd, pr_err *err)
{
    if (!f->read_only) {
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0644);
        f->read_only = *fd < 0 && is_forbidden(errno);
    }
    if (f->read_only) *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd >= 0) return PR_OK;
    if (f->read_only && errno == ENOENT) errno = EROFS;
    return pr_fail_errno(err, PR_ERESOURCE, "%s%s", path,
                         f->read_only ? " (name another folder with --pack-dir)" : "");
}

/* As long as all layers, holes and all. */
static int set_length(const pack_file *f, pr_err *err)
{
    uint64_t n = f->at[f->n_layers];
    struct stat st;

    if (fstat(f->fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", f->path);
    if (f->read_only || (uint64_t)st.st_size == n || !ftruncate(f->fd, (off_t)n)) return PR_OK;
    return pr_fail_errno(err, PR_ERESOURCE,
                         "%s: a sparse file of %" PRIu64
                         " bytes cannot be made there (name a folder on another "
                         "file system with --pack-dir)",
                         f->path, n);
}

int pack_folder_open(pack_file *f, const char *dir, pr_err *err)
{
    int rc;

    /* A file that grows past the process's limit must be an error like a full disk, not a signal. */
    signal(SIGXFSZ, SIG_IGN);
    if ((rc = pack_folder_names(f, dir, err)) || (rc = make_folders(f, err)) ||
        (rc = open_file(f, f->journal_path, O_APPEND, &f->journal, err)) || (rc = pack_lock(f, err)) ||
        (rc = open_file(f, f->path, 0, &f->fd, err)))
        return rc;
    if (try_lock(f->fd, LOCK_SH, f->path) < 1)
        return pr_fail_errno(err, PR_ERESOURCE, "%s: locking", f->path);
    return PR_OK;
}

void pack_folder_settle(pack_file *f)
{
    pack_direct_close(f);
    if (f->journal >= 0) close(f->journal);
    f->journal = -1;
}

void pack_folder_close(pack_file *f)
{
    pack_folder_settle(f);
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

/* --- the journal --------------------------------------------------------------------------------------- */
static int add_line(pack_file *f, const char *line, size_t n, pr_err *err)
{
    if (f->cap_lines - f->n_lines < n) {
        size_t cap = f->cap_lines ? 2 * f->cap_lines : 4096;
        char *bigger = realloc(f->lines, cap);
        if (!bigger) return pr_fail(err, PR_ERESOURCE, "out of memory");
        f->lines = bigger;
        f->cap_lines = cap;
    }
    memcpy(f->lines + f->n_lines, line, n);
    f->n_lines += n;
    return PR_OK;
}

static int write_lines(pack_file *f, pr_err *err)
{
    int rc = file_write_all(f->journal, f->lines, f->n_lines, f->journal_path, err);

    f->n_lines = 0;
    if (!rc && file_sync(f->journal)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", f->journal_path);
    return rc;
}

/* All that has been written is on the disk, and layers.pack carries the time of a seal. Whoever does not own
 * the file may not set its time: then it stays without one, and is read each time it is opened. */
static int seal(pack_file *f, pr_err *err)
{
    int64_t when = ((int64_t)time(NULL) - SEAL_AGE_S) / 2 * 2;
    const struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)when}};
    char line[PACK_LINE_BYTES];

    f->unsealable = futimens(f->fd, t) && errno == EPERM;
    if (file_sync_all(f->fd)) return pr_fail_errno(err, PR_ERESOURCE, "%s: fsync", f->path);
    if (f->unsealable) return PR_OK;
    f->j.sealed = when;
    return add_line(f, line, pack_line_seal(line, when), err);
}

/* When layers.pack was last written to; and what only we know is known until that changes. */
static int64_t written_ns(const pack_file *f)
{
    struct stat st;

    return fstat(f->fd, &st) ? -1 : file_written_ns(&st);
}

static bool is_sealed(const pack_file *f)
{
    struct stat st;

    return f->j.sealed && !fstat(f->fd, &st) && st.st_mtime == (time_t)f->j.sealed;
}

/* The journal begins anew: whatever the file holds is not known. */
static int begin_anew(pack_file *f, pr_err *err)
{
    char line[PACK_LINE_BYTES];
    int rc;

    pack_journal_clear(&f->j);
    memset(f->checked, 0, f->n_layers * sizeof *f->checked);
    f->j.layer = calloc((size_t)f->n_layers + 1, sizeof *f->j.layer);
    if (!f->j.layer) return pr_fail(err, PR_ERESOURCE, "out of memory");
    f->j.n_layers = f->n_layers;
    if (f->read_only) return PR_OK;
    if (ftruncate(f->journal, 0)) return pr_fail_errno(err, PR_ERESOURCE, "%s: emptying", f->journal_path);
    rc = add_line(f, line, pack_line_first(line, f->m->header_sha256, LAYER_LAYOUT, f->n_layers), err);
    return rc ? rc : write_lines(f, err);
}

static bool is_of_this_model(const pack_file *f)
{
    return f->j.layout == LAYER_LAYOUT && f->j.n_layers == f->n_layers &&
           !strcmp(f->j.header_sha256, f->m->header_sha256);
}

/* Records of another size than ours have. */
static void forget_foreign(pack_file *f)
{
    for (uint32_t i = 0; i < f->n_layers; i++)
        if (f->j.layer[i].bytes != f->layout[i].bytes) f->j.layer[i] = (pack_entry){0};
}

static int cut_journal(pack_file *f, pr_err *err)
{
    log_warn("%s: cut off after byte %zu, where a line is torn or foreign", f->journal_path, f->j.n_read);
    f->j.sealed = 0; /* the lost lines may have said that something is lost */
    if (f->read_only || !ftruncate(f->journal, (off_t)f->j.n_read)) return PR_OK;
    return pr_fail_errno(err, PR_ERESOURCE, "%s: cutting", f->journal_path);
}

static int read_journal(pack_file *f, pr_err *err)
{
    char *text;
    size_t n;
    pr_err why;
    int rc = file_slurp(&text, &n, f->journal_path, PACK_JOURNAL_MAX_BYTES, err);

    if (rc) return rc == PR_EUSAGE ? begin_anew(f, err) : rc; /* larger than any of ours */
    pack_journal_clear(&f->j);
    rc = pack_journal_parse(&f->j, text, n, &why);
    free(text);
    if (rc && rc != PR_EINTEGRITY) return pr_fail(err, rc, "%s: %s", f->journal_path, why.msg);
    if (rc || !is_of_this_model(f)) {
        if (n) log_warn("%s: not the journal of this pack: it is built anew", f->journal_path);
        return begin_anew(f, err);
    }
    return f->j.n_read < n ? cut_journal(f, err) : PR_OK;
}

/* Somebody has written to the file since, or a process has ended in the middle of it: no record is believed
 * until it has been read. That is written down, so that it is done once; where it cannot be, only we know
 * what we have read. */
static int doubt(pack_file *f, pr_err *err)
{
    char line[PACK_LINE_BYTES];
    int rc = PR_OK;

    for (uint32_t i = 0; i < f->n_layers && !rc; i++) {
        if (f->j.layer[i].state == PACK_DOUBTED && f->checked[i]) f->j.layer[i].state = PACK_HERE;
        if (f->j.layer[i].state != PACK_HERE || f->checked[i]) continue;
        f->j.layer[i].state = PACK_DOUBTED;
        rc = add_line(f, line, pack_line_doubt(line, i), err);
    }
    if (rc || !f->n_lines) return rc;
    if (!f->read_only && (rc = seal(f, err))) return rc;
    if (!f->read_only && !f->unsealable) return write_lines(f, err);
    f->n_lines = 0;
    return PR_OK;
}

/* By the name that readers will open. */
static bool is_in_place(const pack_file *f)
{
    struct stat here, there;

    return !fstat(f->fd, &here) && !stat(f->path, &there) && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

int pack_load(pack_file *f, pr_err *err)
{
    int rc;

    if (!is_in_place(f))
        return pr_fail(err, PR_ERESOURCE, "%s: has been removed or replaced meanwhile; start again", f->path);
    if ((rc = set_length(f, err)) || (rc = read_journal(f, err))) return rc;
    forget_foreign(f);
    if (is_sealed(f)) return PR_OK;
    if (f->seen_ns != written_ns(f)) memset(f->checked, 0, f->n_layers * sizeof *f->checked);
    rc = doubt(f, err);
    f->seen_ns = written_ns(f);
    return rc;
}

int pack_reset(pack_file *f, pr_err *err)
{
    int rc;

    if (f->read_only || !pack_is_ours_alone(f))
        return pr_fail(
            err, PR_ERESOURCE,
            "%s: holds layers of another model with the same header, and %s; name another folder with "
            "--pack-dir",
            f->folder, f->read_only ? "cannot be written to" : "is in use by another process");
    log_warn("%s: holds layers of another model with the same header: it is built anew", f->folder);
    if ((rc = begin_anew(f, err))) return rc; /* first: it must never tell of what is not there */
    if (ftruncate(f->fd, 0)) return pr_fail_errno(err, PR_ERESOURCE, "%s: emptying", f->path);
    return set_length(f, err);
}

int pack_keep(pack_file *f, uint32_t layer, const pack_entry *e, bool written, pr_err *err)
{
    char line[PACK_LINE_BYTES];
    int rc = PR_OK;

    f->j.layer[layer] = *e;
    f->checked[layer] = true;
    if (f->read_only) return PR_OK;
    if (written) rc = seal(f, err);
    else if (f->unsealable) return PR_OK;
    f->seen_ns = written_ns(f);
    if (!rc) rc = add_line(f, line, pack_line_layer(line, layer, e), err);
    return rc ? rc : write_lines(f, err);
}

int pack_lose(pack_file *f, uint32_t layer, pr_err *err)
{
    char line[PACK_LINE_BYTES];
    int rc;

    f->j.layer[layer] = (pack_entry){0};
    if (f->read_only) return PR_OK;
    rc = add_line(f, line, pack_line_lost(line, layer), err);
    return rc ? rc : write_lines(f, err);
}

/* Without this all that is there would be read again by the next one; so it is, where this fails. */
void pack_give_up(pack_file *f)
{
    if (!seal(f, NULL) && !f->unsealable) write_lines(f, NULL);
    f->n_lines = 0;
}

/* --- room ---------------------------------------------------------------------------------------------- */
/* Blocks that the file has beside the records that are there: of a record that was not finished. They are
 * used again. */
static uint64_t spare_bytes(const pack_file *f)
{
    struct stat st;
    uint64_t used = 0, has;

    if (f->fd < 0 || fstat(f->fd, &st)) return 0;
    has = (uint64_t)st.st_blocks * 512;
    for (uint32_t i = 0; i < f->n_layers; i++)
        if (f->j.layer[i].state != PACK_ABSENT) used += f->layout[i].bytes;
    return has > used ? has - used : 0;
}

/* Where the folder is, or will be. */
static bool find_free_bytes(const char *folder, uint64_t *out)
{
    char path[PATH_MAX];
    struct statvfs s;

    snprintf(path, sizeof path, "%s", folder);
    while (statvfs(path, &s)) {
        char *slash = strrchr(path, '/');
        if (errno != ENOENT || !strcmp(path, ".") || !strcmp(path, "/")) return false;
        if (!slash) snprintf(path, sizeof path, ".");
        else slash[slash == path] = 0;
    }
    *out = (uint64_t)s.f_bavail * s.f_frsize;
    return true;
}

int pack_check_room(const pack_file *f, uint64_t *free_bytes, pr_err *err)
{
    uint64_t missing = 0, spare;

    *free_bytes = 0;
    for (uint32_t i = 0; i < f->n_layers; i++)
        if (f->asked[i] && f->j.layer[i].state == PACK_ABSENT) missing += f->layout[i].bytes;
    if (!find_free_bytes(f->folder, free_bytes)) return PR_OK; /* writing will tell */
    spare = spare_bytes(f);
    missing -= spare < missing ? spare : missing;
    if (!missing || *free_bytes >= missing + MIN_ROOM_BYTES) return PR_OK;
    return pr_fail(err, PR_ERESOURCE,
                   "%s: %" PRIu64 " bytes are needed for packed layers and %" PRIu64 " are free: %" PRIu64
                   " bytes are missing (%d MiB stay free); free some, or name a folder on a larger disk with "
                   "--pack-dir",
                   f->folder, missing, *free_bytes, missing + MIN_ROOM_BYTES - *free_bytes,
                   MIN_ROOM_BYTES >> 20);
}

int pack_file_check_room(pack_file_room *out, const model *m, const uint32_t *first, const uint32_t *end,
                         size_t n, const pack_file_options *o, pr_err *err)
{
    pack_file *f;
    char *text = NULL;
    size_t n_text;
    int rc = pack_file_new(&f, m, first, end, n, o, err);

    *out = (pack_file_room){0};
    if (rc) return rc;
    if ((rc = pack_folder_names(f, o->dir, err))) {
        pack_file_close(f);
        return rc;
    }
    f->read_only = true;
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (file_slurp(&text, &n_text, f->journal_path, PACK_JOURNAL_MAX_BYTES, NULL) ||
        pack_journal_parse(&f->j, text, n_text, NULL) || !is_of_this_model(f))
        rc = begin_anew(f, err);
    forget_foreign(f);
    for (uint32_t i = 0; i < f->n_layers && !rc; i++) {
        uint64_t bytes = f->asked[i] ? f->layout[i].bytes : 0;
        out->wanted_bytes += bytes;
        if (f->j.layer[i].state != PACK_ABSENT) out->here_bytes += bytes;
    }
    if (!rc) rc = pack_check_room(f, &out->free_bytes, err);
    free(text);
    pack_file_close(f);
    return rc;
}
