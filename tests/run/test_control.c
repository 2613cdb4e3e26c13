/* Control messages over real sockets on loopback: what is sent comes, several senders do not come into each
 * other's way, silence is noticed, and what is no message ends the connection with one clear line. */
#include "src/base/clock.h"
#include "src/run/control.h"
#include "tests/common/channel_pair.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pr_err err;

static void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* as main does */
}
TestSuite(control, .init = setup, .timeout = 30);

/* --- two ends ------------------------------------------------------------------------------------------ */
static void connect_pair(channel **client, channel **server, bool secure)
{
    must(channel_pair(client, server, secure, &err));
}

typedef struct {
    control *a, *b;
} ends;

static ends connect_ends(double peer_s, bool secure)
{
    channel *a, *b;
    ends e;

    connect_pair(&a, &b, secure);
    must(control_new(&e.a, a, peer_s, &err));
    must(control_new(&e.b, b, peer_s, &err));
    return e;
}

static void close_ends(ends e)
{
    control_close(e.a);
    control_close(e.b);
}

/* One end of control, the other one bare. */
static control *connect_forger(channel **forger, double peer_s)
{
    channel *c;
    control *k;

    connect_pair(forger, &c, false);
    must(control_new(&k, c, peer_s, &err));
    return k;
}

/* --- messages ------------------------------------------------------------------------------------------ */
Test(control, messages_come_as_they_were_sent)
{
    ends e = connect_ends(5, true);
    json_t *m;

    for (int i = 0; i < 100; i++) {
        must(control_send(e.a, json_pack("{s:s, s:i, s:s}", "type", "fail", "n", i, "text", "a\nb \xc3\xa4"),
                          &err));
        must(control_send(e.b, json_pack("{s:s}", "type", "beat"), &err));
    }
    for (int i = 0; i < 100; i++) {
        must(control_recv(e.b, &m, &err));
        cr_assert(control_is(m, "fail") && !control_is(m, "fai") && !control_is(m, "failed"));
        cr_assert_str_eq(control_type(m), "fail");
        cr_assert_eq(json_integer_value(json_object_get(m, "n")), i);
        cr_assert_str_eq(json_string_value(json_object_get(m, "text")), "a\nb \xc3\xa4");
        json_decref(m);
        must(control_recv(e.a, &m, &err));
        cr_assert(control_is(m, "beat"));
        json_decref(m);
    }
    cr_expect_eq(control_send(e.a, NULL, &err), PR_ERESOURCE, "no message is no memory");
    close_ends(e);
}

/* --- a long message, bulk ------------------------------------------------------------------------------ */
typedef struct {
    control *k;
    size_t message_bytes; /* of the whole message */
    uint8_t *bulk;
    size_t bulk_bytes;
    int rc;
} delivery;

static json_t *message_of(size_t n_bytes)
{
    static const char around[] = "{\"type\":\"job\",\"plan\":\"\"}";
    size_t n = n_bytes - strlen(around);
    char *text = malloc(n);
    json_t *m;

    memset(text, 'x', n);
    m = json_pack("{s:s, s:s%}", "type", "job", "plan", text, n);
    free(text);
    return m;
}

static void *deliver(void *arg)
{
    delivery *d = arg;
    d->rc = control_send_bulk(d->k, message_of(d->message_bytes), d->bulk, d->bulk_bytes, NULL);
    return NULL;
}

Test(control, the_longest_message)
{
    ends e = connect_ends(10, false);
    delivery d = {.k = e.a, .message_bytes = CONTROL_MAX_BYTES};
    pthread_t thread;
    json_t *m;

    cr_assert_eq(pthread_create(&thread, NULL, deliver, &d), 0);
    must(control_recv(e.b, &m, &err));
    pthread_join(thread, NULL);
    cr_expect_eq(d.rc, PR_OK);
    cr_expect_eq(json_string_length(json_object_get(m, "plan")), (size_t)CONTROL_MAX_BYTES - 24);
    json_decref(m);
    cr_expect_eq(control_send(e.a, message_of(CONTROL_MAX_BYTES + 1), &err), PR_EINTERNAL, "nothing is sent");
    must(control_send(e.a, json_pack("{s:s}", "type", "beat"), &err));
    must(control_recv(e.b, &m, &err));
    cr_expect(control_is(m, "beat"));
    json_decref(m);
    close_ends(e);
}

typedef struct {
    const uint8_t *expected;
    size_t at, pieces, largest;
} collected;

static int collect(void *arg, const void *data, size_t n, pr_err *e)
{
    collected *c = arg;

    (void)e;
    cr_assert(memcmp(c->expected + c->at, data, n) == 0, "a piece at %zu", c->at);
    c->at += n;
    c->pieces++;
    if (n > c->largest) c->largest = n;
    return PR_OK;
}

static uint8_t *noise(size_t n)
{
    uint8_t *data = malloc(n ? n : 1);
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 7 + i / 253);
    return data;
}

static void carry_bulk(size_t n, size_t pieces, bool secure)
{
    ends e = connect_ends(10, secure);
    delivery d = {.k = e.a, .message_bytes = 100, .bulk = noise(n), .bulk_bytes = n};
    collected c = {.expected = d.bulk};
    pthread_t thread;
    json_t *m;

    cr_assert_eq(pthread_create(&thread, NULL, deliver, &d), 0);
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    must(control_recv_bulk(e.b, n, collect, &c, &err));
    pthread_join(thread, NULL);
    cr_expect_eq(d.rc, PR_OK);
    cr_expect_eq(c.at, n);
    cr_expect_eq(c.pieces, pieces, "%zu bytes in %zu pieces", n, c.pieces);
    cr_expect_leq(c.largest, (size_t)CONTROL_BULK_BYTES);
    must(control_send(e.a, json_pack("{s:s}", "type", "beat"), &err)); /* in step afterwards */
    must(control_recv(e.b, &m, &err));
    cr_expect(control_is(m, "beat"));
    json_decref(m);
    free(d.bulk);
    close_ends(e);
}

Test(control, bulk_comes_in_pieces)
{
    carry_bulk(0, 0, false);
    carry_bulk(1, 1, false);
    carry_bulk(CONTROL_BULK_BYTES, 1, false);
    carry_bulk(CONTROL_BULK_BYTES + 1, 2, false);
    carry_bulk(10 * CONTROL_BULK_BYTES + 12345, 11, true);
}

static int refuse(void *arg, const void *data, size_t n, pr_err *e)
{
    (void)arg;
    (void)data;
    (void)n;
    return pr_fail(e, PR_ERESOURCE, "the disk is full");
}

Test(control, an_error_of_the_taker_is_passed_on)
{
    ends e = connect_ends(5, false);
    json_t *m;

    must(control_send_bulk(e.a, json_pack("{s:s}", "type", "have"), "abc", 3, &err));
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    cr_expect_eq(control_recv_bulk(e.b, 3, refuse, NULL, &err), PR_ERESOURCE);
    close_ends(e);
}

static int count_bytes(void *arg, const void *data, size_t n, pr_err *e)
{
    (void)data;
    (void)e;
    *(size_t *)arg += n;
    return PR_OK;
}

Test(control, bulk_that_was_not_announced_so)
{
    static const uint8_t data[8] = {0};
    size_t got = 0;
    ends e = connect_ends(5, false);
    json_t *m;

    must(control_send_bulk(e.a, json_pack("{s:s}", "type", "have"), data, 8, &err)); /* more than announced */
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    cr_expect_eq(control_recv_bulk(e.b, 7, count_bytes, &got, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "8 bytes of bulk, expected at most 7"), "%s", err.msg);
    cr_expect_eq(got, 0u, "nothing of it is taken");
    close_ends(e);

    e = connect_ends(5, false); /* less, and then a message */
    must(control_send_bulk(e.a, json_pack("{s:s}", "type", "have"), data, 8, &err));
    must(control_send(e.a, json_pack("{s:s}", "type", "beat"), &err));
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    cr_expect_eq(control_recv_bulk(e.b, 9, count_bytes, &got, &err), PR_EPEER);
    close_ends(e);

    e = connect_ends(5, false); /* bulk that nobody has announced */
    must(control_send_bulk(e.a, json_pack("{s:s}", "type", "have"), data, 8, &err));
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    cr_expect_eq(control_recv(e.b, &m, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "is not expected here"), "%s", err.msg);
    close_ends(e);
}

Test(control, a_piece_of_no_bytes_would_go_on_for_ever)
{
    channel *forger;
    control *k = connect_forger(&forger, 5);
    frame f = {.type = FRAME_BULK};
    uint8_t room[FRAME_HEADER_BYTES];
    size_t got = 0;

    must(frame_send(forger, room, &f, sock_deadline(1), &err));
    cr_expect_eq(control_recv_bulk(k, 5, count_bytes, &got, &err), PR_EPEER);
    cr_expect(strstr(err.msg, "0 bytes of bulk"), "%s", err.msg);
    control_close(k);
    channel_close(forger);
}

/* --- several senders -------------------------------------------------------------------------------------
 */
typedef struct {
    control *k;
    int id;
} sender;

enum { SENDERS = 6, MESSAGES = 60, BULK = CONTROL_BULK_BYTES + 1000 };

/* Three of them send bulk: two pieces with nothing in between. */
static void *send_messages(void *arg)
{
    sender *s = arg;
    uint8_t *bulk = malloc(BULK);
    memset(bulk, s->id, BULK);
    for (int i = 0; i < MESSAGES; i++) {
        json_t *m = json_pack("{s:s, s:i, s:i}", "type", s->id < 3 ? "have" : "beat", "id", s->id, "i", i);
        if (s->id < 3 && i % 10 == 0) control_send_bulk(s->k, m, bulk, BULK, NULL);
        else if (s->id == 5) control_try_send(s->k, m);
        else control_send(s->k, m, NULL);
    }
    free(bulk);
    return NULL;
}

static int all_equal(void *arg, const void *data, size_t n, pr_err *e)
{
    const uint8_t *b = data;

    (void)e;
    for (size_t i = 0; i < n; i++) cr_assert(b[i] == *(const int *)arg);
    return PR_OK;
}

Test(control, several_senders)
{
    ends e = connect_ends(10, true);
    sender s[SENDERS];
    pthread_t thread[SENDERS];
    int next[SENDERS] = {0}, missing = (SENDERS - 1) * MESSAGES;

    for (int i = 0; i < SENDERS; i++) {
        s[i] = (sender){e.a, i};
        cr_assert_eq(pthread_create(&thread[i], NULL, send_messages, &s[i]), 0);
    }
    while (missing) {
        json_t *m;
        must(control_recv(e.b, &m, &err));
        int id = (int)json_integer_value(json_object_get(m, "id")),
            i = (int)json_integer_value(json_object_get(m, "i"));
        json_decref(m);
        cr_assert(id == 5 ? i >= next[id] : i == next[id], "sender %d: %d, expected %d", id, i, next[id]);
        next[id] = i + 1;
        missing -= id != 5; /* whose messages may be left out */
        if (id < 3 && i % 10 == 0) must(control_recv_bulk(e.b, BULK, all_equal, &id, &err));
    }
    for (int i = 0; i < SENDERS; i++) pthread_join(thread[i], NULL);
    close_ends(e);
}

/* A beat that would have to wait for bulk is left out. */
Test(control, a_message_that_may_be_left_out_waits_for_nobody)
{
    ends e = connect_ends(10, false);
    delivery d = {.k = e.a, .message_bytes = 100, .bulk = noise(64 << 20), .bulk_bytes = 64 << 20};
    collected c = {.expected = d.bulk};
    pthread_t thread;
    uint64_t start;
    json_t *m;

    cr_assert_eq(pthread_create(&thread, NULL, deliver, &d), 0);
    sleep_ms(300); /* the link is full */
    start = clock_ns();
    control_try_send(e.a, json_pack("{s:s}", "type", "beat"));
    cr_expect_lt(clock_ms_since(start), 5000, "it waits as long as a message may");
    must(control_recv(e.b, &m, &err));
    json_decref(m);
    must(control_recv_bulk(e.b, d.bulk_bytes, collect, &c, &err));
    pthread_join(thread, NULL);
    control_try_send(e.a, json_pack("{s:s, s:i}", "type", "beat", "n", 2));
    must(control_recv(e.b, &m, &err));
    cr_expect_eq(json_integer_value(json_object_get(m, "n")), 2);
    json_decref(m);
    free(d.bulk);
    close_ends(e);
}

/* --- silence ---------------------------------------------------------------------------------------------
 */
Test(control, silence_is_noticed)
{
    ends e = connect_ends(30, true);
    uint64_t start;
    json_t *m;
    size_t got = 0;

    control_set_silence(e.b, 0.3);
    start = clock_ns();
    cr_expect_eq(control_recv(e.b, &m, &err), PR_EPEER);
    cr_expect(clock_ms_since(start) > 280 && clock_ms_since(start) < 5000, "%g", clock_ms_since(start));
    cr_expect(strstr(err.msg, "no answer in time"), "%s", err.msg);
    start = clock_ns();
    cr_expect_eq(control_recv_bulk(e.b, 5, count_bytes, &got, &err), PR_EPEER);
    cr_expect(clock_ms_since(start) > 280 && clock_ms_since(start) < 5000, "%g", clock_ms_since(start));
    close_ends(e);
}

/* A peer that stops in the middle of a message is as silent as one that says nothing. */
Test(control, silence_within_a_message)
{
    channel *forger;
    control *k = connect_forger(&forger, 0.3);
    frame f = {.type = FRAME_CONTROL, .extra = 100, .payload_bytes = 100};
    uint8_t room[FRAME_HEADER_BYTES + 50] = {0};
    uint64_t start = clock_ns();
    json_t *m;

    frame_encode(room, &f);
    must(channel_write(forger, room, sizeof room, sock_deadline(1), &err));
    cr_expect_eq(control_recv(k, &m, &err), PR_EPEER);
    cr_expect(clock_ms_since(start) > 280 && clock_ms_since(start) < 5000);
    control_close(k);
    channel_close(forger);
}

static void *beat_slowly(void *arg)
{
    for (int i = 0; i < 12; i++) {
        sleep_ms(250);
        control_send(arg, json_pack("{s:s}", "type", "beat"), NULL);
    }
    return NULL;
}

Test(control, beats_break_the_silence)
{
    ends e = connect_ends(2, false); /* on a busy machine a sleep may be a second longer */
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, beat_slowly, e.a), 0);
    for (int i = 0; i < 12; i++) {
        json_t *m;
        must(control_recv(e.b, &m, &err));
        json_decref(m);
    }
    pthread_join(thread, NULL);
    close_ends(e);
}

/* A peer that reads nothing holds up a sender no longer than it may be silent. */
Test(control, a_peer_that_does_not_read)
{
    ends e = connect_ends(0.5, false);
    delivery d = {.k = e.a, .message_bytes = 100, .bulk = noise(64 << 20), .bulk_bytes = 64 << 20};
    uint64_t start = clock_ns();

    deliver(&d);
    cr_expect_eq(d.rc, PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 10000);
    free(d.bulk);
    close_ends(e);
}

static void *shut_down_later(void *arg)
{
    sleep_ms(100);
    control_shutdown(arg);
    return NULL;
}

Test(control, shutting_down_ends_a_wait)
{
    ends e = connect_ends(20, true);
    pthread_t thread;
    uint64_t start = clock_ns();
    json_t *m;

    cr_assert_eq(pthread_create(&thread, NULL, shut_down_later, e.b), 0);
    cr_expect_eq(control_recv(e.b, &m, &err), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), 10000, "it waits for a sign of life");
    pthread_join(thread, NULL);
    cr_expect_eq(control_recv(e.a, &m, &err), PR_EPEER, "the other side learns it");
    cr_expect_lt(clock_ms_since(start), 10000, "it waits for a sign of life");
    close_ends(e);
}

/* --- what is no message ----------------------------------------------------------------------------------
 */
Test(control, text_that_is_no_message)
{
    static const char *const texts[] = {"",
                                        "{",
                                        "null",
                                        "[]",
                                        "\"beat\"",
                                        "{}",
                                        "{\"type\":1}",
                                        "{\"type\":null}",
                                        "{\"type\":[\"beat\"]}",
                                        "{\"type\":\"beat\"} x",
                                        "{\"type\":\"beat\",\"type\":\"stop\"}",
                                        "{\"type\":\"\xff\"}",
                                        "{\"type\":\"beat\",\"n\":1e999}",
                                        "\x16\x03\x01"};
    char deep[300];

    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    for (size_t i = 0; i <= sizeof texts / sizeof *texts; i++) {
        const char *text = i < sizeof texts / sizeof *texts ? texts[i] : deep;
        channel *forger;
        control *k = connect_forger(&forger, 5);
        uint32_t n = (uint32_t)strlen(text);
        frame f = {.type = FRAME_CONTROL, .extra = n, .payload_bytes = n};
        uint8_t room[FRAME_HEADER_BYTES + 300];
        json_t *m = (json_t *)1;
        memcpy(room + FRAME_HEADER_BYTES, text, n);
        must(frame_send(forger, room, &f, sock_deadline(1), &err));
        cr_expect_eq(control_recv(k, &m, &err), PR_EPEER, "%s", text);
        cr_expect(strstr(err.msg, "a control message that is none"), "%s: %s", text, err.msg);
        cr_expect_null(m);
        control_close(k);
        channel_close(forger);
    }
}

Test(control, frames_that_are_none_of_its)
{
    static const struct {
        frame f;
        const char *says;
    } cases[] = {
        {{.type = FRAME_PASS}, "a frame of type 8 is not expected here"},
        {{.type = FRAME_JOIN}, "is not expected here"},
        {{.type = FRAME_ECHO}, "is not expected here"},
        {{.type = FRAME_TYPES_END}, "is not expected here"},
        {{.type = 0}, "is not expected here"},
        {{.type = FRAME_CONTROL, .extra = CONTROL_MAX_BYTES + 1, .payload_bytes = CONTROL_MAX_BYTES + 1},
         "a frame of 16777217 bytes; at most 16777216 are allowed here"},
        {{.type = FRAME_CONTROL, .extra = UINT32_MAX, .payload_bytes = UINT32_MAX}, "a frame of 4294967295"},
        {{.type = FRAME_CONTROL, .extra = 5, .payload_bytes = 6}, "malformed frame"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        channel *forger;
        control *k = connect_forger(&forger, 5);
        uint8_t header[FRAME_HEADER_BYTES];
        json_t *m;
        frame_encode(header, &cases[i].f);
        must(channel_write(forger, header, sizeof header, sock_deadline(1), &err));
        cr_expect_eq(control_recv(k, &m, &err), PR_EPEER, "case %zu", i);
        cr_expect(strstr(err.msg, cases[i].says), "case %zu: %s", i, err.msg);
        cr_expect(strstr(err.msg, control_peer(k)), "the peer is named: %s", err.msg);
        control_close(k);
        channel_close(forger);
    }
}

Test(control, another_protocol)
{
    static const struct {
        const char *text, *says;
        int rc;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: 192.168.1.3:9700\r\nUser-Agent: a browser, perhaps\r\n\r\n",
         "not a prima frame", PR_EPEER},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on until there are sixty-four of them, or more",
         "a TLS greeting", PR_EPEER},
        {"PRMA\x02\x00\x05\x00 and so on until there are sixty-four of them, or a few more",
         "version 2 of the protocol and we version 1", PR_EMISMATCH},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        channel *forger;
        control *k = connect_forger(&forger, 5);
        char room[80] = {0};
        json_t *m;
        memcpy(room, cases[i].text, FRAME_HEADER_BYTES);
        must(channel_write(forger, room, sizeof room, sock_deadline(1), &err));
        cr_expect_eq(control_recv(k, &m, &err), cases[i].rc);
        cr_expect(strstr(err.msg, cases[i].says), "%s", err.msg);
        control_close(k);
        channel_close(forger);
    }
}
