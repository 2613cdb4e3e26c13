/* Streamed pieces; see stream.h.
 *
 * Uses of pieces are numbered through, over all passes: use `seq` has place seq % n_slots. The reader's
 * cursor says which piece the next number to be read stands for. When a pass comes that was not expected,
 * numbers go on from the cursor: places of smaller numbers that are not in use are stale and become free,
 * those being read when they arrive. */
#include "src/model/stream.h"
#include "src/base/clock.h"
#include "src/base/mapped.h"
#include "src/base/mem.h"
#include "src/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef enum { SLOT_FREE, SLOT_READING, SLOT_READY } slot_state;

typedef struct {
    atomic_int state;
    atomic_ullong seq; /* of the use that it is read for */
    uint64_t start_ns;
    size_t bytes;
} slot;

/* A place in the expected order of uses. */
typedef struct {
    size_t window, times; /* this window's passes in a row before this one */
    size_t piece;         /* counted within the window */
} cursor;

struct stream {
    stream_kind kind;
    size_t n_windows, n_slots, slot_bytes;
    size_t *first;
    stream_piece *piece;
    mem_region buffer;
    slot *slot;
    disk_read *disk;
    uint8_t *map;
    size_t map_bytes;
    int map_fd;

    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t work, ready;
    pthread_t thread;
    bool running, ending;
    uint64_t next_seq; /* to be asked for */
    cursor next;       /* what it stands for */
    size_t open;       /* requests on their way */
    size_t row;        /* passes of a window in a row that are expected; changes only where reading turns */
    bool any_pass;
    cursor first_pass; /* the first window that has pieces */
    cursor pass;       /* that runs or ran last: window and times */
    uint64_t base;     /* number of its first piece; when it has ended, of the next one's */
    size_t waiting;    /* threads */
    uint64_t waiting_since_ns;
    pr_err error;
    stream_counts counts;
    stream_note note;
    void *note_arg;
    uint64_t noted_ns;     /* end of the last one */
    atomic_size_t advised; /* STREAM_MAP: pieces of this pass */
};

static size_t n_pieces(const stream *s, size_t window)
{
    return s->first[window + 1] - s->first[window];
}

static const stream_piece *piece_at(const stream *s, size_t window, size_t i)
{
    return &s->piece[s->first[window] + i];
}

/* What is read for a piece: whole blocks. */
static uint64_t block_begin(const stream_piece *p)
{
    return p->at / DISK_READ_ALIGN * DISK_READ_ALIGN;
}
static size_t block_bytes(const stream_piece *p)
{
    return MEM_ALIGN_UP((size_t)(p->at - block_begin(p)) + p->n, (size_t)DISK_READ_ALIGN);
}

static size_t largest_piece(const stream_options *o)
{
    size_t n = 0;

    for (size_t i = 0; i < o->first[o->n_windows]; i++) {
        if (block_bytes(&o->piece[i]) > n) n = block_bytes(&o->piece[i]);
    }
    return n;
}

size_t stream_need_bytes(const stream_options *o)
{
    return o->n_slots * largest_piece(o);
}

/* --- the expected order -------------------------------------------------------------------------------- */
/* The pass after this one; some window has pieces. */
static cursor pass_after(const stream *s, cursor c)
{
    c.piece = 0;
    if (++c.times < s->row) return c;
    c.times = 0;
    do c.window = (c.window + 1) % s->n_windows;
    while (n_pieces(s, c.window) == 0);
    return c;
}

static cursor use_after(const stream *s, cursor c)
{
    if (++c.piece < n_pieces(s, c.window)) return c;
    return pass_after(s, c);
}

/* Read from there on. No pass is on, so nothing of the buffer is in use. */
static void turn_to(stream *s, cursor to)
{
    for (size_t i = 0; i < s->n_slots; i++) {
        if (atomic_load(&s->slot[i].state) != SLOT_READY) continue;
        s->counts.wasted_bytes += s->slot[i].bytes;
        atomic_store(&s->slot[i].state, SLOT_FREE);
    }
    s->base = s->next_seq;
    s->next = to;
}

/* --- the reader ---------------------------------------------------------------------------------------- */
/* Ask for the next use, when its place is free. The mutex is held, but not while asking. */
static bool ask(stream *s)
{
    uint64_t seq = s->next_seq;
    slot *t = &s->slot[seq % s->n_slots];
    const stream_piece *p = piece_at(s, s->next.window, s->next.piece);
    pr_err err;
    int rc;

    if (s->error.code || atomic_load(&t->state) != SLOT_FREE || s->open == disk_read_room(s->disk))
        return false;
    t->bytes = block_bytes(p);
    t->start_ns = clock_ns();
    atomic_store(&t->seq, seq);
    atomic_store(&t->state, SLOT_READING);
    s->next_seq++;
    s->next = use_after(s, s->next);
    s->open++;
    pthread_mutex_unlock(&s->mutex);
    rc = disk_read_submit(s->disk, seq, block_begin(p), block_bytes(p),
                          (uint8_t *)s->buffer.p + seq % s->n_slots * s->slot_bytes, &err);
    pthread_mutex_lock(&s->mutex);
    if (!rc) return true;
    s->open--;
    s->error = err;
    pthread_cond_broadcast(&s->ready);
    return false;
}

static void note_read(stream *s, const slot *t)
{
    uint64_t now = clock_ns();

    s->note(s->note_arg, t->start_ns > s->noted_ns ? t->start_ns : s->noted_ns, now, t->bytes);
    s->noted_ns = now;
}

/* The mutex is held. */
static void arrived(stream *s, uint64_t seq)
{
    slot *t = &s->slot[seq % s->n_slots];

    s->open--;
    s->counts.read_bytes += t->bytes;
    if (seq < s->base) s->counts.wasted_bytes += t->bytes;
    atomic_store(&t->state, seq < s->base ? SLOT_FREE : SLOT_READY);
    if (s->note) note_read(s, t);
    pthread_cond_broadcast(&s->ready);
}

static void wait_for_disk(stream *s)
{
    uint64_t seq = 0;
    pr_err err;
    disk_read_end end;

    pthread_mutex_unlock(&s->mutex);
    end = disk_read_wait(s->disk, -1, &seq, &err);
    pthread_mutex_lock(&s->mutex);
    if (end == DISK_READ_DONE) arrived(s, seq);
    if (end != DISK_READ_FAILED) return;
    s->open--;
    s->error = err;
    pthread_cond_broadcast(&s->ready);
}

static void *read_ahead(void *arg)
{
    stream *s = arg;

    pthread_mutex_lock(&s->mutex);
    while (!s->ending) {
        while (ask(s)) {}
        if (s->open) wait_for_disk(s);
        else if (!s->ending) pthread_cond_wait(&s->work, &s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* A place has become free, or there is another end to look at. The mutex is held. */
static void stir(stream *s)
{
    pthread_cond_signal(&s->work);
    if (s->disk) disk_read_wake(s->disk);
}

/* --- making it ----------------------------------------------------------------------------------------- */
static int copy_options(stream *s, const stream_options *o, pr_err *err)
{
    size_t n = o->first[o->n_windows];

    s->kind = o->kind;
    s->n_windows = o->n_windows;
    s->n_slots = o->n_slots;
    s->slot_bytes = largest_piece(o);
    s->row = 1;
    s->first = malloc((o->n_windows + 1) * sizeof *s->first);
    s->piece = malloc((n ? n : 1) * sizeof *s->piece);
    s->slot = calloc(o->n_slots, sizeof *s->slot);
    if (!s->first || !s->piece || !s->slot) return pr_fail(err, PR_ERESOURCE, "out of memory");
    memcpy(s->first, o->first, (o->n_windows + 1) * sizeof *s->first);
    if (n) memcpy(s->piece, o->piece, n * sizeof *s->piece);
    while (n && n_pieces(s, s->first_pass.window) == 0) s->first_pass.window++;
    s->next = s->first_pass;
    return PR_OK;
}

static int open_map(stream *s, const char *path, pr_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t n = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (n > 0) {
        s->map = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, fd, 0);
        if (s->map == MAP_FAILED) s->map = NULL;
        else s->map_bytes = (size_t)n;
        if (s->map) mapped_watch(s->map, s->map_bytes, path);
    }
    if (!s->map) pr_fail_errno(err, PR_ERESOURCE, "cannot map %s", path);
    s->map_fd = fd;
    return s->map ? PR_OK : PR_ERESOURCE;
}

static int open_reader(stream *s, const char *path, const stream_options *o, pr_err *err)
{
    int rc = disk_read_open(&s->disk, path, &o->disk, err);

    if (rc) return rc;
    if (mem_region_new(&s->buffer, s->n_slots * s->slot_bytes))
        return pr_fail_errno(err, PR_ERESOURCE, "cannot get %zu bytes for the read buffer",
                             s->n_slots * s->slot_bytes);
    if (thread_start(&s->thread, read_ahead, s)) return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    s->running = true;
    return PR_OK;
}

int stream_new(stream **out, const char *path, const stream_options *o, pr_err *err)
{
    stream *s = calloc(1, sizeof *s);
    int rc;

    if (!s) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->map_fd = -1;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->ready, NULL);
    rc = copy_options(s, o, err);
    if (!rc && o->first[o->n_windows])
        rc = o->kind == STREAM_MAP ? open_map(s, path, err) : open_reader(s, path, o, err);
    if (rc) stream_free(s);
    else *out = s;
    return rc;
}

void stream_free(stream *s)
{
    if (!s) return;
    if (s->running) {
        pthread_mutex_lock(&s->mutex);
        s->ending = true;
        stir(s);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->thread, NULL);
    }
    disk_read_close(s->disk); /* before the buffer: requests may be on their way */
    mem_region_free(&s->buffer);
    if (s->map) {
        mapped_forget(s->map);
        munmap(s->map, s->map_bytes);
    }
    if (s->map_fd >= 0) close(s->map_fd);
    free(s->first);
    free(s->piece);
    free(s->slot);
    pthread_cond_destroy(&s->ready);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

void stream_watch(stream *s, stream_note note, void *arg)
{
    pthread_mutex_lock(&s->mutex);
    s->note = note;
    s->note_arg = arg;
    pthread_mutex_unlock(&s->mutex);
}

/* Waits counted as one stall while any thread waits. */
static bool wait_slowly(stream *s, slot *t, uint64_t seq)
{
    pthread_mutex_lock(&s->mutex);
    if (s->waiting++ == 0) s->waiting_since_ns = clock_ns();
    while (!s->error.code && (atomic_load(&t->state) != SLOT_READY || atomic_load(&t->seq) != seq))
        pthread_cond_wait(&s->ready, &s->mutex);
    if (--s->waiting == 0) {
        s->counts.stalls++;
        s->counts.stall_ms += clock_ms_since(s->waiting_since_ns);
    }
    bool there = !s->error.code;
    pthread_mutex_unlock(&s->mutex);
    return there;
}

/* --- the page cache's way ------------------------------------------------------------------------------ */
/* Whole pages around (will need) or inside (don't need) a piece. */
static void advise(const stream *s, const stream_piece *p, int advice)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)p->at, to = from + p->n;

    from = advice == MADV_WILLNEED ? from / page * page : MEM_ALIGN_UP(from, page);
    to = advice == MADV_WILLNEED ? to : to / page * page;
    if (to > s->map_bytes) to = s->map_bytes;
    if (from >= to) return;
    madvise(s->map + from, to - from, advice);
#ifdef __linux__ /* the mapping alone lets go of the pages, and the cache keeps them */
    if (advice == MADV_DONTNEED)
        posix_fadvise(s->map_fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
#endif
}

/* Ask for the pieces up to `end` uses after the pass's first, once each. */
static void advise_ahead(stream *s, size_t end)
{
    cursor c = s->pass;
    size_t done = atomic_load(&s->advised);

    while (done < end && !atomic_compare_exchange_weak(&s->advised, &done, end)) {}
    c.piece = 0;
    for (size_t i = 0; i < end; i++, c = use_after(s, c)) {
        if (i >= done) advise(s, piece_at(s, c.window, c.piece), MADV_WILLNEED);
    }
}

/* --- a pass ----------------------------------------------------------------------------------------------
 */
/* Another pass than the expected one: what is read ahead is of no use, and a window is used this often in a
 * row. */
static void surprise(stream *s, size_t window)
{
    bool again = s->any_pass && s->pass.window == window;
    size_t times = again ? s->pass.times + 1 : 0;

    if (s->any_pass) s->row = again ? times + 1 : s->pass.times + 1;
    if (s->kind == STREAM_READ) turn_to(s, (cursor){window, times, 0});
    atomic_store(&s->advised, 0);
    s->pass = (cursor){window, times, 0};
}

void stream_begin(stream *s, size_t window)
{
    if (n_pieces(s, window) == 0) return;
    pthread_mutex_lock(&s->mutex);
    cursor e = s->any_pass ? pass_after(s, s->pass) : s->first_pass;
    if (e.window == window) s->pass = e;
    else surprise(s, window);
    s->any_pass = true;
    if (s->kind == STREAM_READ) stir(s);
    pthread_mutex_unlock(&s->mutex);
}

static const uint8_t *wait_for_read(stream *s, size_t i)
{
    uint64_t seq = s->base + i;
    slot *t = &s->slot[seq % s->n_slots];
    const stream_piece *p = piece_at(s, s->pass.window, i);
    bool there = true;

    if (atomic_load(&t->state) != SLOT_READY || atomic_load(&t->seq) != seq) there = wait_slowly(s, t, seq);
    return there ? (uint8_t *)s->buffer.p + seq % s->n_slots * s->slot_bytes + (p->at - block_begin(p))
                 : NULL;
}

const uint8_t *stream_wait(stream *s, size_t i)
{
    if (s->kind == STREAM_READ) return wait_for_read(s, i);
    if (atomic_load(&s->advised) < i + s->n_slots) advise_ahead(s, i + s->n_slots);
    return s->map + piece_at(s, s->pass.window, i)->at;
}

void stream_done(stream *s, size_t i)
{
    if (s->kind == STREAM_MAP) {
        advise(s, piece_at(s, s->pass.window, i), MADV_DONTNEED);
        return;
    }
    pthread_mutex_lock(&s->mutex);
    atomic_store(&s->slot[(s->base + i) % s->n_slots].state, SLOT_FREE);
    stir(s);
    pthread_mutex_unlock(&s->mutex);
}

void stream_end(stream *s, size_t window)
{
    size_t n = n_pieces(s, window), advised;

    if (n == 0) return;
    pthread_mutex_lock(&s->mutex);
    s->base += n;
    advised = atomic_load(&s->advised);
    atomic_store(&s->advised, advised > n ? advised - n : 0);
    pthread_mutex_unlock(&s->mutex);
}

int stream_failed(stream *s, pr_err *err)
{
    pthread_mutex_lock(&s->mutex);
    pr_err e = s->error;
    pthread_mutex_unlock(&s->mutex);
    return e.code ? pr_fail(err, e.code, "%s", e.msg) : PR_OK;
}

stream_counts stream_about(stream *s)
{
    pthread_mutex_lock(&s->mutex);
    stream_counts c = s->counts;
    pthread_mutex_unlock(&s->mutex);
    return c;
}

disk_read_facts stream_disk(const stream *s)
{
    return s->disk ? disk_read_about(s->disk) : (disk_read_facts){0};
}
