/* What a ring will ask of a link is measured with the ring's own frames: how long one without a payload takes
 * there and back, and how many bytes a second go through when hidden states follow each other.
 *
 * A rate is measured by a burst of frames whose last one is answered; from the time the round trip is taken
 * off. Bursts grow until one takes 100 ms (or is 32 MiB long): a slow start of the connection then counts
 * little, and a slow link is not kept busy for minutes. */
#include "net/probe.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    COLS = 8192,
    PAYLOAD_BYTES = COLS * 4,
    FRAME_BYTES = FRAME_HEADER_BYTES + PAYLOAD_BYTES,
    MAX_ECHOES = 500,
    WARM_ECHOES = 5,
    MAX_BURSTS = 5
};
static const double BURST_LONG_ENOUGH_S = 0.1, STEP_S = 10, ANSWER_S = 45;

const probe_effort PROBE_IN_A_RING = {.echoes_s = 0.2, .bursts_s = 0.3, .there_only = true};

/* --- who asks ------------------------------------------------------------------------------------
 */
typedef struct {
    channel *c;
    uint64_t session, n; /* numbers the requests: an answer must carry the number of its question */
    uint8_t *room;       /* FRAME_BYTES */
} prober;

static int send_frame(prober *p, frame_type type, bool with_payload, uint64_t batch, pr_err *err)
{
    frame f = {.type = (uint16_t)type, .session = p->session, .batch = batch};

    if (with_payload) {
        f.elem = FRAME_F32;
        f.rows = 1;
        f.cols = COLS;
        f.payload_bytes = PAYLOAD_BYTES;
    }
    return frame_send(p->c, p->room, &f, sock_deadline(STEP_S), err);
}

static int await(prober *p, frame_type type, uint32_t max_payload, uint64_t batch, pr_err *err)
{
    const frame_limits limits = {max_payload, FRAME_BIT(type)};
    frame f;
    int rc = frame_recv(p->c, &f, p->room + FRAME_HEADER_BYTES, &limits, sock_deadline(STEP_S), err);

    if (rc) return rc;
    if (f.session == p->session && f.batch == batch && f.payload_bytes == max_payload) return PR_OK;
    return pr_fail(err, PR_EPEER, "%s: an answer to another question; is that a prima of this version?",
                   channel_peer(p->c));
}

static int echo(prober *p, bool with_payload, pr_err *err)
{
    uint64_t n = p->n++;
    int rc = send_frame(p, FRAME_ECHO, with_payload, n, err);

    return rc ? rc : await(p, FRAME_ECHO, 0, n, err);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_rtt(probe_figures *out, prober *p, double most_s, pr_err *err)
{
    double ms[MAX_ECHOES];
    uint64_t start = clock_ns();
    int rc;
    size_t n = 0;

    for (int i = 0; i < WARM_ECHOES; i++)
        if ((rc = echo(p, false, err))) return rc;
    while (n < MAX_ECHOES && (n < WARM_ECHOES || clock_ms_since(start) < most_s * 1e3)) {
        uint64_t t = clock_ns();
        if ((rc = echo(p, false, err))) return rc;
        ms[n++] = clock_ms_since(t);
    }
    qsort(ms, n, sizeof *ms, ascending);
    out->rtt_ms = ms[n / 2];
    out->rtt_spread_pct = 100 * (ms[n * 9 / 10] - ms[n / 10]) / out->rtt_ms;
    return PR_OK;
}

/* `n` frames there, the last one answered. */
static int burst_out(prober *p, uint64_t n, pr_err *err)
{
    int rc = PR_OK;

    for (uint64_t i = 1; i < n && !rc; i++) rc = send_frame(p, FRAME_FILL, true, i, err);
    return rc ? rc : echo(p, true, err);
}

/* The request is as long as a frame that comes back: it shows the size that is wanted. */
static int burst_in(prober *p, uint64_t n, pr_err *err)
{
    int rc = send_frame(p, FRAME_GIVE, true, n, err);

    for (uint64_t i = 0; i < n && !rc; i++) rc = await(p, FRAME_FILL, PAYLOAD_BYTES, i, err);
    return rc;
}

typedef int (*burst_fn)(prober *p, uint64_t n, pr_err *err);

uint64_t probe_next_burst(uint64_t n, double seconds)
{
    uint64_t next = n * (seconds < BURST_LONG_ENOUGH_S / 8 ? 4 : 2);

    if (seconds >= BURST_LONG_ENOUGH_S || n >= PROBE_MAX_FRAMES) return 0;
    return next < PROBE_MAX_FRAMES ? next : PROBE_MAX_FRAMES;
}

static int measure_rate(double *bytes_per_s, double *spread_pct, prober *p, burst_fn burst, double rtt_ms,
                        double most_s, pr_err *err)
{
    double rate[MAX_BURSTS];
    uint64_t start = clock_ns(), n = 1;
    size_t n_rates = 0;

    while (n_rates == 0 || (n_rates < MAX_BURSTS && clock_ms_since(start) < most_s * 1e3)) {
        uint64_t t = clock_ns();
        int rc = burst(p, n, err);
        double s = clock_ms_since(t) / 1e3;
        if (rc) return rc;
        uint64_t next = probe_next_burst(n, s);
        if (next) n = next;
        else rate[n_rates++] = (double)n * FRAME_BYTES / fmax(s - rtt_ms / 1e3, s / 2);
    }
    qsort(rate, n_rates, sizeof *rate, ascending);
    *bytes_per_s = rate[n_rates / 2];
    *spread_pct = 100 * (rate[n_rates - 1] - rate[0]) / *bytes_per_s;
    return PR_OK;
}

static int measure(probe_figures *out, prober *p, const probe_effort *e, pr_err *err)
{
    int rc;

    *out = (probe_figures){0};
    if ((rc = measure_rtt(out, p, e->echoes_s, err)) ||
        (rc = measure_rate(&out->out_bytes_per_s, &out->out_spread_pct, p, burst_out, out->rtt_ms,
                           e->bursts_s, err)) ||
        (!e->there_only && (rc = measure_rate(&out->in_bytes_per_s, &out->in_spread_pct, p, burst_in,
                                              out->rtt_ms, e->bursts_s, err))))
        return rc;
    return send_frame(p, FRAME_BYE, false, 0, err);
}

int probe_ask(probe_figures *out, channel *c, const probe_effort *effort, pr_err *err)
{
    prober p = {.c = c, .session = clock_ns(), .room = calloc(1, FRAME_BYTES)};
    int rc = p.room ? measure(out, &p, effort, err) : pr_fail(err, PR_ERESOURCE, "out of memory");

    free(p.room);
    return rc;
}

/* --- who answers
 * ------------------------------------------------------------------------------------- */
static int give(channel *c, uint8_t *room, const frame *asked, uint64_t deadline_ns, pr_err *err)
{
    frame f = *asked;
    int rc = PR_OK;

    if (asked->batch > PROBE_MAX_FRAMES)
        return pr_fail(err, PR_EPEER, "%s: asks for %llu frames, at most %d are given", channel_peer(c),
                       (unsigned long long)asked->batch, PROBE_MAX_FRAMES);
    f.type = FRAME_FILL;
    for (f.batch = 0; f.batch < asked->batch && !rc; f.batch++)
        rc = frame_send(c, room, &f, deadline_ns, err);
    return rc;
}

static int answer(channel *c, uint8_t *room, const frame *asked, uint64_t deadline_ns, pr_err *err)
{
    const frame back = {.type = FRAME_ECHO, .session = asked->session, .batch = asked->batch};

    switch (asked->type) {
    case FRAME_ECHO: return frame_send(c, room, &back, deadline_ns, err);
    case FRAME_GIVE: return give(c, room, asked, deadline_ns, err);
    default: return PR_OK;
    }
}

int probe_answer(channel *c, const frame *first, pr_err *err)
{
    const frame_limits limits = {PAYLOAD_BYTES, FRAME_BIT(FRAME_ECHO) | FRAME_BIT(FRAME_GIVE) |
                                                    FRAME_BIT(FRAME_FILL) | FRAME_BIT(FRAME_BYE)};
    uint64_t end = sock_deadline(ANSWER_S);
    uint8_t *room = malloc(FRAME_BYTES);
    frame asked = *first;
    int rc = room ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    while (!rc && asked.type != FRAME_BYE) {
        uint64_t step = sock_deadline(STEP_S);
        if ((rc = answer(c, room, &asked, end, err))) break;
        if (clock_ns() >= end)
            rc = pr_fail(err, PR_EPEER, "%s: still asking after %.0f s; connection closed", channel_peer(c),
                         ANSWER_S);
        else rc = frame_recv(c, &asked, room + FRAME_HEADER_BYTES, &limits, step < end ? step : end, err);
    }
    free(room);
    return rc;
}

/* --- in a thread --------------------------------------------------------------------------------------- */
struct probe_desk {
    pthread_mutex_t mutex;
    channel *c; /* of who is answered; under the mutex, NULL: the thread has nothing more to do with it */
    frame first;
    pthread_t thread;
    bool has_thread; /* of the caller's */
};

int probe_desk_new(probe_desk **out, pr_err *err)
{
    probe_desk *d = calloc(1, sizeof *d);

    if (!d) return pr_fail(err, PR_ERESOURCE, "out of memory");
    pthread_mutex_init(&d->mutex, NULL);
    *out = d;
    return PR_OK;
}

static void *serve(void *arg)
{
    probe_desk *d = arg;
    pr_err why = {0};
    channel *c = d->c;

    if (!probe_answer(c, &d->first, &why))
        log_debug("%s: measured the link (%s)", channel_peer(c), channel_cipher(c));
    else if (why.code != PR_EINTERRUPTED) log_warn("%s", why.msg);
    pthread_mutex_lock(&d->mutex);
    d->c = NULL;
    pthread_mutex_unlock(&d->mutex);
    channel_close(c);
    return NULL;
}

static bool is_busy(probe_desk *d)
{
    pthread_mutex_lock(&d->mutex);
    bool busy = d->c != NULL;
    pthread_mutex_unlock(&d->mutex);
    return busy;
}

int probe_desk_take(probe_desk *d, channel *c, const frame *first, pr_err *err)
{
    if (is_busy(d)) {
        int rc = pr_fail(err, PR_ERESOURCE, "%s: another link is being measured here", channel_peer(c));
        channel_close(c);
        return rc;
    }
    if (d->has_thread) pthread_join(d->thread, NULL);
    d->c = c; /* no thread looks */
    d->first = *first;
    d->has_thread = thread_start(&d->thread, serve, d) == 0;
    if (d->has_thread) return PR_OK;
    d->c = NULL;
    channel_close(c);
    return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
}

void probe_desk_free(probe_desk *d)
{
    if (!d) return;
    pthread_mutex_lock(&d->mutex);
    if (d->c) channel_shutdown(d->c);
    pthread_mutex_unlock(&d->mutex);
    if (d->has_thread) pthread_join(d->thread, NULL);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}
