/* Links over real sockets on loopback, plain and under TLS: order, counts, bounded memory when a reader is
 * slow, and that breaking ends every wait. */
#include "net/link.h"
#include "src/base/clock.h"
#include "tests/common/channel_pair.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_BYTES = 1 << 20, SMALL = 100, DIRECT = 65536 /* written by the caller up to here */ };
static pr_err err;
static const pr_err stop = {PR_EINTERRUPTED, "stop"};

static void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- two ends of a connection ------------------------------------------------------------------------------
 */
static void connect_pair(channel **client, channel **server, bool secure)
{
    must(channel_pair(client, server, secure, &err));
}

/* One link: parcels of `out` go through it and arrive in `box` in parcels of `in`. */
typedef struct {
    channel *a, *b;
    parcels *out, *in;
    mailbox *box, *errors; /* what arrives; what breaks the sender */
    link_out *to;
    link_in *from;
} rig;

static void rig_open(rig *r, size_t n_out, size_t n_in, bool secure)
{
    const frame_limits fl = {MAX_BYTES, FRAME_BIT(FRAME_PASS)};

    *r = (rig){0};
    connect_pair(&r->a, &r->b, secure);
    must(parcels_new(&r->out, n_out, MAX_BYTES, &err));
    must(parcels_new(&r->in, n_in, MAX_BYTES, &err));
    must(mailbox_new(&r->box, &err));
    must(mailbox_new(&r->errors, &err));
    must(link_in_start(&r->from, r->b, "desk", &fl, r->in, r->box, &err));
    must(link_out_start(&r->to, r->a, "laptop", r->errors, &err));
}

enum { SOON_MS = 10000 }; /* what does not end by itself never ends; a busy machine takes its time */

/* As device_part does it: everything has ended soon. */
static void rig_close(rig *r)
{
    uint64_t start = clock_ns();

    mailbox_break(r->box, &stop);
    mailbox_break(r->errors, &stop);
    channel_shutdown(r->a);
    channel_shutdown(r->b);
    parcels_break(r->in);
    link_in_stop(r->from);
    link_out_stop(r->to);
    cr_expect_lt(clock_ms_since(start), SOON_MS);
    mailbox_delete(r->box);
    mailbox_delete(r->errors);
    channel_close(r->a);
    channel_close(r->b);
    parcels_delete(r->in);
    parcels_delete(r->out);
}

static uint8_t content(uint64_t batch, size_t i)
{
    return (uint8_t)(batch * 31 + i * 7 + i / 251);
}

static void send_one(rig *r, uint64_t batch, uint32_t n)
{
    parcel *x = parcels_take(r->out);

    cr_assert_not_null(x);
    x->f = (frame){.type = FRAME_PASS, .batch = batch, .extra = n, .payload_bytes = n};
    for (size_t i = 0; i < n; i++) x->payload[i] = content(batch, i);
    link_out_send(r->to, x);
}

static parcel *receive(rig *r, double seconds)
{
    parcel *x;
    must(mailbox_take(r->box, sock_deadline(seconds), &x, &err));
    return x;
}

static void expect_one(rig *r, uint64_t batch, uint32_t n)
{
    parcel *x = receive(r, 5);

    cr_assert_not_null(x, "frame %llu has not come", (unsigned long long)batch);
    cr_assert_eq(x->f.batch, batch, "%llu came for %llu", (unsigned long long)x->f.batch,
                 (unsigned long long)batch);
    cr_assert_eq(x->f.payload_bytes, n);
    for (size_t i = 0; i < n; i++)
        if (x->payload[i] != content(batch, i))
            cr_assert_fail("frame %llu, byte %zu", (unsigned long long)batch, i);
    cr_assert_leq(x->arrived_ns, clock_ns());
    parcel_free(x);
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* as main does */
}
TestSuite(link, .init = setup, .timeout = 30);

/* --- order and counts ---------------------------------------------------------------------------------- */
static uint32_t size_of(uint64_t batch)
{
    static const uint32_t sizes[] = {0,     1,     SMALL,      DIRECT, DIRECT + 1, SMALL, 1 << 19,
                                     SMALL, SMALL, DIRECT - 1, 200000, MAX_BYTES,  64,    0};
    return sizes[batch % (sizeof sizes / sizeof *sizes)];
}

/* Small frames are written by the caller, large ones by a thread: none may overtake another. */
static void *send_many(void *arg)
{
    for (uint64_t i = 0; i < 300; i++) send_one(arg, i, size_of(i));
    return NULL;
}

static void order(bool secure)
{
    pthread_t thread;
    uint64_t payload = 0;
    link_counts sent, received;
    rig r;

    rig_open(&r, 8, 4, secure);
    cr_assert_eq(pthread_create(&thread, NULL, send_many, &r), 0);
    for (uint64_t i = 0; i < 300; i++) {
        expect_one(&r, i, size_of(i));
        payload += size_of(i);
    }
    pthread_join(thread, NULL);
    for (int i = 0; i < 500 && link_out_counts(r.to).frames < 300; i++) sleep_ms(10);
    sent = link_out_counts(r.to);
    received = link_in_counts(r.from);
    cr_expect(sent.frames == 300 && received.frames == 300);
    cr_expect_eq(sent.bytes, 300 * FRAME_HEADER_BYTES + payload);
    cr_expect_eq(received.bytes, 300 * FRAME_HEADER_BYTES + payload);
    cr_expect_eq(received.wait_ms, 0);
    rig_close(&r);
}

Test(link, large_and_small_frames_keep_their_order)
{
    order(false);
}

Test(link, the_same_under_tls)
{
    order(true);
}

/* --- a slow reader ---------------------------------------------------------------------------------------
 */
typedef struct {
    rig *r;
    _Atomic int sent;
    uint32_t bytes;
    int n;
} burst;

static void *send_burst(void *arg)
{
    burst *b = arg;
    for (int i = 0; i < b->n; i++, b->sent++) send_one(b->r, (uint64_t)i, b->bytes);
    return NULL;
}

/* Nobody takes from the mailbox: what is on its way is in the parcels of both sides and in the system's
 * buffers; the sender waits, and goes on when the reader does. */
static void back_pressure(uint32_t bytes, int n_out)
{
    rig r;
    burst b = {.r = &r, .bytes = bytes, .n = 64 * MAX_BYTES / (int)bytes};
    pthread_t thread;
    int stuck;

    rig_open(&r, (size_t)n_out, 2, false);
    cr_assert_eq(pthread_create(&thread, NULL, send_burst, &b), 0);
    do {
        stuck = b.sent;
        sleep_ms(300);
    } while (b.sent != stuck || link_in_counts(r.from).frames < 2);
    cr_assert_lt(stuck, b.n, "64 MiB are in no buffer");
    cr_assert_eq(link_in_counts(r.from).frames, 2, "what is not read stays where it is");
    cr_assert_null(parcels_try(r.in));
    for (int i = 0; i < b.n; i++) expect_one(&r, (uint64_t)i, bytes);
    pthread_join(thread, NULL);
    rig_close(&r);
}

Test(link, a_slow_reader_stops_a_writer_of_large_frames)
{
    back_pressure(MAX_BYTES, 3);
}

Test(link, a_slow_reader_stops_a_writer_of_small_frames)
{
    back_pressure(32768, 1);
}

/* The caller of a small frame waits itself, and that is counted. */
Test(link, waiting_is_counted)
{
    rig r;
    burst b = {.r = &r, .bytes = 60000, .n = 400};
    pthread_t thread;

    rig_open(&r, 1, 1, false);
    cr_assert_eq(pthread_create(&thread, NULL, send_burst, &b), 0);
    sleep_ms(500);
    for (int i = 0; i < b.n; i++) expect_one(&r, (uint64_t)i, b.bytes);
    pthread_join(thread, NULL);
    double waited = link_out_counts(r.to).wait_ms;
    cr_expect(waited > 200 && waited < SOON_MS, "%g ms", waited);
    rig_close(&r);
}

static long sleeps(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_nvcsw;
}

/* While the taker computes nothing comes (a ring with one sequence): looking for it again and again would
 * take the core from it. What comes all the same is found soon, and from then on often. */
Test(link, a_quiet_link_leaves_the_cores_alone)
{
    rig r;
    long before;

    rig_open(&r, 4, 2, false);
    sleep_ms(100);
    before = sleeps();
    sleep_ms(1000);
    cr_expect_lt(sleeps() - before, 60, "%ld times awake in a second", sleeps() - before);
    send_one(&r, 0, SMALL);
    for (int i = 0; i < 100 && !link_in_counts(r.from).frames; i++) sleep_ms(10);
    cr_expect_eq(link_in_counts(r.from).frames, 1u, "read though nobody takes it");
    expect_one(&r, 0, SMALL);
    rig_close(&r);
}

/* A large frame that the link cannot take now does not hold up who sends it. */
Test(link, a_large_frame_is_handed_over)
{
    rig r;
    uint64_t start = clock_ns();

    rig_open(&r, 30, 1, false);
    for (uint64_t i = 0; i < 30; i++) send_one(&r, i, MAX_BYTES); /* 30 MiB: more than the system's buffers */
    cr_expect_lt(clock_ms_since(start), SOON_MS);
    cr_expect_lt(link_out_counts(r.to).frames, 30u);
    for (uint64_t i = 0; i < 30; i++) expect_one(&r, i, MAX_BYTES);
    rig_close(&r);
}

/* --- the end ---------------------------------------------------------------------------------------------
 */
Test(link, a_peer_that_goes_away_is_named_to_the_reader)
{
    rig r;
    parcel *x;
    uint64_t start;

    rig_open(&r, 2, 2, false);
    send_one(&r, 7, SMALL);
    expect_one(&r, 7, SMALL);
    start = clock_ns();
    channel_shutdown(r.a);
    cr_expect_eq(mailbox_take(r.box, SOCK_NO_DEADLINE, &x, &err), PR_EPEER);
    cr_expect_lt(clock_ms_since(start), SOON_MS);
    cr_expect_null(x);
    cr_expect(!strncmp(err.msg, "link from desk: ", 16), "%s", err.msg);
    rig_close(&r);
}

Test(link, what_has_arrived_is_given_out_before_the_error)
{
    rig r;
    parcel *x;

    rig_open(&r, 4, 4, false);
    for (uint64_t i = 0; i < 3; i++) send_one(&r, i, SMALL);
    while (link_in_counts(r.from).frames < 3) sleep_ms(5);
    channel_shutdown(r.a);
    sleep_ms(100);
    for (uint64_t i = 0; i < 3; i++) expect_one(&r, i, SMALL);
    cr_expect_eq(mailbox_take(r.box, SOCK_NO_DEADLINE, &x, &err), PR_EPEER);
    cr_expect_eq(mailbox_take(r.box, 0, &x, &err), PR_EPEER, "it stays broken");
    rig_close(&r);
}

static void sender_learns(uint32_t bytes)
{
    rig r;
    parcel *x;
    uint64_t start = clock_ns();

    rig_open(&r, 4, 2, false);
    channel_shutdown(r.b);
    for (int i = 0; i < 400; i++) {
        if ((x = parcels_try(r.out))) {
            x->f = (frame){.type = FRAME_PASS, .extra = bytes, .payload_bytes = bytes};
            memset(x->payload, 0, bytes);
            link_out_send(r.to, x);
        }
        if (mailbox_take(r.errors, sock_deadline(0.02), &x, &err)) break;
    }
    cr_expect_lt(clock_ms_since(start), SOON_MS);
    cr_expect_eq(err.code, PR_EPEER);
    cr_expect(!strncmp(err.msg, "link to laptop: ", 16), "%s", err.msg);
    rig_close(&r);
}

Test(link, a_sender_learns_that_the_peer_is_gone)
{
    sender_learns(SMALL);
    sender_learns(MAX_BYTES);
}

typedef struct {
    rig *r;
    atomic_bool done;
} waiter;

static void *take_forever(void *arg)
{
    waiter *w = arg;
    parcel *x;
    mailbox_take(w->r->box, SOCK_NO_DEADLINE, &x, NULL);
    w->done = true;
    return NULL;
}

/* Everybody waits at once: a taker, the reader for a free parcel, a writer in the middle of a frame. */
Test(link, breaking_ends_every_wait)
{
    for (int secure = 0; secure < 2; secure++) {
        rig r, quiet;
        waiter w = {.r = &quiet};
        pthread_t thread;
        rig_open(&r, 30, 1, secure);
        for (uint64_t i = 0; i < 30; i++)
            send_one(&r, i, MAX_BYTES); /* the writer is stuck, and so is the reader */
        rig_open(&quiet, 1, 1, secure);
        cr_assert_eq(pthread_create(&thread, NULL, take_forever, &w), 0);
        sleep_ms(200);
        cr_expect_not(w.done);
        cr_expect_lt(link_out_counts(r.to).frames, 30u);
        uint64_t start = clock_ns();
        mailbox_break(quiet.box, &stop);
        pthread_join(thread, NULL);
        cr_expect_lt(clock_ms_since(start), SOON_MS);
        rig_close(&r); /* and this is fast */
        rig_close(&quiet);
    }
}

/* A frame that does not belong here, or is larger than agreed, breaks the link. */
Test(link, foreign_frames_break_it)
{
    static const frame foreign[] = {
        {.type = FRAME_CONTROL},
        {.type = FRAME_PASS, .extra = MAX_BYTES + 1, .payload_bytes = MAX_BYTES + 1},
        {.type = FRAME_PASS, .extra = 8, .payload_bytes = 9},
        {.type = 0},
        {.type = 400}};

    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        rig r;
        parcel *x;
        uint8_t header[FRAME_HEADER_BYTES];
        rig_open(&r, 1, 1, false);
        frame_encode(header, &foreign[i]);
        must(channel_write(r.a, header, sizeof header, sock_deadline(1), &err));
        cr_expect_eq(mailbox_take(r.box, sock_deadline(2), &x, &err), PR_EPEER, "case %zu", i);
        cr_expect(!strncmp(err.msg, "link from desk: ", 16), "%s", err.msg);
        rig_close(&r);
    }
}

/* --- parcels and mailboxes ----------------------------------------------------------------------------- */
Test(link, parcels_are_taken_and_come_back)
{
    parcels *p;
    parcel *x[3];

    must(parcels_new(&p, 3, 1000, &err));
    for (int i = 0; i < 3; i++) {
        cr_assert_not_null(x[i] = parcels_try(p));
        cr_expect_eq((uintptr_t)x[i]->payload % 64, 0);
        cr_expect_eq(x[i]->payload, x[i]->room + FRAME_HEADER_BYTES);
        memset(x[i]->payload, 0xff, 1000); /* room for all of it */
        for (int k = 0; k < i; k++) cr_expect_neq(x[i], x[k]);
    }
    cr_expect_null(parcels_try(p));
    parcel_free(x[1]);
    cr_expect_eq(parcels_take(p), x[1]);
    parcels_break(p);
    cr_expect_null(parcels_take(p), "takers return");
    parcels_delete(p);
    parcels_delete(NULL);
}

static void *break_later(void *arg)
{
    sleep_ms(100);
    parcels_break(arg);
    return NULL;
}

Test(link, breaking_parcels_ends_the_wait_for_one)
{
    parcels *p;
    pthread_t thread;
    uint64_t start = clock_ns();

    must(parcels_new(&p, 1, 10, &err));
    cr_assert_not_null(parcels_take(p));
    cr_assert_eq(pthread_create(&thread, NULL, break_later, p), 0);
    cr_expect_null(parcels_take(p));
    cr_expect(clock_ms_since(start) > 90 && clock_ms_since(start) < SOON_MS);
    pthread_join(thread, NULL);
    parcels_delete(p);
}

static bool has_batch(const void *arg, const parcel *x)
{
    return x->f.batch == *(const uint64_t *)arg;
}

Test(link, a_mailbox)
{
    static const pr_err first = {PR_EPEER, "first"}, second = {PR_EMISMATCH, "second"};
    const uint64_t wanted = 1;
    parcels *p;
    parcel *x[2], *got;
    mailbox *m;
    uint64_t start = clock_ns();

    must(parcels_new(&p, 2, 10, &err));
    must(mailbox_new(&m, &err));
    must(mailbox_take(m, sock_deadline(0.1), &got, &err)); /* the deadline is no error */
    cr_expect(!got && clock_ms_since(start) > 90 && clock_ms_since(start) < SOON_MS);
    cr_expect_null(mailbox_take_if(m, has_batch, &wanted));
    for (uint64_t i = 0; i < 2; i++) {
        x[i] = parcels_take(p);
        x[i]->f.batch = i;
        mailbox_put(m, x[i]);
    }
    cr_expect_null(mailbox_take_if(m, has_batch, &wanted), "the second is liked, but it is not its turn");
    must(mailbox_take(m, SOCK_NO_DEADLINE, &got, &err));
    cr_expect_eq(got, x[0]);
    cr_expect_eq(mailbox_take_if(m, has_batch, &wanted), x[1]);
    mailbox_nudge(m);
    must(mailbox_take(m, SOCK_NO_DEADLINE, &got, &err)); /* one wait ends */
    cr_expect_null(got);
    start = clock_ns();
    must(mailbox_take(m, sock_deadline(0.1), &got, &err)); /* and the next one is one again */
    cr_expect_gt(clock_ms_since(start), 90);
    mailbox_put(m, x[0]);
    mailbox_break(m, &first);
    mailbox_break(m, &second);
    must(mailbox_take(m, SOCK_NO_DEADLINE, &got, &err));
    cr_expect_eq(got, x[0]);
    cr_expect_eq(mailbox_take(m, SOCK_NO_DEADLINE, &got, &err), PR_EPEER);
    cr_expect_str_eq(err.msg, "first");
    mailbox_put(m, x[0]); /* what lies in it goes home */
    mailbox_delete(m);
    mailbox_delete(NULL);
    cr_expect_not_null(parcels_try(p));
    parcels_delete(p);
}
