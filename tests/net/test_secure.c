/* Channels: who is let in and who is not, that nothing of it is readable on the wire, that all bytes arrive
 * in both directions at once. OpenSSL's own s_client and s_server are the foreign end where they are
 * installed. */
#include "net/secure.h"
#include "src/base/clock.h"
#include "tests/net/pair.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pr_err err;
static cluster_key ours, theirs;
static security with_key, with_other_key, plain, plain_anywhere;

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    ours = pair_key(7);
    theirs = pair_key(8);
    with_key.key = &ours;
    with_other_key.key = &theirs;
    plain_anywhere.insecure = true;
}
TestSuite(secure, .init = setup, .timeout = 60);

static pair_end client, server;

/* --- the same key on both sides ------------------------------------------------------------------------ */
static void expect_speaks(channel *from, channel *to, const char *text)
{
    char got[64] = {0};

    cr_assert_eq(channel_write(from, text, strlen(text), sock_deadline(5), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(channel_read(to, got, strlen(text), sock_deadline(5), &err), PR_OK, "%s", err.msg);
    cr_expect_str_eq(got, text);
}

Test(secure, both_directions)
{
    pair_open(&client, &server, &with_key, &with_key);
    cr_assert_eq(client.rc, PR_OK, "%s", client.err.msg);
    cr_assert_eq(server.rc, PR_OK, "%s", server.err.msg);
    cr_expect(channel_is_secure(client.c) && channel_is_secure(server.c));
    cr_expect_str_eq(channel_cipher(client.c), "TLS_AES_128_GCM_SHA256");
    expect_speaks(client.c, server.c, "there");
    expect_speaks(server.c, client.c, "and back");
    pair_close(&client, &server);
}

Test(secure, plain_on_one_machine)
{
    pair_open(&client, &server, &plain, &plain);
    cr_assert_eq(client.rc || server.rc, 0, "%s %s", client.err.msg, server.err.msg);
    cr_expect(!channel_is_secure(client.c) && !channel_is_secure(server.c));
    cr_expect_str_eq(channel_cipher(client.c), "plain");
    expect_speaks(client.c, server.c, "there");
    expect_speaks(server.c, client.c, "and back");
    pair_close(&client, &server);
}

/* No test leaves this machine: a socket that says that its peer is elsewhere. */
Test(secure, plain_beyond_this_machine_is_spelled_out)
{
    for (int role = CHANNEL_CLIENT; role <= CHANNEL_SERVER; role++) {
        sock a, b;
        channel *c;
        pair_socks(&a, &b);
        a.is_loopback = false;
        cr_expect_eq(channel_open(&c, &a, (channel_role)role, &plain, sock_deadline(1), &err), PR_EAUTH);
        cr_expect(strstr(err.msg, "--insecure") && !c && a.fd == -1, "%s", err.msg);
        sock_close(&b);
        pair_socks(&a, &b);
        a.is_loopback = false;
        cr_expect_eq(channel_open(&c, &a, (channel_role)role, &plain_anywhere, sock_deadline(1), &err),
                     PR_OK);
        channel_close(c);
        sock_close(&b);
    }
}

/* --- transfers -------------------------------------------------------------------------------------------
 */
enum { BIG = 1 << 20, ROUNDS = 8 };

static uint8_t byte_at(unsigned seed, unsigned i)
{
    return (uint8_t)((i + seed) * 2654435761u >> 24);
}

static void *write_big(void *c)
{
    uint8_t *data = malloc(BIG);
    pr_err e = {0};

    for (unsigned r = 0; r < ROUNDS; r++) {
        for (unsigned i = 0; i < BIG; i++) data[i] = byte_at(r, i);
        pair_must(channel_write(c, data, BIG, sock_deadline(20), &e), &e, "write");
    }
    free(data);
    return NULL;
}

static void *read_big(void *c)
{
    uint8_t *data = malloc(BIG);
    pr_err e = {0};
    size_t wrong = 0;

    for (unsigned r = 0; r < ROUNDS; r++) {
        pair_must(channel_read(c, data, BIG, sock_deadline(20), &e), &e, "read");
        for (unsigned i = 0; i < BIG; i++) wrong += data[i] != byte_at(r, i);
    }
    free(data);
    return (void *)wrong;
}

/* Many small messages: a reader runs dry again and again while the writer beside it is busy, so that calls
 * that are not one at a time would take each other's outcome for their own. */
enum { SMALL = 37, N_SMALL = 40000 };

static void *write_small(void *c)
{
    uint8_t data[SMALL];
    pr_err e = {0};

    for (unsigned r = 0; r < N_SMALL; r++) {
        for (unsigned i = 0; i < SMALL; i++) data[i] = byte_at(r, i);
        pair_must(channel_write(c, data, SMALL, sock_deadline(20), &e), &e, "write");
    }
    return NULL;
}

static void *read_small(void *c)
{
    uint8_t data[SMALL];
    pr_err e = {0};
    size_t wrong = 0;

    for (unsigned r = 0; r < N_SMALL; r++) {
        pair_must(channel_read(c, data, SMALL, sock_deadline(20), &e), &e, "read");
        for (unsigned i = 0; i < SMALL; i++) wrong += data[i] != byte_at(r, i);
    }
    return (void *)wrong;
}

typedef void *(*thread_fn)(void *c);
static void exchange(const security *sec, thread_fn writes, thread_fn reads)
{
    pthread_t t[4];
    void *wrong[2];

    pair_open(&client, &server, sec, sec);
    cr_assert_eq(client.rc || server.rc, 0, "%s %s", client.err.msg, server.err.msg);
    cr_assert_eq(pthread_create(&t[0], NULL, writes, client.c), 0);
    cr_assert_eq(pthread_create(&t[1], NULL, writes, server.c), 0);
    cr_assert_eq(pthread_create(&t[2], NULL, reads, client.c), 0);
    cr_assert_eq(pthread_create(&t[3], NULL, reads, server.c), 0);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 2; i++) pthread_join(t[2 + i], &wrong[i]);
    cr_expect_null(wrong[0]);
    cr_expect_null(wrong[1]);
    pair_close(&client, &server);
}

Test(secure, both_ways_at_once)
{
    exchange(&with_key, write_big, read_big);
}
Test(secure, both_ways_at_once_in_small_messages)
{
    exchange(&with_key, write_small, read_small);
}
Test(secure, both_ways_at_once_plain)
{
    exchange(&plain, write_big, read_big);
}
/* New keys every few records, while the other direction is busy. */
Test(secure, both_ways_at_once_with_new_keys)
{
    security often = with_key;

    often.rekey_bytes = 50000;
    exchange(&often, write_big, read_big);
}

static int raw_fd(channel *c)
{
    return *(int *)(void *)c; /* a channel begins with its socket, and that with its descriptor */
}

/* What is written is not what is on the wire; in plain mode (so that this test can fail) it is. */
static bool wire_shows(const security *sec)
{
    static const char secret[] = "the hidden state of a prompt, which is nobody's business";
    static uint8_t wire[4096];
    bool shows;
    ssize_t n;

    pair_open(&client, &server, sec, sec);
    cr_assert_eq(client.rc || server.rc, 0);
    cr_assert_eq(channel_write(client.c, secret, sizeof secret, sock_deadline(5), &err), PR_OK);
    n = recv(raw_fd(server.c), wire, sizeof wire, MSG_PEEK);
    cr_assert_gt(n, (ssize_t)sizeof secret - 1);
    shows = memmem(wire, (size_t)n, secret, sizeof secret) != NULL;
    pair_close(&client, &server);
    return shows;
}

Test(secure, nothing_is_readable_on_the_wire)
{
    cr_expect(wire_shows(&plain));
    cr_expect(!wire_shows(&with_key));
}

/* --- the wrong peer --------------------------------------------------------------------------------------
 */
Test(secure, another_key)
{
    pair_open(&client, &server, &with_key, &with_other_key);
    cr_expect_eq(client.rc, PR_EAUTH);
    cr_expect_eq(server.rc, PR_EAUTH);
    cr_expect(strstr(client.err.msg, ours.id) && strstr(client.err.msg, "same key file"), "%s",
              client.err.msg);
    cr_expect(strstr(server.err.msg, ours.id) && strstr(server.err.msg, theirs.id), "%s", server.err.msg);
    cr_expect(!client.c && !server.c);
}

/* The right name, but not the key: only the proof of possession can tell. */
Test(secure, another_key_of_the_same_name)
{
    strcpy(theirs.id, ours.id);
    pair_open(&client, &server, &with_key, &with_other_key);
    cr_expect_eq(client.rc, PR_EAUTH, "%s", client.err.msg);
    cr_expect_eq(server.rc, PR_EAUTH, "%s", server.err.msg);
}

Test(secure, a_server_that_does_not_speak_tls)
{
    sock a, b;
    channel *c;

    pair_socks(&a, &b);
    cr_assert_eq(sock_write(&b, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, sock_deadline(1), NULL), PR_OK);
    cr_expect_eq(channel_open(&c, &a, CHANNEL_CLIENT, &with_key, sock_deadline(5), &err), PR_EAUTH);
    cr_expect(strstr(err.msg, "does not speak TLS") && strstr(err.msg, "--insecure"), "%s", err.msg);
}

/* Bytes that are no handshake, and then nothing or the end: refused, in time. */
static const struct {
    const char *name, *bytes;
    size_t n;
    bool ends;
    int code;
} foreign[] = {
    {"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, false, PR_EAUTH},
    {"SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", 23, false, PR_EAUTH},
    {"a plain prima", "PRMA\1\0\1\0\0\0\0\0", 12, false, PR_EAUTH},
    {"zeros", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, false, PR_EAUTH},
    {"a TLS record of nonsense", "\x16\x03\x01\x00\x04\xff\xff\xff\xff", 9, false, PR_EAUTH},
    {"half a TLS record, then the end", "\x16\x03\x01\x02\x00\x01\x00\x01", 8, true, PR_EPEER},
    {"half a TLS record, then silence", "\x16\x03\x01\x02\x00\x01\x00\x01", 8, false, PR_EPEER},
    {"nothing, then the end", "", 0, true, PR_EPEER},
    {"silence", "", 0, false, PR_EPEER},
};

Test(secure, foreign_clients)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        uint64_t start = clock_ns();
        char more[16];
        channel *c;
        sock a, b;
        pair_socks(&a, &b);
        err = (pr_err){0};
        cr_assert_eq(sock_write(&a, foreign[i].bytes, foreign[i].n, sock_deadline(1), NULL), PR_OK);
        if (foreign[i].ends) shutdown(a.fd, SHUT_WR);
        cr_expect_eq(channel_open(&c, &b, CHANNEL_SERVER, &with_key, sock_deadline(0.5), &err),
                     foreign[i].code, "%s: %s", foreign[i].name, err.msg);
        cr_expect(strstr(err.msg, "127.0.0.1:") && !strchr(err.msg, '\n'), "%s", err.msg);
        cr_expect_lt(clock_ms_since(start), 3000, "%s", foreign[i].name);
        /* closed: after an alert at most, the stream ends */
        cr_expect_eq(sock_read(&a, more, sizeof more, sock_deadline(2), &err), PR_EPEER);
        cr_expect_null(strstr(err.msg, "in time"), "%s: still open", foreign[i].name);
        sock_close(&a);
    }
}

/* --- damage and ends -------------------------------------------------------------------------------------
 */
Test(secure, forged_bytes)
{
    static const uint8_t record[] = {0x17, 3,  3,  0,  24, 1,  2,  3,  4,  5,  6,  7,  8,  9, 10,
                                     11,   12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    char got[8];

    pair_open(&client, &server, &with_key, &with_key);
    cr_assert_eq(client.rc || server.rc, 0);
    cr_assert_eq(send(raw_fd(client.c), record, sizeof record, 0), (ssize_t)sizeof record);
    cr_expect_eq(channel_read(server.c, got, 8, sock_deadline(5), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "forged"), "%s", err.msg);
    cr_expect_eq(channel_write(server.c, got, 8, sock_deadline(1), &err), PR_EPEER, "it stays broken");
    pair_close(&client, &server);
}

Test(secure, a_goodbye_and_a_cut_differ)
{
    char got[8];

    pair_open(&client, &server, &with_key, &with_key);
    cr_assert_eq(client.rc || server.rc, 0);
    channel_close(client.c);
    cr_expect_eq(channel_read(server.c, got, 8, sock_deadline(5), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "the peer closed"), "%s", err.msg);
    channel_close(server.c);

    pair_open(&client, &server, &with_key, &with_key);
    cr_assert_eq(client.rc || server.rc, 0);
    channel_shutdown(client.c);
    cr_expect_eq(channel_read(server.c, got, 8, sock_deadline(5), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "was cut"), "%s", err.msg);
    pair_close(&client, &server);
}

Test(secure, a_read_ends_at_the_deadline)
{
    uint64_t start;
    char got[8];

    pair_open(&client, &server, &with_key, &with_key);
    cr_assert_eq(client.rc || server.rc, 0);
    cr_assert_eq(channel_write(client.c, "abc", 3, sock_deadline(1), NULL), PR_OK);
    start = clock_ns();
    cr_expect_eq(channel_read(server.c, got, 8, sock_deadline(0.2), &err), PR_EPEER);
    cr_expect(strstr(err.msg, "in time"), "%s", err.msg);
    cr_expect(clock_ms_since(start) >= 195 && clock_ms_since(start) < 3000);
    pair_close(&client, &server);
}

/* --- OpenSSL's own programs as the other end ---------------------------------------------------------------
 */
static char psk_hex[2 * KEY_BYTES + 1];

static void need_openssl(void)
{
    if (system("openssl version >/dev/null 2>&1")) cr_skip_test("no openssl program");
    for (int i = 0; i < KEY_BYTES; i++) sprintf(psk_hex + 2 * i, "%02x", ours.psk[i]);
}

/* s_client with these options; its standard input stays open, as that of a person who types. */
static pid_t start_s_client(const char *address, const char *options)
{
    char command[600];
    pid_t pid;

    snprintf(command, sizeof command,
             "(echo hello from afar; sleep 10) | exec openssl s_client -quiet -connect %s %s "
             ">/dev/null 2>&1",
             address, options);
    if ((pid = fork()) == 0) {
        setpgid(0, 0);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void end_group(pid_t pid)
{
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* What our server makes of such a client. */
static int meet_s_client(const char *options, char *got, size_t n)
{
    sock_listener l;
    sock_addr at = pair_listen(&l);
    channel *c = NULL;
    sock s;
    pid_t pid = start_s_client(l.address, options);
    int rc;

    (void)at;
    err = (pr_err){0};
    if (!(rc = sock_accept(&s, &l, sock_deadline(10), &err)))
        rc = channel_open(&c, &s, CHANNEL_SERVER, &with_key, sock_deadline(5), &err);
    if (!rc) rc = channel_read(c, got, n, sock_deadline(5), &err);
    channel_close(c);
    end_group(pid);
    sock_listener_close(&l);
    return rc;
}

Test(secure, s_client_with_the_key)
{
    char options[300], got[17] = {0};

    need_openssl();
    snprintf(options, sizeof options, "-tls1_3 -psk %s -psk_identity prima/1:%s", psk_hex, ours.id);
    cr_assert_eq(meet_s_client(options, got, 16), PR_OK, "%s", err.msg);
    cr_expect_str_eq(got, "hello from afar\n");
}

Test(secure, s_client_without_it)
{
    char wrong[2 * KEY_BYTES + 1], options[300], got[1];

    need_openssl();
    cr_expect_eq(meet_s_client("-tls1_3", got, 1), PR_EAUTH, "no key: %s", err.msg);
    cr_expect(strstr(err.msg, "does not hold the cluster's key"), "%s", err.msg);
    cr_expect_eq(meet_s_client("-tls1_2", got, 1), PR_EAUTH, "an old version: %s", err.msg);
    snprintf(options, sizeof options, "-tls1_3 -psk %s -psk_identity someone", psk_hex);
    cr_expect_eq(meet_s_client(options, got, 1), PR_EAUTH, "another name: %s", err.msg);
    cr_expect(strstr(err.msg, "someone"), "%s", err.msg);
    memset(wrong, 'a', sizeof wrong - 1);
    wrong[sizeof wrong - 1] = 0;
    snprintf(options, sizeof options, "-tls1_3 -psk %s -psk_identity prima/1:%s", wrong, ours.id);
    cr_expect_eq(meet_s_client(options, got, 1), PR_EAUTH, "another key: %s", err.msg);
    snprintf(options, sizeof options, "-tls1_2 -psk %s -psk_identity prima/1:%s", psk_hex, ours.id);
    cr_expect_eq(meet_s_client(options, got, 1), PR_EAUTH, "the key, but TLS 1.2: %s", err.msg);
}

/* A server with a certificate of its own, perhaps in the middle, is not taken for the cluster. */
Test(secure, s_server_with_a_certificate)
{
    char dir[] = "/tmp/prima-cert-XXXXXX", command[600];
    sock_listener l;
    sock_addr at;
    channel *c;
    sock s;
    pid_t pid;

    need_openssl();
    at = pair_listen(&l);
    sock_listener_close(&l);
    cr_assert_not_null(mkdtemp(dir));
    snprintf(command, sizeof command,
             "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
             "-subj /CN=x -keyout k -out c 2>/dev/null",
             dir);
    cr_assert_eq(system(command), 0);
    snprintf(command, sizeof command,
             "cd %s && exec openssl s_server -quiet -accept 127.0.0.1:%u -cert c -key k "
             ">/dev/null 2>&1",
             dir, at.port);
    if ((pid = fork()) == 0) {
        setpgid(0, 0);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    cr_assert_eq(sock_connect(&s, &at, &pair_no_options, true, sock_deadline(10), &err), PR_OK, "%s",
                 err.msg);
    cr_expect_eq(channel_open(&c, &s, CHANNEL_CLIENT, &with_key, sock_deadline(5), &err), PR_EAUTH, "%s",
                 err.msg);
    end_group(pid);
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_expect_eq(system(command), 0);
}

/* --- what options say --------------------------------------------------------------------------------------
 */
Test(secure, security_of_options)
{
    security s;
    cluster_key k;

    cr_expect_eq(security_read(&s, &k, "/no/such/key", true, &err), PR_OK);
    cr_expect(s.insecure && !s.key);
    cr_expect_eq(security_read(&s, &k, "/no/such/key", false, &err), PR_EAUTH, "never plain by accident");
    cr_expect(!s.key && !s.insecure);
}
