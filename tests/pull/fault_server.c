/* An HTTP/1.1 server on loopback for the tests of `prima pull`: serves a folder, and goes wrong where it is
 * told to.
 *
 *     fault_server FOLDER [--rules FILE] [--log FILE] [--seed N] [--hub FOLDER [--page N] [--expires-ms N]]
 *
 * Three listeners: "main" on 127.0.0.1, "six" on ::1 and "cdn" on 127.0.0.1, another port. Prints a line NAME
 * PORT for each ("six 0" where there is no IPv6), then "ready". A thread for each connection, which is kept
 * alive. The log gets a line "> ..." when a request has been read and a line "< ..." with what was sent when
 * it is over; a request to the CDN with an Authorization header gets a line "LEAK" besides. What is answered:
 * fault_answer.c; rules: fault_rules.c; the hub: fault_hub.c; README.md describes them. It ends with the
 * process that started it. */
#include "tests/pull/fault.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

enum { MAX_HEAD = 16384, CHUNK = 65536, IDLE_MS = 60000 };

static const char *folder;
static int log_fd = -1;

typedef struct {
    const char *name;
    int fd;
} listener;

typedef struct {
    const listener *from;
    int fd;
    char head[MAX_HEAD + 1]; /* what has been read and not used */
    size_t n;
} connection;

static void die(const char *what)
{
    fprintf(stderr, "fault_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- log --------------------------------------------------------------------------------------------- */

static void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void log_line(const char *fmt, ...)
{
    char line[4 * FAULT_TEXT];
    va_list args;

    if (log_fd < 0) return;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    if (n < 0) return;
    if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
    line[n] = '\n';
    if (write(log_fd, line, (size_t)n + 1) < 0) die("log");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A value as one word. */
static const char *word(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", *from ? from : "-");
    for (char *c = to; *c; c++) *c = *c == ' ' ? '_' : *c;
    return to;
}

static void log_request(const request *q)
{
    char auth[512], range[128], if_range[256], encoding[128];

    log_line("> %s %s %s%s t=%.3f range=%s if_range=%s auth=%s encoding=%s", q->listener, q->method,
             q->target, q->is_proxied ? " proxied" : "", seconds(), word(range, sizeof range, q->range),
             word(if_range, sizeof if_range, q->if_range), word(auth, sizeof auth, q->authorization),
             word(encoding, sizeof encoding, q->accept_encoding));
    if (q->authorization[0] && strcmp(q->listener, "cdn") == 0) log_line("LEAK %s %s", q->method, q->target);
}

/* --- sending
 * ------------------------------------------------------------------------------------------------- */

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {{200, "OK"},
                 {206, "Partial Content"},
                 {302, "Found"},
                 {307, "Temporary Redirect"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {416, "Range Not Satisfiable"},
                 {429, "Too Many Requests"},
                 {500, "Internal Server Error"},
                 {503, "Service Unavailable"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].status == status) return known[i].text;
    }
    return "Other";
}

static bool send_all(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t k = send(fd, at, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

/* Says nothing until the other side has gone. */
static void wait_until_left(int fd)
{
    char c;
    while (recv(fd, &c, 1, 0) > 0) continue;
}

static size_t body_part(const answer *a, const fault *f, uint64_t at, size_t n, char *to)
{
    if (a->text) {
        memcpy(to, a->text + at, n);
        return n;
    }
    ssize_t k = pread(a->fd, to, n, (off_t)(at + (uint64_t)f->shift));
    if (k <= 0) return 0;
    if (f->corrupt >= 0 && (uint64_t)f->corrupt >= at && (uint64_t)f->corrupt < at + (uint64_t)k) {
        to[(uint64_t)f->corrupt - at] ^= 0x55;
    }
    return (size_t)k;
}

static bool send_part(int fd, const fault *f, const char *bytes, size_t n)
{
    char size[32];
    if (!f->chunked) return send_all(fd, bytes, n);
    snprintf(size, sizeof size, "%zx\r\n", n);
    return send_all(fd, size, strlen(size)) && send_all(fd, bytes, n) && send_all(fd, "\r\n", 2);
}

/* Bytes sent. *is_whole: nothing was held back and the connection can go on. */
static uint64_t send_body(int fd, const answer *a, const fault *f, uint64_t first, uint64_t end,
                          bool *is_whole)
{
    const int64_t stop_at = f->cut != CUT_NONE ? f->cut : f->stall;
    const size_t at_once = f->rate ? (size_t)(f->rate + 19) / 20 : CHUNK; /* at least twenty times a second */
    const double began = seconds();
    char part[CHUNK];
    uint64_t at = first, stop = end;

    if (stop_at != CUT_NONE && (uint64_t)stop_at < end - first) stop = first + (uint64_t)stop_at;
    *is_whole = stop == end;
    while (at < stop) {
        size_t n = stop - at < sizeof part ? (size_t)(stop - at) : sizeof part;
        if (n > at_once) n = at_once;
        if ((n = body_part(a, f, at, n, part)) == 0 || !send_part(fd, f, part, n)) {
            *is_whole = false;
            return at - first;
        }
        at += n;
        while (f->rate && (double)(at - first) / (double)f->rate > seconds() - began) usleep(1000);
    }
    if (*is_whole && f->chunked) *is_whole = send_all(fd, "0\r\n\r\n", 5);
    return at - first;
}

/* False: the connection is to be closed. */
static bool reply(connection *c, const request *q)
{
    char head[2 * FAULT_HEADERS], claimed[64] = "";
    uint64_t first, end, sent = 0;
    bool is_whole = true;
    answer a;
    fault f;

    rules_match(&f, q);
    answer_init(&a);
    answer_request(&a, folder, q, &f);
    answer_range(&a, q, &f, &first, &end);
    if (f.chunked) snprintf(claimed, sizeof claimed, "Transfer-Encoding: chunked\r\n");
    else
        snprintf(claimed, sizeof claimed, "Content-Length: %llu\r\n",
                 f.length >= 0 ? (unsigned long long)f.length : (unsigned long long)(end - first));
    snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\n%s%s%s%s%sConnection: %s\r\n\r\n", a.status,
             reason(a.status), claimed, a.etag[0] ? "ETag: " : "", a.etag, a.etag[0] ? "\r\n" : "", a.headers,
             f.length >= 0 ? "close" : "keep-alive");
    if (!send_all(c->fd, head, strlen(head))) is_whole = false;
    else if (strcmp(q->method, "HEAD") != 0) sent = send_body(c->fd, &a, &f, first, end, &is_whole);
    log_line("< %s %s %s status=%d first=%llu sent=%llu rule=%u", q->listener, q->method, q->target, a.status,
             (unsigned long long)first, (unsigned long long)sent, f.line);
    if (!is_whole && f.stall != CUT_NONE) wait_until_left(c->fd);
    if (!is_whole && f.reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    answer_clear(&a);
    return is_whole && f.length < 0;
}

/* --- receiving
 * ----------------------------------------------------------------------------------------------- */

/* A whole head into c->head; its length, or 0 when there is none. */
static size_t read_head(connection *c)
{
    char *end;
    while (!(end = strstr(c->head, "\r\n\r\n"))) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (c->n == MAX_HEAD || poll(&p, 1, IDLE_MS) <= 0) return 0;
        ssize_t k = recv(c->fd, c->head + c->n, MAX_HEAD - c->n, 0);
        if (k <= 0) return 0;
        c->n += (size_t)k;
        c->head[c->n] = '\0';
    }
    return (size_t)(end - c->head) + 4;
}

static void decode(char *to, size_t size, const char *from)
{
    size_t n = 0;
    while (*from && n + 1 < size) {
        if (from[0] == '%' && isxdigit((unsigned char)from[1]) && isxdigit((unsigned char)from[2])) {
            const char hex[3] = {from[1], from[2], '\0'};
            to[n++] = (char)strtol(hex, NULL, 16);
            from += 3;
        } else {
            to[n++] = *from++;
        }
    }
    to[n] = '\0';
}

static void take_header(request *q, const char *line)
{
    const struct {
        const char *name;
        char *to;
        size_t size;
    } known[] = {{"host:", q->host, sizeof q->host},
                 {"range:", q->range, sizeof q->range},
                 {"if-range:", q->if_range, sizeof q->if_range},
                 {"authorization:", q->authorization, sizeof q->authorization},
                 {"accept-encoding:", q->accept_encoding, sizeof q->accept_encoding}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t n = strlen(known[i].name);
        if (strncasecmp(line, known[i].name, n) == 0)
            snprintf(known[i].to, known[i].size, "%s", line + n + strspn(line + n, " "));
    }
}

static bool parse_head(request *q, char *head)
{
    char *save = NULL, *line = strtok_r(head, "\r\n", &save), path[FAULT_TEXT], *at = path, *query;

    if (!line || sscanf(line, "%15s %1023s", q->method, q->target) != 2) return false;
    snprintf(path, sizeof path, "%s", q->target);
    if (strncmp(path, "http://", 7) == 0) {
        q->is_proxied = true;
        at = strchr(path + 7, '/');
    }
    if (!at || *at != '/') return false;
    if ((query = strchr(at, '?'))) {
        *query++ = '\0';
        snprintf(q->query, sizeof q->query, "%s", query);
    }
    decode(q->path, sizeof q->path, at);
    while ((line = strtok_r(NULL, "\r\n", &save))) take_header(q, line);
    return strcmp(q->method, "GET") == 0 || strcmp(q->method, "HEAD") == 0;
}

static void *serve(void *arg)
{
    connection *c = arg;
    size_t n;
    bool goes_on = true;

    while (goes_on && (n = read_head(c)) > 0) {
        char head[MAX_HEAD + 1];
        request q = {.listener = c->from->name};

        memcpy(head, c->head, n);
        head[n] = '\0';
        memmove(c->head, c->head + n, c->n - n + 1);
        c->n -= n;
        if (!parse_head(&q, head)) {
            log_line("? %s %s", q.method, q.target);
            break;
        }
        log_request(&q);
        goes_on = reply(c, &q);
    }
    close(c->fd);
    free(c);
    return NULL;
}

/* --- listening
 * ----------------------------------------------------------------------------------------------- */

static int listen_on(int family, const char *address, unsigned short *port)
{
    struct sockaddr_storage s = {.ss_family = (sa_family_t)family};
    struct sockaddr_in *four = (struct sockaddr_in *)&s;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&s;
    socklen_t n = family == AF_INET ? sizeof *four : sizeof *six;
    int fd = socket(family, SOCK_STREAM, 0);

    if (family == AF_INET) four->sin_port = htons(*port);
    else six->sin6_port = htons(*port);
    inet_pton(family, address, family == AF_INET ? (void *)&four->sin_addr : (void *)&six->sin6_addr);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&s, n) || listen(fd, 64) || getsockname(fd, (struct sockaddr *)&s, &n)) {
        close(fd);
        return -1;
    }
    *port = ntohs(family == AF_INET ? four->sin_port : six->sin6_port);
    return fd;
}

static void accept_one(const listener *l)
{
    pthread_t thread;
    connection *c;
    int fd = accept(l->fd, NULL, NULL);

    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (!(c = calloc(1, sizeof *c))) die("out of memory");
    c->from = l;
    c->fd = fd;
    if (pthread_create(&thread, NULL, serve, c)) die("thread");
    pthread_detach(thread);
}

typedef struct {
    const char *rules, *log, *hub;
    unsigned long seed, page, expires_ms;
} options;

static void parse_options(options *o, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **text;
        unsigned long *number;
    } known[] = {{"--rules", &o->rules, NULL}, {"--log", &o->log, NULL},
                 {"--hub", &o->hub, NULL},     {"--seed", NULL, &o->seed},
                 {"--page", NULL, &o->page},   {"--expires-ms", NULL, &o->expires_ms}};

    for (int i = 2; i + 1 < argc; i += 2) {
        bool is_known = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            if (strcmp(argv[i], known[k].name) != 0) continue;
            is_known = true;
            if (known[k].text) *known[k].text = argv[i + 1];
            else *known[k].number = strtoul(argv[i + 1], NULL, 10);
        }
        if (!is_known) argc = 0;
    }
    if (argc < 2 || argc % 2) {
        fprintf(stderr, "usage: fault_server FOLDER [--rules FILE] [--log FILE] [--seed N] "
                        "[--hub FOLDER [--page N] [--expires-ms N]]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options o = {.seed = 1, .page = 1000, .expires_ms = 3600000};
    unsigned short port[3] = {0, 0, 0};
    listener l[3] = {{"main", -1}, {"six", -1}, {"cdn", -1}};
    char cdn[64];

    signal(SIGPIPE, SIG_IGN);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    parse_options(&o, argc, argv);
    folder = argv[1];
    if (o.log && (log_fd = open(o.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) < 0) die(o.log);
    if ((l[0].fd = listen_on(AF_INET, "127.0.0.1", &port[0])) < 0 ||
        (l[2].fd = listen_on(AF_INET, "127.0.0.1", &port[2])) < 0) {
        die("cannot listen on 127.0.0.1");
    }
    l[1].fd = listen_on(AF_INET6, "::1", &port[1]); /* -1 where there is no IPv6: poll leaves it out */
    snprintf(cdn, sizeof cdn, "127.0.0.1:%u", port[2]);
    rules_open(o.rules, o.seed);
    hub_open(o.hub, cdn, (unsigned)o.page, (unsigned)o.expires_ms);
    for (int i = 0; i < 3; i++) printf("%s %u\n", l[i].name, l[i].fd < 0 ? 0 : port[i]);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct pollfd p[3];
        for (int i = 0; i < 3; i++) p[i] = (struct pollfd){.fd = l[i].fd, .events = POLLIN};
        if (poll(p, 3, -1) < 0 && errno != EINTR) die("poll");
        for (int i = 0; i < 3; i++) {
            if (p[i].revents & POLLIN) accept_one(&l[i]);
        }
    }
}
