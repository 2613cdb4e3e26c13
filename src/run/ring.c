/* The head of a ring; see ring.h. The thread that runs the pipeline makes the ring and mends it; each
 * worker's control connection has a thread (peer.c); one thread lets the workers know that we live; one
 * accepts the data connection of the last device. */
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include "src/run/ring_impl.h"
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

static const double GREETING_S = 5, ACCEPT_POLL_S = 0.2, STOP_GRACE_S = 5, LOST_GRACE_S = 0.3;
static const double LEAVING_S = 2, AGAIN_S = 0.2; /* a worker is given a second to leave */
#define ROW_NS 1000000000ull
static const double LAST_BEAT_S = 1;

/* --- threads ------------------------------------------------------------------------------------------- */
/* A worker is lost or its ring has failed: whoever waits for a frame learns it. */
static void alarm_head(void *arg, uint64_t session, const pr_err *why)
{
    ring *r = arg;

    if (session && session != r->session) return; /* of a ring that is gone */
    pthread_mutex_lock(&r->watch.mutex); /* also while it is broken: r->d may be let go (ring_mend.c) */
    if (r->d) device_break(r->d, why);
    pthread_mutex_unlock(&r->watch.mutex);
}

static void *send_beats(void *arg)
{
    ring *r = arg;

    pthread_mutex_lock(&r->watch.mutex);
    while (!r->over) {
        uint64_t at = sock_deadline(r->sizes.heartbeat_s);
        bool pings = r->by.trace != NULL;
        pthread_mutex_unlock(&r->watch.mutex);
        pthread_mutex_lock(&r->peers_mutex);
        for (size_t i = 1; i < r->n; i++) {
            peer_beat_now(r->p[i]);
            if (pings) peer_ping(r->p[i]);
        }
        for (gone *g = r->gone; g; g = g->next) {
            if (g->p) peer_beat_now(g->p);
        }
        pthread_mutex_unlock(&r->peers_mutex);
        pthread_mutex_lock(&r->watch.mutex);
        while (!r->over && clock_ns() < at) cond_wait_until(&r->watch.changed, &r->watch.mutex, at);
    }
    pthread_mutex_unlock(&r->watch.mutex);
    return NULL;
}

/* The data connection of the last device, or its question how fast the link is. */
static int let_in(ring *r, const door_guest *g, pr_err *err)
{
    channel *old;
    int rc = PR_OK;

    if (g->f.type == FRAME_ECHO) return probe_desk_take(r->desk, g->c, &g->f, err);
    if (g->f.payload_bytes != strlen(r->sizes.token) ||
        memcmp(g->payload, r->sizes.token, g->f.payload_bytes))
        rc = pr_fail(err, PR_EPEER, "%s: a data connection of another run", channel_peer(g->c));
    else if (g->f.session != r->session)
        rc = pr_fail(err, PR_EPEER, "%s: a data connection of a ring that is gone", channel_peer(g->c));
    if (rc) {
        channel_close(g->c);
        return rc;
    }
    pthread_mutex_lock(&r->watch.mutex);
    old = r->joined;
    r->joined = g->c;
    r->joined_session = g->f.session;
    pthread_cond_broadcast(&r->watch.changed);
    pthread_mutex_unlock(&r->watch.mutex);
    channel_close(old);
    return PR_OK;
}

static void *accept_connections(void *arg)
{
    ring *r = arg;

    while (!r->over) {
        pr_err err = {0};
        door_guest g;
        int rc = door_next(r->door, &g, sock_deadline(ACCEPT_POLL_S), &err);
        if (rc == PR_EINTERRUPTED) return NULL;
        if (!rc && let_in(r, &g, &err)) door_tell(r->door, &err);
    }
    return NULL;
}

/* --- workers ------------------------------------------------------------------------------------------- */
peer_terms ring_terms(const ring *r)
{
    return (peer_terms){.version = r->o->version, .isa = r->o->device.isa};
}

void ring_address(const ring *r, size_t i, sock_addr *a)
{
    const plan_device *d = &r->j->plan->device[i];

    *a = (sock_addr){.port = d->port};
    snprintf(a->host, sizeof a->host, "%s", d->host);
}

int ring_launch(const ring *r, const plan_device *d, launched **out, uint64_t deadline_ns, pr_err *err)
{
    const launch_options lo = {.name = d->name,
                               .host = d->host,
                               .port = d->port,
                               .ssh = d->ssh,
                               .user = d->user,
                               .model = d->model,
                               .isa = r->o->device.isa,
                               .threads = (int)d->threads,
                               .sec = &r->sec,
                               .self = r->o->self,
                               .stop = r->o->stop};

    return launch_worker(out, &lo, deadline_ns, err);
}

/* The worker of before, about to end, can be found listening and be gone a moment later; in the middle of a
 * handshake that looks like a refusal. One that stays may not have noticed yet that the run before is over,
 * or that we have lost it. */
static bool may_be_leaving(ring *r, size_t i, int rc)
{
    const sock nothing = {.fd = -1, .wake = r->o->stop};

    if (launch_is_ours(r->launched[i])) return false;
    if (rc != PR_EPEER && rc != PR_ERESOURCE && (rc != PR_EAUTH || !r->restarts)) return false;
    return sock_wait(&nothing, 0, sock_deadline(AGAIN_S), NULL) != PR_EINTERRUPTED;
}

int ring_greet(ring *r, size_t i, uint64_t deadline_ns, pr_err *err)
{
    uint64_t leaving = 0; /* until when it may; from its first refusal, which may have kept us waiting */
    const peer_terms terms = ring_terms(r);
    sock_addr at;
    int rc;

    ring_address(r, i, &at);
    do {
        launch_stop(r->launched[i], 0);
        r->launched[i] = NULL;
        if ((rc = ring_launch(r, &r->j->plan->device[i], &r->launched[i], deadline_ns, err))) return rc;
        rc = peer_connect(r->p[i], &at, &r->so, &r->sec, &terms, r->sizes.peer_s, deadline_ns, err);
        if (!leaving) leaving = sock_deadline(LEAVING_S);
    } while (rc && clock_ns() < leaving && may_be_leaving(r, i, rc));
    return rc;
}

int ring_send_job(ring *r, size_t i, pr_err *err)
{
    return peer_job(r->p[i], job_to_json(r->plan_text, r->plan_bytes, (uint32_t)i, &r->sizes), err);
}

static bool is_ready(const peer_facts *f, uint64_t arg)
{
    (void)arg;
    return f->state == PEER_READY;
}

/* Loading has no deadline: as long as it beats, it works. */
int ring_await_ready(ring *r, size_t i, pr_err *err)
{
    peer_facts f;
    int rc = peer_wait(r->p[i], is_ready, 0, "loading", SOCK_NO_DEADLINE / 2, err);

    if (rc) return rc;
    if (r->by.trace) peer_measure_clock(r->p[i]);
    progress_note_up(r->by.progress, peer_name(r->p[i]), true);
    f = peer_about(r->p[i]);
    log_info("%s: %.1f MiB of weights ready in %.2f s, %s", peer_name(r->p[i]),
             (double)f.weights_bytes / 0x1p20, f.load_s, f.isa);
    return PR_OK;
}

int ring_await_all(ring *r, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 1; i < r->n; i++) {
        pr_err why = {0};
        int one = ring_await_ready(r, i, &why);
        if (one && (!rc || rc == PR_EPEER)) rc = pr_fail(err, why.code, "%s", why.msg);
        if (rc == PR_EINTERRUPTED) break;
    }
    return rc;
}

/* --- making the ring --------------------------------------------------------------------------------- */
/* It listens, or is about to be found lost. */
static int connect_first(ring *r, channel **out, uint64_t deadline_ns, pr_err *err)
{
    sock_addr to;
    sock s;
    int rc;

    ring_address(r, 1 % r->n, &to);
    if ((rc = sock_connect(&s, &to, &r->so, false, deadline_ns, err)) ||
        (rc = channel_open(out, &s, CHANNEL_CLIENT, &r->sec, deadline_ns, err)))
        return rc;
    rc = job_send_join(r->j, *out, r->session, deadline_ns, err);
    if (rc) channel_close(*out);
    return rc;
}

static int take_joined(ring *r, channel **out, uint64_t deadline_ns, pr_err *err)
{
    const char *last = r->j->plan->device[r->n - 1].name;

    pthread_mutex_lock(&r->watch.mutex);
    while (!(r->joined && r->joined_session == r->session) && clock_ns() < deadline_ns)
        cond_wait_until(&r->watch.changed, &r->watch.mutex, deadline_ns);
    *out = r->joined && r->joined_session == r->session ? r->joined : NULL;
    if (*out) r->joined = NULL;
    pthread_mutex_unlock(&r->watch.mutex);
    return *out ? PR_OK : pr_fail(err, PR_EPEER, "no data connection from %s", last);
}

/* The token that goes round: every layer once, in the order of the plan. */
int ring_walk(ring *r, uint32_t rows, uint64_t deadline_ns, pr_err *err)
{
    parcel *x = parcels_take(device_outgoing(r->d));
    int rc;

    stage_walk(device_stage(r->d), x, rows);
    if ((rc = mailbox_take(device_mailbox(r->d), deadline_ns, &x, err))) return rc;
    if (!x) return pr_fail(err, PR_EPEER, "the token did not come back");
    rc = x->f.type == FRAME_WALK ? stage_walk_check(device_stage(r->d), x, err)
                                 : pr_fail(err, PR_EPEER, "frame type %u before the token", x->f.type);
    parcel_free(x);
    return rc;
}

static int invite(ring *r, pr_err *err)
{
    int rc = PR_OK;

    for (size_t i = 1; i < r->n && !rc; i++) {
        char next[SOCK_NAME_BYTES];
        sock_addr a;
        ring_address(r, (i + 1) % r->n, &a);
        sock_addr_print(next, &a);
        rc = peer_join(r->p[i], r->session, next, err);
    }
    return rc;
}

/* A device that is computing joins when it has done so; a connection takes no longer than a sign of life. An
 * alarm before device_join breaks nothing, so who is lost is asked once more behind it. */
int ring_form(ring *r, pr_err *err)
{
    uint64_t deadline = sock_deadline(r->sizes.connect_s);
    channel *from, *to;
    int rc;

    r->session++;
    device_part(r->d);
    if ((rc = invite(r, err)) || (rc = connect_first(r, &to, sock_deadline(r->sizes.peer_s), err))) return rc;
    if ((rc = peers_wait_ring(&r->watch, r->p, r->n, r->session, deadline, err)) ||
        (rc = take_joined(r, &from, sock_deadline(r->sizes.peer_s), err))) {
        channel_close(to);
        return rc;
    }
    if ((rc = device_join(r->d, r->session, from, to, err)) ||
        (rc = peers_wait_ring(&r->watch, r->p, r->n, r->session, deadline, err)))
        return rc;
    return ring_walk(r, 0, deadline, err);
}

/* --- set-up ----------------------------------------------------------------------------------------------
 */
static int make_token(char out[JOB_TOKEN_BYTES], pr_err *err)
{
    uint8_t bytes[(JOB_TOKEN_BYTES - 1) / 2];

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return pr_fail(err, PR_ERESOURCE, "no random numbers to be had");
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return PR_OK;
}

static int start_threads(ring *r, pr_err *err)
{
    const door_options at_door = {.so = &r->so,
                                  .sec = &r->sec,
                                  .greeting_s = GREETING_S,
                                  .limits = {JOB_TOKEN_BYTES, FRAME_BIT(FRAME_JOIN) | FRAME_BIT(FRAME_ECHO)}};
    sock_addr at;
    int rc;

    ring_address(r, 0, &at);
    if ((rc = probe_desk_new(&r->desk, err)) || (rc = door_open(&r->door, &at, &at_door, err))) return rc;
    r->has_accepting = thread_start(&r->accepting, accept_connections, r) == 0;
    r->has_beating = thread_start(&r->beating, send_beats, r) == 0;
    return r->has_accepting && r->has_beating ? PR_OK : pr_fail(err, PR_ERESOURCE, "cannot start a thread");
}

static int make_peers(ring *r, pr_err *err)
{
    int rc = PR_OK;

    r->p = calloc(r->n, sizeof *r->p);
    r->launched = calloc(r->n, sizeof *r->launched);
    r->mark = calloc(r->n, sizeof *r->mark);
    for (size_t i = 0; r->mark && i < r->n; i++) r->mark[i].at_ns = r->o->start_ns;
    if (!r->p || !r->launched || !r->mark) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = ship_source_new(&r->source, r->o->m, err);
    for (size_t i = 1; i < r->n && !rc; i++)
        rc = peer_new(&r->p[i], r->j->plan->device[i].name, &r->watch, r->source, err);
    return rc;
}

int ring_load_head(ring *r, pr_err *err)
{
    device_options dopt = r->o->device;
    device *d;
    int rc;

    dopt.depth = r->o->depth;
    if ((rc = device_new(&d, r->j, r->o->m, &dopt, err))) return rc;
    pthread_mutex_lock(&r->watch.mutex);
    r->d = d;
    pthread_mutex_unlock(&r->watch.mutex);
    progress_note_up(r->by.progress, r->j->plan->device[0].name, true);
    return PR_OK;
}

/* Who does not begin is not here. */
static int greet_all(ring *r, pr_err *err)
{
    uint64_t deadline = sock_deadline(r->sizes.connect_s);
    int rc = PR_OK;

    for (size_t i = 1; i < r->n && !rc; i++) rc = ring_greet(r, i, deadline, err);
    if (!rc) ring_warn_of_mix(r);
    return rc;
}

/* Workers load while we do. Who is lost while it loads is mended like one that is lost later. */
static int load_all(ring *r, pr_err *err)
{
    pr_err why = {0};
    int rc;

    for (size_t i = 1; i < r->n; i++) ring_send_job(r, i, NULL); /* who cannot be told is found lost */
    if ((rc = ring_load_head(r, err))) return rc;
    rc = ring_await_all(r, &why);
    if (!rc) rc = ring_form(r, &why);
    if (rc == PR_EPEER) return ring_mend(r, &why, err);
    return rc ? pr_fail(err, why.code, "%s", why.msg) : PR_OK;
}

static int take_plan(ring *r, pr_err *err)
{
    const ring_options *o = r->o;

    if (!(r->plan_text = malloc(o->plan_bytes + 1))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    memcpy(r->plan_text, o->plan_text, o->plan_bytes);
    r->plan_bytes = o->plan_bytes;
    return job_new(&r->j, r->plan_text, r->plan_bytes, 0, &r->sizes, err);
}

/* Who will be there, in the order of the ring. */
static void announce(ring *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const char *name = r->j->plan->device[i].name;
        if (r->by.trace) trace_device(r->by.trace, name);
        progress_note_up(r->by.progress, name, false);
    }
}

int ring_new(ring **out, const ring_options *o, pr_err *err)
{
    ring *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    r->o = o;
    r->sizes = o->sizes;
    r->sizes.trace = o->trace;
    r->sec = (security){.key = o->key, .insecure = o->insecure};
    r->so = (sock_options){.wake = o->stop, .lost_after_ms = (unsigned)(o->sizes.peer_s * 1e3)};
    peer_watch_init(&r->watch, alarm_head, r);
    pthread_mutex_init(&r->peers_mutex, NULL);
    if ((rc = engine_isa(o->device.isa, &r->isa, err)) || (rc = make_token(r->sizes.token, err)) ||
        (rc = take_plan(r, err))) {
        ring_free(r);
        return rc;
    }
    r->n = r->j->plan->n_devices;
    r->limits = job_limits(r->j, &o->m->hp);
    if ((rc = make_peers(r, err)) || (rc = start_threads(r, err)) || (rc = greet_all(r, err))) ring_free(r);
    else *out = r;
    return rc;
}

int ring_load(ring *r, const ring_onlookers *by, pr_err *err)
{
    pthread_mutex_lock(&r->watch.mutex);
    r->by = *by;
    r->watch.trace = by->trace;
    pthread_mutex_unlock(&r->watch.mutex);
    announce(r);
    return load_all(r, err);
}

/* Who is lost does not hear that it is over: no need to wait for it. */
static void stop_lost(ring *r)
{
    for (size_t i = 1; r->p && r->launched && i < r->n && r->p[i]; i++) {
        if (peer_about(r->p[i]).state != PEER_LOST) continue;
        launch_stop(r->launched[i], LOST_GRACE_S);
        r->launched[i] = NULL;
    }
}

void ring_free(ring *r)
{
    if (!r) return;
    stop_lost(r);
    pthread_mutex_lock(&r->watch.mutex);
    r->over = true;
    pthread_cond_broadcast(&r->watch.changed);
    pthread_mutex_unlock(&r->watch.mutex);
    for (size_t i = 1; r->p && i < r->n && r->p[i]; i++) peer_stop(r->p[i]);
    if (r->has_accepting) pthread_join(r->accepting, NULL);
    if (r->has_beating) pthread_join(r->beating, NULL);
    ring_stop_waiting(r);
    for (size_t i = 1; r->p && i < r->n; i++) peer_free(r->p[i]);
    for (size_t i = 1; r->launched && i < r->n; i++) launch_stop(r->launched[i], STOP_GRACE_S);
    door_close(r->door);
    probe_desk_free(r->desk);
    channel_close(r->joined);
    device_free(r->d);
    job_free(r->j);
    free(r->plan_text);
    peer_watch_clear(&r->watch);
    pthread_mutex_destroy(&r->peers_mutex);
    ship_source_free(r->source);
    free(r->p);
    free(r->launched);
    free(r->mark);
    free(r);
}

/* --- the pipeline ----------------------------------------------------------------------------------------
 */
static void fill_links(ring *r, ring_links *l)
{
    engine_facts own = engine_about(device_engine(r->d));
    uint64_t weights_bytes = own.weights_bytes + own.gpu.weights;

    for (size_t i = 1; i < r->n; i++) weights_bytes += peer_about(r->p[i]).weights_bytes;
    *l = (ring_links){.e = device_engine(r->d),
                      .s = device_stage(r->d),
                      .in = device_mailbox(r->d),
                      .out = device_outgoing(r->d),
                      .depth = r->o->depth,
                      .max_tokens = r->sizes.max_tokens,
                      .max_prefill = r->o->max_prefill,
                      .limits = &r->limits,
                      .weights_bytes = weights_bytes};
}

static int remake(void *arg, const pr_err *why, ring_links *links, pr_err *err)
{
    ring *r = arg;
    int rc = ring_mend(r, why, err);

    if (!rc) fill_links(r, links);
    return rc;
}

static int tick(void *arg, pr_err *err)
{
    ring *r = arg;

    if (r->returned) return pr_fail(err, PR_EPEER, "a device is back");
    return clock_ns() - r->mark[0].at_ns >= ROW_NS ? ring_rows(r, err) : PR_OK;
}

/* The end. */
static int report_last(void *arg, pr_err *err)
{
    return ring_rows_to_date(arg, LAST_BEAT_S, err);
}

int ring_pipeline(pipeline **out, ring *r, pr_err *err)
{
    const ring_owner owner = {r, remake, tick, report_last};
    ring_links links;

    fill_links(r, &links);
    return pipeline_ring(out, &links, &owner, err);
}

ring_facts ring_about(const ring *r)
{
    /* Before loading, and after an error, there may be no head. */
    engine_facts own = r->d ? engine_about(device_engine(r->d)) : (engine_facts){0};
    ring_facts f = {
        .n_devices = r->n, .restarts = r->restarts, .weights_bytes = own.weights_bytes + own.gpu.weights};

    for (size_t i = 1; i < r->n; i++) f.weights_bytes += peer_about(r->p[i]).weights_bytes;
    ring_isa(r, f.isa);
    return f;
}
