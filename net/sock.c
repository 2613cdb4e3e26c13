/* Sockets. Every descriptor is non-blocking; a call is tried first, and only when it would block is there a
 * poll of the socket and the wake pipe under what is left until the deadline. So a busy stream costs one
 * system call a piece, and an idle one can be ended at any time. Making connections is in sock_open.c. */
#include "net/sock.h"
#include "src/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

uint64_t sock_deadline(double seconds_from_now)
{
    return clock_ns() + (uint64_t)(fmax(seconds_from_now, 0) * 1e9);
}

/* --- wake -------------------------------------------------------------------------------------------------
 */
int wake_init(wake *w, pr_err *err)
{
    if (pipe(w->fd)) {
        w->fd[0] = w->fd[1] = -1;
        return pr_fail_errno(err, PR_ERESOURCE, "a pipe to end waits with");
    }
    for (int i = 0; i < 2; i++) {
        fcntl(w->fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(w->fd[i], F_SETFL, O_NONBLOCK);
    }
    return PR_OK;
}

void wake_raise(const wake *w)
{
    int saved = errno; /* a signal handler must leave it alone */
    ssize_t n = write(w->fd[1], "", 1);

    (void)n; /* a full pipe is raised already */
    errno = saved;
}

void wake_clear(wake *w)
{
    for (int i = 0; i < 2; i++) {
        if (w->fd[i] >= 0) close(w->fd[i]);
        w->fd[i] = -1;
    }
}

/* --- waiting ------------------------------------------------------------------------------------------- */
/* For poll: rounded up, so that a wait does not end just before its deadline and spin. */
static int ms_until(uint64_t deadline_ns)
{
    uint64_t now = clock_ns(), ms;

    if (deadline_ns == SOCK_NO_DEADLINE) return -1;
    if (deadline_ns <= now) return 0;
    ms = (deadline_ns - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms; /* the caller's loop comes back */
}

int sock_wait(const sock *s, short events, uint64_t deadline_ns, pr_err *err)
{
    struct pollfd p[2] = {{.fd = s->fd, .events = events},
                          {.fd = s->wake ? s->wake->fd[0] : -1, .events = POLLIN}};

    for (;;) {
        int n = poll(p, 2, ms_until(deadline_ns));
        if (n < 0 && errno != EINTR)
            return pr_fail_errno(err, PR_ERESOURCE, "%s: waiting for the socket", s->peer);
        if (n > 0 && p[1].revents) return pr_fail(err, PR_EINTERRUPTED, "%s: interrupted", s->peer);
        if (n > 0 && p[0].revents) return PR_OK;
        if (n == 0 && clock_ns() >= deadline_ns)
            return pr_fail(err, PR_EPEER, "%s: no answer in time; is it asleep, overloaded or unplugged?",
                           s->peer);
    }
}

/* In milliseconds, rounded up, where there is no ppoll. */
int sock_poll(struct pollfd *p, size_t n, uint64_t deadline_ns)
{
#ifdef __linux__
    uint64_t now = clock_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
    const struct timespec t = {(time_t)(left / 1000000000), (long)(left % 1000000000)};

    return ppoll(p, (nfds_t)n, deadline_ns == SOCK_NO_DEADLINE ? NULL : &t, NULL);
#else
    return poll(p, (nfds_t)n, ms_until(deadline_ns));
#endif
}

int sock_wait_input(const sock *s, int bell, uint64_t deadline_ns)
{
    struct pollfd p[3] = {{.fd = s->fd, .events = POLLIN},
                          {.fd = s->wake ? s->wake->fd[0] : -1, .events = POLLIN},
                          {.fd = bell, .events = POLLIN}};

    for (;;) {
        int n = sock_poll(p, 3, deadline_ns);
        if (n > 0 && (p[0].revents || p[1].revents)) return 1;
        if (n > 0) return 2;
        if (clock_ns() >= deadline_ns) return 0;
    }
}

int sock_fail(const sock *s, int error, pr_err *err)
{
    switch (error) {
    case EPIPE:
    case ECONNRESET: return pr_fail(err, PR_EPEER, "%s: the connection was closed by the peer", s->peer);
    case ETIMEDOUT:
        return pr_fail(err, PR_EPEER, "%s: the peer no longer answers; is it asleep or unplugged?", s->peer);
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN: return pr_fail(err, PR_EPEER, "%s: the network to the peer is gone", s->peer);
    default: errno = error; return pr_fail_errno(err, PR_EPEER, "%s: the connection failed", s->peer);
    }
}

/* --- exact transfers ----------------------------------------------------------------------------------- */
int sock_read(sock *s, void *data, size_t n, uint64_t deadline_ns, pr_err *err)
{
    uint8_t *at = data;
    int rc;

    for (size_t done = 0; done < n;) {
        ssize_t got = recv(s->fd, at + done, n - done, 0);
        if (got > 0) {
            done += (size_t)got;
            continue;
        }
        if (got == 0)
            return pr_fail(err, PR_EPEER, "%s: the peer closed the connection, %zu of %zu bytes read",
                           s->peer, done, n);
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) return sock_fail(s, errno, err);
        if ((rc = sock_wait(s, POLLIN, deadline_ns, err))) return rc;
    }
    return PR_OK;
}

int sock_write(sock *s, const void *data, size_t n, uint64_t deadline_ns, pr_err *err)
{
    const uint8_t *at = data;
    int rc;

    for (size_t done = 0; done < n;) {
        ssize_t put = send(s->fd, at + done, n - done, MSG_NOSIGNAL);
        if (put >= 0) {
            done += (size_t)put;
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) return sock_fail(s, errno, err);
        if ((rc = sock_wait(s, POLLOUT, deadline_ns, err))) return rc;
    }
    return PR_OK;
}

int sock_read_now(sock *s, void *data, size_t n, size_t *done, pr_err *err)
{
    *done = 0;
    while (*done < n) {
        ssize_t got = recv(s->fd, (uint8_t *)data + *done, n - *done, 0);
        if (got > 0) *done += (size_t)got;
        else if (got == 0) return pr_fail(err, PR_EPEER, "%s: the peer closed the connection", s->peer);
        else if (errno == EAGAIN || errno == EWOULDBLOCK) return PR_OK;
        else if (errno != EINTR) return sock_fail(s, errno, err);
    }
    return PR_OK;
}

int sock_write_now(sock *s, const void *data, size_t n, size_t *done, pr_err *err)
{
    *done = 0;
    while (*done < n) {
        ssize_t put = send(s->fd, (const uint8_t *)data + *done, n - *done, MSG_NOSIGNAL);
        if (put >= 0) *done += (size_t)put;
        else if (errno == EAGAIN || errno == EWOULDBLOCK) return PR_OK;
        else if (errno != EINTR) return sock_fail(s, errno, err);
    }
    return PR_OK;
}

void sock_shutdown(const sock *s)
{
    if (s->fd >= 0) shutdown(s->fd, SHUT_RDWR);
}

void sock_close(sock *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}
