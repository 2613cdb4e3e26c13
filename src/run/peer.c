/* One worker, as the head sees it; see peer.h. */
#include "src/run/peer.h"
#include "kernels/kernels.h"
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/run/text.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const double PONG_S = 1, MEASURE_S = 60; /* a step of a slow link takes 10 s at most */

struct peer {
    char name[33];
    peer_watch *w;
    ship_source *source;
    atomic_bool is_member;
    control *k; /* NULL: not connected */
    pthread_t thread;
    peer_facts f; /* under the mutex of w, as are: */
    host_row host;
    bool has_host;
    uint32_t n_jobs; /* that have not been answered: it is ready when it has done the last one */
    clocks clock;
    span spans[SPANS_MAX]; /* of the thread that listens */
};

/* --- the watch ----------------------------------------------------------------------------------------- */
void peer_watch_init(peer_watch *w, void (*alarm)(void *arg, uint64_t session, const pr_err *why), void *arg)
{

    *w = (peer_watch){.alarm = alarm, .arg = arg};
    pthread_mutex_init(&w->mutex, NULL);
    cond_init(&w->changed);
}

void peer_watch_clear(peer_watch *w)
{
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
}

int peer_new(peer **out, const char *name, peer_watch *w, ship_source *source, pr_err *err)
{
    peer *p = calloc(1, sizeof *p);

    if (!p) return pr_fail(err, PR_ERESOURCE, "out of memory");
    snprintf(p->name, sizeof p->name, "%s", name);
    p->w = w;
    p->source = source;
    p->is_member = true;
    p->f.why = (pr_err){PR_EPEER, "not connected yet"};
    *out = p;
    return PR_OK;
}

void peer_free(peer *p)
{
    if (!p) return;
    peer_disconnect(p);
    free(p);
}

void peer_set_member(peer *p, bool member)
{
    p->is_member = member;
}

const char *peer_name(const peer *p)
{
    return p->name;
}

peer_facts peer_about(peer *p)
{
    pthread_mutex_lock(&p->w->mutex);
    peer_facts f = p->f;
    pthread_mutex_unlock(&p->w->mutex);
    return f;
}

/* --- what it says -------------------------------------------------------------------------------------- */
static uint64_t number(const json_t *m, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(m, key));
    return v > 0 ? (uint64_t)v : 0;
}

static double real(const json_t *m, const char *key)
{
    return json_number_value(json_object_get(m, key));
}

static double maybe(const json_t *m, const char *key)
{
    const json_t *v = json_object_get(m, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void take_beat(peer_beat *b, const json_t *m)
{
    *b = (peer_beat){.clock_ns = number(m, "clock_ns"),
                     .since_ns = number(m, "since_ns"),
                     .batch = number(m, "batch"),
                     .layer = (uint32_t)number(m, "layer"),
                     .passes = number(m, "passes"),
                     .tokens = number(m, "tokens"),
                     .prefill_tokens = number(m, "prefill_tokens"),
                     .merged = number(m, "merged"),
                     .rx_bytes = number(m, "rx_bytes"),
                     .tx_bytes = number(m, "tx_bytes"),
                     .compute_ms = real(m, "compute_ms"),
                     .gpu_ms = real(m, "gpu_ms"),
                     .gpu_bytes = number(m, "gpu_bytes"),
                     .wait_ms = real(m, "wait_ms"),
                     .send_wait_ms = real(m, "send_wait_ms"),
                     .disk_wait_ms = real(m, "disk_wait_ms"),
                     .disk_busy_ms = real(m, "disk_busy_ms"),
                     .disk_bytes = number(m, "disk_bytes"),
                     .host = {.rss_peak_bytes = number(m, "rss_peak_bytes"),
                              .available_min_bytes = number(m, "available_min_bytes"),
                              .major_faults = number(m, "major_faults"),
                              .pressure_pct = maybe(m, "pressure_pct"),
                              .psi_some_pct = maybe(m, "psi_some_pct")}};
}

/* A code from a peer: one of ours, else "lost". */
static pr_code code_of(const json_t *m)
{
    json_int_t c = json_integer_value(json_object_get(m, "code"));
    return c <= PR_EINTERNAL && c >= PR_ENETWORK ? (pr_code)c : PR_EPEER;
}

static int failure(const peer *p, const json_t *m, pr_err *err)
{
    const char *text = json_string_value(json_object_get(m, "message"));
    return pr_fail(err, code_of(m), "%s: %s", p->name, text ? text : "failed");
}

/* A ring's failure says which ring: it may arrive when the next job is already on its way there. Without one
 * it is the device that has failed, and its connection ends. */
static int take_fail(peer *p, const json_t *m, pr_err *err)
{
    int code = failure(p, m, err);

    if (!number(m, "session")) return code;
    p->f.failed = number(m, "session");
    p->f.failure = *err;
    return PR_OK;
}

/* What two machines say of their link. */
static int take_measured(peer_facts *f, const json_t *m, const char *name, pr_err *err)
{
    const char *message = json_string_value(json_object_get(m, "message"));

    f->rtt_ms = real(m, "rtt_ms");
    f->bytes_per_s = real(m, "bytes_per_s");
    f->measures++;
    if (message) f->rtt_ms = f->bytes_per_s = 0;
    else if (!(f->rtt_ms > 0) || !(f->bytes_per_s > 0) || f->rtt_ms > 1e6 || f->bytes_per_s > 1e15)
        return pr_fail(err, PR_EPEER, "%s: figures of a link that cannot be", name);
    snprintf(f->not_measured, sizeof f->not_measured, "%s", message ? message : "");
    text_trim(f->not_measured);
    return PR_OK;
}

/* The mutex is held. */
static int take(peer *p, const json_t *m, bool *alarming, pr_err *err)
{
    if (control_is(m, "beat")) {
        take_beat(&p->f.beat, m);
        p->host = p->f.beats++ && p->has_host ? host_merge(&p->host, &p->f.beat.host) : p->f.beat.host;
        p->has_host = true;
        p->f.answers += json_is_true(json_object_get(m, "answer"));
    } else if (control_is(m, "pong")) {
        clocks_add(&p->clock, number(m, "sent_ns"), number(m, "clock_ns"), clock_ns());
        p->f.pongs++;
    } else if (control_is(m, "ringed")) p->f.ringed = number(m, "session");
    else if (control_is(m, "parted")) p->f.parted = true;
    else if (control_is(m, "measured")) return take_measured(&p->f, m, p->name, err);
    else if (control_is(m, "ready")) {
        if (p->n_jobs) p->n_jobs--;
        if (!p->n_jobs) p->f.state = PEER_READY;
        p->f.weights_bytes = number(m, "weights_bytes");
        p->f.load_s = real(m, "load_s");
    } else if (control_is(m, "fail")) {
        *alarming = true;
        return take_fail(p, m, err);
    } else if (!control_is(m, "bye")) {
        return pr_fail(err, PR_EPEER, "%s: control message '%s' does not belong here", p->name,
                       control_type(m));
    }
    return PR_OK;
}

static int take_spans(peer *p, const json_t *m, pr_err *err)
{
    uint64_t dropped;
    size_t n;
    clock_guess g;
    trace *t;
    int rc;

    pthread_mutex_lock(&p->w->mutex);
    t = p->w->trace;
    pthread_mutex_unlock(&p->w->mutex);
    rc = t ? spans_from_json(m, p->spans, &n, &dropped, err)
           : pr_fail(err, PR_EPEER, "spans that nobody has asked for");

    if (rc) {
        pr_wrap(err, "%s", p->name);
        return rc;
    }
    pthread_mutex_lock(&p->w->mutex);
    g = clocks_at(&p->clock, clock_ns());
    pthread_mutex_unlock(&p->w->mutex);
    trace_add(t, p->name, p->spans, n, dropped, g);
    return PR_OK;
}

static void *listen_to(void *arg)
{
    peer *p = arg;
    json_t *m;
    pr_err err = {0};
    int rc;

    while (!(rc = control_recv(p->k, &m, &err))) {
        bool alarming = false;
        if (control_is(m, "need")) {
            rc = ship_answer(p->source, p->k, m, &err);
            if (rc == PR_EINTEGRITY) pr_wrap(&err, "%s", p->name);
        } else if (control_is(m, "spans")) {
            rc = take_spans(p, m, &err);
        } else {
            pthread_mutex_lock(&p->w->mutex);
            rc = take(p, m, &alarming, &err);
            pthread_cond_broadcast(&p->w->changed);
            pthread_mutex_unlock(&p->w->mutex);
        }
        json_decref(m);
        if (rc) break;
        if (alarming && p->is_member) p->w->alarm(p->w->arg, p->f.failed, &err);
    }
    pthread_mutex_lock(&p->w->mutex);
    p->f.state = PEER_LOST;
    p->f.why = err;
    pthread_cond_broadcast(&p->w->changed);
    pthread_mutex_unlock(&p->w->mutex);
    if (p->is_member) p->w->alarm(p->w->arg, 0, &err);
    return NULL;
}

/* --- connecting ------------------------------------------------------------------------------------------
 */
/* Its answer to our greeting is read here; from then on by the thread. */
static int check_hello(const peer *p, const json_t *m, const peer_terms *t, peer_facts *f, pr_err *err)
{
    const char *theirs = json_string_value(json_object_get(m, "prima"));
    const char *isa = json_string_value(json_object_get(m, "isa"));
    unsigned mask;

    if (control_is(m, "fail")) return failure(p, m, err);
    if (!control_is(m, "hello") || !theirs)
        return pr_fail(err, PR_EPEER, "%s: no answer to our greeting", p->name);
    if (strcmp(theirs, t->version))
        return pr_fail(err, PR_EMISMATCH, "%s runs prima %s and this head %s: install the same on both",
                       p->name, theirs, t->version);
    if (!isa || !cpu_isa_mask(isa, &mask))
        return pr_fail(err, PR_EPEER, "%s: does not say with which instruction set it computes", p->name);
    if (t->isa && strcmp(isa, t->isa))
        return pr_fail(err, PR_EPEER, "%s: computes with %s, asked for %s", p->name, isa, t->isa);
    snprintf(f->isa, sizeof f->isa, "%s", isa);
    return PR_OK;
}

static json_t *our_hello(const peer_terms *t)
{
    json_t *m = json_pack("{s:s, s:s}", "type", "hello", "prima", t->version);

    if (m && t->isa) json_object_set_new(m, "isa", json_string(t->isa));
    return m;
}

static int greet(const peer *p, control *k, const peer_terms *t, peer_facts *f, pr_err *err)
{
    json_t *m;
    int rc;

    if ((rc = control_send(k, our_hello(t), err)) || (rc = control_recv(k, &m, err))) return rc;
    rc = check_hello(p, m, t, f, err);
    json_decref(m);
    return rc;
}

int peer_connect(peer *p, const sock_addr *to, const sock_options *so, const security *sec,
                 const peer_terms *terms, double peer_s, uint64_t deadline_ns, pr_err *err)
{
    peer_facts f = {.state = PEER_GREETED};
    channel *c;
    control *k;
    sock s;
    int rc;

    peer_disconnect(p);
    if ((rc = sock_connect(&s, to, so, false, deadline_ns, err)) || /* it has been seen to listen */
        (rc = channel_open(&c, &s, CHANNEL_CLIENT, sec, deadline_ns, err)) ||
        (rc = control_new(&k, c, peer_s, err))) {
        pr_wrap(err, "%s", p->name);
        return rc;
    }
    if ((rc = greet(p, k, terms, &f, err))) {
        control_close(k);
        return rc;
    }
    pthread_mutex_lock(&p->w->mutex);
    p->f = f;
    p->clock = (clocks){0};
    p->n_jobs = 0;
    p->k = k;
    pthread_mutex_unlock(&p->w->mutex);
    if (thread_start(&p->thread, listen_to, p) == 0) return PR_OK;
    pthread_mutex_lock(&p->w->mutex);
    p->f.state = PEER_LOST;
    p->k = NULL;
    pthread_mutex_unlock(&p->w->mutex);
    control_close(k);
    return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
}

void peer_disconnect(peer *p)
{
    control *k = p->k;

    if (!k) return;
    control_shutdown(k);
    pthread_join(p->thread, NULL);
    pthread_mutex_lock(&p->w->mutex);
    p->k = NULL;
    pthread_mutex_unlock(&p->w->mutex);
    control_close(k);
}

/* --- what it is told --------------------------------------------------------------------------------- */
int peer_job(peer *p, json_t *message, pr_err *err)
{
    int rc;

    pthread_mutex_lock(&p->w->mutex);
    if (p->f.state == PEER_READY) p->f.state = PEER_GREETED;
    p->n_jobs++;
    pthread_mutex_unlock(&p->w->mutex);
    if (!p->k) {
        json_decref(message);
        return pr_fail(err, PR_EPEER, "%s is not connected", p->name);
    }
    if (!(rc = control_send(p->k, message, err))) return PR_OK;
    control_shutdown(p->k); /* half a message may be sent: it is lost, and who listens to it says so */
    return rc;
}

int peer_join(peer *p, uint64_t session, const char *next, pr_err *err)
{
    if (!p->k) return pr_fail(err, PR_EPEER, "%s is not connected", p->name);
    return control_send(
        p->k, json_pack("{s:s, s:I, s:s}", "type", "ring", "session", (json_int_t)session, "next", next),
        err);
}

void peer_part(peer *p)
{
    pthread_mutex_lock(&p->w->mutex);
    p->f.parted = false;
    pthread_mutex_unlock(&p->w->mutex);
    if (p->k) control_send(p->k, json_pack("{s:s}", "type", "part"), NULL);
}

void peer_stop(peer *p)
{
    if (p->k) control_send(p->k, json_pack("{s:s}", "type", "stop"), NULL);
}

void peer_beat_now(peer *p)
{
    pthread_mutex_lock(&p->w->mutex); /* the connection may be closed by another thread */
    if (p->k) control_try_send(p->k, json_pack("{s:s}", "type", "beat"));
    pthread_mutex_unlock(&p->w->mutex);
}

void peer_ask(peer *p)
{
    if (p->k) control_send(p->k, json_pack("{s:s, s:b}", "type", "beat", "answer", 1), NULL);
}

void peer_ping(peer *p)
{
    pthread_mutex_lock(&p->w->mutex);
    if (p->k)
        control_try_send(p->k, json_pack("{s:s, s:I}", "type", "beat", "sent_ns", (json_int_t)clock_ns()));
    pthread_mutex_unlock(&p->w->mutex);
}

static bool has_answered(const peer_facts *f, uint64_t pongs)
{
    return f->pongs > pongs;
}

void peer_measure_clock(peer *p)
{
    for (int i = 0; i < CLOCKS_PINGS / 2; i++) {
        uint64_t pongs = peer_about(p).pongs;
        peer_ping(p);
        if (peer_wait(p, has_answered, pongs, "its clock", sock_deadline(PONG_S), NULL)) return;
    }
}

static bool has_measured(const peer_facts *f, uint64_t measures)
{
    return f->measures > measures;
}

int peer_measure_link(peer *p, const char *next, double *rtt_ms, double *bytes_per_s, pr_err *err)
{
    uint64_t measures = peer_about(p).measures;
    peer_facts f;
    int rc;

    if (!p->k) return pr_fail(err, PR_EPEER, "%s is not connected", p->name);
    if ((rc = control_send(p->k, json_pack("{s:s, s:s}", "type", "measure", "next", next), err)) ||
        (rc = peer_wait(p, has_measured, measures, "measuring its link", sock_deadline(MEASURE_S), err)))
        return rc;
    f = peer_about(p);
    if (!(f.rtt_ms > 0))
        return pr_fail(err, PR_EPEER, "%s: its link cannot be measured: %s", p->name, f.not_measured);
    *rtt_ms = f.rtt_ms;
    *bytes_per_s = f.bytes_per_s;
    return PR_OK;
}

host_row peer_take_host(peer *p)
{
    pthread_mutex_lock(&p->w->mutex);
    host_row h = p->has_host ? p->host : (host_row){.pressure_pct = NAN, .psi_some_pct = NAN};
    p->has_host = false;
    pthread_mutex_unlock(&p->w->mutex);
    return h;
}

int peer_wait(peer *p, bool (*done)(const peer_facts *f, uint64_t arg), uint64_t arg, const char *what,
              uint64_t deadline_ns, pr_err *err)
{
    int rc = PR_OK;

    pthread_mutex_lock(&p->w->mutex);
    while (p->f.state != PEER_LOST && !done(&p->f, arg) && clock_ns() < deadline_ns)
        cond_wait_until(&p->w->changed, &p->w->mutex, deadline_ns);
    if (p->f.state == PEER_LOST) rc = pr_fail(err, p->f.why.code, "%s", p->f.why.msg);
    else if (!done(&p->f, arg)) rc = pr_fail(err, PR_EPEER, "%s: %s takes too long", p->name, what);
    pthread_mutex_unlock(&p->w->mutex);
    return rc;
}

/* --- all of them -----------------------------------------------------------------------------------------
 */
static void wait_for_change(peer_watch *w, uint64_t deadline_ns)
{
    cond_wait_until(&w->changed, &w->mutex, deadline_ns);
}

/* The mutex is held. */
static int look_for_ring(peer *const *p, size_t n, uint64_t session, bool *all, pr_err *err)
{
    *all = true;
    for (size_t i = 1; i < n; i++) {
        const peer_facts *f = &p[i]->f;
        if (f->state == PEER_LOST) return pr_fail(err, PR_EPEER, "%s is lost: %s", p[i]->name, f->why.msg);
        if (f->failed == session) return pr_fail(err, f->failure.code, "%s", f->failure.msg);
        *all = *all && f->ringed == session;
    }
    return PR_OK;
}

int peers_wait_ring(peer_watch *w, peer *const *p, size_t n, uint64_t session, uint64_t deadline_ns,
                    pr_err *err)
{
    bool all;
    int rc;

    pthread_mutex_lock(&w->mutex);
    while (!(rc = look_for_ring(p, n, session, &all, err)) && !all && clock_ns() < deadline_ns)
        wait_for_change(w, deadline_ns);
    pthread_mutex_unlock(&w->mutex);
    return rc || all ? rc : pr_fail(err, PR_EPEER, "joining the ring takes too long");
}

/* The mutex is held. */
static size_t look_for_lost(peer *const *p, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (p[i]->f.state == PEER_LOST) return i;
    }
    return 0;
}

size_t peers_wait_lost(peer_watch *w, peer *const *p, size_t n, uint64_t deadline_ns)
{
    size_t lost;

    pthread_mutex_lock(&w->mutex);
    while (!(lost = look_for_lost(p, n)) && clock_ns() < deadline_ns) wait_for_change(w, deadline_ns);
    pthread_mutex_unlock(&w->mutex);
    return lost;
}
