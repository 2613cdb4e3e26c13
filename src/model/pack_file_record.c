/* One layer's record on the disk: written, and read again.
 *
 * A record is never whole in memory: groups of rows are packed into a buffer of some MB, hashed and written
 * from there, past the page cache. Where O_DIRECT is refused the page cache is emptied behind us, so that
 * neither way leaves more than some MB of dirty or cached pages. */
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/model/pack_file_impl.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 8 << 20, /* packed at once: work for all threads */
    BLOCK_BYTES = 4 << 20  /* read or written at once: a stop is seen in between */
};

/* --- past the page cache ------------------------------------------------------------------------------- */
void pack_direct_close(pack_file *f)
{
    if (f->direct >= 0) close(f->direct);
    f->direct = -1;
}

#ifdef O_DIRECT
/* By its path, so it may be another file by now. */
static bool is_same_file(int a, int b)
{
    struct stat x, y;

    return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void pack_direct_open(pack_file *f)
{
    if (f->direct >= 0 || f->buffered) return;
    f->direct = open(f->path, (f->read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
    if (f->direct >= 0 && !is_same_file(f->direct, f->fd)) pack_direct_close(f);
    f->buffered = f->direct < 0;
}
#else
void pack_direct_open(pack_file *f)
{
#ifdef F_NOCACHE /* macOS: of the same descriptor */
    if (!f->buffered) fcntl(f->fd, F_NOCACHE, 1);
#endif
    f->buffered = true;
}
#endif

/* The file system takes O_DIRECT when opening and refuses the first transfer. */
static bool refused_direct(pack_file *f)
{
    if (f->direct < 0 || errno != EINVAL) return false;
    log_debug("%s: O_DIRECT is refused: through the page cache", f->path);
    pack_direct_close(f);
    f->buffered = true;
    return true;
}

static void drop_cached(int fd, uint64_t at, uint64_t n)
{
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED); /* advice */
#else
    (void)fd;
    (void)at;
    (void)n;
#endif
}

/* Buffered writing: the disk begins with this block, and the one before it leaves the page cache. */
static void write_behind(int fd, uint64_t at, uint64_t n, uint64_t record_at)
{
#if defined(__linux__) && !defined(__ANDROID__) /* whose older libraries lack sync_file_range */
    uint64_t before = at - record_at < BLOCK_BYTES ? at - record_at : BLOCK_BYTES;

    sync_file_range(fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE);
    if (!before) return;
    sync_file_range(fd, (off_t)(at - before), (off_t)before,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    drop_cached(fd, at - before, before);
#else
    (void)at;
    (void)n;
    (void)record_at;
    fsync(fd);
#endif
}

/* --- writing ------------------------------------------------------------------------------------------- */
typedef struct {
    pack_file *f;
    uint32_t layer;
    uint64_t at;  /* in the file, of buf[0] */
    uint8_t *buf; /* [cap] */
    size_t cap, have;
    hash_pieces *h;
    uint64_t start_ns;
} sink;

static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

static int write_failed(const sink *s, pr_err *err)
{
    return pr_fail_errno(err, PR_ERESOURCE, "%s: writing layer %" PRIu32 "%s", s->f->path, s->layer,
                         is_full(errno) ? " (free some space, or name another --pack-dir)" : "");
}

/* One block; its memory, place and length are multiples of LAYER_ALIGN. */
static int write_block(const sink *s, uint64_t at, const uint8_t *p, size_t n, pr_err *err)
{
    pack_file *f = s->f;

    for (size_t done = 0; done < n;) {
        int fd = f->direct >= 0 ? f->direct : f->fd;
        ssize_t put = pwrite(fd, p + done, n - done, (off_t)(at + done));
        if (put < 0 && (errno == EINTR || refused_direct(f))) continue;
        if (put == 0) errno = EIO;
        if (put <= 0) return write_failed(s, err);
        done += (size_t)put;
    }
    if (f->direct < 0) write_behind(f->fd, at, n, f->at[s->layer]);
    return PR_OK;
}

/* `done` bytes of this record since start_ns. */
static void show_progress(const pack_file *f, const char *doing, uint32_t layer, uint64_t done,
                          uint64_t start_ns)
{
    double s = clock_ms_since(start_ns) / 1e3;

    log_progress("%s: %s layer %" PRIu32 " (%" PRIu32 " of %" PRIu32 "), %.0f MB/s", f->label, doing, layer,
                 f->n_built + f->n_checked + 1, f->n_todo, s > 0 ? (double)done / 1e6 / s : 0);
}

/* The whole blocks of what has gathered. */
static int flush(sink *s, pr_err *err)
{
    size_t n = s->have / LAYER_ALIGN * LAYER_ALIGN;
    int rc = PR_OK;

    hash_add(s->h, s->buf, n);
    for (size_t done = 0; done < n && !rc; done += BLOCK_BYTES) {
        size_t some = n - done < BLOCK_BYTES ? n - done : BLOCK_BYTES;
        if (pack_stopped(s->f)) return pack_interrupted(s->f, err);
        rc = write_block(s, s->at + done, s->buf + done, some, err);
        show_progress(s->f, "writing", s->layer, s->at + done + some - s->f->at[s->layer], s->start_ns);
    }
    memmove(s->buf, s->buf + n, s->have - n);
    s->at += n;
    s->have -= n;
    return rc;
}

static int put_matrix(sink *s, layer_matrix k, pr_err *err)
{
    const matrix_place *m = &s->f->layout[s->layer].matrix[k];
    const gguf_tensor *t = layer_matrix_of(&s->f->m->hp.layer[s->layer], k);
    int rc = PR_OK;

    for (size_t g = 0; g < m->n_groups && !rc;) {
        size_t room = (s->cap - s->have) / m->group_bytes, left = m->n_groups - g;
        size_t some = left < room ? left : room;
        layer_pack_groups(s->buf + s->have, t, g, g + some, s->f->p);
        s->have += some * m->group_bytes;
        g += some;
        if (g < m->n_groups) rc = flush(s, err);
    }
    size_t padded = MEM_ALIGN_UP(s->have, (size_t)LAYER_ALIGN);
    memset(s->buf + s->have, 0, padded - s->have);
    s->have = padded;
    return rc ? rc : flush(s, err);
}

/* A piece, but at least the largest thing that is packed at once behind a rest of less than LAYER_ALIGN. */
static size_t buffer_bytes(const layer_layout *l)
{
    size_t most = l->vectors_bytes;

    for (layer_matrix m = 0; m < LAYER_MATRICES; m++)
        if (l->matrix[m].group_bytes > most) most = l->matrix[m].group_bytes;
    most = MEM_ALIGN_UP(most, (size_t)LAYER_ALIGN) + LAYER_ALIGN;
    if (most < PIECE_BYTES) most = PIECE_BYTES;
    return most < l->bytes ? most : l->bytes;
}

static int put_record(sink *s, pr_err *err)
{
    const layer_layout *l = &s->f->layout[s->layer];
    int rc;

    layer_pack_vectors(s->buf, l, &s->f->m->hp.layer[s->layer]);
    s->have = l->vectors_bytes;
    rc = flush(s, err);
    for (layer_matrix m = 0; m < LAYER_MATRICES && !rc; m++) rc = put_matrix(s, m, err);
    assert(rc || s->at == s->f->at[s->layer] + l->bytes);
    return rc;
}

/* All of a record's place at once: the disk is asked for one run of blocks, and is full now rather than
 * later. */
static int reserve(const sink *s, pr_err *err)
{
#ifdef __linux__
    const pack_file *f = s->f;

    if (fallocate(f->fd, 0, (off_t)f->at[s->layer], (off_t)f->layout[s->layer].bytes) && is_full(errno))
        return write_failed(s, err);
#else
    (void)s;
    (void)err;
#endif
    return PR_OK;
}

/* What has not become a record gives its place back; unless somebody may be using it. */
static void give_back(pack_file *f, uint32_t layer)
{
#ifdef FALLOC_FL_PUNCH_HOLE
    if (pack_is_ours_alone(f))
        fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)f->at[layer],
                  (off_t)f->layout[layer].bytes);
#else
    (void)f;
    (void)layer;
#endif
}

int pack_record_build(pack_file *f, uint32_t layer, char sha256[HASH_HEX_BYTES], pr_err *err)
{
    sink s = {.f = f,
              .layer = layer,
              .at = f->at[layer],
              .cap = buffer_bytes(&f->layout[layer]),
              .start_ns = clock_ns()};
    void *buf;
    int rc;

    pack_direct_open(f);
    if (posix_memalign(&buf, LAYER_ALIGN, s.cap))
        return pr_fail(err, PR_ERESOURCE, "out of memory: %zu bytes for packing", s.cap);
    s.buf = buf;
    s.h = hash_begin();
    if (!(rc = reserve(&s, err))) rc = put_record(&s, err);
    if (!rc && file_sync(f->fd)) rc = write_failed(&s, err);
    if (rc) give_back(f, layer);
    hash_end(s.h, sha256);
    free(buf);
    return rc;
}

/* --- reading ------------------------------------------------------------------------------------------- */
static int read_bytes(pack_file *f, uint64_t at, uint8_t *p, size_t n, pr_err *err)
{
    for (size_t done = 0; done < n;) {
        int fd = f->direct >= 0 ? f->direct : f->fd;
        ssize_t got = pread(fd, p + done, n - done, (off_t)(at + done));
        if (got < 0 && (errno == EINTR || refused_direct(f))) continue;
        if (got < 0)
            return pr_fail_errno(err, PR_ERESOURCE, "%s: reading at byte %" PRIu64, f->path, at + done);
        if (!got)
            return pr_fail(err, PR_EINTEGRITY, "%s: ends at byte %" PRIu64 ", expected %" PRIu64, f->path,
                           at + done, f->at[f->n_layers]);
        done += (size_t)got;
    }
    if (f->direct < 0) drop_cached(f->fd, at, n);
    return PR_OK;
}

int pack_record_digest(pack_file *f, uint32_t layer, char sha256[HASH_HEX_BYTES], pr_err *err)
{
    uint64_t n = f->layout[layer].bytes, start_ns = clock_ns();
    hash_pieces *h;
    void *buf;
    int rc = PR_OK;

    pack_direct_open(f);
    if (posix_memalign(&buf, LAYER_ALIGN, BLOCK_BYTES)) return pr_fail(err, PR_ERESOURCE, "out of memory");
    h = hash_begin();
    drop_cached(f->fd, f->at[layer], n); /* what the disk has, not what memory remembers */
    for (uint64_t done = 0; done < n && !rc; done += BLOCK_BYTES) {
        size_t some = n - done < BLOCK_BYTES ? (size_t)(n - done) : BLOCK_BYTES;
        rc = pack_stopped(f) ? pack_interrupted(f, err) : read_bytes(f, f->at[layer] + done, buf, some, err);
        if (!rc) hash_add(h, buf, some);
        show_progress(f, "checking", layer, done + some, start_ns);
    }
    hash_end(h, sha256);
    free(buf);
    return rc;
}

int pack_file_read(const pack_file *f, uint32_t layer, size_t at, size_t n, void *dst, pr_err *err)
{
    assert(layer < f->n_layers && f->asked[layer] && at <= f->layout[layer].bytes &&
           n <= f->layout[layer].bytes - at);
    uint64_t first = f->at[layer] + at;

    for (size_t done = 0; done < n;) {
        size_t some = n - done < BLOCK_BYTES ? n - done : BLOCK_BYTES;
        ssize_t got = pread(f->fd, (uint8_t *)dst + done, some, (off_t)(first + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading layer %" PRIu32, f->path, layer);
        if (!got)
            return pr_fail(err, PR_EINTEGRITY, "%s: ends at byte %" PRIu64 ", in layer %" PRIu32, f->path,
                           first + done, layer);
        drop_cached(f->fd, first + done, (uint64_t)got);
        done += (size_t)got;
    }
    return PR_OK;
}
