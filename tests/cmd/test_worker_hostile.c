/* A worker among strangers: whoever does not hold the key is shown the door within seconds, with one line in
 * the log, keeps nobody waiting, and the right head is served meanwhile and afterwards, with the right
 * output. */
#include "tests/cmd/hostile.h"
#include <openssl/ssl.h>
#include <sys/socket.h>

TestSuite(hostile, .init = setup, .fini = teardown, .timeout = 120);

static const struct {
    const char *name, *text;
    size_t n; /* 0: as long as the text is */
    double wait_s;
    bool leaves; /* without waiting */
    const char *says;
} strangers[] = {
    {"a browser", "GET / HTTP/1.1\r\nHost: 192.168.1.3:9700\r\nAccept: */*\r\n\r\n", 0, AT_ONCE_S, false,
     "127.0.0.1:"},
    {"a plain head", "PRMA\x01\x00\x05\x00", 64, AT_ONCE_S, false, "127.0.0.1:"},
    {"a port scan", "", 0, 0, true, "info  127.0.0.1:"},
    {"somebody silent", "", 0, GREETING_S + 2, false, "no answer in time"},
    {"half a greeting", "\x16\x03\x01\x02\x00\x01", 6, GREETING_S + 2, false, "no answer in time"},
    {"half a greeting, and gone", "\x16\x03\x01\x02\x00\x01", 6, 0, true, "closed the connection"},
    {"a record without end", "\x16\x03\x01\xff\xff\x01\x00\xff\xff", 9, AT_ONCE_S, false, "127.0.0.1:"},
    {"an alert", "\x15\x03\x01\x00\x02\x02\x28", 7, AT_ONCE_S, false, "127.0.0.1:"},
};

static void be_stranger(size_t i)
{
    char last[512], text[4096] = "";
    size_t before = warnings(last), n = strangers[i].n ? strangers[i].n : strlen(strangers[i].text);
    sock s = visit();

    memcpy(text, strangers[i].text, strangers[i].n == 64 ? 8 : n);
    must(sock_write(&s, text, n, sock_deadline(2), &err));
    if (!strangers[i].leaves)
        cr_expect(is_shut_within(s.fd, strangers[i].wait_s), "%s is still there", strangers[i].name);
    sock_close(&s);
    expect_one_line(before, strangers[i].says, strangers[i].name);
}

Test(hostile, strangers)
{
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) be_stranger(i);
    serves_the_right_head();
}

Test(hostile, noise)
{
    uint64_t state = 3;

    for (int i = 0; i < 30; i++) {
        char last[512], noise[2000];
        size_t before = warnings(last);
        sock s = visit();
        for (size_t k = 0; k < sizeof noise; k++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            noise[k] = (char)(state >> 56);
        }
        if (i % 3 == 0)
            memcpy(noise, "\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", 11); /* like a greeting */
        sock_write(&s, noise, sizeof noise, sock_deadline(2), NULL);
        cr_expect(is_shut_within(s.fd, AT_ONCE_S), "visit %d", i);
        sock_close(&s);
        expect_one_line(before, "127.0.0.1:", "noise");
    }
    serves_the_right_head();
}

Test(hostile, a_tls_client_without_our_key)
{
    char last[512];
    size_t before = warnings(last);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    sock s = visit();

    fcntl(s.fd, F_SETFL, fcntl(s.fd, F_GETFL) & ~O_NONBLOCK);
    SSL_set_fd(ssl, s.fd);
    cr_expect_neq(SSL_connect(ssl), 1, "a browser's TLS is let in");
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    cr_expect(is_shut_within(s.fd, AT_ONCE_S));
    sock_close(&s);
    expect_one_line(before, "key", "TLS without a key");
    serves_the_right_head();
}

Test(hostile, a_client_with_another_key)
{
    char last[512];
    size_t before = warnings(last);
    cluster_key other = key;
    const security wrong = {.key = &other};
    uint64_t start = clock_ns();
    sock s = visit();
    channel *c = NULL;
    uint8_t byte;
    int rc;

    other.psk[7] ^= 1;
    rc = channel_open(&c, &s, CHANNEL_CLIENT, &wrong, sock_deadline(5), &err);
    if (!rc)
        rc =
            channel_read(c, &byte, 1, sock_deadline(5), &err); /* the server may refuse after our last word */
    cr_expect_neq(rc, PR_OK);
    cr_expect_lt(clock_ms_since(start), AT_ONCE_S * 1e3);
    channel_close(c);
    expect_one_line(before, "127.0.0.1:", "another key");
    serves_the_right_head();
}

/* --- a crowd ---------------------------------------------------------------------------------------------
 */
enum { SILENT = 20, LOUD = 5 };

static void crowd(uint16_t there, int fd[SILENT + LOUD])
{
    const sock_addr door = {.host = "127.0.0.1", .port = there};

    for (int i = 0; i < SILENT + LOUD; i++) {
        const char *text = i < SILENT ? "" : strangers[i % 2 ? 0 : 4].text; /* HTTP, half a TLS greeting */
        sock s;
        must(sock_connect(&s, &door, &no_options, true, sock_deadline(20), &err));
        must(sock_write(&s, text, strlen(text), sock_deadline(1), &err));
        fd[i] = s.fd;
    }
}

/* Each of them alone may stay for five seconds; the job neither begins nor ends later for them. */
Test(hostile, a_crowd_at_both_doors_while_the_right_head_comes)
{
    int fd[N_DEVICES][SILENT + LOUD];
    uint64_t start = clock_ns();
    char last[512];

    crowd(port[WORKER], fd[WORKER]);
    pid_t run = start_head();
    crowd(port[HEAD], fd[HEAD]);
    expect_right_output(run);
    cr_expect_lt(clock_ms_since(start), 3 * GREETING_S * 1e3);
    for (int i = 0; i < SILENT + LOUD; i++) cr_expect(is_shut_within(fd[WORKER][i], GREETING_S + 2), "%d", i);
    for (int i = 0; i < 1000 && warnings(last) < SILENT + LOUD + 1; i++) sleep_ms(10);
    sleep_ms(100);
    cr_expect_eq(warnings(last), SILENT + LOUD + 1, "a line for each, and for the head that looked");
    for (int i = 0; i < SILENT + LOUD; i++) {
        close(fd[HEAD][i]);
        close(fd[WORKER][i]);
    }
    serves_the_right_head();
}

/* --- a run in the middle of all this -----------------------------------------------------------------------
 */
Test(hostile, strangers_while_it_works)
{
    for (int round = 0; round < 2; round++) {
        pid_t run = start_head();
        for (int i = 0; i < 25; i++) {
            at.port = port[i % N_DEVICES]; /* the head has a door, too */
            sock s;
            if (!sock_connect(&s, &at, &no_options, false, sock_deadline(1), NULL)) {
                const char *text = strangers[i % 3].text;
                sock_write(&s, text, strlen(text), sock_deadline(1), NULL);
                sock_close(&s);
            }
            sleep_ms(10);
        }
        expect_right_output(run);
        at.port = port[WORKER];
        serves_the_right_head(); /* and has ended what it was at */
    }
}
