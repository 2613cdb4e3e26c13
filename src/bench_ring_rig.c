/* A ring of processes on this machine; see bench_ring.h. Each worker is a fork that has loaded its layers and
 * waits for orders on a socket pair: how to connect to the next device, or what to compute without one. So
 * one loading serves all wirings. What computes and talks is what `prima run` has (device.h, stage.h,
 * pipeline_ring.h); there is no control connection, and a ring that breaks is an error. */
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/bench_ring.h"
#include "src/run/device.h"
#include "src/run/pipeline_ring.h"
#include <fcntl.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARCELS = 4 };
static const double GREETING_S = 20;

/* A device without layers, for hops alone. */
typedef struct {
    stage *s;
    mailbox *in;
    parcels *incoming, *outgoing;
    channel *from, *to;
    link_in *link_in;
    link_out *link_out;
} empty_device;

typedef enum { ORDER_JOIN, ORDER_JOIN_EMPTY, ORDER_ALONE, ORDER_SPANS } order_kind;

typedef struct {
    order_kind kind;
    uint64_t session;
    uint16_t to_port;
    bool secure;
    ring_load load; /* ORDER_ALONE */
} order;

struct ring_rig {
    const model *m;
    const char *isa;
    ring_shape shape;
    char *plan_text;
    size_t plan_bytes;
    job_sizes sizes;
    job *j;
    device *d;
    ring_lots *lots;
    empty_device e;
    wire_limits limits;
    cluster_key key;
    sock_listener listener[RING_BENCH_DEVICES];
    pid_t pid[RING_BENCH_DEVICES];
    int fd[RING_BENCH_DEVICES];
    ring_relay *relay[RING_BENCH_DEVICES];
    uint64_t session, wired_ns;
    pipeline *pipe;
};

/* --- a device ------------------------------------------------------------------------------------------ */
static int load(ring_rig *r, uint32_t rank, pr_err *err)
{
    const device_options o = {.isa = r->isa, .n_threads = 1, .depth = RING_BENCH_DEPTH};
    int rc = job_new(&r->j, r->plan_text, r->plan_bytes, rank, &r->sizes, err);

    if (rc) return rc;
    r->limits = job_limits(r->j, &r->m->hp);
    return device_new(&r->d, r->j, r->m, &o, err);
}

static void empty_part(empty_device *e)
{
    if (e->from) channel_shutdown(e->from);
    if (e->to) channel_shutdown(e->to);
    if (e->incoming) parcels_break(e->incoming);
    link_in_stop(e->link_in);
    link_out_stop(e->link_out);
    mailbox_delete(e->in);
    parcels_delete(e->incoming);
    parcels_delete(e->outgoing);
    channel_close(e->from);
    channel_close(e->to);
    stage_free(e->s);
    *e = (empty_device){0};
}

static int empty_join(ring_rig *r, uint64_t session, channel *from, channel *to, pr_err *err)
{
    static const layer_range none = {0, 0};
    const uint32_t n = r->shape.devices, rank = r->j->rank;
    const frame_limits fl = {.max_payload_bytes = (uint32_t)wire_max_bytes(&r->limits),
                             .types = FRAME_BIT(FRAME_PASS)};
    const stage_options so = {.window = &none,
                              .n_rounds = 1,
                              .n_layers = 1,
                              .rank = (uint16_t)rank,
                              .previous = (uint16_t)((rank + n - 1) % n),
                              .n_ranks = (uint16_t)n,
                              .limits = r->limits,
                              .merge_tokens = 1};
    empty_device *e = &r->e;
    int rc;

    e->from = from;
    e->to = to;
    if ((rc = stage_new(&e->s, &so, err)) || (rc = mailbox_new(&e->in, err)) ||
        (rc = parcels_new(&e->incoming, PARCELS, fl.max_payload_bytes, err)) ||
        (rc = parcels_new(&e->outgoing, 1, fl.max_payload_bytes, err)) ||
        (rc = link_in_start(&e->link_in, from, "the device before", &fl, e->incoming, e->in, err)) ||
        (rc = link_out_start(&e->link_out, to, "the next device", e->in, err))) {
        empty_part(e);
        return rc;
    }
    stage_join(e->s, session, e->in, e->link_out);
    return PR_OK;
}

static int join(ring_rig *r, const order *o, channel *from, channel *to, pr_err *err)
{
    return o->kind == ORDER_JOIN_EMPTY ? empty_join(r, o->session, from, to, err)
                                       : device_join(r->d, o->session, from, to, err);
}

/* --- connections ------------------------------------------------------------------------------------------
 */
static int accept_from(const ring_rig *r, uint32_t rank, const order *o, channel **from, pr_err *err)
{
    const security sec = {.key = o->secure ? &r->key : NULL, .insecure = true};
    uint64_t deadline = sock_deadline(GREETING_S);
    sock s;
    int rc = sock_accept(&s, &r->listener[rank], deadline, err);

    return rc ? rc : channel_open(from, &s, CHANNEL_SERVER, &sec, deadline, err);
}

static int connect_to(const ring_rig *r, const order *o, channel **to, pr_err *err)
{
    static const sock_options so = {0};
    const security sec = {.key = o->secure ? &r->key : NULL, .insecure = true};
    const sock_addr at = {.host = "127.0.0.1", .port = o->to_port};
    uint64_t deadline = sock_deadline(GREETING_S);
    sock s;
    int rc = sock_connect(&s, &at, &so, false, deadline, err);

    return rc ? rc : channel_open(to, &s, CHANNEL_CLIENT, &sec, deadline, err);
}

/* Workers connect before they accept, the head accepts before it connects: so the handshakes go backwards
 * round the ring, and none waits for one that waits for it. */
static int connect_both(ring_rig *r, uint32_t rank, const order *o, pr_err *err)
{
    channel *from = NULL, *to = NULL;
    int rc = rank ? connect_to(r, o, &to, err) : accept_from(r, rank, o, &from, err);

    if (!rc) rc = rank ? accept_from(r, rank, o, &from, err) : connect_to(r, o, &to, err);
    if (!rc) return join(r, o, from, to, err);
    channel_close(from);
    channel_close(to);
    return rc;
}

/* --- a worker ------------------------------------------------------------------------------------------ */
static bool send_answer(int fd, int rc, const pr_err *err)
{
    if (rc) log_error("worker: %s", err->msg);
    return write(fd, &rc, sizeof rc) == sizeof rc && !rc;
}

/* Returns when the ring has been taken apart. */
static void serve(ring_rig *r, bool empty)
{
    pr_err err = {0};

    stage_serve(empty ? r->e.s : device_stage(r->d), &err);
    if (empty) empty_part(&r->e);
    else device_part(r->d);
}

static int compute_alone(ring_rig *r, const ring_load *what, pr_err *err)
{
    return ring_lots_alone(r->lots, device_engine(r->d), r->j->rank == 0, r->shape.rounds, what, err);
}

static bool tell_spans(const ring_rig *r, int fd)
{
    ring_spans all = {0};
    pr_err err = {0};
    bool told = !ring_spans_take(&all, device_stage(r->d), &err) && ring_spans_send(fd, &all);

    ring_spans_clear(&all);
    return told;
}

static bool obey(ring_rig *r, uint32_t rank, int fd, const order *o)
{
    pr_err err = {0};

    if (o->kind == ORDER_SPANS) return tell_spans(r, fd);
    if (o->kind == ORDER_ALONE) return send_answer(fd, compute_alone(r, &o->load, &err), &err);
    if (!send_answer(fd, connect_both(r, rank, o, &err), &err)) return false;
    serve(r, o->kind == ORDER_JOIN_EMPTY);
    return true;
}

/* Its socket pair ends when the bench does. */
static void live(ring_rig *r, uint32_t rank, int fd)
{
    pr_err err = {0};
    bool well = send_answer(fd, load(r, rank, &err), &err);
    order o;

    while (well && read(fd, &o, sizeof o) == sizeof o) well = obey(r, rank, fd, &o);
}

static int start_worker(ring_rig *r, uint32_t rank, pr_err *err)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return pr_fail_errno(err, PR_ERESOURCE, "no socket pair");
    for (int i = 0; i < 2; i++) fcntl(pair[i], F_SETFD, FD_CLOEXEC);
    r->pid[rank] = fork();
    if (r->pid[rank] < 0) {
        close(pair[0]);
        close(pair[1]);
        return pr_fail_errno(err, PR_ERESOURCE, "cannot start a process");
    }
    if (!r->pid[rank]) {
        for (uint32_t i = 1; i < rank; i++) close(r->fd[i]); /* they end with the bench alone */
        close(pair[0]);
        live(r, rank, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    r->fd[rank] = pair[0];
    return PR_OK;
}

static int await_answer(const ring_rig *r, uint32_t rank, pr_err *err)
{
    int rc;

    if (read(r->fd[rank], &rc, sizeof rc) != sizeof rc)
        return pr_fail(err, PR_EPEER, "worker %u has ended", rank);
    return rc ? pr_fail(err, (pr_code)rc, "worker %u has failed", rank) : PR_OK;
}

/* --- the rig ---------------------------------------------------------------------------------------------
 */
static int listen_all(ring_rig *r, pr_err *err)
{
    static const sock_options so = {0};
    const sock_addr at = {.host = "127.0.0.1"};
    int rc = PR_OK;

    for (uint32_t i = 0; i < r->shape.devices && !rc; i++) rc = sock_listen(&r->listener[i], &at, &so, err);
    return rc;
}

int ring_rig_new(ring_rig **out, const model *m, const char *isa, const ring_shape *shape, pr_err *err)
{
    ring_rig *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *r = (ring_rig){.m = m, .isa = isa, .shape = *shape};
    r->sizes = (job_sizes){.max_tokens = RING_BENCH_CHUNK,
                           .merge_tokens = RING_BENCH_CHUNK,
                           .max_out = RING_BENCH_MOST,
                           .n_pages = RING_BENCH_PAGES,
                           .elem = shape->elem,
                           .trace = true,
                           .heartbeat_s = 1,
                           .peer_s = GREETING_S,
                           .connect_s = GREETING_S};
    for (size_t i = 0; i < RING_BENCH_DEVICES; i++) {
        r->listener[i].fd = r->fd[i] = -1;
        r->pid[i] = -1;
    }
    snprintf(r->key.id, sizeof r->key.id, "bench");
    rc = RAND_bytes(r->key.psk, sizeof r->key.psk) == 1 ? PR_OK
                                                        : pr_fail(err, PR_ERESOURCE, "no random numbers");
    if (!rc) rc = ring_lots_new(&r->lots, &m->hp, err);
    if (!rc) rc = ring_shape_plan(&r->shape, m, GREETING_S, &r->plan_text, &r->plan_bytes, err);
    if (!rc) rc = listen_all(r, err);
    for (uint32_t i = 1; i < shape->devices && !rc; i++) rc = start_worker(r, i, err);
    if (!rc) rc = load(r, 0, err);
    for (uint32_t i = 1; i < shape->devices && !rc; i++) rc = await_answer(r, i, err);
    if (rc) ring_rig_free(r);
    else *out = r;
    return rc;
}

static void unwire(ring_rig *r)
{
    if (r->pipe) r->pipe->ops->free(r->pipe);
    r->pipe = NULL;
    if (r->d) device_part(r->d);
    empty_part(&r->e);
    for (size_t i = 0; i < RING_BENCH_DEVICES; i++) {
        ring_relay_stop(r->relay[i]);
        r->relay[i] = NULL;
    }
}

void ring_rig_free(ring_rig *r)
{
    if (!r) return;
    unwire(r);
    for (size_t i = 1; i < RING_BENCH_DEVICES; i++) {
        if (r->fd[i] >= 0) close(r->fd[i]);
        if (r->pid[i] > 0) waitpid(r->pid[i], NULL, 0);
    }
    for (size_t i = 0; i < RING_BENCH_DEVICES; i++) sock_listener_close(&r->listener[i]);
    device_free(r->d);
    job_free(r->j);
    ring_lots_free(r->lots);
    key_clear(&r->key);
    free(r->plan_text);
    free(r);
}

/* Where device i connects to: the next one's port, or that of the relay before it. */
static int next_port(ring_rig *r, uint32_t i, double delay_ms, uint16_t *port, pr_err *err)
{
    const sock_listener *next = &r->listener[(i + 1) % r->shape.devices];
    sock_addr at;
    int rc = sock_addr_parse(&at, next->address, false, err);

    *port = at.port;
    if (rc || delay_ms <= 0) return rc;
    rc = ring_relay_start(&r->relay[i], at.port, delay_ms, err);
    if (!rc) *port = ring_relay_port(r->relay[i]);
    return rc;
}

static int pass_error(void *arg, const pr_err *why, ring_links *links, pr_err *err)
{
    (void)arg;
    (void)links;
    return pr_fail(err, PR_EINTERNAL, "the ring has broken: %s", why->msg);
}

static int no_tick(void *arg, pr_err *err)
{
    (void)arg;
    (void)err;
    return PR_OK;
}

static int make_pipeline(ring_rig *r, const ring_wiring *w, pr_err *err)
{
    const ring_owner owner = {r, pass_error, no_tick, no_tick};
    const ring_links links = {.e = device_engine(r->d),
                              .s = device_stage(r->d),
                              .in = device_mailbox(r->d),
                              .out = device_outgoing(r->d),
                              .depth = w->depth,
                              .max_tokens = RING_BENCH_CHUNK,
                              .max_prefill = w->chunk_tokens,
                              .limits = &r->limits};
    return pipeline_ring(&r->pipe, &links, &owner, err);
}

static int give_order(const ring_rig *r, uint32_t rank, const order *o, pr_err *err)
{
    if (write(r->fd[rank], o, sizeof *o) == sizeof *o) return PR_OK;
    return pr_fail_errno(err, PR_EPEER, "worker %u has ended", rank);
}

int ring_rig_wire(ring_rig *r, const ring_wiring *w, pipeline **pipe, pr_err *err)
{
    order own = {0};
    int rc = PR_OK;

    unwire(r);
    r->session++;
    for (uint32_t i = 0; i < r->shape.devices && !rc; i++) {
        order o = {
            .kind = w->empty ? ORDER_JOIN_EMPTY : ORDER_JOIN, .session = r->session, .secure = w->secure};
        rc = next_port(r, i, w->delay_ms, &o.to_port, err);
        if (!i) own = o;
        else if (!rc) rc = give_order(r, i, &o, err);
    }
    if (!rc) rc = connect_both(r, 0, &own, err);
    for (uint32_t i = 1; i < r->shape.devices && !rc; i++) rc = await_answer(r, i, err);
    if (!rc && !w->empty) rc = make_pipeline(r, w, err);
    r->wired_ns = clock_ns();
    if (pipe) *pipe = r->pipe;
    return rc;
}

int ring_rig_apart(ring_rig *r, const ring_load *what, double *tps, pr_err *err)
{
    const order o = {.kind = ORDER_ALONE, .load = *what};
    uint64_t start;
    int rc = PR_OK;

    unwire(r);
    start = clock_ns();
    for (uint32_t i = 1; i < r->shape.devices && !rc; i++) rc = give_order(r, i, &o, err);
    if (!rc) rc = compute_alone(r, what, err);
    for (uint32_t i = 1; i < r->shape.devices && !rc; i++) rc = await_answer(r, i, err);
    *tps = (what->prompt ? 1 : what->sequences) * (double)what->n / clock_ms_since(start) * 1e3;
    return rc;
}

engine_facts ring_rig_facts(const ring_rig *r)
{
    return engine_about(device_engine(r->d));
}

int ring_rig_link_us(ring_rig *r, double *us, pr_err *err)
{
    const order o = {.kind = ORDER_SPANS};
    ring_spans all = {0};
    int rc;

    unwire(r);
    rc = ring_spans_take(&all, device_stage(r->d), err);
    for (uint32_t i = 1; i < r->shape.devices && !rc; i++)
        if (!(rc = give_order(r, i, &o, err))) rc = ring_spans_recv(r->fd[i], &all, err);
    if (!rc) rc = ring_spans_link_us(&all, r->wired_ns, us, err);
    ring_spans_clear(&all);
    return rc;
}

int ring_rig_hop_us(ring_rig *r, size_t n, double *us, pr_err *err)
{
    const int32_t page = 0;
    const batch_run run = {.n = 1, .pages = &page};
    const batch b = {.n_tokens = 1, .n_runs = 1, .run = &run};
    uint64_t start = clock_ns();

    memset(stage_hidden(r->e.s), 0, r->limits.n_embd * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        parcel *x = parcels_take(r->e.outgoing);
        int rc;
        stage_begin(r->e.s, i, &b, x, NULL);
        rc = mailbox_take(r->e.in, sock_deadline(GREETING_S), &x, err);
        if (rc) return rc;
        if (!x) return pr_fail(err, PR_EPEER, "a hidden state has not come back");
        parcel_free(x);
    }
    *us = clock_ms_since(start) * 1e3 / (double)(n * r->shape.devices);
    return PR_OK;
}
