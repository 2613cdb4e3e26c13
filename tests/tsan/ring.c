/* The threads of a ring under ThreadSanitizer: links and control connections, each with everybody who may use
 * them at once, and broken in the middle; then whole rings in this process, head and workers as `prima run`
 * and `prima worker` have them, over real sockets, plain and under TLS, with workers that end and come back
 * in the middle of a job and strangers at their doors. The completions are those of one device alone. A race
 * makes the process stop with a report. Prints TAP. */
#include "src/run/ring.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/model_facts.h"
#include "src/run/control.h"
#include "src/run/schedule.h"
#include "src/run/worker.h"
#include "tests/common/channel_pair.h"
#include "tests/common/free_ports.h"
#include "tests/common/ring_plan.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MODEL_PATH "datasets/demo/demo.gguf"
enum { LONG_S = 1500 }; /* under this sanitizer on a busy machine a job can take minutes */
enum { LARGE = 300000, FRAMES = 400, CTX = RING_PLAN_CTX, SLOTS = RING_PLAN_SLOTS, N_DEVICES = 3 };

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void die(const char *what, const pr_err *err)
{
    printf("Bail out! %s: %s\n", what, err->msg);
    exit(1);
}

/* --- links ------------------------------------------------------------------------------------------------
 */
typedef struct {
    link_out *out;
    link_in *in;
    parcels *free_out;
    atomic_bool over;
    _Atomic uint64_t seen; /* by who reads the counts */
} link_users;

static void *send_frames(void *arg)
{
    link_users *u = arg;
    parcel *x;

    for (uint64_t i = 0; i < FRAMES && (x = parcels_take(u->free_out)); i++) {
        uint32_t n = i % 3 ? 64 : LARGE;
        x->f = (frame){.type = FRAME_PASS, .batch = i, .extra = n, .payload_bytes = n};
        memset(x->payload, (int)(i & 0xff), n);
        link_out_send(u->out, x);
    }
    return NULL;
}

static void *read_counts(void *arg)
{
    link_users *u = arg;

    while (!u->over) u->seen = link_out_counts(u->out).bytes + link_in_counts(u->in).bytes;
    return NULL;
}

static bool is_pass(const void *arg, const parcel *x)
{
    (void)arg;
    return x->f.type == FRAME_PASS;
}

/* Frames are taken until `until` of them have come; then everything is broken, whatever is on its way. */
static bool a_link(bool secure, uint64_t until)
{
    static const pr_err stop = {PR_EINTERRUPTED, "stop"};
    const frame_limits fl = {LARGE, FRAME_BIT(FRAME_PASS)};
    link_users u = {.seen = 0};
    channel *a, *b;
    parcels *in;
    mailbox *box;
    parcel *x;
    pthread_t sender, reader;
    pr_err err = {0};
    uint64_t next = 0;
    bool right = true;

    if (channel_pair(&a, &b, secure, &err) || parcels_new(&u.free_out, 6, LARGE, &err) ||
        parcels_new(&in, 4, LARGE, &err) || mailbox_new(&box, &err) ||
        link_in_start(&u.in, b, "a", &fl, in, box, &err) || link_out_start(&u.out, a, "b", box, &err))
        die("a link", &err);
    pthread_create(&sender, NULL, send_frames, &u);
    pthread_create(&reader, NULL, read_counts, &u);
    while (right && next < until) {
        x = next % 2 ? mailbox_take_if(box, is_pass, NULL) : NULL;
        if (!x && mailbox_take(box, SOCK_NO_DEADLINE, &x, &err)) break;
        if (!x) continue; /* nudged */
        right = x->f.batch == next && x->payload[0] == (next & 0xff) &&
                x->payload[x->f.payload_bytes - 1] == (next & 0xff);
        parcel_free(x);
        if (++next % 50 == 0) mailbox_nudge(box);
    }
    mailbox_break(box, &stop);
    channel_shutdown(a);
    channel_shutdown(b);
    parcels_break(in);
    parcels_break(u.free_out);
    pthread_join(sender, NULL);
    u.over = true;
    pthread_join(reader, NULL);
    link_in_stop(u.in);
    link_out_stop(u.out);
    mailbox_delete(box);
    channel_close(a);
    channel_close(b);
    parcels_delete(in);
    parcels_delete(u.free_out);
    return right && next >= until;
}

/* --- control ----------------------------------------------------------------------------------------------
 */
static void *say_much(void *arg)
{
    static const uint8_t bulk[100000];
    control *k = arg;

    for (int i = 0; i < 100; i++) {
        if (i % 10 == 0) control_send_bulk(k, json_pack("{s:s}", "type", "have"), bulk, sizeof bulk, NULL);
        else control_send(k, json_pack("{s:s}", "type", "ready"), NULL);
        control_try_send(k, json_pack("{s:s}", "type", "beat"));
        control_set_silence(k, 5 + i);
    }
    return NULL;
}

static int ignore(void *arg, const void *data, size_t n, pr_err *err)
{
    (void)arg;
    (void)data;
    (void)n;
    (void)err;
    return PR_OK;
}

static void *hear_all(void *arg)
{
    json_t *m;

    for (int rc = 0; !rc && !control_recv(arg, &m, NULL); json_decref(m))
        if (control_is(m, "have")) rc = control_recv_bulk(arg, 100000, ignore, NULL, NULL);
    return NULL;
}

static bool both_talk(bool secure)
{
    channel *a, *b;
    control *k[2];
    pthread_t talker[4], listener[2];
    pr_err err = {0};

    if (channel_pair(&a, &b, secure, &err) || control_new(&k[0], a, 20, &err) ||
        control_new(&k[1], b, 20, &err))
        die("control", &err);
    for (int i = 0; i < 2; i++) pthread_create(&listener[i], NULL, hear_all, k[i]);
    for (int i = 0; i < 4; i++) pthread_create(&talker[i], NULL, say_much, k[i % 2]);
    for (int i = 0; i < 4; i++) pthread_join(talker[i], NULL);
    control_shutdown(k[0]);
    for (int i = 0; i < 2; i++) pthread_join(listener[i], NULL);
    for (int i = 0; i < 2; i++) control_close(k[i]);
    return true;
}

static model_facts facts; /* of the model */

/* --- a job ------------------------------------------------------------------------------------------------
 */
typedef struct {
    size_t n_requests, n_new, n_resets;
    int32_t (*token)[CTX]; /* [n_requests] prompt and completion */
} answers;

static sequence *new_sequence(const model *m, size_t i, size_t n_new)
{
    request r = {
        .max_tokens = n_new, .sampling = sample_defaults, .id = strdup("x"), .ignore_eos = true, .line = i};

    for (size_t t = 0; t < 3 + i * 29 % 100; t++)
        token_list_push(&r.tokens, 3 + (int32_t)((t * 37 + i * 11) % (vocab_size(m->vocab) - 3)));
    return sequence_new(&r, m->vocab, 0);
}

static void take_tokens(answers *a, const model *m, schedule *s, const micro_batch *mb)
{
    for (size_t i = 0; i < mb->b.n_out; i++) {
        sequence *q = mb->out[i];
        const float *row = mb->logits + i * mb->logits_stride;
        size_t best = 0;
        for (size_t v = 1; v < vocab_size(m->vocab); v++) best = row[v] > row[best] ? v : best;
        token_list_push(&q->tokens, (int32_t)best);
        if (sequence_n_completion(q) < a->n_new) continue;
        memcpy(a->token[q->req.line], q->tokens.id, q->tokens.n * sizeof(int32_t));
        schedule_remove(s, q);
        sequence_free(q);
    }
}

static int do_job(answers *a, const model *m, pipeline *p, pr_err *err)
{
    schedule *s = schedule_new(
        &(schedule_options){SLOTS, p->depth, p->max_tokens, p->max_prefill, SLOTS * (CTX / KV_PAGE)});
    size_t next = 0;
    int rc = PR_OK;

    a->token = calloc(a->n_requests, sizeof *a->token);
    while (!rc) {
        pipe_event event = PIPE_WAKE;
        micro_batch *mb;
        while (next < a->n_requests && schedule_has_room(s, CTX))
            schedule_admit(s, new_sequence(m, next++, a->n_new), err);
        while (!rc && (mb = schedule_next(s))) rc = p->ops->submit(p, mb, err);
        if (rc || !schedule_in_flight(s)) break;
        rc = p->ops->next(p, &event, &mb, err);
        if (!rc && event == PIPE_RESET) {
            schedule_replay(s);
            a->n_resets++;
        } else if (!rc && event == PIPE_DONE) {
            take_tokens(a, m, s, mb);
            schedule_done(s, mb);
        }
    }
    schedule_free(s);
    return rc;
}

static answers alone(const model *m, size_t n_requests, size_t n_new)
{
    answers a = {.n_requests = n_requests, .n_new = n_new};
    engine_options eo = {
        .n_threads = 1, .n_pages = SLOTS * (CTX / KV_PAGE), .max_tokens = 64, .max_out = SLOTS};
    pr_err err = {0};
    pipeline *p;
    engine *e;

    if (engine_new(&e, m, &eo, &err) || pipeline_local(&p, e, 64, NULL, clock_ns(), &err) ||
        do_job(&a, m, p, &err))
        die("one device", &err);
    p->ops->free(p);
    engine_free(e);
    return a;
}

/* --- workers ----------------------------------------------------------------------------------------------
 */
typedef struct {
    worker_options o;
    wake stop;
    pthread_t thread;
    pr_err err;
} local_worker;

static sem_t listening;

/* What the head starts in place of a worker that it does not find: one of this process is about to listen
 * there. */
static char dir[64] = "/tmp/prima-tsan-XXXXXX", program[80];
static const char script[] =
    "#!/bin/sh\n"
    "read -r order; echo \"$order\" | grep -o '127[.]0[.]0[.]1:[0-9]*'; cat > /dev/null\n";

static void write_program(void)
{
    FILE *f = NULL;

    if (mkdtemp(dir)) {
        snprintf(program, sizeof program, "%s/worker", dir);
        f = fopen(program, "we");
    }
    if (!f || fputs(script, f) < 0 || fclose(f) || chmod(program, 0700))
        die("a script", &(pr_err){.msg = ""});
}

static void note_listening(const char *address)
{
    (void)address;
    sem_post(&listening);
}

static void *work(void *arg)
{
    local_worker *w = arg;
    if (worker_run(&w->o, &w->stop, &w->err)) die("a worker", &w->err);
    return NULL;
}

static void start_worker(local_worker *w, uint16_t port, const security *sec)
{
    w->o = (worker_options){.listen = {.host = "127.0.0.1", .port = port},
                            .sec = *sec,
                            .version = "test",
                            .model = MODEL_PATH,
                            .n_threads = 1,
                            .listening = note_listening};
    if (wake_init(&w->stop, &w->err) || pthread_create(&w->thread, NULL, work, w)) die("a worker", &w->err);
    sem_wait(&listening);
}

static void stop_worker(local_worker *w)
{
    wake_raise(&w->stop);
    pthread_join(w->thread, NULL);
    wake_clear(&w->stop);
}

/* --- what happens meanwhile -------------------------------------------------------------------------------
 */
typedef struct {
    local_worker w[N_DEVICES];
    uint16_t port[N_DEVICES];
    security sec;
    atomic_bool over;     /* no more visits */
    atomic_bool job_over; /* no more ends */
    int n_ends;           /* workers that end and come back in each job ... */
    bool late;            /* ... after a while, in which the ring goes on without them */
} world;

/* Says something that is no greeting to one worker after another, and waits to be thrown out. */
static void *visit(void *arg)
{
    static const char *const words[] = {
        "GET / HTTP/1.1\r\nHost: here\r\n\r\n                                    ", "\x16\x03\x01\x02", ""};
    static const sock_options so = {.lost_after_ms = 0};
    world *all = arg;

    for (unsigned i = 0; !all->over; i++) {
        sock_addr at = {.host = "127.0.0.1", .port = all->port[i % N_DEVICES]};
        const char *word = words[i % 3];
        sock s;
        if (!sock_connect(&s, &at, &so, false, sock_deadline(1), NULL)) {
            sock_write(&s, word, strlen(word), sock_deadline(1), NULL);
            sock_close(&s);
        }
        sleep_ms(20);
    }
    return NULL;
}

static void *end_workers(void *arg)
{
    world *all = arg;

    for (int i = 0; i < all->n_ends && !all->job_over; i++) {
        int victim = 1 + i % (N_DEVICES - 1);
        sleep_ms(300 + i * 37 % 200);
        stop_worker(&all->w[victim]);
        if (all->late) sleep_ms(1500);
        start_worker(&all->w[victim], all->port[victim], &all->sec);
    }
    return NULL;
}

static int measure(ring *r, size_t from, pr_err *err)
{
    double rtt_ms = 0, bytes_per_s = 0;
    int rc = ring_measure_link(r, from, &rtt_ms, &bytes_per_s, err);

    if (!rc && !(rtt_ms > 0 && bytes_per_s > 0)) rc = pr_fail(err, PR_EINTERNAL, "a link of nothing");
    return rc;
}

/* The job, while workers end; when it returns all of them are back. A ring that is being made cannot go on
 * without a worker, so they end only now. */
static int do_job_meanwhile(answers *a, const model *m, world *all, pipeline *p, pr_err *err)
{
    pthread_t ender;
    int rc;

    all->job_over = false;
    pthread_create(&ender, NULL, end_workers, all);
    rc = do_job(a, m, p, err);
    all->job_over = true;
    pthread_join(ender, NULL);
    return rc;
}

static int run_job(answers *a, const model *m, world *all, const char *text, size_t n, pr_err *err)
{
    progress *g = progress_new(); /* a run that is looked at, like its trace */
    trace *t;
    wake stop;
    ring_options o = {.plan_text = text,
                      .plan_bytes = n,
                      .m = m,
                      .facts = &facts,
                      .sizes = {.max_tokens = 64,
                                .merge_tokens = 64,
                                .max_out = SLOTS,
                                .n_pages = SLOTS * (CTX / KV_PAGE),
                                .elem = FRAME_F32,
                                .heartbeat_s = 0.05,
                                .peer_s = all->late ? 2 : 10, /* also how often it looks who is back */
                                .connect_s = LONG_S},
                      .depth = N_DEVICES,
                      .max_prefill = 32,
                      .device = {.n_threads = 1},
                      .key = all->sec.key,
                      .insecure = all->sec.insecure,
                      .version = "test",
                      .self = all->late ? "/bin/false"
                                        : program, /* a worker that has ended comes back by itself */
                      .restarts = 100000,
                      .stop = &stop,
                      .trace = true,
                      .start_ns = clock_ns()};
    ring_onlookers by = {.progress = g};
    pipeline *p;
    ring *r;
    int rc;

    if ((rc = trace_open(&t, "/dev/null", err))) return rc;
    by.trace = t;
    if ((rc = wake_init(&stop, err)) || (rc = ring_new(&r, &o, err))) return rc;
    if ((rc = ring_load(r, &by, err))) return rc;
    for (size_t i = 0; i < N_DEVICES && !all->n_ends && !rc; i++) rc = measure(r, i, err);
    if (!rc && !(rc = ring_pipeline(&p, r, err))) {
        rc = do_job_meanwhile(a, m, all, p, err);
        p->ops->free(p);
    }
    ring_free(r);
    trace_close(t, NULL);
    progress_free(g);
    wake_clear(&stop);
    return rc;
}

/* Two rings, one after another, with the same workers. */
static bool a_ring(const model *m, const answers *expected, bool secure, int n_ends, bool late)
{
    static const cluster_key key = {.psk = {4, 5, 6}, .id = "00000000deadbeef"};
    static world all;
    pthread_t visitor;
    pr_err err = {0};
    bool right = true;
    size_t n;
    plan *p;
    char *text;

    all.sec = (security){.key = secure ? &key : NULL, .insecure = !secure};
    all.over = false;
    all.n_ends = n_ends;
    all.late = late;
    free_ports(all.port, N_DEVICES);
    p = ring_plan_new(N_DEVICES, 2, m->hp.n_layers, m->header_sha256, all.port);
    if (!p || !(text = plan_text(p, &n))) die("a plan", &err);
    for (int i = 1; i < N_DEVICES; i++) start_worker(&all.w[i], all.port[i], &all.sec);
    pthread_create(&visitor, NULL, visit, &all);
    for (int i = 0; i < 2 && right; i++) {
        answers a = {.n_requests = expected->n_requests, .n_new = expected->n_new};
        uint64_t start = clock_ns();
        int rc = run_job(&a, m, &all, text, n, &err);
        if (rc) printf("# %d: %s\n", rc, err.msg);
        printf("# %zu requests in %.1f s, the ring was made again %zu times\n", a.n_requests,
               clock_ms_since(start) / 1e3, a.n_resets);
        right = !rc && clock_ms_since(start) < 0.8e3 * LONG_S /* nobody has waited for connect_s */ &&
                memcmp(a.token, expected->token, a.n_requests * sizeof *a.token) == 0;
        free(a.token);
    }
    all.over = true;
    pthread_join(visitor, NULL);
    for (int i = 1; i < N_DEVICES; i++) stop_worker(&all.w[i]);
    plan_free(p);
    free(text);
    return right;
}

static int n_done, n_failed;

static void say(bool right, const char *what)
{
    printf("%s %d - %s\n", right ? "ok" : "not ok", ++n_done, what);
    fflush(stdout);
    n_failed += !right;
}

int main(void)
{
    pr_err err = {0};
    answers short_job, long_job;
    model m;

    signal(SIGPIPE, SIG_IGN);
    log_setup(&(log_options){.level = getenv("PRIMA_LOG") ? LOG_DEBUG : LOG_ERROR});
    sem_init(&listening, 0, 0);
    write_program();
    printf("1..8\n");
    say(a_link(false, FRAMES), "a link");
    say(a_link(true, FRAMES), "a link under TLS");
    say(a_link(false, 3) && a_link(true, 57), "links broken in the middle");
    say(both_talk(false) && both_talk(true), "control connections");
    if (model_open(&m, MODEL_PATH, &err) || model_facts_read(&facts, MODEL_PATH, &err))
        die("the model", &err);
    short_job = alone(&m, 8, 12);
    long_job = alone(&m, 60, 30);
    say(a_ring(&m, &short_job, false, 0, false), "a ring");
    say(a_ring(&m, &short_job, true, 0, false), "a ring under TLS");
    say(a_ring(&m, &long_job, true, 6, false), "a ring whose workers end and come back");
    say(a_ring(&m, &long_job, true, 2, true), "a ring that goes on without its workers until they are back");
    unlink(program);
    rmdir(dir);
    free(short_job.token);
    free(long_job.token);
    model_close(&m);
    sem_destroy(&listening);
    return n_failed > 0;
}
