/* Sockets over loopback: what is refused and how it is said, deadlines, wakes, exact transfers. */
#include "net/sock.h"
#include "src/base/clock.h"
#include "tests/net/pair.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static pr_err err;

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
}
TestSuite(sock, .init = setup, .timeout = 60);

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- addresses ----------------------------------------------------------------------------------------- */
Test(sock, addresses)
{
    static const struct {
        const char *text, *host;
        unsigned port;
        bool listening;
    } good[] = {{"desk.local:9700", "desk.local", 9700, false},
                {"192.168.1.2:1", "192.168.1.2", 1, false},
                {"[::1]:65535", "::1", 65535, false},
                {"[fe80::1%eth0]:9700", "fe80::1%eth0", 9700, false},
                {"0.0.0.0:0", "0.0.0.0", 0, true}};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        sock_addr a;
        char back[SOCK_NAME_BYTES];
        cr_assert_eq(sock_addr_parse(&a, good[i].text, good[i].listening, &err), PR_OK, "%s", good[i].text);
        cr_expect_str_eq(a.host, good[i].host);
        cr_expect_eq(a.port, good[i].port);
        sock_addr_print(back, &a);
        cr_expect_str_eq(back, good[i].text);
    }
}

Test(sock, addresses_refused)
{
    static const char *const bad[] = {"",
                                      "desk",
                                      ":9700",
                                      "desk:",
                                      "desk:x",
                                      "desk:0",
                                      "desk:-1",
                                      "desk:+1",
                                      "desk: 1",
                                      "desk:65536",
                                      "desk:99999999999999999999",
                                      "desk:1x",
                                      "::1:9700",
                                      "[::1]",
                                      "[::1:9700",
                                      "[]:9700",
                                      "[::1]x:1",
                                      "desk:9700 "};
    char longest[400];
    sock_addr a;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (pr_err){0};
        cr_expect_eq(sock_addr_parse(&a, bad[i], false, &err), PR_EUSAGE, "\"%s\"", bad[i]);
        cr_expect(strstr(err.msg, bad[i]) && strstr(err.msg, "HOST:PORT"), "%s", err.msg);
    }
    memset(longest, 'a', 256);
    strcpy(longest + 256, ":1");
    cr_expect_eq(sock_addr_parse(&a, longest, false, NULL), PR_EUSAGE);
    cr_expect_eq(sock_addr_parse(&a, longest + 1, false, NULL), PR_OK, "255 bytes are a legal name");
}

/* --- listening ----------------------------------------------------------------------------------------- */
Test(sock, listens_on_the_given_address_only)
{
    sock_listener l;
    sock_addr at = pair_listen(&l), other = at;
    sock s;

    cr_expect_neq(at.port, 0);
    cr_expect(l.is_loopback);
    strcpy(other.host, "127.0.0.2");
    cr_expect_eq(sock_connect(&s, &other, &pair_no_options, false, sock_deadline(2), &err), PR_EPEER);
    cr_assert_eq(sock_connect(&s, &at, &pair_no_options, false, sock_deadline(2), &err), PR_OK, "%s",
                 err.msg);
    cr_expect(s.is_loopback);
    sock_close(&s);
    sock_close(&s);
    sock_listener_close(&l);
}

Test(sock, a_port_in_use)
{
    sock_listener l, second;
    sock_addr at = pair_listen(&l);

    cr_expect_eq(sock_listen(&second, &at, &pair_no_options, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, l.address) && strstr(err.msg, "in use"), "%s", err.msg);
    sock_listener_close(&second);
    sock_listener_close(&l);
    cr_expect_eq(sock_listen(&second, &at, &pair_no_options, &err), PR_OK, "free again: %s", err.msg);
    sock_listener_close(&second);
}

Test(sock, not_an_address_of_ours)
{
    sock_listener l;
    sock_addr at = pair_addr("192.0.2.77:0"); /* TEST-NET-1, nobody's */

    cr_expect_eq(sock_listen(&l, &at, &pair_no_options, &err), PR_EUSAGE);
    cr_expect(strstr(err.msg, "192.0.2.77") && strstr(err.msg, "not an address of this machine"), "%s",
              err.msg);
}

Test(sock, v6)
{
    sock_listener l;
    sock_addr at = pair_addr("[::1]:0");
    sock a, b;

    if (sock_listen(&l, &at, &pair_no_options, &err)) cr_skip_test("no IPv6 here: %s", err.msg);
    at = pair_addr(l.address);
    cr_assert_eq(sock_connect(&a, &at, &pair_no_options, false, sock_deadline(2), &err), PR_OK, "%s",
                 err.msg);
    cr_assert_eq(sock_accept(&b, &l, sock_deadline(2), &err), PR_OK);
    cr_expect(a.is_loopback && b.is_loopback && l.is_loopback);
    cr_expect_eq(strncmp(b.peer, "[::1]:", 6), 0, "%s", b.peer);
    sock_close(&a);
    sock_close(&b);
    sock_listener_close(&l);
}

/* --- connecting ---------------------------------------------------------------------------------------- */
static sock_addr closed_port(void)
{
    sock_listener l;
    sock_addr at = pair_listen(&l);

    sock_listener_close(&l);
    return at;
}

Test(sock, refused)
{
    sock_addr at = closed_port();
    uint64_t start = clock_ns();
    char name[SOCK_NAME_BYTES];
    sock s;

    sock_addr_print(name, &at);
    cr_expect_eq(sock_connect(&s, &at, &pair_no_options, false, sock_deadline(5), &err), PR_EPEER);
    cr_expect(strstr(err.msg, name) && strstr(err.msg, "refused"), "%s", err.msg);
    cr_expect_lt(clock_ms_since(start), 2000);
    cr_expect_eq(s.fd, -1);
}

Test(sock, an_unknown_host)
{
    sock_addr at = pair_addr("no-such-host.invalid:9700");
    sock s;
    int rc = sock_connect(&s, &at, &pair_no_options, false, sock_deadline(5), &err);

    cr_expect(rc == PR_EUSAGE || rc == PR_EPEER, "%d", rc); /* without a resolver it may be there tomorrow */
    cr_expect(strstr(err.msg, "no-such-host.invalid") && strstr(err.msg, "not known"), "%s", err.msg);
}

static void *listen_late(void *arg)
{
    static sock_listener l;

    sleep_ms(300);
    pair_must(sock_listen(&l, arg, &pair_no_options, &err), &err, "late");
    return &l;
}

Test(sock, retries_until_the_worker_is_there)
{
    sock_addr at = closed_port();
    pthread_t t;
    sock s;
    void *l;

    cr_assert_eq(pthread_create(&t, NULL, listen_late, &at), 0);
    cr_expect_eq(sock_connect(&s, &at, &pair_no_options, true, sock_deadline(10), NULL), PR_OK);
    pthread_join(t, &l);
    sock_close(&s);
    sock_listener_close(l);
}

Test(sock, retries_end_at_the_deadline)
{
    sock_addr at = closed_port();
    uint64_t start = clock_ns();
    sock s;

    cr_expect_eq(sock_connect(&s, &at, &pair_no_options, true, sock_deadline(0.4), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "refused"), "%s", err.msg);
    cr_expect(clock_ms_since(start) >= 390 && clock_ms_since(start) < 3000, "%.0f ms", clock_ms_since(start));
}

/* A listener whose queue is full drops what comes: like a machine that is off. */
Test(sock, a_peer_that_does_not_answer)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0), full[4];
    sock_addr at = pair_addr("127.0.0.1:0");
    uint64_t start;
    sock s;

    cr_assert_eq(bind(fd, (struct sockaddr *)&in, n), 0);
    cr_assert_eq(listen(fd, 0), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    for (int i = 0; i < 4; i++) {
        full[i] = socket(AF_INET, SOCK_STREAM, 0);
        fcntl(full[i], F_SETFL, O_NONBLOCK);
        (void)!connect(full[i], (struct sockaddr *)&in, n);
    }
    sleep_ms(100);
    at.port = ntohs(in.sin_port);
    start = clock_ns();
    cr_expect_eq(sock_connect(&s, &at, &pair_no_options, false, sock_deadline(0.3), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "no answer"), "%s", err.msg);
    cr_expect(clock_ms_since(start) >= 290 && clock_ms_since(start) < 3000, "%.0f ms", clock_ms_since(start));
}

Test(sock, options_are_set)
{
    const sock_options o = {.lost_after_ms = 4321};
    sock_addr any = pair_addr("127.0.0.1:0"), at;
    sock_listener l;
    sock s[2];

    cr_assert_eq(sock_listen(&l, &any, &o, &err), PR_OK);
    at = pair_addr(l.address);
    cr_assert_eq(sock_connect(&s[0], &at, &o, false, sock_deadline(2), &err), PR_OK);
    cr_assert_eq(sock_accept(&s[1], &l, sock_deadline(2), &err), PR_OK);
    for (int i = 0; i < 2; i++) {
        int v = 0;
        socklen_t n = sizeof v;
        cr_expect(!getsockopt(s[i].fd, IPPROTO_TCP, TCP_NODELAY, &v, &n) && v);
#ifdef TCP_USER_TIMEOUT
        cr_expect(!getsockopt(s[i].fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, &n) && v == 4321, "%d", v);
#endif
        cr_expect(fcntl(s[i].fd, F_GETFL) & O_NONBLOCK);
        cr_expect(fcntl(s[i].fd, F_GETFD) & FD_CLOEXEC);
    }
}

/* --- transfers ----------------------------------------------------------------------------------------- */
enum { BIG = 3 << 20 };

static void *write_big(void *arg)
{
    uint8_t *data = malloc(BIG);

    for (int i = 0; i < BIG; i++) data[i] = (uint8_t)((unsigned)i * 2654435761u >> 24);
    pair_must(sock_write(arg, data, BIG, sock_deadline(20), &err), &err, "write");
    free(data);
    return NULL;
}

Test(sock, all_bytes_arrive)
{
    static uint8_t got[BIG];
    sock a, b;
    pthread_t t;
    size_t at = 0;

    pair_socks(&a, &b);
    cr_assert_eq(pthread_create(&t, NULL, write_big, &a), 0);
    for (size_t n = 1; at < BIG; at += n, n = n * 3 % 65537 + 1) {
        if (n > BIG - at) n = BIG - at;
        cr_assert_eq(sock_read(&b, got + at, n, sock_deadline(10), &err), PR_OK, "%s", err.msg);
    }
    pthread_join(t, NULL);
    for (unsigned i = 0; i < BIG; i++) cr_assert_eq(got[i], (uint8_t)(i * 2654435761u >> 24));
}

Test(sock, reads_end_at_the_deadline)
{
    sock a, b;
    uint8_t got[10];
    uint64_t start = clock_ns();

    pair_socks(&a, &b);
    cr_assert_eq(sock_write(&a, "abc", 3, sock_deadline(1), NULL), PR_OK);
    cr_expect_eq(sock_read(&b, got, 10, sock_deadline(0.2), &err), PR_EPEER);
    cr_expect(strstr(err.msg, b.peer) && strstr(err.msg, "in time"), "%s", err.msg);
    cr_expect(clock_ms_since(start) >= 195 && clock_ms_since(start) < 3000, "%.0f ms", clock_ms_since(start));
}

Test(sock, writes_end_at_the_deadline)
{
    sock a, b;
    static uint8_t much[64 << 20]; /* more than the kernel keeps for a reader who does not read */

    pair_socks(&a, &b);
    cr_expect_eq(sock_write(&a, much, sizeof much, sock_deadline(0.3), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "in time"), "%s", err.msg);
}

Test(sock, a_peer_that_leaves_early)
{
    sock a, b;
    uint8_t got[10];

    pair_socks(&a, &b);
    cr_assert_eq(sock_write(&a, "abc", 3, sock_deadline(1), NULL), PR_OK);
    sock_close(&a);
    cr_expect_eq(sock_read(&b, got, 10, sock_deadline(5), &err), PR_EPEER);
    cr_expect(strstr(err.msg, b.peer) && strstr(err.msg, "3 of 10"), "%s", err.msg);
}

/* --- being woken --------------------------------------------------------------------------------------- */
static void *raise_late(void *arg)
{
    sleep_ms(150);
    wake_raise(arg);
    return NULL;
}

Test(sock, a_wake_ends_every_wait)
{
    wake w;
    sock a, b;
    sock_listener l;
    sock_options o = {.wake = &w};
    sock_addr any = pair_addr("127.0.0.1:0"), closed = closed_port();
    pthread_t t;
    uint8_t got;

    cr_assert_eq(wake_init(&w, &err), PR_OK);
    pair_socks(&a, &b);
    b.wake = &w;
    cr_assert_eq(sock_listen(&l, &any, &o, &err), PR_OK);
    cr_assert_eq(pthread_create(&t, NULL, raise_late, &w), 0);
    cr_expect_eq(sock_read(&b, &got, 1, SOCK_NO_DEADLINE, &err), PR_EINTERRUPTED);
    pthread_join(t, NULL);
    cr_expect_eq(sock_accept(&a, &l, SOCK_NO_DEADLINE, &err), PR_EINTERRUPTED, "it stays raised");
    cr_expect_eq(sock_connect(&a, &closed, &o, true, SOCK_NO_DEADLINE, &err), PR_EINTERRUPTED);
    for (int i = 0; i < 100000; i++) wake_raise(&w); /* a full pipe does not block */
    wake_clear(&w);
}

static void *shut_late(void *arg)
{
    sleep_ms(150);
    sock_shutdown(arg);
    return NULL;
}

Test(sock, a_shutdown_ends_one_connection)
{
    sock a, b;
    pthread_t t;
    uint8_t got;

    pair_socks(&a, &b);
    cr_assert_eq(pthread_create(&t, NULL, shut_late, &b), 0);
    cr_expect_eq(sock_read(&b, &got, 1, sock_deadline(10), &err), PR_EPEER);
    cr_expect_eq(sock_read(&a, &got, 1, sock_deadline(10), &err), PR_EPEER);
    pthread_join(t, NULL);
}

Test(sock, a_peer_cut_off_while_we_write)
{
    sock a, b;
    static uint8_t much[64 << 20];
    struct linger rude = {1, 0}; /* close sends a reset */

    pair_socks(&a, &b);
    setsockopt(b.fd, SOL_SOCKET, SO_LINGER, &rude, sizeof rude);
    sock_close(&b);
    cr_expect_eq(sock_write(&a, much, sizeof much, sock_deadline(10), &err), PR_EPEER);
    cr_expect(strstr(err.msg, a.peer) && strstr(err.msg, "closed by the peer"), "%s", err.msg);
}
