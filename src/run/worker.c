/* A worker's threads: this one is at the door (net/door.h); one for the session with a head reads control
 * messages; one sends beats; one computes while there is a ring (and links have their own, net/link.c).
 *
 * The first frame of a connection says what it is: a control message "hello" begins a session, FRAME_JOIN is
 * the data connection from the device before, FRAME_ECHO the first question of a device that measures its
 * link to us (net/probe.h). Until then nothing is believed. */
#include "src/run/worker.h"
#include "kernels/kernels.h"
#include "net/door.h"
#include "net/probe.h"
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/base/thread.h"
#include "src/run/control.h"
#include "src/run/device.h"
#include "src/run/host.h"
#include "src/run/ship.h"
#include "src/run/text.h"
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_BEAT_MS = 1000 };
static const double MIN_BEAT_S = 0.01, MAX_BEAT_S = 1; /* beats are also the rows of timings */
static const double LONELY_S = 300; /* a worker that was started for a run, and no head comes */
static const double GREETING_S = 5, DEFAULT_PEER_S = 30, POLL_S = 0.2;
static const unsigned LOST_AFTER_MS = 15000; /* the default of timeouts.peer */

typedef struct worker worker;

/* One run, from a head's hello to its stop. */
typedef struct {
    worker *w;
    control *k;
    const char *isa; /* that it computes with: the head's wish, or ours */
    job *j;
    model m;
    bool has_model;
    device *d;
    pthread_t thread, beats, compute;
    bool computing;
    atomic_bool leaving;    /* the ring is taken apart on purpose */
    uint64_t session;       /* of the ring that is being made, or runs */
    sock_addr next;         /* the device after this one in it */
    bool over;              /* for the thread of beats */
    bool released;          /* under the worker's mutex: the head has said "stop" and needs us no more */
    host_watch host;        /* under the worker's mutex */
    pthread_mutex_t saying; /* what was done: one thread at a time */
    span spans[SPANS_MAX];  /* under it: being sent */
    int rc;
    pr_err end;
} session;

struct worker {
    const worker_options *o;
    wake *stop;
    const char *isa; /* that we compute with when the head has no wish */
    sock_options so;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    session *s;    /* NULL: none */
    bool finished; /* s's thread has nothing more to do */
    door *door;
    probe_desk *desk; /* answers those who measure the link to us */
    pr_err lost;      /* code: the GPU of this process is lost, and why */
    struct {
        channel *c;
        uint64_t session;
    } joined; /* a data connection from the device before, not yet taken */
};

/* --- beats --------------------------------------------------------------------------------------------- */
/* saying is held. */
static int send_spans(session *s, pr_err *err)
{
    uint64_t dropped;
    size_t n;
    int rc = PR_OK;

    do {
        pthread_mutex_lock(&s->w->mutex);
        n = s->d ? stage_take_spans(device_stage(s->d), s->spans, SPANS_MAX, &dropped) : 0;
        pthread_mutex_unlock(&s->w->mutex);
        if (n) rc = control_send(s->k, spans_to_json(s->spans, n, dropped), err);
    } while (n == SPANS_MAX && !rc);
    return rc;
}

/* The mutex is held. */
static json_t *beat_of(session *s)
{
    stage_counts c = s->d ? stage_about(device_stage(s->d)) : (stage_counts){0};
    link_counts in = s->d ? device_received(s->d) : (link_counts){0}, out = s->d ? device_sent(s->d) : in;
    host_row h = host_take(&s->host);
    json_t *m = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I, "
        "s:I, s:I, s:I}",
        "type", "beat", "clock_ns", (json_int_t)clock_ns(), "since_ns", (json_int_t)c.since_ns, "batch",
        (json_int_t)c.batch, "layer", (json_int_t)c.layer, "passes", (json_int_t)c.passes, "tokens",
        (json_int_t)c.tokens, "prefill_tokens", (json_int_t)c.prefill_tokens, "merged", (json_int_t)c.merged,
        "compute_ms", c.compute_ms, "gpu_ms", c.gpu_ms, "gpu_bytes", (json_int_t)c.gpu_bytes, "wait_ms",
        c.wait_ms, "send_wait_ms", out.wait_ms, "disk_wait_ms", c.disk_wait_ms, "disk_busy_ms",
        c.disk_busy_ms, "disk_bytes", (json_int_t)c.disk_bytes, "rx_bytes", (json_int_t)in.bytes, "tx_bytes",
        (json_int_t)out.bytes, "rss_peak_bytes", (json_int_t)h.rss_peak_bytes, "available_min_bytes",
        (json_int_t)h.available_min_bytes, "major_faults", (json_int_t)h.major_faults);

    if (m && !isnan(h.pressure_pct)) json_object_set_new(m, "pressure_pct", json_real(h.pressure_pct));
    if (m && !isnan(h.psi_some_pct)) json_object_set_new(m, "psi_some_pct", json_real(h.psi_some_pct));
    return m;
}

/* Spans first: with the answer to its beat the head has everything that was done until it asked. Counts leave
 * in the order in which they were taken. */
static int send_beat(session *s, bool is_answer, pr_err *err)
{
    int rc;

    pthread_mutex_lock(&s->saying);
    if (!(rc = send_spans(s, err))) {
        pthread_mutex_lock(&s->w->mutex);
        json_t *beat = beat_of(s);
        pthread_mutex_unlock(&s->w->mutex);
        if (beat && is_answer) json_object_set_new(beat, "answer", json_true());
        rc = control_send(s->k, beat, err);
    }
    pthread_mutex_unlock(&s->saying);
    return rc;
}

/* By how much our clock is ahead of the head's is the head's to find out. */
static int answer_with_clock(session *s, json_int_t sent_ns, pr_err *err)
{
    return control_send(
        s->k,
        json_pack("{s:s, s:I, s:I}", "type", "pong", "sent_ns", sent_ns, "clock_ns", (json_int_t)clock_ns()),
        err);
}

/* Most beats want no answer. */
static int answer(session *s, const json_t *beat, pr_err *err)
{
    const json_t *sent_ns = json_object_get(beat, "sent_ns");

    if (json_is_integer(sent_ns)) return answer_with_clock(s, json_integer_value(sent_ns), err);
    return json_is_true(json_object_get(beat, "answer")) ? send_beat(s, true, err) : PR_OK;
}

/* The mutex is held. Before there is a job, we do not know how patient the head is. */
static uint64_t beat_ns(const session *s)
{
    return s->j ? (uint64_t)(fmax(MIN_BEAT_S, fmin(s->j->sizes.heartbeat_s, MAX_BEAT_S)) * 1e9)
                : DEFAULT_BEAT_MS * UINT64_C(1000000);
}

static void *send_beats(void *arg)
{
    session *s = arg;
    worker *w = s->w;

    pthread_mutex_lock(&w->mutex);
    while (!s->over) {
        uint64_t sent = clock_ns();
        pthread_mutex_unlock(&w->mutex);
        send_beat(s, false, NULL); /* a lost head is noticed by who reads */
        pthread_mutex_lock(&w->mutex);
        while (!s->over && clock_ns() < sent + beat_ns(s))
            cond_wait_until(&w->changed, &w->mutex, sent + beat_ns(s));
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* --- the ring ------------------------------------------------------------------------------------------ */
static void leave_ring(session *s)
{
    static const pr_err parted = {PR_EPEER, "the ring is taken apart"};

    if (!s->computing) return;
    pthread_mutex_lock(&s->w->mutex);
    s->leaving = true;
    pthread_cond_broadcast(&s->w->changed);
    pthread_mutex_unlock(&s->w->mutex);
    device_break(s->d, &parted);
    pthread_join(s->compute, NULL);
    s->computing = false;
    s->leaving = false;
    device_part(s->d);
}

/* Waits for the data connection of this session from the device before. */
static int take_joined(session *s, channel **out, uint64_t deadline_ns, pr_err *err)
{
    worker *w = s->w;

    pthread_mutex_lock(&w->mutex);
    while (!(w->joined.c && w->joined.session == s->session) && !s->leaving && clock_ns() < deadline_ns)
        cond_wait_until(&w->changed, &w->mutex, deadline_ns);
    *out = w->joined.c && w->joined.session == s->session ? w->joined.c : NULL;
    if (*out) w->joined.c = NULL;
    pthread_mutex_unlock(&w->mutex);
    if (*out) return PR_OK;
    return pr_fail(err, PR_EPEER, "no connection from %s within %.0f s",
                   s->j->plan->device[s->j->rank - 1].name, s->j->sizes.connect_s);
}

/* It listens, or the head will find it lost. */
static int connect_next(session *s, channel **out, uint64_t deadline_ns, pr_err *err)
{
    sock k;
    int rc;

    if ((rc = sock_connect(&k, &s->next, &s->w->so, false, deadline_ns, err)) ||
        (rc = channel_open(out, &k, CHANNEL_CLIENT, &s->w->o->sec, deadline_ns, err)))
        return rc;
    rc = job_send_join(s->j, *out, s->session, deadline_ns, err);
    if (rc) channel_close(*out);
    return rc;
}

static int enter_ring(session *s, pr_err *err)
{
    channel *from, *to;
    int rc;

    if ((rc = connect_next(s, &to, sock_deadline(s->j->sizes.peer_s), err))) return rc;
    if ((rc = take_joined(s, &from, sock_deadline(s->j->sizes.connect_s), err))) {
        channel_close(to);
        return rc;
    }
    if ((rc = device_join(s->d, s->session, from, to, err))) return rc;
    if (s->leaving)
        return pr_fail(err, PR_EPEER, "the ring is taken apart"); /* before there was one to break */
    return control_send(s->k, json_pack("{s:s, s:I}", "type", "ringed", "session", (json_int_t)s->session),
                        err);
}

/* A thread of its own from the first step: a ring that cannot be made must not keep us from hearing of the
 * next one. */
static void *compute(void *arg)
{
    session *s = arg;
    pr_err why = {0};
    bool lost;

    if (!enter_ring(s, &why)) stage_serve(device_stage(s->d), &why);
    if (s->leaving) return NULL;
    lost = engine_is_lost(device_engine(s->d));
    if (lost) {
        pr_fail(&s->w->lost, PR_ERESOURCE, "%s: only another process can use this GPU now", why.msg);
        why.code = PR_EPEER; /* the device is lost, not the run */
    }
    control_send_fail(s->k, &why, s->session, NULL);
    /* After an error of CUDA only another process can use the GPU: the session ends, and the worker with it.
     * The head, or who else has started this one, starts the next. */
    if (lost) control_shutdown(s->k);
    return NULL;
}

static int join_ring(session *s, const json_t *message, pr_err *err)
{
    const char *next = json_string_value(json_object_get(message, "next"));
    int rc;

    leave_ring(s);
    if (!next) return pr_fail(err, PR_EPEER, "ring: no next device");
    if ((rc = sock_addr_parse(&s->next, next, false, err))) return rc;
    s->session = (uint64_t)json_integer_value(json_object_get(message, "session"));
    if (thread_start(&s->compute, compute, s)) return pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    s->computing = true;
    return PR_OK;
}

/* --- the job ------------------------------------------------------------------------------------------- */
static void drop_job(session *s)
{
    device *d = s->d;

    leave_ring(s);
    pthread_mutex_lock(&s->saying);
    send_spans(s, NULL); /* the last ones */
    pthread_mutex_unlock(&s->saying);
    pthread_mutex_lock(&s->w->mutex); /* beats look at it */
    s->d = NULL;
    pthread_mutex_unlock(&s->w->mutex);
    device_free(d);
    if (s->has_model) model_close(&s->m);
    s->has_model = false;
}

/* A file that was named here must be there; one that the plan supposes here (also to a worker that the head
 * has started) need not. */
static const char *own_file(const session *s)
{
    const char *own = s->w->o->model, *planned = job_device(s->j)->model;

    if (own && *own && strcmp(own, planned)) return own;
    if (!*planned || !access(planned, F_OK) || errno != ENOENT) return planned;
    log_warn("%s is not here: the head sends what is needed of it", planned);
    return "";
}

/* Our own file, the plan's path, or what the head sends. */
static int get_model(session *s, pr_err *err)
{
    const plan *p = s->j->plan;
    const ship_wish wish = {.path = own_file(s),
                            .header_sha256 = p->model.header_sha256,
                            .file_bytes = p->model.file_bytes,
                            .window = s->j->window,
                            .n_windows = p->rounds};
    ship_counts n;
    int rc = ship_model(&s->m, &wish, s->k, &n, err);

    if (!rc && n.from_cache)
        log_info("%zu tensors, %.1f MiB, from the head; %.1f MiB were here already", n.received,
                 (double)n.received_bytes / 0x1p20, (double)n.here_bytes / 0x1p20);
    return rc;
}

static int say_ready(session *s, pr_err *err)
{
    engine_facts f = engine_about(device_engine(s->d));

    return control_send(s->k,
                        json_pack("{s:s, s:I, s:f}", "type", "ready", "weights_bytes",
                                  (json_int_t)(f.weights_bytes + f.gpu.weights), "load_s", f.load_s),
                        err);
}

/* The same job again keeps its weights. */
static int load(session *s, job *j, pr_err *err)
{
    const worker_options *o = s->w->o;
    device_options dopt = {.isa = s->isa,
                           .n_threads = o->n_threads,
                           .pack_dir = o->pack_dir,
                           .disk = {.limit_bytes_s = o->disk_limit, .idle = o->disk_limit > 0}};
    job *old = s->j;
    device *d;
    int rc;

    if (s->d && job_is_same(s->j, j)) {
        leave_ring(s);
        job_free(j);
        return say_ready(s, err);
    }
    drop_job(s);
    pthread_mutex_lock(&s->w->mutex);
    s->j = j;
    pthread_cond_broadcast(&s->w->changed); /* it says how often to beat */
    pthread_mutex_unlock(&s->w->mutex);
    job_free(old);
    control_set_silence(s->k, j->sizes.peer_s);
    log_info("rank %u of %zu in a run of %s", j->rank, j->plan->n_devices, j->plan->model.name);
    if ((rc = get_model(s, err))) return rc;
    s->has_model = true;
    if ((rc = device_new(&d, j, &s->m, &dopt, err))) return rc;
    pthread_mutex_lock(&s->w->mutex);
    s->d = d;
    pthread_mutex_unlock(&s->w->mutex);
    return say_ready(s, err);
}

/* --- the link to the next device -------------------------------------------------------------------------
 */
static int measure(const session *s, const json_t *message, probe_figures *out, pr_err *err)
{
    const char *next = json_string_value(json_object_get(message, "next"));
    uint64_t deadline = sock_deadline(GREETING_S);
    sock_addr to;
    channel *c;
    sock k;
    int rc;

    if (!next) return pr_fail(err, PR_EPEER, "measure: no next device");
    if ((rc = sock_addr_parse(&to, next, false, err)) ||
        (rc = sock_connect(&k, &to, &s->w->so, false, deadline, err)) ||
        (rc = channel_open(&c, &k, CHANNEL_CLIENT, &s->w->o->sec, deadline, err)))
        return rc;
    rc = probe_ask(out, c, &PROBE_IN_A_RING, err);
    channel_close(c);
    return rc;
}

/* A link that cannot be measured is no reason to leave. */
static int measure_link(session *s, const json_t *message, pr_err *err)
{
    probe_figures got;
    pr_err why = {0};

    if (measure(s, message, &got, &why))
        return control_send(
            s->k, json_pack("{s:s, s:o}", "type", "measured", "message", text_json(why.msg, strlen(why.msg))),
            err);
    return control_send(s->k,
                        json_pack("{s:s, s:f, s:f}", "type", "measured", "rtt_ms", got.rtt_ms, "bytes_per_s",
                                  got.out_bytes_per_s),
                        err);
}

/* PR_EINTERRUPTED: the run is over. */
static int act(session *s, const json_t *message, pr_err *err)
{
    job *j;
    int rc;

    if (control_is(message, "beat")) return answer(s, message, err);
    if (control_is(message, "job")) return (rc = job_from_json(&j, message, err)) ? rc : load(s, j, err);
    if (control_is(message, "ring") && s->d) return join_ring(s, message, err);
    if (control_is(message, "measure")) return measure_link(s, message, err);
    if (control_is(message, "part")) {
        leave_ring(s);
        return control_send(s->k, json_pack("{s:s}", "type", "parted"), err);
    }
    if (control_is(message, "stop")) {
        pthread_mutex_lock(&s->w->mutex);
        s->released = true; /* first: whoever has heard "bye" may come again at once */
        pthread_mutex_unlock(&s->w->mutex);
        control_send(s->k, json_pack("{s:s}", "type", "bye"), NULL);
        return pr_fail(err, PR_EINTERRUPTED, "the run is over");
    }
    return pr_fail(err, PR_EPEER, "control message '%s' does not belong here", control_type(message));
}

static int converse(session *s, pr_err *err)
{
    int rc = PR_OK;

    while (!rc) {
        json_t *message;
        if ((rc = control_recv(s->k, &message, err))) {
            pr_wrap(err, "head lost");
            return rc;
        }
        rc = act(s, message, err);
        json_decref(message);
        if (!rc || rc == PR_EINTERRUPTED) continue;
        control_send_fail(s->k, err, 0, NULL);
        log_error("%s", err->msg);
    }
    return rc;
}

static void *live(void *arg)
{
    session *s = arg;
    worker *w = s->w;
    bool beating = thread_start(&s->beats, send_beats, s) == 0;

    s->rc = beating ? converse(s, &s->end) : pr_fail(&s->end, PR_ERESOURCE, "cannot start a thread");
    if (s->rc == PR_EINTERRUPTED) s->rc = PR_OK;
    pthread_mutex_lock(&w->mutex);
    s->over = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    if (beating) pthread_join(s->beats, NULL);
    drop_job(s);
    log_info("%s: %s", control_peer(s->k), s->rc ? s->end.msg : "the run is over");
    pthread_mutex_lock(&w->mutex);
    w->finished = true;
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* --- connections -----------------------------------------------------------------------------------------
 */
/* What the head asks for, if this worker was not told something else when it was started. */
static int choose_isa(const worker *w, const json_t *hello, const char **isa, pr_err *err)
{
    const json_t *wish = json_object_get(hello, "isa");
    unsigned mask;

    *isa = w->isa;
    if (!wish) return PR_OK;
    if (!json_is_string(wish) || !cpu_isa_mask(json_string_value(wish), &mask))
        return pr_fail(err, PR_EPEER, "no greeting: it asks for an instruction set that is none");
    if (w->o->isa && strcmp(w->isa, json_string_value(wish)))
        return pr_fail(err, PR_EMISMATCH,
                       "this worker was started with --isa %s, and the head has --isa %s: give both the same",
                       w->isa, json_string_value(wish));
    return engine_isa(json_string_value(wish), isa, err);
}

static int check_hello(const worker *w, const json_t *hello, const char **isa, pr_err *err)
{
    const char *version = json_string_value(json_object_get(hello, "prima"));

    if (!control_is(hello, "hello") || !version) return pr_fail(err, PR_EPEER, "no greeting");
    if (strcmp(version, w->o->version))
        return pr_fail(err, PR_EMISMATCH,
                       "the head runs prima %s and this worker %s: install the same on both", version,
                       w->o->version);
    if (w->s) return pr_fail(err, PR_ERESOURCE, "this worker serves another run");
    return choose_isa(w, hello, isa, err);
}

static int send_hello(const worker *w, const char *isa, control *k, pr_err *err)
{
    return control_send(k,
                        json_pack("{s:s, s:s, s:s, s:I}", "type", "hello", "prima", w->o->version, "isa", isa,
                                  "ram_bytes", (json_int_t)mem_available_bytes()),
                        err);
}

/* A head has greeted: its session has a thread of its own. */
static int begin_session(worker *w, channel *c, const json_t *hello, pr_err *err)
{
    session *s = NULL;
    const char *isa;
    control *k;
    int rc = control_new(&k, c, DEFAULT_PEER_S, err);

    if (rc) return rc;
    if ((rc = check_hello(w, hello, &isa, err))) {
        control_send_fail(k, err, 0, NULL);
    } else if (!(s = calloc(1, sizeof *s))) {
        rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    } else {
        *s = (session){.w = w, .k = k, .isa = isa, .host = host_watch_start()};
        pthread_mutex_init(&s->saying, NULL);
        rc = send_hello(w, isa, k, err);
        w->finished = false;
        if (!rc && thread_start(&s->thread, live, s))
            rc = pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    }
    if (!rc) {
        log_info("%s: a run begins", control_peer(k));
        w->s = s;
        return PR_OK;
    }
    pr_wrap(err, "%s", control_peer(k));
    control_close(k);
    free(s);
    return rc;
}

/* A data connection from the device before; the newest stays. */
static int join(worker *w, const door_guest *g, pr_err *err)
{
    session *s = w->s;
    const frame *f = &g->f;
    channel *old = NULL;
    int rc = PR_OK;

    pthread_mutex_lock(&w->mutex);
    if (!s || !s->j || f->payload_bytes != strlen(s->j->sizes.token) || f->rank + 1u != s->j->rank ||
        memcmp(g->payload, s->j->sizes.token, f->payload_bytes)) {
        rc = pr_fail(err, PR_EPEER, "%s: a data connection of another run", channel_peer(g->c));
    } else if (w->joined.c && f->session < w->joined.session) {
        rc = pr_fail(err, PR_EPEER, "%s: a data connection of a ring that is gone", channel_peer(g->c));
    } else {
        old = w->joined.c;
        w->joined.c = g->c;
        w->joined.session = f->session;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    channel_close(rc ? g->c : old);
    return rc;
}

/* The first frame says what a connection is for. */
static int let_in(worker *w, const door_guest *g, pr_err *err)
{
    json_t *hello;
    int rc;

    if (g->f.type == FRAME_JOIN) return join(w, g, err);
    if (g->f.type == FRAME_ECHO) return probe_desk_take(w->desk, g->c, &g->f, err);
    if (!(hello = json_parse((const char *)g->payload, g->f.payload_bytes, NULL))) {
        rc = pr_fail(err, PR_EPEER, "%s: no greeting", channel_peer(g->c));
        channel_close(g->c);
        return rc;
    }
    rc = begin_session(w, g->c, hello, err);
    json_decref(hello);
    return rc;
}

static bool is_finished(worker *w)
{
    pthread_mutex_lock(&w->mutex);
    bool finished = w->s && w->finished;
    pthread_mutex_unlock(&w->mutex);
    return finished;
}

/* Finished, or about to be: only memory is still being given back, which takes a while where it is much. */
static bool is_ending(worker *w)
{
    pthread_mutex_lock(&w->mutex);
    bool ending = w->s && (w->finished || w->s->released);
    pthread_mutex_unlock(&w->mutex);
    return ending;
}

static int end_session(worker *w, pr_err *err)
{
    session *s = w->s;
    int rc;

    pthread_join(s->thread, NULL);
    if ((rc = s->rc)) pr_fail(err, s->end.code, "%s", s->end.msg);
    w->s = NULL;
    channel_close(w->joined.c);
    w->joined.c = NULL;
    job_free(s->j);
    control_close(s->k);
    pthread_mutex_destroy(&s->saying);
    free(s);
    return rc;
}

/* Of a session that is over; PR_ERESOURCE: it has lost the GPU, and the worker is over, too. */
static int end_one_of_many(worker *w, pr_err *err)
{
    end_session(w, NULL);
    return w->lost.code ? pr_fail(err, w->lost.code, "%s", w->lost.msg) : PR_OK;
}

static int serve(worker *w, pr_err *err)
{
    uint64_t start_ns = clock_ns();
    int rc;

    for (;;) {
        pr_err why = {0};
        door_guest g;
        if (is_finished(w)) {
            if (w->o->once) return end_session(w, err);
            if ((rc = end_one_of_many(w, err))) return rc;
        }
        if (w->o->once && !w->s && clock_ms_since(start_ns) > LONELY_S * 1e3)
            return pr_fail(err, PR_EPEER, "no head has come in %.0f s", LONELY_S);
        rc = door_next(w->door, &g, w->s || w->o->once ? sock_deadline(POLL_S) : SOCK_NO_DEADLINE, &why);
        if (rc == PR_EINTERRUPTED) return PR_OK;
        if (rc) continue;                                                    /* nobody came */
        if (is_ending(w) && !w->o->once && (rc = end_one_of_many(w, err))) { /* before the next is let in */
            channel_close(g.c);
            return rc;
        }
        if (let_in(w, &g, &why)) door_tell(w->door, &why);
    }
}

static int open_door(worker *w, pr_err *err)
{
    const door_options at_door = {.so = &w->so,
                                  .sec = &w->o->sec,
                                  .greeting_s = GREETING_S,
                                  .limits = {DOOR_MAX_PAYLOAD_BYTES, FRAME_BIT(FRAME_CONTROL) |
                                                                         FRAME_BIT(FRAME_JOIN) |
                                                                         FRAME_BIT(FRAME_ECHO)}};
    int rc = probe_desk_new(&w->desk, err);

    if (rc || (rc = engine_isa(w->o->isa, &w->isa, err))) return rc;
    return door_open(&w->door, &w->o->listen, &at_door, err);
}

int worker_run(const worker_options *o, wake *stop, pr_err *err)
{
    worker w = {.o = o, .stop = stop, .so = {.wake = stop, .lost_after_ms = LOST_AFTER_MS}};
    int rc = open_door(&w, err);

    if (!rc) {
        pthread_mutex_init(&w.mutex, NULL);
        cond_init(&w.changed);
        o->listening(door_address(w.door));
        rc = serve(&w, err);
        door_close(w.door);
        if (w.s) { /* stopped in the middle of a run */
            control_shutdown(w.s->k);
            end_session(&w, NULL);
        }
        pthread_cond_destroy(&w.changed);
        pthread_mutex_destroy(&w.mutex);
    }
    probe_desk_free(w.desk);
    return rc;
}
