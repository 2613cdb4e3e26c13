/* Addresses, connecting and listening. A name can stand for several addresses (v6 first, often): each gets
 * an equal share of the time that is left, so that one that swallows packets does not take it all. */
#include "net/sock.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, RETRY_FIRST_MS = 50, RETRY_MOST_MS = 1000 };

/* --- addresses ----------------------------------------------------------------------------------------- */
static int bad_address(const char *text, const char *why, pr_err *err)
{
    return pr_fail(err, PR_EUSAGE,
                   "\"%.300s\": %s; expected HOST:PORT, such as 192.168.1.2:9700 or [fd00::2]:9700", text,
                   why);
}

static int parse_port(uint16_t *port, const char *digits)
{
    char *end;
    unsigned long v = strtoul(digits, &end, 10);

    if (*digits < '0' || *digits > '9' || *end || end - digits > 5 || v > 65535) return -1;
    *port = (uint16_t)v;
    return 0;
}

int sock_addr_parse(sock_addr *out, const char *text, bool listening, pr_err *err)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t n = colon ? (size_t)(colon - text) : 0;

    *out = (sock_addr){0};
    if (!colon) return bad_address(text, "the port is missing", err);
    if (*text == '[') {
        if (n < 2 || text[n - 1] != ']') return bad_address(text, "the bracket is not closed", err);
        host++;
        n -= 2;
    } else if (memchr(text, ':', n)) return bad_address(text, "an IPv6 address stands in brackets", err);
    if (!n) return bad_address(text, "the host is missing", err);
    if (n >= SOCK_HOST_BYTES) return bad_address(text, "the host is too long", err);
    if (parse_port(&out->port, colon + 1) || (!out->port && !listening))
        return bad_address(text,
                           listening ? "the port is no number from 0 to 65535"
                                     : "the port is no number from 1 to 65535",
                           err);
    memcpy(out->host, host, n);
    return PR_OK;
}

void sock_addr_print(char out[SOCK_NAME_BYTES], const sock_addr *a)
{
    bool v6 = strchr(a->host, ':') != NULL;

    snprintf(out, SOCK_NAME_BYTES, "%s%s%s:%u", v6 ? "[" : "", a->host, v6 ? "]" : "", a->port);
}

static int look_up(struct addrinfo **out, const sock_addr *a, pr_err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port[8];
    int rc;

    snprintf(port, sizeof port, "%u", a->port);
    if (!(rc = getaddrinfo(a->host, port, &hints, out))) return PR_OK;
    return pr_fail(err, rc == EAI_AGAIN ? PR_EPEER : PR_EUSAGE,
                   "%s: this host is not known (%s); write its address, or put the name into /etc/hosts",
                   a->host, gai_strerror(rc));
}

static bool is_loopback(const struct sockaddr *a)
{
    static const uint8_t mapped[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};

    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    if (a->sa_family != AF_INET6) return false;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || !memcmp(v6, mapped, sizeof mapped);
}

static void print_sockaddr(char out[SOCK_NAME_BYTES], const struct sockaddr *a, socklen_t n)
{
    sock_addr named = {{0}, 0};
    char port[8] = "0";

    if (getnameinfo(a, n, named.host, sizeof named.host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(named.host, sizeof named.host, "unknown");
    named.port = (uint16_t)strtoul(port, NULL, 10);
    sock_addr_print(out, &named);
}

/* --- options ------------------------------------------------------------------------------------------- */
static int open_socket(int family, pr_err *err)
{
    int fd = socket(family, SOCK_STREAM, 0);

    if (fd < 0) {
        pr_fail_errno(err, PR_ERESOURCE, "a socket");
        return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Small messages leave at once. A system that lacks an option works without it. */
static void tune(int fd, const sock_options *o)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
#ifdef TCP_USER_TIMEOUT
    if (o->lost_after_ms)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &o->lost_after_ms, sizeof o->lost_after_ms);
#else
    (void)o;
#endif
}

/* --- connecting ---------------------------------------------------------------------------------------- */
static int connect_failed(const sock *s, int error, pr_err *err)
{
    switch (error) {
    case ECONNREFUSED:
        return pr_fail(err, PR_EPEER,
                       "%s: connection refused; is a prima worker listening there, on this port?", s->peer);
    case EHOSTUNREACH:
    case ENETUNREACH:
        return pr_fail(err, PR_EPEER, "%s: no route; is the machine on, and in the same network?", s->peer);
    case ETIMEDOUT:
        return pr_fail(err, PR_EPEER, "%s: no answer; is the machine on, does a firewall drop the port?",
                       s->peer);
    default: errno = error; return pr_fail_errno(err, PR_EPEER, "%s: cannot connect", s->peer);
    }
}

static int connect_one(sock *s, const struct addrinfo *a, const sock_options *o, uint64_t deadline_ns,
                       pr_err *err)
{
    int error = 0, rc;
    socklen_t n = sizeof error;

    if ((s->fd = open_socket(a->ai_family, err)) < 0) return PR_ERESOURCE;
    if (connect(s->fd, a->ai_addr, a->ai_addrlen) && errno != EINPROGRESS && errno != EINTR) error = errno;
    else if ((rc = sock_wait(s, POLLOUT, deadline_ns, err))) {
        sock_close(s);
        return rc == PR_EPEER ? connect_failed(s, ETIMEDOUT, err) : rc;
    } else if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n)) error = errno;
    if (error) {
        sock_close(s);
        return connect_failed(s, error, err);
    }
    s->is_loopback = is_loopback(a->ai_addr);
    tune(s->fd, o);
    return PR_OK;
}

/* Each address once; the last failure is the one reported. */
static int connect_any(sock *s, const struct addrinfo *all, const sock_options *o, uint64_t deadline_ns,
                       pr_err *err)
{
    uint64_t left = 0;
    int rc = PR_EPEER;

    for (const struct addrinfo *a = all; a; a = a->ai_next) left++;
    for (const struct addrinfo *a = all; a; a = a->ai_next, left--) {
        uint64_t now = clock_ns(), share = deadline_ns > now ? (deadline_ns - now) / left : 0;
        rc = connect_one(s, a, o, deadline_ns == SOCK_NO_DEADLINE ? deadline_ns : now + share, err);
        if (rc != PR_EPEER) break;
    }
    return rc;
}

/* Sleep before the next attempt; false when no time is left for one. */
static int pause_ms(const sock *s, unsigned ms, uint64_t deadline_ns, pr_err *err)
{
    const sock nothing = {.fd = -1, .wake = s->wake};
    uint64_t until = clock_ns() + ms * UINT64_C(1000000);
    int rc = sock_wait(&nothing, 0, until < deadline_ns ? until : deadline_ns, NULL);

    return rc == PR_EINTERRUPTED ? pr_fail(err, rc, "%s: interrupted", s->peer) : PR_OK;
}

int sock_connect(sock *out, const sock_addr *to, const sock_options *o, bool retry, uint64_t deadline_ns,
                 pr_err *err)
{
    struct addrinfo *all = NULL;
    unsigned ms = RETRY_FIRST_MS;
    sock s = {.fd = -1, .wake = o->wake};
    int rc;

    *out = s;
    sock_addr_print(s.peer, to);
    if ((rc = look_up(&all, to, err))) return rc;
    for (bool said = false;; ms = ms * 2 < RETRY_MOST_MS ? ms * 2 : RETRY_MOST_MS) {
        pr_err why = {0};
        rc = connect_any(&s, all, o, deadline_ns, &why);
        if (rc && err) *err = why;
        if (rc != PR_EPEER || !retry || clock_ns() >= deadline_ns) break;
        if (!said) log_info("%s (trying again for a while)", why.msg);
        said = true;
        if ((rc = pause_ms(&s, ms, deadline_ns, err))) break;
    }
    freeaddrinfo(all);
    if (!rc) *out = s;
    return rc;
}

/* --- listening ----------------------------------------------------------------------------------------- */
static int listen_failed(const sock_listener *l, int error, pr_err *err)
{
    switch (error) {
    case EADDRINUSE:
        return pr_fail(err, PR_ERESOURCE,
                       "%s: the port is in use; end the other program or take another port", l->address);
    case EADDRNOTAVAIL:
        return pr_fail(err, PR_EUSAGE, "%s: not an address of this machine (`ip address` lists them)",
                       l->address);
    case EACCES:
        return pr_fail(err, PR_ERESOURCE, "%s: not allowed; ports below 1024 need root, take a higher one",
                       l->address);
    default: errno = error; return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot listen", l->address);
    }
}

int sock_listen(sock_listener *out, const sock_addr *at, const sock_options *o, pr_err *err)
{
    struct addrinfo *a = NULL;
    struct sockaddr_storage got;
    socklen_t n = sizeof got;
    int on = 1, rc;

    *out = (sock_listener){.fd = -1, .options = o};
    sock_addr_print(out->address, at);
    if ((rc = look_up(&a, at, err))) return rc;
    if ((out->fd = open_socket(a->ai_family, err)) < 0) rc = PR_ERESOURCE;
    else {
        setsockopt(out->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (a->ai_family == AF_INET6) setsockopt(out->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        if (bind(out->fd, a->ai_addr, a->ai_addrlen) || listen(out->fd, BACKLOG) ||
            getsockname(out->fd, (struct sockaddr *)&got, &n))
            rc = listen_failed(out, errno, err);
    }
    freeaddrinfo(a);
    if (rc) sock_listener_close(out);
    else {
        print_sockaddr(out->address, (struct sockaddr *)&got, n);
        out->is_loopback = is_loopback((struct sockaddr *)&got);
    }
    return rc;
}

/* Errors of a client that went away while it waited; the listener is as good as before. */
static bool is_clients_fault(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ECONNABORTED ||
           error == EPROTO || error == ENETDOWN || error == EHOSTUNREACH || error == ENETUNREACH ||
           error == ETIMEDOUT;
}

int sock_accept(sock *out, const sock_listener *l, uint64_t deadline_ns, pr_err *err)
{
    sock waiting = {.fd = l->fd, .wake = l->options->wake};
    struct sockaddr_storage from;
    socklen_t n = sizeof from;
    int rc;

    *out = (sock){.fd = -1, .wake = l->options->wake};
    snprintf(waiting.peer, sizeof waiting.peer, "%s", l->address);
    for (;;) {
        if ((rc = sock_wait(&waiting, POLLIN, deadline_ns, err))) return rc;
        n = sizeof from;
        out->fd = accept(l->fd, (struct sockaddr *)&from, &n);
        if (out->fd >= 0) break;
        if (!is_clients_fault(errno))
            return pr_fail_errno(err, PR_ERESOURCE, "%s: accepting a connection", l->address);
    }
    fcntl(out->fd, F_SETFD, FD_CLOEXEC);
    fcntl(out->fd, F_SETFL, O_NONBLOCK);
    tune(out->fd, l->options);
    print_sockaddr(out->peer, (struct sockaddr *)&from, n);
    out->is_loopback = is_loopback((struct sockaddr *)&from);
    return PR_OK;
}

void sock_listener_close(sock_listener *l)
{
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
}
