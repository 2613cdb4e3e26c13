/* Ranges of one resource: divided into pieces, asked for over several connections, put where they belong.
 *
 * The first connection goes alone until its first answer has shown that there are ranges, of which version,
 * and where (behind redirects); then the others start. Whoever is done takes the next piece; when none is
 * left, half of what the slowest has still to do, so that all end together. Without ranges one connection
 * reads the whole from the start. Every answer is checked before a byte of it is taken: that it is of this
 * version, of these bytes. */
#include "net/fetch_impl.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    PIECE_LEAST = 1 << 20, /* near the end, and of small files */
    PIECE_FIRST = 16 << 20,
    PIECE_MOST = 64 << 20,
    STEAL_LEAST = 2 << 20, /* below, a new connection costs more than it gains */
    FAST_MS = 4000,        /* a piece in less: larger pieces */
    SLOW_MS = 30000,
    PROGRESS_MS = 150,
    JOURNAL_MS = 1000
};

/* --- bytes that came -------------------------------------------------------------------------------- */
static int put(ranges *r, uint64_t offset, const char *data, size_t n, pr_err *err)
{
    int rc;

    if (r->part) {
        if ((rc = part_put(r->part, offset, data, n, err))) return rc;
    } else {
        memcpy(r->memory + (offset - r->memory_first), data, n);
        if (!set_add(&r->memory_done, offset, offset + n))
            return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    }
    r->have += n;
    if (r->have > r->most) r->most = r->have;
    return PR_OK;
}

/* --- pieces ----------------------------------------------------------------------------------------- */
static bool steal(ranges *r, piece *p)
{
    piece *victim = NULL;

    for (unsigned i = 0; i < r->jobs; i++) {
        piece *q = &r->piece[i];
        if (q != p && q->end - q->pos >= STEAL_LEAST &&
            (!victim || q->end - q->pos > victim->end - victim->pos))
            victim = q;
    }
    if (!victim) return false;
    p->end = victim->end;
    p->pos = victim->end = victim->pos + (victim->end - victim->pos) / 2;
    return true;
}

static bool next_piece(ranges *r, piece *p)
{
    if (r->todo.n) {
        uint64_t n = r->todo.total / r->jobs, left = r->todo.r[0].end - r->todo.r[0].first;
        if (n < PIECE_LEAST) n = PIECE_LEAST;
        if (n > r->piece_bytes) n = r->piece_bytes;
        if (n > left) n = left;
        p->pos = r->todo.r[0].first;
        p->end = p->pos + n;
        if (!set_remove(&r->todo, p->pos, p->end)) {
            p->end = p->pos;
            return false;
        }
    } else if (!steal(r, p)) return false;
    p->began_ns = clock_ns();
    return true;
}

/* Pieces that come quickly may be larger: fewer requests. */
static void adapt(ranges *r, const piece *p)
{
    double ms = clock_ms_since(p->began_ns);

    if (ms < FAST_MS && r->piece_bytes < PIECE_MOST) r->piece_bytes *= 2;
    else if (ms > SLOW_MS && r->piece_bytes > PIECE_FIRST) r->piece_bytes /= 2;
}

/* --- what is asked ---------------------------------------------------------------------------------- */
static bool ranges_ask(void *arg, slot *s)
{
    ranges *r = arg;
    piece *p = &r->piece[s->i];

    if (s->i && !r->proven) return false;
    if (s->renew) {
        ranges_forget_address(r);
        s->renew = false;
    }
    s->url = r->x->url;
    free(s->start_at);
    s->start_at = NULL;
    *s->if_range = 0;
    s->ranged = s->takes_416 = !r->single;
    s->proven = r->proven;
    if (r->single) return true;
    if (p->pos >= p->end && !next_piece(r, p)) return false;
    s->first = p->pos;
    s->end = p->asked = p->end;
    if (r->address) s->start_at = strdup(r->address);
    if (s->start_at) snprintf(s->if_range, sizeof s->if_range, "%s", r->served);
    else if (!fetch_names_content(r->x->etag, r->x))
        snprintf(s->if_range, sizeof s->if_range, "%s", r->x->etag);
    return true;
}

static bool ranges_finished(void *arg)
{
    const ranges *r = arg;

    return r->have == r->total;
}

static uint64_t ranges_news(void *arg)
{
    return ((ranges *)arg)->most;
}

/* --- bodies ----------------------------------------------------------------------------------------- */
/* Of a stream of the whole, what is wanted and not here. */
static int take_wanted(ranges *r, const char *data, size_t n, pr_err *err)
{
    uint64_t first = r->stream, end = r->stream + n;
    fetch_range w, gap;
    int rc;

    for (uint64_t at = first; set_next(&r->want, true, at, end, &w); at = w.end)
        for (uint64_t from = w.first; set_next(r->done, false, from, w.end, &gap); from = gap.end)
            if ((rc = put(r, gap.first, data + (gap.first - first), (size_t)(gap.end - gap.first), err)))
                return rc;
    r->stream = end;
    return PR_OK;
}

static int ranges_body(void *arg, slot *s, const char *data, size_t n, pr_err *err)
{
    ranges *r = arg;
    piece *p = &r->piece[s->i];
    uint64_t room;
    int rc;

    if (r->single) {
        rc = take_wanted(r, data, n, err);
        s->enough = ranges_finished(r);
        return rc;
    }
    room = p->end - p->pos;
    if ((rc = put(r, p->pos, data, n < room ? n : (size_t)room, err))) return rc;
    p->pos += n < room ? n : room;
    s->enough = n > room || (p->pos == p->end && p->asked > p->end);
    return PR_OK;
}

static bool ranges_end(void *arg, slot *s)
{
    ranges *r = arg;
    piece *p = &r->piece[s->i];

    if (r->single) return ranges_finished(r);
    if (p->pos < p->end) return false;
    adapt(r, p);
    return true;
}

/* --- now and then ----------------------------------------------------------------------------------- */
static void show(ranges *r)
{
    r->shown_ns = clock_ns();
    if (r->f->o.progress && r->part) r->f->o.progress(r->f->o.progress_arg, r->most, r->total);
}

static int ranges_tick(void *arg, pr_err *err)
{
    ranges *r = arg;
    char *text;
    int rc;

    if (!r->part) return PR_OK;
    if (clock_ms_since(r->shown_ns) >= PROGRESS_MS) show(r);
    if ((rc = journal_writer_check(r->writer, &r->part->lost, err))) return rc;
    if (clock_ms_since(r->journaled_ns) < JOURNAL_MS || r->journaled_bytes == r->have ||
        journal_writer_busy(r->writer))
        return PR_OK;
    if (!(text = part_journal_text(r->part)))
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", r->part->journal);
    journal_writer_save(r->writer, text);
    r->journaled_ns = clock_ns();
    r->journaled_bytes = r->have;
    return PR_OK;
}

/* --- one run ---------------------------------------------------------------------------------------- */
static int take_local(void *arg, uint64_t offset, const char *data, size_t n, pr_err *err)
{
    ranges *r = arg;
    int rc;

    if (fetch_stopped(r->f)) return fetch_interrupted(err);
    if ((rc = put(r, offset, data, n, err))) return rc;
    return ranges_tick(r, err);
}

static int run_local(ranges *r, const char *path, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 0; !rc && i < r->todo.n; i++)
        rc = local_read(path, r->x, r->todo.r[i].first, r->todo.r[i].end, take_local, r, err);
    return rc;
}

static int run_http(ranges *r, pr_err *err)
{
    const client c = {.arg = r,
                      .ask = ranges_ask,
                      .finished = ranges_finished,
                      .begin = ranges_begin,
                      .body = ranges_body,
                      .end = ranges_end,
                      .news = ranges_news,
                      .tick = ranges_tick};
    slot *s = calloc(r->jobs, sizeof *s);
    int rc;

    if (!s) return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    rc = fetch_run(r->f, s, r->jobs, &c, err);
    free(s);
    return rc;
}

static int run(ranges *r, pr_err *err)
{
    char *path;
    int rc;

    r->piece_bytes = PIECE_FIRST;
    r->journaled_ns = clock_ns();
    r->journaled_bytes = r->most = r->have;
    if (fetch_stopped(r->f)) return fetch_interrupted(err);
    if (fetch_url_local(r->x->url, &path)) rc = run_local(r, path, err);
    else rc = run_http(r, err);
    free(path);
    ranges_forget_address(r);
    return rc;
}

/* want, todo and have from what is done. */
static int plan_work(ranges *r, const fetch_range *want, size_t n, pr_err *err)
{
    uint64_t before = 0;
    fetch_range gap;

    for (size_t i = 0; i < n; i++) {
        if (want[i].first < before || want[i].end < want[i].first ||
            (r->x->has_bytes && want[i].end > r->x->bytes))
            return pr_fail(err, PR_EINTEGRITY,
                           "%.200s: bytes %llu to %llu are not in its %llu bytes, or not in order", r->x->url,
                           (unsigned long long)want[i].first, (unsigned long long)want[i].end,
                           (unsigned long long)r->x->bytes);
        before = want[i].end;
        if (!set_add(&r->want, want[i].first, want[i].end))
            return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    }
    for (size_t i = 0; i < r->want.n; i++)
        for (uint64_t at = r->want.r[i].first; set_next(r->done, false, at, r->want.r[i].end, &gap);
             at = gap.end)
            if (!set_add(&r->todo, gap.first, gap.end))
                return pr_fail(err, PR_ERESOURCE, "fetch: out of memory");
    r->total = r->want.total;
    r->have = r->total - r->todo.total;
    return PR_OK;
}

static void ranges_clear(ranges *r)
{
    set_clear(&r->want);
    set_clear(&r->todo);
    set_clear(&r->memory_done);
}

int fetch_bytes(fetch *f, const fetch_facts *x, uint64_t first, size_t n, void *dst, pr_err *err)
{
    const fetch_range want = {first, first + n};
    ranges r = {.f = f, .x = x, .memory = dst, .memory_first = first};
    int rc;

    r.done = &r.memory_done;
    r.jobs = n < 2 * (size_t)STEAL_LEAST ? 1 : f->o.jobs;
    if (!(rc = plan_work(&r, &want, 1, err)) && r.total) rc = run(&r, err);
    ranges_clear(&r);
    return rc;
}

/* --- into a file ------------------------------------------------------------------------------------ */
static int open_part(fetch *f, const char *path, const fetch_facts *x, pr_err *err)
{
    if (f->open && part_is(f->open, path, x)) return PR_OK;
    part_close(f->open);
    f->open = NULL;
    return part_open(&f->open, path, x, err);
}

static int run_into_part(ranges *r, pr_err *err)
{
    pr_err later;
    bool full;
    int rc, saved;

    if ((rc = journal_writer_new(&r->writer, r->part->fd, r->part->part, r->part->journal, err))) return rc;
    rc = run(r, err);
    journal_writer_free(r->writer, &r->part->lost, &full);
    if (full) part_not_journaled(r->part);
    r->part->full |= full;
    r->writer = NULL;
    saved = part_save(r->part, &later);
    if (saved && !rc) {
        if (err) *err = later;
        return saved;
    }
    if (saved) log_warn("%s", later.msg);
    return rc;
}

static void say_what_is_missing(const ranges *r, pr_err *err)
{
    char msg[PR_MSG_BYTES];

    if (!err) return;
    memcpy(msg, err->msg, sizeof msg);
    pr_fail(err, err->code,
            "%.300s; %llu bytes are still missing: make room for them and call again, to go on where this "
            "stopped",
            msg, (unsigned long long)(r->total - r->have));
}

static int fetch_into(ranges *r, const fetch_range *want, size_t n, uint64_t *resumed, pr_err *err)
{
    int rc;

    if ((rc = plan_work(r, want, n, err))) return rc;
    if (resumed) *resumed = r->have;
    if ((rc = part_reserve(r->part, &r->want, r->total == r->x->bytes, err))) return rc;
    r->most = r->have;
    show(r);
    if (!(rc = run_into_part(r, err))) show(r);
    else if (rc == PR_ERESOURCE && (r->part->full || r->part->lost)) say_what_is_missing(r, err);
    return rc;
}

int fetch_ranges(fetch *f, const fetch_facts *x, const char *path, const fetch_range *want, size_t n,
                 uint64_t *resumed, pr_err *err)
{
    ranges r = {.f = f, .x = x, .jobs = f->o.jobs};
    int rc;

    if (resumed) *resumed = 0;
    if (!x->has_bytes)
        return pr_fail(
            err, PR_ENETWORK,
            "%.200s: the server does not say how long it is, so that nobody could tell a part from the "
            "whole: fetch it by other means",
            x->url);
    if ((rc = open_part(f, path, x, err))) return rc;
    r.part = f->open;
    r.done = &f->open->done;
    rc = fetch_into(&r, want, n, resumed, err);
    ranges_clear(&r);
    if (rc && !f->open->done.total) { /* nothing has come: leave nothing, least of all reserved blocks */
        fetch_discard(path);
        part_close(f->open);
        f->open = NULL;
    }
    return rc;
}
