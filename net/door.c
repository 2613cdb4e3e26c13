/* Greeting many at once; see door.h. A place is a connection and how far its greeting has come. Every call of
 * door_next looks at all sockets with one poll(2) and takes each greeting as far as it goes without waiting.
 */
#include "net/door.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Lines about refused connections: so many at once, and one more every second. What was not told is counted,
 * and said when a while has passed without a line. */
enum { LINES_AT_ONCE = 40 };
#define LINE_EVERY_NS   1000000000ull
#define QUIET_NS        10000000000ull
#define NO_ROOM_REST_NS 200000000ull /* without descriptors the next attempt would fail at once */

typedef enum { FREE, HANDSHAKE, HEADER, PAYLOAD, DONE } step;

typedef struct {
    step at;
    channel *c;
    short events; /* to wait for */
    bool heard;   /* a first byte has come */
    uint64_t since_ns;
    size_t got; /* bytes of the header, or of the payload */
    frame f;
    uint8_t header[FRAME_HEADER_BYTES], payload[DOOR_MAX_PAYLOAD_BYTES];
} place;

struct door {
    door_options o;
    sock_listener l;
    place p[DOOR_PLACES];
    uint64_t rest_until_ns;  /* nobody is let in before */
    uint64_t lines_until_ns; /* LINE_EVERY_NS ahead of now for each line of late */
    uint64_t told_ns;
    size_t n_untold;
};

int door_open(door **out, const sock_addr *at, const door_options *o, pr_err *err)
{
    door *d = calloc(1, sizeof *d);
    int rc;

    assert(o->limits.max_payload_bytes <= DOOR_MAX_PAYLOAD_BYTES);
    if (!d) return pr_fail(err, PR_ERESOURCE, "out of memory");
    d->o = *o;
    if ((rc = sock_listen(&d->l, at, o->so, err))) free(d);
    else *out = d;
    return rc;
}

const char *door_address(const door *d)
{
    return d->l.address;
}

static void clear(place *p)
{
    p->at = FREE;
    p->c = NULL;
    p->heard = false;
    p->got = 0;
}

void door_close(door *d)
{
    if (!d) return;
    if (d->n_untold) log_warn("%zu more connections were refused", d->n_untold);
    for (size_t i = 0; i < DOOR_PLACES; i++) channel_close(d->p[i].c);
    sock_listener_close(&d->l);
    free(d);
}

/* --- what is told -------------------------------------------------------------------------------------- */
static bool may_tell(door *d)
{
    uint64_t now = clock_ns();

    if (d->lines_until_ns < now) d->lines_until_ns = now;
    if (d->lines_until_ns - now >= LINES_AT_ONCE * LINE_EVERY_NS) {
        d->n_untold++;
        return false;
    }
    d->lines_until_ns += LINE_EVERY_NS;
    d->told_ns = now;
    return true;
}

static void tell_rest(door *d)
{
    if (!d->n_untold || clock_ns() < d->told_ns + QUIET_NS) return;
    log_warn("%zu more connections were refused", d->n_untold);
    d->n_untold = 0;
}

void door_tell(door *d, const pr_err *why)
{
    if (may_tell(d)) log_warn("%s", why->msg);
}

static void show_out(door *d, place *p, const char *why)
{
    pr_err err;

    pr_fail(&err, PR_EPEER, "%s: %s", channel_peer(p->c), why);
    door_tell(d, &err);
    channel_close(p->c);
    clear(p);
}

/* --- places -------------------------------------------------------------------------------------------- */
/* Without the port. */
static size_t host_bytes(const char *peer)
{
    const char *colon = strrchr(peer, ':');
    return colon ? (size_t)(colon - peer) : strlen(peer);
}

static bool is_same_host(const place *a, const place *b)
{
    const char *x = channel_peer(a->c), *y = channel_peer(b->c);
    size_t n = host_bytes(x);

    return n == host_bytes(y) && !memcmp(x, y, n);
}

static size_t places_of(const door *d, const place *p)
{
    size_t n = 0;

    for (size_t i = 0; i < DOOR_PLACES; i++) n += d->p[i].at != FREE && is_same_host(&d->p[i], p);
    return n;
}

/* Of the address with the most places the one that came first. */
static place *longest_of_the_many(door *d)
{
    place *found = NULL;
    size_t most = 0;

    for (size_t i = 0; i < DOOR_PLACES; i++) {
        place *p = &d->p[i];
        size_t n = p->at == FREE || p->at == DONE ? 0 : places_of(d, p);
        if (n > most || (found && n == most && p->since_ns < found->since_ns)) {
            found = p;
            most = n;
        }
    }
    return found;
}

static place *find(door *d, step at)
{
    for (size_t i = 0; i < DOOR_PLACES; i++)
        if (d->p[i].at == at) return &d->p[i];
    return NULL;
}

/* --- letting in ---------------------------------------------------------------------------------------- */
static void seat(door *d, sock *s)
{
    place *p = find(d, FREE);
    pr_err err = {0};

    if (channel_begin(&p->c, s, CHANNEL_SERVER, d->o.sec, &err)) {
        clear(p);
        door_tell(d, &err);
        return;
    }
    p->at = HANDSHAKE;
    p->events = POLLIN; /* a client speaks first */
    p->since_ns = clock_ns();
}

/* Everybody who waits outside, at most as many as there are places: the others have their turn, too. */
static int let_in(door *d, pr_err *err)
{
    for (size_t i = 0; i < DOOR_PLACES && clock_ns() >= d->rest_until_ns; i++) {
        pr_err why = {0};
        sock s;
        int rc = sock_accept(&s, &d->l, 0, &why);
        if (rc == PR_EPEER) break;
        if (rc == PR_EINTERRUPTED) return pr_fail(err, why.code, "%s", why.msg);
        place *p = longest_of_the_many(d);
        if (rc) {
            door_tell(d, &why);
            d->rest_until_ns = clock_ns() + NO_ROOM_REST_NS;
            if (p) show_out(d, p, "shown out for want of descriptors");
            break;
        }
        if (!find(d, FREE) && p) show_out(d, p, "shown out, too many connect at once");
        if (find(d, FREE)) seat(d, &s);
        else sock_close(&s);
    }
    return PR_OK;
}

/* --- greetings ----------------------------------------------------------------------------------------- */
/* Before its first byte: gone. */
static bool has_left(place *p)
{
    char byte;
    ssize_t n;

    if (p->heard) return false;
    n = recv(channel_fd(p->c), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    p->heard = n > 0;
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static int read_some(place *p, uint8_t *to, size_t n, pr_err *err)
{
    size_t done;
    int rc = channel_read_now(p->c, to + p->got, n - p->got, &done, err);

    p->got += done;
    p->events = POLLIN;
    return rc;
}

static int shake_hands(place *p, pr_err *err)
{
    int rc = channel_handshake_now(p->c, &p->events, err);

    if (!rc && !p->events) p->at = HEADER;
    return rc;
}

static int read_header(place *p, const frame_limits *limits, pr_err *err)
{
    int rc = read_some(p, p->header, FRAME_HEADER_BYTES, err);

    if (rc || p->got < FRAME_HEADER_BYTES) return rc;
    if ((rc = frame_decode(&p->f, p->header, limits, err))) {
        pr_wrap(err, "%s", channel_peer(p->c));
        return rc;
    }
    p->got = 0;
    p->at = PAYLOAD;
    return PR_OK;
}

static int read_payload(place *p, pr_err *err)
{
    int rc = p->f.payload_bytes ? read_some(p, p->payload, p->f.payload_bytes, err) : PR_OK;

    if (!rc && p->got == p->f.payload_bytes) p->at = DONE;
    return rc;
}

/* One after another, as far as it goes. */
static int greet(const door *d, place *p, pr_err *err)
{
    int rc = PR_OK;

    if (p->at == HANDSHAKE) rc = shake_hands(p, err);
    if (!rc && p->at == HEADER) rc = read_header(p, &d->o.limits, err);
    if (!rc && p->at == PAYLOAD) rc = read_payload(p, err);
    return rc;
}

static void go_on(door *d, place *p)
{
    pr_err err = {0};

    if (has_left(p)) {
        if (may_tell(d)) log_info("%s: came and left without a word", channel_peer(p->c));
    } else if (!greet(d, p, &err)) return;
    else door_tell(d, &err);
    channel_close(p->c);
    clear(p);
}

static uint64_t end_of(const door *d, const place *p)
{
    return p->since_ns + (uint64_t)(d->o.greeting_s * 1e9);
}

/* --- waiting ------------------------------------------------------------------------------------------- */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When there is something to do though nothing has come. */
static uint64_t next_look(const door *d, uint64_t deadline_ns)
{
    if (d->n_untold) deadline_ns = earlier(deadline_ns, d->told_ns + QUIET_NS);
    if (d->rest_until_ns > clock_ns()) deadline_ns = earlier(deadline_ns, d->rest_until_ns);
    for (size_t i = 0; i < DOOR_PLACES; i++)
        if (d->p[i].at != FREE) deadline_ns = earlier(deadline_ns, end_of(d, &d->p[i]));
    return deadline_ns;
}

/* One look at everybody. */
static int look(door *d, uint64_t deadline_ns, pr_err *err)
{
    struct pollfd f[DOOR_PLACES + 2];
    bool rests = d->rest_until_ns > clock_ns();
    int rc = PR_OK;

    for (size_t i = 0; i < DOOR_PLACES; i++)
        f[i] =
            (struct pollfd){.fd = d->p[i].at == FREE ? -1 : channel_fd(d->p[i].c), .events = d->p[i].events};
    f[DOOR_PLACES] = (struct pollfd){.fd = rests ? -1 : d->l.fd, .events = POLLIN};
    f[DOOR_PLACES + 1] = (struct pollfd){.fd = d->o.so->wake ? d->o.so->wake->fd[0] : -1, .events = POLLIN};
    if (sock_poll(f, DOOR_PLACES + 2, next_look(d, deadline_ns)) > 0) {
        if (f[DOOR_PLACES + 1].revents) return pr_fail(err, PR_EINTERRUPTED, "%s: interrupted", d->l.address);
        for (size_t i = 0; i < DOOR_PLACES; i++)
            if (f[i].revents) go_on(d, &d->p[i]);
        if (f[DOOR_PLACES].revents) rc = let_in(d, err);
    }
    return rc;
}

static void show_out_late(door *d)
{
    uint64_t now = clock_ns();
    char why[64];

    snprintf(why, sizeof why, "no answer in time: no greeting within %.0f s", d->o.greeting_s);
    for (size_t i = 0; i < DOOR_PLACES; i++) {
        place *p = &d->p[i];
        if (p->at != FREE && p->at != DONE && now >= end_of(d, p)) show_out(d, p, why);
    }
}

int door_next(door *d, door_guest *out, uint64_t deadline_ns, pr_err *err)
{
    place *p;
    int rc;

    while (!(p = find(d, DONE))) {
        if ((rc = look(d, deadline_ns, err))) return rc;
        show_out_late(d);
        tell_rest(d);
        if (!find(d, DONE) && clock_ns() >= deadline_ns)
            return pr_fail(err, PR_EPEER, "%s: nobody came", d->l.address);
    }
    *out = (door_guest){p->c, p->f, p->payload};
    clear(p);
    return PR_OK;
}
