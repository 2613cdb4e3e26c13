/* A link that takes its time; see bench_ring.h. One thread serves both directions: what comes in is kept with
 * the moment at which it is due, and waiting for input ends when the oldest is. */
#include "net/sock.h"
#include "src/base/clock.h"
#include "src/base/thread.h"
#include "src/bench_ring.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { PIECE_BYTES = 1 << 18 };
static const double GREETING_S = 20, WRITE_S = 20;

typedef struct piece {
    struct piece *next;
    uint64_t due_ns;
    size_t n;
    uint8_t bytes[];
} piece;

typedef struct {
    sock *from, *to;
    piece *first, **last;
} direction;

struct ring_relay {
    uint64_t delay_ns;
    sock_addr to;
    sock_options so;
    sock_listener listener;
    wake stop;
    uint16_t port;
    pthread_t thread;
    uint8_t room[PIECE_BYTES];
};

/* False: this side has ended. */
static bool take(ring_relay *r, direction *d)
{
    ssize_t n = recv(d->from->fd, r->room, sizeof r->room, 0);
    piece *p;

    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (!n || !(p = malloc(sizeof *p + (size_t)n))) return false;
    *p = (piece){.due_ns = clock_ns() + r->delay_ns, .n = (size_t)n};
    memcpy(p->bytes, r->room, p->n);
    *d->last = p;
    d->last = &p->next;
    return true;
}

static bool give(direction *d)
{
    bool ok = true;

    while (ok && d->first && d->first->due_ns <= clock_ns()) {
        piece *p = d->first;
        ok = sock_write(d->to, p->bytes, p->n, sock_deadline(WRITE_S), NULL) == PR_OK;
        d->first = p->next;
        if (!d->first) d->last = &d->first;
        free(p);
    }
    return ok;
}

/* Until something comes, or the oldest piece is due. */
static int wait_for(struct pollfd *p, nfds_t n, const direction d[2])
{
    uint64_t due = UINT64_MAX, now = clock_ns(), left;

    for (int i = 0; i < 2; i++) due = d[i].first && d[i].first->due_ns < due ? d[i].first->due_ns : due;
    if (due == UINT64_MAX) return poll(p, n, -1);
    left = due > now ? due - now : 0;
#ifdef __linux__
    struct timespec t = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
    return ppoll(p, n, &t, NULL);
#else
    return poll(p, n, (int)((left + 999999) / 1000000));
#endif
}

static void pump(ring_relay *r, sock *a, sock *b)
{
    direction d[2] = {{.from = a, .to = b}, {.from = b, .to = a}};
    struct pollfd p[3] = {{.fd = a->fd, .events = POLLIN},
                          {.fd = b->fd, .events = POLLIN},
                          {.fd = r->stop.fd[0], .events = POLLIN}};
    bool ok = true;

    for (int i = 0; i < 2; i++) d[i].last = &d[i].first;
    while (ok) {
        int n = wait_for(p, 3, d);
        if ((n < 0 && errno != EINTR) || (n > 0 && p[2].revents)) break;
        for (int i = 0; i < 2 && ok; i++) ok = (n <= 0 || !p[i].revents || take(r, &d[i])) && give(&d[i]);
    }
    for (int i = 0; i < 2; i++) {
        for (piece *x = d[i].first, *next; x; x = next) {
            next = x->next;
            free(x);
        }
    }
}

static void *serve(void *arg)
{
    ring_relay *r = arg;
    uint64_t deadline = sock_deadline(GREETING_S);
    sock a, b;

    if (sock_accept(&a, &r->listener, deadline, NULL)) return NULL;
    if (!sock_connect(&b, &r->to, &r->so, false, deadline, NULL)) {
        pump(r, &a, &b);
        sock_close(&b);
    }
    sock_close(&a);
    return NULL;
}

int ring_relay_start(ring_relay **out, uint16_t to_port, double delay_ms, pr_err *err)
{
    ring_relay *r = calloc(1, sizeof *r);
    sock_addr at = {.host = "127.0.0.1"};
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    r->delay_ns = (uint64_t)(delay_ms * 1e6);
    r->to = (sock_addr){.host = "127.0.0.1", .port = to_port};
    r->so.wake = &r->stop;
    if ((rc = wake_init(&r->stop, err))) {
        free(r);
        return rc;
    }
    rc = sock_listen(&r->listener, &at, &r->so, err);
    if (!rc && !(rc = sock_addr_parse(&at, r->listener.address, false, err)) &&
        thread_start(&r->thread, serve, r))
        rc = pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    if (rc) {
        sock_listener_close(&r->listener);
        wake_clear(&r->stop);
        free(r);
        return rc;
    }
    r->port = at.port;
    *out = r;
    return PR_OK;
}

uint16_t ring_relay_port(const ring_relay *r)
{
    return r->port;
}

void ring_relay_stop(ring_relay *r)
{
    if (!r) return;
    wake_raise(&r->stop);
    pthread_join(r->thread, NULL);
    sock_listener_close(&r->listener);
    wake_clear(&r->stop);
    free(r);
}
