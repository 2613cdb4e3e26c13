/* The door: many are greeted at once, nobody who is silent keeps another one out, nobody stays for ever, and
 * the log stays readable. */
#include "net/door.h"
#include "src/base/clock.h"
#include "tests/net/pair.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CROWD = 3 * DOOR_PLACES };
static pr_err err;
static cluster_key key;
static security with_key = {.key = &key}, plain;
static sock_options so;
static wake stop;
static door *d;
static sock_addr at;
static int log_fd;
static FILE *told;

static void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

/* --- a door, and what it says -----------------------------------------------------------------------------
 */
static void open_door(const security *sec, double greeting_s)
{
    const door_options o = {.so = &so,
                            .sec = sec,
                            .greeting_s = greeting_s,
                            .limits = {64, FRAME_BIT(FRAME_CONTROL) | FRAME_BIT(FRAME_JOIN)}};
    const sock_addr any = pair_addr("127.0.0.1:0");

    must(wake_init(&stop, &err));
    so.wake = &stop;
    must(door_open(&d, &any, &o, &err));
    at = pair_addr(door_address(d));
}

/* What is logged goes into a file from here on. */
static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    key = pair_key(7);
    told = tmpfile();
    log_fd = dup(2);
    dup2(fileno(told), 2);
}

static void teardown(void)
{
    door_close(d);
    wake_clear(&stop);
    dup2(log_fd, 2);
    fclose(told);
}
TestSuite(door, .init = setup, .fini = teardown, .timeout = 30);

static size_t lines_with(const char *text)
{
    char line[1024];
    size_t n = 0;

    rewind(told);
    while (fgets(line, sizeof line, told)) n += strstr(line, text) != NULL;
    return n;
}

/* --- who comes --------------------------------------------------------------------------------------------
 */
/* From an address of this machine; -1: it cannot be had here. */
static int visit_from(const char *address)
{
    struct sockaddr_in from = {.sin_family = AF_INET},
                       to = {.sin_family = AF_INET, .sin_port = htons(at.port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_geq(fd, 0);
    inet_pton(AF_INET, address, &from.sin_addr);
    inet_pton(AF_INET, at.host, &to.sin_addr);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) || connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int visit(void)
{
    int fd = visit_from("127.0.0.1");
    cr_assert_geq(fd, 0);
    return fd;
}

static bool is_shut(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char rest[256];
    ssize_t n;

    if (poll(&p, 1, 0) <= 0) return false;
    n = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static size_t n_shut(const int *fd, size_t n)
{
    size_t shut = 0;

    for (size_t i = 0; i < n; i++) shut += is_shut(fd[i]);
    return shut;
}

static const char words[] = "hello";

static void encode_greeting(uint8_t room[FRAME_HEADER_BYTES + sizeof words])
{
    const frame f = {.type = FRAME_CONTROL, .extra = sizeof words, .payload_bytes = sizeof words};

    frame_encode(room, &f);
    memcpy(room + FRAME_HEADER_BYTES, words, sizeof words);
}

/* Somebody with the key, in a thread: the door is this one's. */
static void *come_with_key(void *arg)
{
    uint8_t room[FRAME_HEADER_BYTES + sizeof words];
    pr_err why = {0};
    channel **c = arg;
    sock s;

    pair_must(sock_connect(&s, &at, &pair_no_options, false, sock_deadline(5), &why), &why, "connect");
    pair_must(channel_open(c, &s, CHANNEL_CLIENT, &with_key, sock_deadline(5), &why), &why, "handshake");
    encode_greeting(room);
    pair_must(channel_write(*c, room, sizeof room, sock_deadline(5), &why), &why, "greeting");
    return NULL;
}

/* Nobody comes in, and the door does what it has to for so long. */
static void stand_there(double seconds)
{
    door_guest g;
    uint64_t deadline = sock_deadline(seconds);

    while (clock_ns() < deadline)
        cr_assert_eq(door_next(d, &g, deadline, &err), PR_EPEER, "somebody came in");
}

static void expect_guest_within(double seconds)
{
    uint64_t start = clock_ns();
    door_guest g;

    must(door_next(d, &g, sock_deadline(seconds), &err));
    cr_expect_lt(clock_ms_since(start), seconds * 1e3);
    cr_expect(g.f.type == FRAME_CONTROL && g.f.payload_bytes == sizeof words &&
              !memcmp(g.payload, words, sizeof words));
    channel_close(g.c);
}

/* --- tests ------------------------------------------------------------------------------------------------
 */
Test(door, the_silent_keep_nobody_waiting)
{
    int silent[20];
    pthread_t t;
    channel *c;

    open_door(&with_key, 10);
    for (size_t i = 0; i < 20; i++) silent[i] = visit();
    for (size_t i = 0; i < 5; i++) cr_assert_eq(write(silent[i], "\x16\x03\x01\x02", 4), 4);
    stand_there(0.1); /* all of them are in */
    pthread_create(&t, NULL, come_with_key, &c);
    expect_guest_within(3);
    pthread_join(t, NULL);
    cr_expect_eq(n_shut(silent, 20), 0u, "their time is not over");
    channel_close(c);
}

Test(door, the_silent_are_shown_out_in_time)
{
    int fd[10];
    uint64_t start = clock_ns();

    open_door(&with_key, 0.4);
    for (size_t i = 0; i < 10; i++) fd[i] = visit();
    stand_there(0.3);
    cr_expect(n_shut(fd, 10) == 0 || clock_ms_since(start) > 400);
    for (int i = 0; i < 30 && n_shut(fd, 10) < 10; i++) stand_there(0.3);
    cr_expect_eq(n_shut(fd, 10), 10u);
    cr_expect_eq(lines_with("no answer in time"), 10u, "one line each");
}

Test(door, a_crowd_from_one_address_keeps_only_itself_out)
{
    int crowd[CROWD], other = -1;
    pthread_t t;
    channel *c;

    open_door(&with_key, 20);
    other = visit_from("127.0.0.2");
    if (other < 0) cr_skip_test("this system has one loopback address");
    for (size_t i = 0; i < CROWD; i++) {
        crowd[i] = visit();
        if (i % 8 == 7) stand_there(0.01);
    }
    stand_there(0.1);
    cr_expect_eq(n_shut(crowd, CROWD), CROWD - (DOOR_PLACES - 1), "the oldest of the many");
    cr_expect(is_shut(crowd[0]) && !is_shut(crowd[CROWD - 1]));
    cr_expect(!is_shut(other), "who came alone stays, though it came first");
    pthread_create(&t, NULL, come_with_key, &c);
    expect_guest_within(3);
    pthread_join(t, NULL);
    channel_close(c);
}

/* Byte by byte, two at a time: who is slow is not lost. */
Test(door, a_greeting_may_come_in_pieces)
{
    uint8_t room[FRAME_HEADER_BYTES + sizeof words];
    int fd[2];

    open_door(&plain, 10);
    for (size_t i = 0; i < 2; i++) fd[i] = visit();
    encode_greeting(room);
    for (size_t i = 0; i < sizeof room - 1; i++) {
        for (size_t k = 0; k < 2; k++) cr_assert_eq(write(fd[k], &room[i], 1), 1);
        stand_there(0.001);
    }
    for (size_t k = 0; k < 2; k++) cr_assert_eq(write(fd[k], &room[sizeof room - 1], 1), 1);
    expect_guest_within(2);
    expect_guest_within(2);
    cr_expect_eq(lines_with(" warn "), 0u);
}

Test(door, strangers_get_one_line_each)
{
    static const struct {
        const char *text, *says;
    } strangers[] = {
        {"GET / HTTP/1.1\r\nHost: here\r\nAccept: all that you have, please\r\n\r\n", "not a prima frame"},
        {"PRMA\x01", "closed the connection"},
    };

    open_door(&plain, 10);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        int fd = visit();
        size_t n = strlen(strangers[i].text);
        cr_assert_eq(write(fd, strangers[i].text, n), (ssize_t)n);
        if (i) close(fd);
        stand_there(0.05);
        cr_expect_eq(lines_with(" warn "), i + 1);
        cr_expect_eq(lines_with(strangers[i].says), 1u, "%s", strangers[i].says);
    }
}

/* A port scan, or `prima run` that looks whether a worker is there. */
Test(door, who_leaves_without_a_word_is_no_warning)
{
    open_door(&with_key, 10);
    close(visit());
    stand_there(0.05);
    cr_expect_eq(lines_with(" warn "), 0u);
    cr_expect_eq(lines_with("came and left without a word"), 1u);
}

Test(door, the_log_stays_readable)
{
    enum { MANY = 150 };

    open_door(&with_key, 10);
    for (size_t i = 0; i < MANY; i++) {
        int fd = visit();
        cr_assert_eq(write(fd, "GET / HTTP/1.1\r\n", 16), 16);
        close(fd);
        stand_there(0.001);
    }
    stand_there(0.1);
    cr_expect_lt(lines_with(" warn "), 60u, "%zu lines", lines_with(" warn "));
    cr_expect_gt(lines_with(" warn "), 30u);
    door_close(d);
    d = NULL;
    cr_expect_eq(lines_with("more connections were refused"), 1u);
}

Test(door, a_wake_ends_the_wait)
{
    door_guest g;

    open_door(&with_key, 10);
    visit();
    stand_there(0.05);
    wake_raise(&stop);
    cr_expect_eq(door_next(d, &g, SOCK_NO_DEADLINE, &err), PR_EINTERRUPTED);
}

Test(door, a_lack_of_descriptors_does_not_end_it)
{
    struct rlimit was, few;
    int fd;
    pthread_t t;
    channel *c;

    open_door(&with_key, 10);
    for (size_t i = 0; i < 4; i++) visit();
    do fd = dup(2); /* poll(2) wants as many as it is asked about */
    while (fd < DOOR_PLACES + 8);
    close(fd); /* the lowest that is free */
    getrlimit(RLIMIT_NOFILE, &was);
    few = was;
    few.rlim_cur = (rlim_t)fd;
    setrlimit(RLIMIT_NOFILE, &few);
    stand_there(0.3);
    setrlimit(RLIMIT_NOFILE, &was);
    cr_expect_geq(lines_with("accepting a connection"), 1u);
    cr_expect_lt(lines_with("accepting a connection"), 5u, "it rests in between");
    pthread_create(&t, NULL, come_with_key, &c);
    expect_guest_within(3);
    pthread_join(t, NULL);
    channel_close(c);
}
