/* What a ring will ask of a link is measured with the ring's own frames: how long one without a payload takes
 * there and back, and how many bytes a second go through when hidden states follow each other.
 *
 * A rate is measured by a burst of frames whose last one is answered; from the time the round trip is taken
 * off. Bursts grow until one takes 100 ms (or is 32 MiB long): a slow start of the connection then counts
 * little, and a slow link is not kept busy for minutes. */
#include "src/probe_link.h"
#include "net/frame.h"
#include "planner/profile.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLS = 8192,
    PAYLOAD_BYTES = COLS * 4,
    FRAME_BYTES = FRAME_HEADER_BYTES + PAYLOAD_BYTES,
    MAX_ECHOES = 500,
    WARM_ECHOES = 5,
    MAX_BURSTS = 5
};
static const double CONNECT_S = 5, ECHOES_S = 0.6, BURSTS_S = 1, BURST_LONG_ENOUGH_S = 0.1, STEP_S = 10,
                    ANSWER_S = 45, GREETING_S = 10;

/* --- options ----------------------------------------------------------------------------------------------
 */
static bool is_device_name(const char *s)
{
    size_t n = strlen(s);
    return n >= 1 && n < LINK_PEER_BYTES && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int peer_name(char out[LINK_PEER_BYTES], const link_options *o, const sock_addr *a, pr_err *err)
{
    const char *name = o->peer ? o->peer : a->host;

    if (!is_device_name(name)) {
        if (o->peer) return pr_fail(err, PR_EUSAGE, "--peer %s: expected 1 to 32 of a-z, 0-9 and -", o->peer);
        return pr_fail(err, PR_EUSAGE, "--link %s: add --peer NAME, what cluster.yaml calls that device",
                       o->address);
    }
    memcpy(out, name, strlen(name) + 1);
    return PR_OK;
}

static int read_options(sock_addr *a, char peer[LINK_PEER_BYTES], const link_options *o, pr_err *err)
{
    int rc = sock_addr_parse(a, o->address, false, err);

    if (!rc) return peer_name(peer, o, a, err);
    pr_wrap(err, "--link");
    return rc;
}

int link_options_check(const link_options *o, pr_err *err)
{
    sock_addr a;
    char peer[LINK_PEER_BYTES];

    if (!o->address && (o->peer || o->key_file || o->insecure))
        return pr_fail(err, PR_EUSAGE, "--peer, --key-file and --insecure go with --link");
    return o->address ? read_options(&a, peer, o, err) : PR_OK;
}

/* --- one client's side ------------------------------------------------------------------------------------
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

static int measure_rtt(link_figures *out, prober *p, pr_err *err)
{
    double ms[MAX_ECHOES];
    uint64_t start = clock_ns();
    int rc;
    size_t n = 0;

    for (int i = 0; i < WARM_ECHOES; i++)
        if ((rc = echo(p, false, err))) return rc;
    while (n < MAX_ECHOES && (n < WARM_ECHOES || clock_ms_since(start) < ECHOES_S * 1e3)) {
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

uint64_t probe_link_next_burst(uint64_t n, double seconds)
{
    uint64_t next = n * (seconds < BURST_LONG_ENOUGH_S / 8 ? 4 : 2);

    if (seconds >= BURST_LONG_ENOUGH_S || n >= LINK_MAX_FRAMES) return 0;
    return next < LINK_MAX_FRAMES ? next : LINK_MAX_FRAMES;
}

static int measure_rate(double *bytes_per_s, double *spread_pct, prober *p, burst_fn burst, double rtt_ms,
                        pr_err *err)
{
    double rate[MAX_BURSTS];
    uint64_t start = clock_ns(), n = 1;
    size_t n_rates = 0;

    while (n_rates == 0 || (n_rates < MAX_BURSTS && clock_ms_since(start) < BURSTS_S * 1e3)) {
        uint64_t t = clock_ns();
        int rc = burst(p, n, err);
        double s = clock_ms_since(t) / 1e3;
        if (rc) return rc;
        uint64_t next = probe_link_next_burst(n, s);
        if (next) n = next;
        else rate[n_rates++] = (double)n * FRAME_BYTES / fmax(s - rtt_ms / 1e3, s / 2);
    }
    qsort(rate, n_rates, sizeof *rate, ascending);
    *bytes_per_s = rate[n_rates / 2];
    *spread_pct = 100 * (rate[n_rates - 1] - rate[0]) / *bytes_per_s;
    return PR_OK;
}

static int measure(link_figures *out, prober *p, pr_err *err)
{
    int rc;

    if ((rc = measure_rtt(out, p, err)) ||
        (rc = measure_rate(&out->out_bytes_per_s, &out->out_spread_pct, p, burst_out, out->rtt_ms, err)) ||
        (rc = measure_rate(&out->in_bytes_per_s, &out->in_spread_pct, p, burst_in, out->rtt_ms, err)))
        return rc;
    return send_frame(p, FRAME_BYE, false, 0, err);
}

static int connect_prober(prober *p, const sock_addr *to, const security *sec, pr_err *err)
{
    const sock_options so = {0};
    sock s;
    int rc = sock_connect(&s, to, &so, true, sock_deadline(CONNECT_S), err);

    if (!rc) rc = channel_open(&p->c, &s, CHANNEL_CLIENT, sec, sock_deadline(GREETING_S), err);
    return rc;
}

int probe_link(link_figures *out, const link_options *o, pr_err *err)
{
    prober p = {.session = clock_ns()};
    cluster_key key;
    security sec;
    sock_addr to;
    char peer[LINK_PEER_BYTES];
    int rc;

    if ((rc = read_options(&to, peer, o, err))) return rc;
    if (!(p.room = calloc(1, FRAME_BYTES))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!(rc = security_read(&sec, &key, o->key_file, o->insecure, err)) &&
        !(rc = connect_prober(&p, &to, &sec, err))) {
        log_progress("link to %s: measuring", o->address);
        rc = measure(out, &p, err);
        log_progress("%s", "");
        if (!rc)
            log_info("link to %s (%s, %s): %.3f ms round trip (spread %.0f %%), %.1f Mbit/s there (%.0f %%), "
                     "%.1f Mbit/s back (%.0f %%)",
                     peer, o->address, channel_cipher(p.c), out->rtt_ms, out->rtt_spread_pct,
                     out->out_bytes_per_s * 8e-6, out->out_spread_pct, out->in_bytes_per_s * 8e-6,
                     out->in_spread_pct);
    }
    channel_close(p.c);
    key_clear(&key);
    free(p.room);
    return rc;
}

/* --- into a profile
 * ----------------------------------------------------------------------------------------- */
static int put_entry(profile *p, const profile_net *entry, pr_err *err)
{
    size_t i = 0;

    while (i < p->n_net && strcmp(p->net[i].peer, entry->peer)) i++;
    if (i == PROFILE_MAX_NET)
        return pr_fail(err, PR_EUSAGE, "the profile holds links to %d devices already", PROFILE_MAX_NET);
    p->net[i] = *entry;
    if (i == p->n_net) p->n_net++;
    return PR_OK;
}

int probe_link_into(const char *path, const link_options *o, pr_err *err)
{
    link_figures got;
    profile_net entry = {0};
    profile *p = NULL;
    sock_addr a;
    int rc;

    if ((rc = read_options(&a, entry.peer, o, err)) || (rc = probe_link(&got, o, err))) return rc;
    entry.bytes_per_s = round(fmin(got.out_bytes_per_s, got.in_bytes_per_s));
    entry.rtt_ms = round(got.rtt_ms * 1e3) / 1e3;
    if (!(rc = profile_read(&p, path, err)) && !(rc = put_entry(p, &entry, err)) &&
        !(rc = profile_write(p, path, err)))
        log_info("%s: the link to %s is in it", path, entry.peer);
    profile_free(p);
    return rc;
}

/* --- the answering side
 * ------------------------------------------------------------------------------------- */
static int give(channel *c, uint8_t *room, const frame *asked, uint64_t deadline_ns, pr_err *err)
{
    frame f = *asked;
    int rc = PR_OK;

    if (asked->batch > LINK_MAX_FRAMES)
        return pr_fail(err, PR_EPEER, "%s: asks for %llu frames, at most %d are given", channel_peer(c),
                       (unsigned long long)asked->batch, LINK_MAX_FRAMES);
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

int probe_link_answer(channel *c, pr_err *err)
{
    const frame_limits limits = {PAYLOAD_BYTES, FRAME_BIT(FRAME_ECHO) | FRAME_BIT(FRAME_GIVE) |
                                                    FRAME_BIT(FRAME_FILL) | FRAME_BIT(FRAME_BYE)};
    uint64_t end = sock_deadline(ANSWER_S);
    uint8_t *room = malloc(FRAME_BYTES);
    frame asked = {0};
    int rc = room ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    while (!rc && asked.type != FRAME_BYE) {
        uint64_t step = sock_deadline(STEP_S);
        if (clock_ns() >= end)
            rc = pr_fail(err, PR_EPEER, "%s: still asking after %.0f s; connection closed", channel_peer(c),
                         ANSWER_S);
        else rc = frame_recv(c, &asked, room + FRAME_HEADER_BYTES, &limits, step < end ? step : end, err);
        if (!rc) rc = answer(c, room, &asked, end, err);
    }
    free(room);
    return rc;
}
