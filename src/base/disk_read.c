/* Requests, the blocks they are cut in, and what came of each read. The engines (disk_read_impl.h) carry out
 * single reads; here is the order in which they start, how many at once and how fast, and what is done with
 * short ones, refused ones and the file's end.
 *
 * Blocks of all requests stand in one line, so a new request's first blocks start while the last ones of the
 * request before it are still on their way: the disk always has a queue. */
#include "src/base/disk_read.h"
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/disk_read_impl.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_OPEN = 256, /* requests */
    MAX_TRIES = 100 /* of a read that is put off (EAGAIN, EINTR) without a byte */
};
static const size_t DEFAULT_BLOCK = 1 << 20;
static const unsigned DEFAULT_DEPTH = 16;
static const uint64_t BURST_NS = 5000000; /* what a limited reader may catch up with after a pause */

typedef struct {
    uint64_t tag, at;
    size_t n, started; /* bytes; started: given to blocks */
    uint8_t *dst;
    unsigned on_way; /* blocks */
    bool failed;
    int error; /* errno; 0: the file ended */
    uint64_t failed_at;
} request;

typedef struct {
    unsigned request;
    uint64_t at;
    size_t n, from, got; /* bytes: in all, where the read on its way begins, what is there */
    uint8_t *dst;
    unsigned tries;
} block;

/* Numbers of requests, first in, first out. */
typedef struct {
    unsigned item[MAX_OPEN], first, n;
} line;

struct disk_read {
    char *path;
    disk_file file;
    const disk_engine *engine;
    void *state; /* the engine's */
    disk_read_options o;
    char why[160];
    request request[MAX_OPEN];
    block block[DISK_READ_MAX_DEPTH];
    unsigned free_request[MAX_OPEN], n_free_requests;
    unsigned free_block[DISK_READ_MAX_DEPTH], n_free_blocks;
    line todo, ended; /* requests with blocks to start; requests to be returned */
    bool kick;        /* something was started since the last kick */
    uint64_t due_ns;  /* with a limit: the next block may start */
    atomic_bool woken;
    pthread_mutex_t mutex; /* of what disk_read_about reads: */
    unsigned under_way;    /* requests */
    uint64_t bytes, requests, busy_ns, busy_since_ns;
};

static void line_put(line *l, unsigned i)
{
    l->item[(l->first + l->n++) % MAX_OPEN] = i;
}

static unsigned line_take(line *l)
{
    unsigned i = l->item[l->first];

    l->first = (l->first + 1) % MAX_OPEN;
    l->n--;
    return i;
}

/* --- opening and closing ------------------------------------------------------------------------------- */
static int check_options(disk_read_options *o, pr_err *err)
{
    if (!o->block_bytes) o->block_bytes = DEFAULT_BLOCK;
    if (!o->depth) o->depth = DEFAULT_DEPTH;
    if (o->block_bytes < DISK_READ_ALIGN || o->block_bytes > DISK_READ_MAX_BLOCK ||
        (o->block_bytes & (o->block_bytes - 1)))
        return pr_fail(err, PR_EUSAGE, "blocks of %zu bytes to read: expected a power of two, %d to %d",
                       o->block_bytes, DISK_READ_ALIGN, DISK_READ_MAX_BLOCK);
    if (o->depth > DISK_READ_MAX_DEPTH)
        return pr_fail(err, PR_EUSAGE, "%u reads at once: expected 1 to %d", o->depth, DISK_READ_MAX_DEPTH);
    return PR_OK;
}

static int open_engine(disk_read *d, char *why, size_t n, pr_err *err)
{
    const disk_engine_options o = {d->file.fd, d->o.depth, d->o.idle};

    if (d->o.engine != DISK_READ_PREAD) d->engine = disk_uring_new(&d->state, &o, why, n);
    if (!d->engine) d->engine = disk_pread_new(&d->state, &o, why, n);
    if (!d->engine) return pr_fail(err, PR_ERESOURCE, "%s: %s", d->path, *why ? why : "out of memory");
    return PR_OK;
}

/* What is not as asked for, once and not again for every file of the same disk. */
static void say_once(const disk_read *d)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static char said[sizeof d->why];

    log_debug("%s: read with %s, %s the page cache, %u blocks of %zu KiB at once", d->path,
              d->engine->name == DISK_READ_URING ? "io_uring" : "threads",
              d->file.direct ? "past" : "through", d->o.depth, d->o.block_bytes >> 10);
    pthread_mutex_lock(&mutex);
    if (*d->why && strcmp(said, d->why)) {
        snprintf(said, sizeof said, "%s", d->why);
        log_info("reading %s: %s", d->path, d->why);
    }
    pthread_mutex_unlock(&mutex);
}

static int open_parts(disk_read *d, const char *path, pr_err *err)
{
    char of_file[60] = "", of_engine[96] = "";
    int rc = check_options(&d->o, err);

    if (rc) return rc;
    if (!(d->path = strdup(path))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if ((rc = disk_file_open(&d->file, path, d->o.mode, of_file, sizeof of_file, err)) ||
        (rc = open_engine(d, of_engine, sizeof of_engine, err)))
        return rc;
    snprintf(d->why, sizeof d->why, "%s%s%s", of_engine, *of_engine && *of_file ? "; " : "", of_file);
    say_once(d);
    return PR_OK;
}

int disk_read_open(disk_read **out, const char *path, const disk_read_options *o, pr_err *err)
{
    disk_read *d = calloc(1, sizeof *d);
    int rc;

    if (!d) return pr_fail(err, PR_ERESOURCE, "out of memory");
    d->o = *o;
    d->file.fd = -1;
    pthread_mutex_init(&d->mutex, NULL);
    if ((rc = open_parts(d, path, err))) {
        disk_read_close(d);
        return rc;
    }
    while (d->n_free_requests < MAX_OPEN) {
        d->free_request[d->n_free_requests] = d->n_free_requests;
        d->n_free_requests++;
    }
    while (d->n_free_blocks < d->o.depth) {
        d->free_block[d->n_free_blocks] = d->n_free_blocks;
        d->n_free_blocks++;
    }
    *out = d;
    return PR_OK;
}

void disk_read_close(disk_read *d)
{
    disk_result r[DISK_READ_MAX_DEPTH];

    if (!d) return;
    if (d->engine) {
        while (d->n_free_blocks < d->o.depth) /* the memory they write to is the caller's again after this */
            d->n_free_blocks += (unsigned)d->engine->reap(d->state, r, DISK_READ_MAX_DEPTH, COND_FOREVER);
        d->engine->free(d->state);
    }
    disk_file_close(&d->file);
    pthread_mutex_destroy(&d->mutex);
    free(d->path);
    free(d);
}

/* --- what came of a read ------------------------------------------------------------------------------- */
/* A request counts from submit until its last block is there. */
static void count_begin(disk_read *d)
{
    pthread_mutex_lock(&d->mutex);
    if (!d->under_way++) d->busy_since_ns = clock_ns();
    pthread_mutex_unlock(&d->mutex);
}

static void count_end(disk_read *d, const request *r)
{
    pthread_mutex_lock(&d->mutex);
    if (!r->failed) {
        d->bytes += r->n;
        d->requests++;
    }
    if (!--d->under_way) d->busy_ns += clock_ns() - d->busy_since_ns;
    pthread_mutex_unlock(&d->mutex);
}

static void start_read(disk_read *d, block *b)
{
    const disk_piece p = {(unsigned)(b - d->block), b->dst + b->from, b->at + b->from, b->n - b->from};

    d->engine->start(d->state, &p);
    d->kick = true;
}

/* A failed request starts no more blocks. Only the first in line can have some started and some not. */
static void fail_request(disk_read *d, unsigned i, int error, uint64_t at)
{
    request *r = &d->request[i];

    if (r->failed) return;
    r->failed = true;
    r->error = error;
    r->failed_at = at;
    if (d->todo.n && d->todo.item[d->todo.first] == i) line_take(&d->todo);
}

static void end_block(disk_read *d, block *b)
{
    request *r = &d->request[b->request];

    disk_file_drop(&d->file, b->at, b->n);
    d->free_block[d->n_free_blocks++] = (unsigned)(b - d->block);
    if (--r->on_way || !(r->failed || r->started == r->n)) return;
    /* Once more: a large page of the cache may lie across two blocks. */
    disk_file_drop(&d->file, r->at, r->n);
    count_end(d, r);
    line_put(&d->ended, b->request);
}

/* No more bytes behind b->got: right when that is the end of the file, as it was when it was opened. */
static void at_end(disk_read *d, block *b)
{
    if (b->at + b->got < d->file.size) fail_request(d, b->request, 0, b->at + b->got);
    else memset(b->dst + b->got, 0, b->n - b->got);
    end_block(d, b);
}

/* The rest of a short read. Past the cache it begins on a boundary, so some bytes are read twice; a read that
 * stops where one stopped before has met the file's end. */
static void short_read(disk_read *d, block *b, size_t upto)
{
    bool ended = upto == b->from || upto == b->got || (upto < b->got && ++b->tries >= MAX_TRIES);

    if (upto > b->got) {
        b->got = upto;
        b->tries = 0;
    }
    if (ended || b->at + b->got >= d->file.size) {
        at_end(d, b);
        return;
    }
    b->from = d->file.direct ? b->got / DISK_READ_ALIGN * DISK_READ_ALIGN : b->got;
    start_read(d, b);
}

static void on_result(disk_read *d, const disk_result *result)
{
    block *b = &d->block[result->block];

    if ((result->res == -EINTR || result->res == -EAGAIN) && ++b->tries < MAX_TRIES) start_read(d, b);
    else if (result->res < 0) {
        fail_request(d, b->request, -result->res, b->at + b->from);
        end_block(d, b);
    } else if (b->from + (size_t)result->res >= b->n) end_block(d, b);
    else short_read(d, b, b->from + (size_t)result->res);
}

/* --- starting blocks --------------------------------------------------------------------------------- */
static bool can_start(const disk_read *d)
{
    return d->todo.n && d->n_free_blocks;
}

static void start_next(disk_read *d)
{
    unsigned i = d->todo.item[d->todo.first];
    request *r = &d->request[i];
    block *b = &d->block[d->free_block[--d->n_free_blocks]];
    size_t rest = r->n - r->started;

    *b = (block){.request = i,
                 .at = r->at + r->started,
                 .n = rest < d->o.block_bytes ? rest : d->o.block_bytes,
                 .dst = r->dst + r->started};
    r->started += b->n;
    r->on_way++;
    if (r->started == r->n) line_take(&d->todo);
    if (d->o.limit_bytes_s) {
        uint64_t now = clock_ns(), earliest = now > BURST_NS ? now - BURST_NS : 0;
        if (d->due_ns < earliest) d->due_ns = earliest;
        d->due_ns += (uint64_t)((double)b->n * 1e9 / (double)d->o.limit_bytes_s);
    }
    start_read(d, b);
}

static void pump(disk_read *d)
{
    while (can_start(d) && (!d->o.limit_bytes_s || clock_ns() >= d->due_ns)) start_next(d);
    if (d->kick) d->engine->kick(d->state);
    d->kick = false;
}

static void reap(disk_read *d, uint64_t deadline_ns)
{
    disk_result r[DISK_READ_MAX_DEPTH];
    size_t n = d->engine->reap(d->state, r, DISK_READ_MAX_DEPTH, deadline_ns);

    for (size_t i = 0; i < n; i++) on_result(d, &r[i]);
}

/* --- requests ------------------------------------------------------------------------------------------- */
int disk_read_submit(disk_read *d, uint64_t tag, uint64_t at, size_t n, void *dst, pr_err *err)
{
    uint64_t end = MEM_ALIGN_UP(d->file.size, (uint64_t)DISK_READ_ALIGN);
    unsigned i;

    if (!n || n % DISK_READ_ALIGN || at % DISK_READ_ALIGN || (uintptr_t)dst % DISK_READ_ALIGN)
        return pr_fail(err, PR_EINTERNAL, "%s: a request of %zu bytes at offset %llu that is not aligned",
                       d->path, n, (unsigned long long)at);
    if (at >= end || n > end - at)
        return pr_fail(err, PR_EINTEGRITY, "%s: %zu bytes needed at offset %llu, but the file has %llu",
                       d->path, n, (unsigned long long)at, (unsigned long long)d->file.size);
    if (!d->n_free_requests)
        return pr_fail(err, PR_EINTERNAL, "%s: more than %d requests to read", d->path, MAX_OPEN);
    i = d->free_request[--d->n_free_requests];
    d->request[i] = (request){.tag = tag, .at = at, .n = n, .dst = dst};
    line_put(&d->todo, i);
    count_begin(d);
    reap(d, 0);
    pump(d);
    return PR_OK;
}

static disk_read_end take_ended(disk_read *d, uint64_t *tag, pr_err *err)
{
    unsigned i = line_take(&d->ended);
    const request *r = &d->request[i];

    d->free_request[d->n_free_requests++] = i;
    *tag = r->tag;
    if (!r->failed) return DISK_READ_DONE;
    if (r->error)
        pr_fail(err, PR_ERESOURCE, "%s: reading at offset %llu: %s", d->path,
                (unsigned long long)r->failed_at, strerror(r->error));
    else
        pr_fail(err, PR_EINTEGRITY,
                "%s: nothing at offset %llu, but the file had %llu bytes when it was opened", d->path,
                (unsigned long long)r->failed_at, (unsigned long long)d->file.size);
    return DISK_READ_FAILED;
}

static uint64_t deadline_in(double timeout_s)
{
    if (timeout_s < 0 || timeout_s > 1e9) return COND_FOREVER;
    return clock_ns() + (uint64_t)(timeout_s * 1e9);
}

disk_read_end disk_read_wait(disk_read *d, double timeout_s, uint64_t *tag, pr_err *err)
{
    uint64_t deadline = deadline_in(timeout_s);

    reap(d, 0);
    for (;;) {
        uint64_t until = deadline;
        pump(d);
        if (atomic_exchange(&d->woken, false)) return DISK_READ_TIMEOUT;
        if (d->ended.n) return take_ended(d, tag, err);
        if (clock_ns() >= deadline) return DISK_READ_TIMEOUT;
        if (can_start(d) && d->due_ns < until) until = d->due_ns; /* held back by the limit */
        reap(d, until);
    }
}

void disk_read_wake(disk_read *d)
{
    atomic_store(&d->woken, true);
    d->engine->wake(d->state);
}

size_t disk_read_room(const disk_read *d)
{
    (void)d;
    return MAX_OPEN;
}

disk_read_facts disk_read_about(disk_read *d)
{
    disk_read_facts f = {.engine = d->engine->name,
                         .mode = d->file.direct ? DISK_READ_DIRECT : DISK_READ_BUFFERED,
                         .depth = d->o.depth,
                         .block_bytes = d->o.block_bytes};
    uint64_t busy_ns;

    snprintf(f.why, sizeof f.why, "%s", d->why);
    pthread_mutex_lock(&d->mutex);
    f.bytes = d->bytes;
    f.requests = d->requests;
    busy_ns = d->busy_ns + (d->under_way ? clock_ns() - d->busy_since_ns : 0);
    pthread_mutex_unlock(&d->mutex);
    f.busy_s = (double)busy_ns / 1e9;
    return f;
}
