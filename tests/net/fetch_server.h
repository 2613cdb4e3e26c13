/* A small HTTP/1.1 server in the test's own process: one body, ranges, a validator, and a hook that may
 * answer otherwise. A thread for each connection; what a test reads afterwards is counted under a mutex. */
#ifndef PRIMA_TESTS_FETCH_SERVER_H
#define PRIMA_TESTS_FETCH_SERVER_H
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    char method[8], path[512], if_range[200], token[200];
    bool has_range;
    uint64_t first, end;
    unsigned number; /* 1: the first request of this server */
} http_request;

typedef struct http_server http_server;
struct http_server {
    const uint8_t *data;
    uint64_t n;
    char etag[100], modified[60], extra[300]; /* "" none; extra: header lines of every 200 and 206 */
    bool no_ranges;
    /* true: the hook has answered (or not: the connection is closed when *keep is false). */
    bool (*hook)(http_server *s, int fd, const http_request *r, bool *keep);
    uint64_t (*limit)(http_server *s,
                      const http_request *r); /* bytes of a body, then the connection is cut */
    int value[8];                             /* the hook's own */
    char text[600];
    bool v6;
    uint16_t port;
    int listener;
    pthread_mutex_t mutex;
    unsigned requests, gets, tokens; /* all; GET; with a token */
    uint64_t sent;                   /* bytes of bodies */
};

static inline void http_send(int fd, const void *data, size_t n)
{
    for (const char *p = data; n > 0;) {
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0) return;
        p += put;
        n -= (size_t)put;
    }
}

__attribute__((format(printf, 2, 3))) static inline void http_say(int fd, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    http_send(fd, text, (size_t)n);
}

/* A whole answer without a body worth having. */
static inline void http_status(int fd, int status, const char *lines)
{
    http_say(fd, "HTTP/1.1 %d Test\r\n%sContent-Length: 5\r\n\r\noops\n", status, lines);
}

static inline bool http_read_request(int fd, http_request *r)
{
    char text[8192], *line, *rest = text;
    size_t n = 0;
    unsigned number = r->number;

    do {
        ssize_t got = recv(fd, text + n, 1, 0);
        if (got <= 0 || n + 2 >= sizeof text) return false;
        n++;
        text[n] = 0;
    } while (n < 4 || strcmp(text + n - 4, "\r\n\r\n") != 0);
    *r = (http_request){.number = number};
    if (sscanf(text, "%7s %511s", r->method, r->path) != 2) return false;
    while ((line = strsep(&rest, "\n"))) {
        unsigned long long a, b;
        line[strcspn(line, "\r")] = 0;
        if (!strncasecmp(line, "range: ", 7) && sscanf(line + 7, "bytes=%llu-%llu", &a, &b) == 2) {
            r->has_range = true;
            r->first = a;
            r->end = b + 1;
        } else if (!strncasecmp(line, "if-range: ", 10))
            snprintf(r->if_range, sizeof r->if_range, "%s", line + 10);
        else if (!strncasecmp(line, "authorization: ", 15))
            snprintf(r->token, sizeof r->token, "%s", line + 15);
    }
    return true;
}

/* What a good server answers. Returns whether the connection lives on. */
static inline bool http_serve(http_server *s, int fd, const http_request *r)
{
    bool part = r->has_range && !s->no_ranges &&
                (!*r->if_range || !strcmp(r->if_range, s->etag) || !strcmp(r->if_range, s->modified));
    uint64_t first = part ? r->first : 0, end = part ? r->end : s->n,
             limit = s->limit ? s->limit(s, r) : UINT64_MAX;
    char lines[600], *l = lines;

    *lines = 0;
    if (*s->etag) l += sprintf(l, "ETag: %s\r\n", s->etag);
    if (*s->modified)
        l += sprintf(l, "Last-Modified: %s\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n", s->modified);
    sprintf(l, "%s%s", s->no_ranges ? "" : "Accept-Ranges: bytes\r\n", s->extra);
    if (part && first >= s->n) {
        http_say(fd, "HTTP/1.1 416 Test\r\nContent-Range: bytes */%llu\r\nContent-Length: 0\r\n\r\n",
                 (unsigned long long)s->n);
        return true;
    }
    if (end > s->n) end = s->n;
    if (part)
        http_say(fd,
                 "HTTP/1.1 206 Test\r\n%sContent-Range: bytes %llu-%llu/%llu\r\nContent-Length: %llu\r\n\r\n",
                 lines, (unsigned long long)first, (unsigned long long)end - 1, (unsigned long long)s->n,
                 (unsigned long long)(end - first));
    else http_say(fd, "HTTP/1.1 200 Test\r\n%sContent-Length: %llu\r\n\r\n", lines, (unsigned long long)s->n);
    if (!strcmp(r->method, "HEAD")) return true;
    if (limit < end - first) {
        http_send(fd, s->data + first, limit);
        end = first + limit;
    } else http_send(fd, s->data + first, end - first);
    pthread_mutex_lock(&s->mutex);
    s->sent += end - first;
    pthread_mutex_unlock(&s->mutex);
    return limit == UINT64_MAX || end - first < limit;
}

typedef struct {
    http_server *s;
    int fd;
} http_connection;

static inline void *http_connection_main(void *arg)
{
    http_connection c = *(http_connection *)arg;
    bool keep = true;
    http_request r;

    free(arg);
    while (keep && http_read_request(c.fd, &r)) {
        pthread_mutex_lock(&c.s->mutex);
        r.number = ++c.s->requests;
        c.s->gets += !strcmp(r.method, "GET");
        c.s->tokens += *r.token != 0;
        pthread_mutex_unlock(&c.s->mutex);
        if (!c.s->hook || !c.s->hook(c.s, c.fd, &r, &keep)) keep = http_serve(c.s, c.fd, &r);
    }
    shutdown(c.fd, SHUT_WR);
    close(c.fd);
    return NULL;
}

static inline void *http_listen_main(void *arg)
{
    http_server *s = arg;

    for (;;) {
        int fd = accept(s->listener, NULL, NULL), on = 1;
        pthread_t t;
        http_connection *c;
        if (fd < 0) return NULL;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        c = malloc(sizeof *c);
        *c = (http_connection){s, fd};
        pthread_create(&t, NULL, http_connection_main, c);
        pthread_detach(t);
    }
}

/* Listens on loopback at a port of the system's choice; false: this machine has no such address. Ends with
 * the process. */
static inline bool http_start(http_server *s)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr *a = s->v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t n = s->v6 ? sizeof v6 : sizeof v4;
    pthread_t t;

    pthread_mutex_init(&s->mutex, NULL);
    s->listener = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0 || bind(s->listener, a, n) || listen(s->listener, 64)) return false;
    getsockname(s->listener, a, &n);
    s->port = ntohs(s->v6 ? v6.sin6_port : v4.sin_port);
    cr_assert_eq(pthread_create(&t, NULL, http_listen_main, s), 0);
    pthread_detach(t);
    return true;
}

/* A static buffer of 4 rotating places. */
static inline const char *http_url(const http_server *s, const char *path)
{
    static char url[4][600];
    static unsigned i;
    char *out = url[i++ % 4];

    snprintf(out, 600, "http://%s:%u%s", s->v6 ? "[::1]" : "127.0.0.1", s->port, path);
    return out;
}

#endif
