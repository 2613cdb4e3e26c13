/* Links of the ring; see link.h. Everything that two threads see lies under the mutex of its queue.
 *
 * How a frame is read: `reading` in the mailbox says that somebody does, its taker or the link's thread, and
 * is set and cleared under the mailbox's mutex. The taker of an empty mailbox reads unless the thread is at
 * it already; then it waits for that. The thread looks at the link every few milliseconds as long as it finds
 * something, so that a frame that comes while the taker computes costs no wake-up. */
#include "net/link.h"
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/mem.h"
#include "src/base/thread.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIRECT_BYTES = 65536 }; /* frames up to this size are written by the caller, whatever it takes */

/* --- a queue of parcels ---------------------------------------------------------------------------- */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    parcel *first, **last;
    bool broken, nudged; /* nudged, why: of mailboxes */
    pr_err why;
} queue;

static void queue_init(queue *q)
{
    memset(q, 0, sizeof *q);
    pthread_mutex_init(&q->mutex, NULL);
    cond_init(&q->changed);
    q->last = &q->first;
}

static void queue_clear(queue *q)
{
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
}

/* The mutex is held. */
static void queue_push(queue *q, parcel *x)
{
    x->next = NULL;
    *q->last = x;
    q->last = &x->next;
    pthread_cond_signal(&q->changed);
}

static void queue_put(queue *q, parcel *x)
{
    pthread_mutex_lock(&q->mutex);
    queue_push(q, x);
    pthread_mutex_unlock(&q->mutex);
}

/* The mutex is held. */
static parcel *queue_pop(queue *q)
{
    parcel *x = q->first;

    if (!x) return NULL;
    q->first = x->next;
    if (!q->first) q->last = &q->first;
    return x;
}

static bool queue_wait(queue *q, uint64_t deadline_ns)
{
    return cond_wait_until(&q->changed, &q->mutex, deadline_ns);
}

/* Waits for a parcel; NULL: deadline or broken. */
static parcel *queue_take(queue *q, uint64_t deadline_ns)
{
    parcel *x;

    pthread_mutex_lock(&q->mutex);
    while (!(x = queue_pop(q)) && !q->broken && queue_wait(q, deadline_ns)) {}
    pthread_mutex_unlock(&q->mutex);
    return x;
}

static void queue_break(queue *q)
{
    pthread_mutex_lock(&q->mutex);
    q->broken = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

/* --- free parcels ---------------------------------------------------------------------------------- */
struct parcels {
    queue free;
    size_t n;
    parcel *all;
};

int parcels_new(parcels **out, size_t n, size_t max_payload_bytes, pr_err *err)
{
    parcels *p = calloc(1, sizeof *p);

    if (!p || !(p->all = calloc(n, sizeof *p->all))) {
        free(p);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    queue_init(&p->free);
    for (; p->n < n; p->n++) {
        parcel *x = &p->all[p->n];
        /* The header takes the end of a cache line's worth of room, so that the payload is aligned. */
        if (!(x->room = mem_alloc_aligned(FRAME_HEADER_BYTES + max_payload_bytes))) {
            parcels_delete(p);
            return pr_fail(err, PR_ERESOURCE, "out of memory for %zu frames of %zu bytes", n,
                           max_payload_bytes);
        }
        x->payload = x->room + FRAME_HEADER_BYTES;
        x->home = p;
        queue_put(&p->free, x);
    }
    *out = p;
    return PR_OK;
}

parcel *parcels_take(parcels *p)
{
    return queue_take(&p->free, SOCK_NO_DEADLINE);
}

parcel *parcels_try(parcels *p)
{
    return queue_take(&p->free, 0);
}

void parcel_free(parcel *x)
{
    queue_put(&x->home->free, x);
}

void parcels_break(parcels *p)
{
    queue_break(&p->free);
}

void parcels_delete(parcels *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) mem_free_aligned(p->all[i].room);
    queue_clear(&p->free);
    free(p->all);
    free(p);
}

/* --- when a frame will come ------------------------------------------------------------------------------
 * A thread that sleeps on an idle core needs some 100 us to wake up, much of it in the sender's call. Where
 * frames come in a rhythm (a ring with one sequence: every token once), the taker is awake a little before
 * the next one is due, and looks for it again and again, giving way to whoever wants the core. */
enum { RHYTHM = 4, AWAKE_BEFORE_US = 50, AWAKE_US = 2000 };

typedef struct {
    uint64_t wait_ns[RHYTHM]; /* the last ones */
    size_t n;
} rhythm;

static void rhythm_note(rhythm *r, uint64_t wait_ns)
{
    r->wait_ns[r->n++ % RHYTHM] = wait_ns;
}

/* Awake from *from until *to, for a wait that begins now; the same: not at all. */
static void rhythm_awake(const rhythm *r, uint64_t start_ns, uint64_t *from, uint64_t *to)
{
    uint64_t least = UINT64_MAX, most = 0, margin;

    *from = *to = start_ns;
    if (r->n < RHYTHM) return;
    for (size_t i = 0; i < RHYTHM; i++) {
        least = r->wait_ns[i] < least ? r->wait_ns[i] : least;
        most = r->wait_ns[i] > most ? r->wait_ns[i] : most;
    }
    margin = least / 32 + AWAKE_BEFORE_US * 1000;
    if (most > 2 * least + AWAKE_US * 1000) return; /* no rhythm */
    if (least > margin) *from += least - margin;
    *to = start_ns + most + margin;
    if (*to > *from + AWAKE_US * 1000) *to = *from + AWAKE_US * 1000;
}

/* --- mailboxes --------------------------------------------------------------------------------------- */
struct mailbox {
    queue q;
    link_in *from;  /* fills it; NULL: nobody but mailbox_put */
    bool reading;   /* somebody reads a frame from the link */
    bool listening; /* the taker does, and must hear the bell */
    bool rung;      /* the bell has something in it */
    wake bell;
    rhythm r; /* the taker's */
};

int mailbox_new(mailbox **out, pr_err *err)
{
    mailbox *m = calloc(1, sizeof *m);
    int rc;

    if (!m) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if ((rc = wake_init(&m->bell, err))) {
        free(m);
        return rc;
    }
    queue_init(&m->q);
    *out = m;
    return PR_OK;
}

/* The mutex is held. */
static void ring_bell(mailbox *m)
{
    if (m->listening) {
        wake_raise(&m->bell);
        m->rung = true;
    }
    pthread_cond_broadcast(&m->q.changed);
}

/* The mutex is held. */
static void still_bell(mailbox *m)
{
    uint8_t rung[16];

    while (m->rung && read(m->bell.fd[0], rung, sizeof rung) > 0) {}
    m->rung = false;
}

void mailbox_put(mailbox *m, parcel *x)
{
    pthread_mutex_lock(&m->q.mutex);
    queue_push(&m->q, x);
    ring_bell(m);
    pthread_mutex_unlock(&m->q.mutex);
}

parcel *mailbox_take_if(mailbox *m, bool (*like)(const void *arg, const parcel *x), const void *arg)
{
    parcel *x = NULL;

    pthread_mutex_lock(&m->q.mutex);
    if (m->q.first && like(arg, m->q.first)) x = queue_pop(&m->q);
    pthread_mutex_unlock(&m->q.mutex);
    return x;
}

/* The mutex is held. */
static void break_now(mailbox *m, const pr_err *why)
{
    if (!m->q.broken) m->q.why = *why;
    m->q.broken = true;
    ring_bell(m);
}

void mailbox_break(mailbox *m, const pr_err *why)
{
    pthread_mutex_lock(&m->q.mutex);
    break_now(m, why);
    pthread_mutex_unlock(&m->q.mutex);
}

void mailbox_nudge(mailbox *m)
{
    pthread_mutex_lock(&m->q.mutex);
    m->q.nudged = true;
    ring_bell(m);
    pthread_mutex_unlock(&m->q.mutex);
}

void mailbox_delete(mailbox *m)
{
    parcel *x;

    if (!m) return;
    while ((x = queue_pop(&m->q))) parcel_free(x);
    queue_clear(&m->q);
    wake_clear(&m->bell);
    free(m);
}

/* --- links ------------------------------------------------------------------------------------------- */
typedef struct {
    _Atomic uint64_t frames, bytes, wait_ns;
} counters;

static link_counts counts_of(const counters *c)
{
    return (link_counts){c->frames, c->bytes, (double)c->wait_ns / 1e6};
}

static void count(counters *c, const frame *f)
{
    c->frames++;
    c->bytes += FRAME_HEADER_BYTES + (uint64_t)f->payload_bytes;
}

struct link_in {
    channel *c;
    char from[64];
    frame_limits limits;
    parcels *p;
    mailbox *m;
    counters n;
    pthread_cond_t rest; /* with the mailbox's mutex */
    bool over;           /* under it */
    pthread_t thread;
};

/* The frame that is coming, into a parcel; NULL: none is free before the deadline (PR_OK), or the error. */
static int read_frame(link_in *l, uint64_t deadline_ns, parcel **out, pr_err *err)
{
    parcel *x = queue_take(&l->p->free, deadline_ns);
    int rc;

    *out = NULL;
    if (!x) return PR_OK;
    if ((rc = frame_recv(l->c, &x->f, x->payload, &l->limits, SOCK_NO_DEADLINE, err))) {
        pr_wrap(err, "link from %s", l->from);
        parcel_free(x);
        return rc;
    }
    x->arrived_ns = clock_ns();
    count(&l->n, &x->f);
    *out = x;
    return PR_OK;
}

/* --- the taker ----------------------------------------------------------------------------------------- */
static channel_event await_frame(mailbox *m, link_in *l, uint64_t deadline_ns)
{
    uint64_t start = clock_ns(), from, to, now = start;
    channel_event e;

    rhythm_awake(&m->r, start, &from, &to);
    do {
        uint64_t until = now < from ? from : now < to ? now : deadline_ns;
        e = channel_await(l->c, m->bell.fd[0], until < deadline_ns ? until : deadline_ns);
        now = clock_ns();
        if (e == CHANNEL_LATE && now >= from && now < to) sched_yield();
    } while (e == CHANNEL_LATE && now < deadline_ns);
    if (e == CHANNEL_INPUT) rhythm_note(&m->r, clock_ns() - start);
    return e;
}

/* Waits at the link; the mutex is held, and left meanwhile. A frame that has come is behind all others. */
static void listen_to(mailbox *m, uint64_t deadline_ns)
{
    link_in *l = m->from;
    pr_err err = {0};
    parcel *x = NULL;
    int rc = PR_OK;

    m->reading = m->listening = true;
    pthread_mutex_unlock(&m->q.mutex);
    if (await_frame(m, l, deadline_ns) == CHANNEL_INPUT) rc = read_frame(l, deadline_ns, &x, &err);
    pthread_mutex_lock(&m->q.mutex);
    m->reading = m->listening = false;
    still_bell(m);
    if (rc) break_now(m, &err);
    if (x) queue_push(&m->q, x);
}

int mailbox_take(mailbox *m, uint64_t deadline_ns, parcel **out, pr_err *err)
{
    int rc = PR_OK;

    pthread_mutex_lock(&m->q.mutex);
    while (!(*out = queue_pop(&m->q)) && !m->q.broken && !m->q.nudged) {
        if (m->from && !m->reading) {
            if (deadline_ns != SOCK_NO_DEADLINE && clock_ns() >= deadline_ns) break;
            listen_to(m, deadline_ns);
        } else if (!queue_wait(&m->q, deadline_ns)) break;
    }
    if (!*out) {
        if (m->q.broken) rc = pr_fail(err, m->q.why.code, "%s", m->q.why.msg);
        m->q.nudged = false;
    }
    pthread_mutex_unlock(&m->q.mutex);
    return rc;
}

/* --- the thread ---------------------------------------------------------------------------------------- */
enum { LEAST_REST_MS = 4, MOST_REST_MS = 64 };

/* The mutex is held, and left meanwhile. Longer and longer while nothing is found: with one sequence in the
 * ring frames come when the taker waits for them, and a thread that looks would take the core from who
 * computes. */
static void rest(link_in *l, unsigned *ms)
{
    uint64_t until = clock_ns() + *ms * 1000000ull;

    if (*ms < MOST_REST_MS) *ms *= 2;
    while (!l->over && cond_wait_until(&l->rest, &l->m->q.mutex, until)) {}
}

static void *read_frames(void *arg)
{
    link_in *l = arg;
    mailbox *m = l->m;
    unsigned rest_ms = LEAST_REST_MS;
    pr_err err = {0};

    pthread_mutex_lock(&m->q.mutex);
    while (!l->over && !m->q.broken) {
        parcel *x = NULL;
        int rc = PR_OK;
        if (!m->reading) {
            m->reading = true;
            pthread_mutex_unlock(&m->q.mutex);
            if (channel_await(l->c, -1, 0) == CHANNEL_INPUT) rc = read_frame(l, SOCK_NO_DEADLINE, &x, &err);
            pthread_mutex_lock(&m->q.mutex);
            m->reading = false;
            if (rc) break_now(m, &err);
            if (x) queue_push(&m->q, x);
            else pthread_cond_signal(&m->q.changed); /* the taker may read now */
        }
        if (x) rest_ms = LEAST_REST_MS;
        else rest(l, &rest_ms);
    }
    pthread_mutex_unlock(&m->q.mutex);
    return NULL;
}

int link_in_start(link_in **out, channel *c, const char *from, const frame_limits *limits, parcels *p,
                  mailbox *m, pr_err *err)
{
    link_in *l = calloc(1, sizeof *l);

    if (!l) return pr_fail(err, PR_ERESOURCE, "out of memory");
    l->c = c;
    l->limits = *limits;
    l->p = p;
    l->m = m;
    snprintf(l->from, sizeof l->from, "%s", from);
    cond_init(&l->rest);
    m->from = l;
    if (thread_start(&l->thread, read_frames, l)) {
        m->from = NULL;
        pthread_cond_destroy(&l->rest);
        free(l);
        return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    }
    *out = l;
    return PR_OK;
}

link_counts link_in_counts(const link_in *l)
{
    return counts_of(&l->n);
}

void link_in_stop(link_in *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->m->q.mutex);
    l->over = true;
    l->m->from = NULL;
    pthread_cond_signal(&l->rest);
    pthread_mutex_unlock(&l->m->q.mutex);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->rest);
    free(l);
}

struct link_out {
    channel *c;
    char to[64];
    mailbox *m;
    queue q;             /* what the thread has to write */
    _Atomic int waiting; /* parcels there, or being written by the thread */
    counters n;
    link_sent *sent; /* NULL: nobody wants to know */
    void *arg;
    pthread_t thread;
};

static size_t size_of(const parcel *x)
{
    return FRAME_HEADER_BYTES + (size_t)x->f.payload_bytes;
}

/* It is through, or nothing is any more. */
static bool finish(link_out *l, parcel *x, int rc, uint64_t start_ns, pr_err *err)
{
    if (!rc) count(&l->n, &x->f);
    if (!rc && l->sent) l->sent(l->arg, &x->f, start_ns, clock_ns());
    parcel_free(x);
    if (!rc) return true;
    pr_wrap(err, "link to %s", l->to);
    mailbox_break(l->m, err);
    return false;
}

/* What is left of it. */
static bool write_parcel(link_out *l, parcel *x)
{
    uint64_t start = clock_ns();
    pr_err err = {0};
    int rc = channel_write(l->c, x->room + x->written, size_of(x) - x->written, SOCK_NO_DEADLINE, &err);

    return finish(l, x, rc, start, &err);
}

static void *write_frames(void *arg)
{
    link_out *l = arg;
    bool whole = true;
    parcel *x;

    while ((x = queue_take(&l->q, SOCK_NO_DEADLINE))) {
        if (whole) whole = write_parcel(l, x);
        else parcel_free(x); /* somebody may wait for a free one */
        l->waiting--;
    }
    return NULL;
}

int link_out_start(link_out **out, channel *c, const char *to, mailbox *m, pr_err *err)
{
    link_out *l = calloc(1, sizeof *l);

    if (!l) return pr_fail(err, PR_ERESOURCE, "out of memory");
    l->c = c;
    l->m = m;
    snprintf(l->to, sizeof l->to, "%s", to);
    queue_init(&l->q);
    if (thread_start(&l->thread, write_frames, l)) {
        queue_clear(&l->q);
        free(l);
        return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    }
    *out = l;
    return PR_OK;
}

void link_out_watch(link_out *l, link_sent *sent, void *arg)
{
    l->sent = sent;
    l->arg = arg;
}

/* A thread that is woken for it would find the cores at work. */
static bool write_at_once(link_out *l, parcel *x)
{
    uint64_t start = clock_ns();
    pr_err err = {0};
    int rc;

    if (x->f.payload_bytes <= DIRECT_BYTES) {
        write_parcel(l, x);
        l->n.wait_ns += clock_ns() - start;
        return true;
    }
    rc = channel_write_now(l->c, x->room, size_of(x), &x->written, &err);
    if (!rc && x->written < size_of(x)) return false;
    finish(l, x, rc, start, &err);
    return true;
}

void link_out_send(link_out *l, parcel *x)
{
    x->written = 0;
    frame_encode(x->room, &x->f);
    if (!l->waiting && write_at_once(l, x)) return;
    l->waiting++;
    queue_put(&l->q, x);
}

link_counts link_out_counts(const link_out *l)
{
    return counts_of(&l->n);
}

void link_out_stop(link_out *l)
{
    parcel *x;

    if (!l) return;
    queue_break(&l->q);
    pthread_join(l->thread, NULL);
    while ((x = queue_pop(&l->q))) parcel_free(x); /* what nobody writes any more */
    queue_clear(&l->q);
    free(l);
}
