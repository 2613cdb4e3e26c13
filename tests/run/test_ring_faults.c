/* What goes wrong in a ring, piece by piece: workers made of a control connection and nothing behind it,
 * rings that break again and again, jobs that are too large for a frame. */
#include "src/base/clock.h"
#include "src/run/ring_impl.h"
#include "tests/common/channel_pair.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MODEL "datasets/demo/demo.gguf"
#define LOST  "\xef\xbf\xbd" /* U+FFFD */
static const double PEER_S = 5;
static const security plain = {0};
static const sock_options so = {0};
static pr_err err;

static void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* as main does */
}
TestSuite(ring_faults, .init = setup, .timeout = 30);

/* --- workers that only talk ------------------------------------------------------------------------------
 */
typedef struct {
    const char *greeting; /* JSON; NULL: a proper one */
    bool silent;          /* takes jobs and never is ready */
    int passes;           /* says, when asked, that it has done so many */
    bool slow;            /* reads nothing for a while after it was greeted */
    sock_listener l;
    sock_addr at;
    control *k;
    pthread_t thread;
    atomic_int jobs;
} talker;

static void *talk(void *arg)
{
    static const char hello[] = "{\"type\":\"hello\",\"prima\":\"test\",\"isa\":\"ref\"}";
    talker *t = arg;
    const char *text = t->greeting ? t->greeting : hello;
    channel *c;
    json_t *m;
    sock s;

    if (sock_accept(&s, &t->l, sock_deadline(5), NULL) ||
        channel_open(&c, &s, CHANNEL_SERVER, &plain, sock_deadline(5), NULL) ||
        control_new(&t->k, c, 20, NULL) || control_recv(t->k, &m, NULL))
        return NULL;
    json_decref(m);
    control_send(t->k, json_parse(text, strlen(text), NULL), NULL);
    if (t->slow) usleep(400000);
    while (control_recv(t->k, &m, NULL) == PR_OK) {
        if (control_is(m, "job")) {
            t->jobs++;
            if (!t->silent) control_send(t->k, json_pack("{s:s}", "type", "ready"), NULL);
        }
        if (json_is_true(json_object_get(m, "answer")))
            control_send(t->k,
                         json_pack("{s:s, s:i, s:i, s:i, s:b}", "type", "beat", "since_ns", 1, "passes",
                                   t->passes, "tokens", 2 * t->passes, "answer", 1),
                         NULL);
        json_decref(m);
    }
    return NULL;
}

static void talker_start(talker *t)
{
    const sock_addr any = {.host = "127.0.0.1"};

    must(sock_listen(&t->l, &any, &so, &err));
    must(sock_addr_parse(&t->at, t->l.address, false, &err));
    cr_assert_eq(pthread_create(&t->thread, NULL, talk, t), 0);
}

static void talker_stop(talker *t)
{
    if (t->k) control_shutdown(t->k);
    pthread_join(t->thread, NULL);
    control_close(t->k);
    t->k = NULL;
    sock_listener_close(&t->l);
}

static void no_alarm(void *arg, uint64_t session, const pr_err *why)
{
    (void)arg;
    (void)session;
    (void)why;
}

static int greet(peer *p, const talker *t)
{
    return peer_connect(p, &t->at, &so, &plain, &(peer_terms){"test", NULL}, PEER_S, sock_deadline(5), &err);
}

static json_t *a_job(void)
{
    return json_pack("{s:s}", "type", "job");
}

static bool is_ready(const peer_facts *f, uint64_t arg)
{
    (void)arg;
    return f->state == PEER_READY;
}

/* The answer to the first job is none to the second one. */
Test(ring_faults, ready_is_said_of_the_last_job)
{
    talker t = {.silent = true};
    peer_watch w;
    peer *p;

    peer_watch_init(&w, no_alarm, NULL);
    talker_start(&t);
    must(peer_new(&p, "d1", &w, NULL, &err));
    must(greet(p, &t));
    must(peer_job(p, a_job(), &err));
    must(peer_job(p, a_job(), &err));
    must(control_send(t.k, json_pack("{s:s}", "type", "ready"), &err));
    cr_expect_eq(peer_wait(p, is_ready, 0, "loading", sock_deadline(0.3), NULL), PR_EPEER);
    must(control_send(t.k, json_pack("{s:s}", "type", "ready"), &err));
    must(peer_wait(p, is_ready, 0, "loading", sock_deadline(5), &err));
    peer_free(p);
    talker_stop(&t);
    peer_watch_clear(&w);
}

Test(ring_faults, a_refusal_is_one_whatever_stands_in_it)
{
    talker t = {.greeting = "{\"type\":\"fail\",\"code\":-9,\"message\":\"busy\",\"session\":3}"};
    peer_watch w;
    peer *p;

    peer_watch_init(&w, no_alarm, NULL);
    talker_start(&t);
    must(peer_new(&p, "d1", &w, NULL, &err));
    cr_expect_eq(greet(p, &t), PR_ERESOURCE);
    cr_expect_str_eq(err.msg, "d1: busy");
    peer_free(p);
    talker_stop(&t);
    peer_watch_clear(&w);
}

/* --- beats --------------------------------------------------------------------------------------------- */
/* Who does not read fills the buffers; a beat to it must not hold up those to the others. */
Test(ring_faults, a_beat_waits_for_no_room)
{
    enum { BULK = 64 << 20 };
    void *bulk = calloc(BULK, 1);
    channel *a, *b;
    control *k;
    uint64_t start;

    must(channel_pair(&a, &b, false, &err));
    must(control_new(&k, a, 0.5, &err));
    cr_assert_eq(control_send_bulk(k, json_pack("{s:s}", "type", "have"), bulk, BULK, &err), PR_EPEER,
                 "the link is full");
    start = clock_ns();
    control_set_silence(k, 5);
    for (int i = 0; i < 10000; i++) control_try_send(k, json_pack("{s:s}", "type", "beat"));
    cr_expect_lt(clock_ms_since(start), 4500, "one of them has waited");
    free(bulk);
    control_close(k);
    channel_close(b);
}

/* What a message says may be any bytes: a path, or a text that was cut within a letter. */
Test(ring_faults, a_failure_is_told_whatever_its_letters)
{
    channel *a, *b;
    control *from, *to;
    json_t *m;

    must(channel_pair(&a, &b, false, &err));
    must(control_new(&from, a, 5, &err));
    must(control_new(&to, b, 5, &err));
    must(
        control_send_fail(from, &(pr_err){PR_EMISMATCH, "caf\xc3\xa9/\xff\xfe.gguf: cut \xe2\x82"}, 7, &err));
    must(control_recv(to, &m, &err));
    cr_expect(control_is(m, "fail"));
    cr_expect_eq(json_integer_value(json_object_get(m, "code")), PR_EMISMATCH);
    cr_expect_eq(json_integer_value(json_object_get(m, "session")), 7);
    cr_expect_str_eq(json_string_value(json_object_get(m, "message")),
                     "caf\xc3\xa9/" LOST LOST ".gguf: cut " LOST);
    json_decref(m);
    control_close(from);
    control_close(to);
}

/* --- links that break --------------------------------------------------------------------------------------
 */
/* What waits to be written comes back at once: somebody may wait for a free parcel. */
Test(ring_faults, nothing_waits_at_a_link_that_is_broken)
{
    enum { N = 4, BYTES = 8 << 20 };
    channel *a, *b;
    mailbox *m;
    parcels *p;
    parcel *x[N];
    link_out *l;
    uint64_t until;
    size_t back = 0;

    must(channel_pair(&a, &b, false, &err));
    must(mailbox_new(&m, &err));
    must(parcels_new(&p, N, BYTES, &err));
    must(link_out_start(&l, a, "d1", m, &err));
    for (int i = 0; i < N; i++) {
        x[i] = parcels_take(p);
        x[i]->f = (frame){.type = FRAME_PASS, .payload_bytes = BYTES, .extra = BYTES};
        memset(x[i]->payload, 0, BYTES);
    }
    for (int i = 0; i < N; i++) link_out_send(l, x[i]);
    channel_close(b);
    until = sock_deadline(5);
    while (back < N && clock_ns() < until) back += parcels_try(p) != NULL;
    cr_expect_eq(back, N, "%zu of %d", back, N);
    cr_expect_eq(mailbox_take(m, sock_deadline(5), &x[0], &err), PR_EPEER);
    link_out_stop(l);
    channel_close(a);
    mailbox_delete(m);
    parcels_delete(p);
}

/* --- frames that 32 bits do not hold ---------------------------------------------------------------------
 */
Test(ring_faults, a_job_whose_frames_are_too_large)
{
    static const uint16_t ports[] = {9701, 9702};
    const job_sizes sizes = {.max_tokens = 65536, .merge_tokens = 65536, .max_out = 65536, .n_pages = 32};
    device_options o = {.n_threads = 1};
    char *text;
    size_t n;
    device *d;
    model m;
    job *j;

    must(model_open(&m, MODEL, &err));
    plan *p = ring_plan_new(2, 1, m.hp.n_layers, m.header_sha256, ports);
    p->ctx = 1 << 20;
    cr_assert_not_null(text = plan_text(p, &n));
    must(job_new(&j, text, n, 1, &sizes, &err));
    cr_assert_eq(device_new(&d, j, &m, &o, &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "frame"), "%s", err.msg);
    job_free(j);
    plan_free(p);
    free(text);
    model_close(&m);
}

/* --- rings that do not hold ------------------------------------------------------------------------------
 */
static int same_again(void *arg, const pr_err *why, ring_links *links, pr_err *e)
{
    (void)why;
    (void)links;
    (void)e;
    ++*(int *)arg;
    return PR_OK;
}

static int no_tick(void *arg, pr_err *e)
{
    (void)arg;
    (void)e;
    return PR_OK;
}

/* Every device is there, and still no micro-batch comes back: that will not get better. */
Test(ring_faults, a_ring_that_always_breaks_is_given_up)
{
    static const pr_err malformed = {PR_EPEER, "malformed micro-batch"};
    wire_limits limits = {.max_out = 1};
    int remade = 0, rc = PR_OK;
    ring_owner owner = {&remade, same_again, no_tick, no_tick};
    ring_links links = {.depth = 1, .max_tokens = 1, .max_prefill = 1, .limits = &limits};
    pipe_event event;
    micro_batch *mb;
    pipeline *p;

    must(mailbox_new(&links.in, &err));
    mailbox_break(links.in, &malformed);
    must(pipeline_ring(&p, &links, &owner, &err));
    for (int i = 0; i < 1000 && !rc; i++) rc = p->ops->next(p, &event, &mb, &err);
    cr_expect_eq(rc, PR_EPEER);
    cr_expect(remade >= 5 && remade <= 50, "%d", remade);
    cr_expect(strstr(err.msg, "malformed micro-batch"), "%s", err.msg);
    p->ops->free(p);
    mailbox_delete(links.in);
}

/* --- another plan ----------------------------------------------------------------------------------------
 */
enum { N_DEVICES = 4 };

static char *text_of(plan *p, size_t *n)
{
    char *text = plan_text(p, n);

    cr_assert_not_null(text);
    plan_free(p);
    return text;
}

/* A worker that is lost already is the next in turn; the others have the new plan all the same. */
Test(ring_faults, all_that_are_there_get_the_new_plan)
{
    static const uint16_t ports[N_DEVICES] = {9701, 9702, 9703, 9704};
    talker t[N_DEVICES] = {{0}};
    ring_options o = {.device = {.n_threads = 1}, .depth = 2};
    ring r = {.o = &o, .n = N_DEVICES, .isa = "ref"};
    size_t n;
    model m;

    must(model_open(&m, MODEL, &err));
    o.m = &m;
    r.sizes =
        (job_sizes){.max_tokens = 16, .merge_tokens = 16, .max_out = 4, .n_pages = 8, .elem = FRAME_F32};
    r.plan_text = text_of(ring_plan_new(N_DEVICES, 1, m.hp.n_layers, m.header_sha256, ports), &r.plan_bytes);
    must(job_new(&r.j, r.plan_text, r.plan_bytes, 0, &r.sizes, &err));
    peer_watch_init(&r.watch, no_alarm, &r);
    pthread_mutex_init(&r.peers_mutex, NULL);
    r.p = calloc(N_DEVICES, sizeof *r.p);
    r.launched = calloc(N_DEVICES, sizeof *r.launched);
    r.mark = calloc(N_DEVICES, sizeof *r.mark);
    for (size_t i = 1; i < N_DEVICES; i++) {
        talker_start(&t[i]);
        must(peer_new(&r.p[i], r.j->plan->device[i].name, &r.watch, NULL, &err));
        must(greet(r.p[i], &t[i]));
    }
    talker_stop(&t[1]);
    cr_assert_eq(peers_wait_lost(&r.watch, r.p, r.n, sock_deadline(5)), 1);
    peer_beat_now(r.p[1]); /* its answer makes the next one fail */
    cr_assert_eq(peer_wait(r.p[2], is_ready, 0, "loading", sock_deadline(0.1), NULL), PR_EPEER);
    char *text = text_of(ring_plan_new(N_DEVICES, 2, m.hp.n_layers, m.header_sha256, ports), &n);
    cr_expect_eq(ring_adopt(&r, text, n, &err), PR_EPEER);
    cr_expect_not_null(r.d, "there is always a head");
    for (size_t i = 2; i < N_DEVICES; i++) {
        peer_wait(r.p[i], is_ready, 0, "loading", sock_deadline(2), NULL);
        cr_expect_eq(t[i].jobs, 1, "device %zu has not heard of the new plan", i);
    }
    for (size_t i = 1; i < N_DEVICES; i++) peer_free(r.p[i]);
    for (size_t i = 2; i < N_DEVICES; i++) talker_stop(&t[i]);
    device_free(r.d);
    job_free(r.j);
    free(r.plan_text);
    free(r.p);
    free(r.launched);
    free(r.mark);
    peer_watch_clear(&r.watch);
    pthread_mutex_destroy(&r.peers_mutex);
    model_close(&m);
}

/* --- what has been done ----------------------------------------------------------------------------------
 */
typedef struct {
    talker t[2];
    ring_options o;
    ring r;
} small_ring;

/* A head that has loaded nothing, and one worker, which is ready. */
static void small_ring_open(small_ring *s)
{
    static const uint16_t ports[] = {9701, 9702};
    char sha[65] = "";
    ring *r = &s->r;

    memset(sha, 'a', 64);
    r->o = &s->o;
    r->n = 2;
    r->sizes = (job_sizes){.max_tokens = 16, .merge_tokens = 16, .max_out = 4, .n_pages = 8};
    r->plan_text = text_of(ring_plan_new(2, 1, 8, sha, ports), &r->plan_bytes);
    must(job_new(&r->j, r->plan_text, r->plan_bytes, 0, &r->sizes, &err));
    peer_watch_init(&r->watch, no_alarm, r);
    r->p = calloc(2, sizeof *r->p);
    r->mark = calloc(2, sizeof *r->mark);
    talker_start(&s->t[1]);
    must(peer_new(&r->p[1], "d1", &r->watch, NULL, &err));
    must(greet(r->p[1], &s->t[1]));
    must(peer_job(r->p[1], a_job(), &err));
    must(peer_wait(r->p[1], is_ready, 0, "loading", sock_deadline(5), &err));
    must(timings_open(&r->by.t, in_dir("t.csv"), "0123456789ab", false, &err));
}

static void small_ring_close(small_ring *s)
{
    timings_close(s->r.by.t, NULL, 0, 0, 0, 0, NULL);
    peer_free(s->r.p[1]);
    talker_stop(&s->t[1]);
    job_free(s->r.j);
    free(s->r.plan_text);
    free(s->r.p);
    free(s->r.mark);
    peer_watch_clear(&s->r.watch);
}

/* Before counts begin anew a worker is asked for them: what it has done since its last beat counts, too. */
Test(ring_faults, nothing_that_was_done_is_lost_when_the_ring_is_mended)
{
    static small_ring s = {.t = {[1] = {.passes = 5}}};
    unsigned passes = 0, tokens = 0;
    char *text, *row;

    test_dir_new();
    small_ring_open(&s);
    must(ring_rows_to_date(&s.r, 5, &err));
    s.t[1].passes = 9;
    must(ring_rows_to_date(&s.r, 5, &err));
    must(ring_rows_to_date(&s.r, 5, &err));
    small_ring_close(&s);
    text = read_file(in_dir("t.devices.csv"));
    for (row = strchr(text, '\n') + 1; *row; row = strchr(row, '\n') + 1) {
        unsigned n, k;
        char *at = row;
        for (int comma = 0; comma < 17; comma++) at = strchr(at, ',') + 1;
        cr_assert_eq(sscanf(at, "%u,%u", &n, &k), 2, "%s", row);
        passes += n;
        tokens += k;
    }
    cr_expect(passes == 9 && tokens == 18, "%u passes, %u tokens: %s", passes, tokens, text);
    free(text);
    test_dir_remove();
}

/* A full disk here is not the worker's death. */
Test(ring_faults, a_table_that_cannot_be_written_ends_the_run)
{
    static small_ring s = {.t = {[1] = {.passes = 5}}, .o = {.restarts = 3}};
    static const pr_err why = {PR_EPEER, "link from d1: gone"};
    struct rlimit was, none;

    test_dir_new();
    small_ring_open(&s);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    none = was;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &none);
    int rc = ring_mend(&s.r, &why, &err);
    setrlimit(RLIMIT_FSIZE, &was);
    cr_expect_eq(rc, PR_ERESOURCE, "%d: %s", rc, err.msg);
    cr_expect(strstr(err.msg, "t.devices.csv"), "%s", err.msg);
    cr_expect(s.r.n == 2 && s.r.restarts == 0 && peer_about(s.r.p[1]).state == PEER_READY);
    small_ring_close(&s);
    test_dir_remove();
}

static void *send_a_long_job(void *arg)
{
    enum { LONG = 12 << 20 }; /* more than the system's buffers */
    char *text = malloc(LONG);

    memset(text, 'x', LONG);
    peer_job(arg, json_pack("{s:s, s:s%}", "type", "job", "plan", text, (size_t)LONG), NULL);
    free(text);
    return NULL;
}

/* Beats may be left out while something else is being sent, questions not. */
Test(ring_faults, a_question_is_always_asked)
{
    talker t = {.slow = true};
    pthread_t thread;
    peer_watch w;
    peer *p;

    peer_watch_init(&w, no_alarm, NULL);
    talker_start(&t);
    must(peer_new(&p, "d1", &w, NULL, &err));
    must(greet(p, &t));
    cr_assert_eq(pthread_create(&thread, NULL, send_a_long_job, p), 0);
    usleep(100000);
    peer_beat_now(p);
    peer_ask(p);
    pthread_join(thread, NULL);
    for (int i = 0; i < 500 && !peer_about(p).answers; i++) usleep(10000);
    cr_expect_eq(peer_about(p).answers, 1u);
    peer_free(p);
    talker_stop(&t);
    peer_watch_clear(&w);
}

/* What another device than the head cannot do is no plan to go on with, but no reason to end the run. */
Test(ring_faults, a_plan_that_one_device_cannot_run)
{
    static const uint16_t ports[] = {9701, 9702, 9703};
    ring r = {.sizes = {.max_tokens = 16, .merge_tokens = 16, .max_out = 4, .n_pages = 8}};
    char sha[65] = "", *text;
    plan *p;
    size_t n;

    memset(sha, 'a', 64);
    p = ring_plan_new(3, 1, 8, sha, ports);
    text = plan_text(p, &n);
    must(ring_check_plan(&r, text, n, &err));
    free(text);
    p->device[2].window[0].place = PLACE_DISK;
    p->device[2].window[0].streamed_pieces = 3;
    text = text_of(p, &n);
    cr_expect_eq(ring_check_plan(&r, text, n, &err), PR_EINFEASIBLE, "%s", err.msg);
    free(text);
}
