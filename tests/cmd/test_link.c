/* prima keygen, prima worker --probe and prima profile --link together: figures against a relay of known
 * delay and rate, strangers at the worker's door, and the plan that uses what was measured. All on loopback.
 */
#include "net/frame.h"
#include "planner/cost.h"
#include "src/base/clock.h"
#include "src/cmd.h"
#include "src/probe_link.h"
#include "tests/common/prima.h"
#include "tests/net/pair.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *const prima_version = "test-build"; /* main.c is not linked */

static pr_err err;
static pid_t worker;
static sock_addr worker_at;
static char worker_text[SOCK_NAME_BYTES];

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_dir_new();
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    pair_must(cmd_keygen(1, (char *[]){(char *)"keygen", NULL}, &err), &err, "keygen");
}

static void teardown(void)
{
    if (worker > 0) kill(worker, SIGKILL);
    test_dir_remove();
}
TestSuite(link, .init = setup, .fini = teardown, .timeout = 120);

/* --- the worker, a process of its own ------------------------------------------------------------------ */
static void run_worker(const char *a, const char *b)
{
    char *argv[] = {(char *)"worker",
                    (char *)"--probe",
                    (char *)"--listen",
                    (char *)"127.0.0.1:0",
                    (char *)a,
                    (char *)b,
                    NULL};
    pr_err e = {0};
    int rc, argc = 0;

    dup2(open(in_dir("address"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(in_dir("log"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    while (argv[argc]) argc++;
    rc = cmd_worker(argc, argv, &e);
    if (rc) fprintf(stderr, "ended: %s\n", e.msg);
    fflush(NULL);
    _exit(-rc);
}

static void start_worker(const char *a, const char *b)
{
    struct stat st;

    worker = fork();
    if (worker == 0) run_worker(a, b);
    for (int i = 0; (stat(in_dir("address"), &st) || st.st_size == 0) && i < 1000; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    char *text = read_file(in_dir("address"));
    text[strcspn(text, "\n")] = 0;
    worker_at = pair_addr(text);
    sock_addr_print(worker_text, &worker_at);
    free(text);
}

static int end_worker(int sig)
{
    int status;

    cr_assert_eq(kill(worker, sig), 0);
    cr_assert_eq(waitpid(worker, &status, 0), worker);
    worker = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static size_t log_lines_with(const char *word)
{
    char *text = read_file(in_dir("log")), *at = text;
    size_t n = 0;

    for (char *end; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        n += strstr(at, word) != NULL;
    }
    free(text);
    return n;
}

/* The worker writes its line when the client has gone. */
static void expect_lines(const char *word, size_t n)
{
    for (int i = 0; log_lines_with(word) < n && i < 500; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    char *log = read_file(in_dir("log"));
    cr_expect_eq(log_lines_with(word), n, "not %zu lines with \"%s\" in:\n%s", n, word, log);
    free(log);
}

/* --- a relay of known delay and rate ------------------------------------------------------------------- */
typedef struct {
    sock from, to;
    double delay_s, bytes_per_s; /* each piece is held back for the delay and the time that its bytes take */
} one_way;
static const double CATCH_UP_S = 0.05;

static double seconds(void)
{
    return (double)clock_ns() / 1e9;
}
static void pause_s(double s)
{
    nanosleep(&(struct timespec){(time_t)s, (long)(fmod(s, 1) * 1e9)}, NULL);
}

static void *carry(void *arg)
{
    one_way *w = arg;
    char piece[16384];
    double next = 0; /* when the line is free again; what sleeps are late is caught up with */

    for (;;) {
        ssize_t n;
        if (sock_wait(&w->from, POLLIN, sock_deadline(30), NULL)) break;
        if ((n = recv(w->from.fd, piece, sizeof piece, 0)) <= 0) break;
        if (w->bytes_per_s > 0) next = fmax(next, seconds() - CATCH_UP_S) + (double)n / w->bytes_per_s;
        pause_s(fmax(next - seconds(), 0) + w->delay_s);
        if (sock_write(&w->to, piece, (size_t)n, sock_deadline(30), NULL)) break;
    }
    sock_shutdown(&w->to);
    return NULL;
}

typedef struct {
    sock_listener l;
    one_way there, back;
} relay;

static void *relay_one(void *arg)
{
    relay *r = arg;
    pthread_t t[2];
    pr_err e = {0};

    pair_must(sock_accept(&r->there.from, &r->l, sock_deadline(30), &e), &e, "relay");
    pair_must(sock_connect(&r->there.to, &worker_at, &pair_no_options, false, sock_deadline(5), &e), &e,
              "relay");
    r->back.from = r->there.to;
    r->back.to = r->there.from;
    pthread_create(&t[0], NULL, carry, &r->there);
    pthread_create(&t[1], NULL, carry, &r->back);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    return NULL;
}

/* Measures through a relay; with a profile, into that. */
static probe_figures probe_through(one_way there, one_way back, const char *profile_path)
{
    static relay r;
    static char text[SOCK_NAME_BYTES];
    link_options o = {.address = text, .peer = "laptop"};
    probe_figures got = {0};
    pthread_t t;

    r = (relay){.there = there, .back = back};
    pair_listen(&r.l);
    snprintf(text, sizeof text, "%s", r.l.address);
    cr_assert_eq(pthread_create(&t, NULL, relay_one, &r), 0);
    cr_expect_eq(profile_path ? probe_link_into(profile_path, &o, &err) : probe_link(&got, &o, &err), PR_OK,
                 "%s", err.msg);
    pthread_join(t, NULL);
    sock_listener_close(&r.l);
    return got;
}

enum { TRIES = 6 }; /* on a busy machine the relay itself is late; one of several times it is not */

/* Two delays make the round trip, never less; sleeping and waking adds some tenths of a millisecond. */
Test(link, delay_of_a_relay)
{
    probe_figures got = {.rtt_ms = INFINITY};

    start_worker(NULL, NULL);
    for (int i = 0; i < TRIES && got.rtt_ms >= 26; i++) {
        got = probe_through((one_way){.delay_s = 0.01}, (one_way){.delay_s = 0.01}, NULL);
        cr_expect_geq(got.rtt_ms, 20);
    }
    cr_expect_lt(got.rtt_ms, 26);
}

/* 8 and 4 MB/s; bursts of some 100 ms of which the relay catches up with 50 ms at most, so 25 % either way.
 */
static bool is_within_quarter(double rate, double wanted)
{
    return rate > 0.75 * wanted && rate < 1.25 * wanted;
}

Test(link, rates_of_a_relay)
{
    probe_figures got = {0};
    double took_ms = 0;
    bool right = false;

    start_worker(NULL, NULL);
    for (int i = 0; i < TRIES && !right; i++) {
        uint64_t start = clock_ns();
        got = probe_through((one_way){.bytes_per_s = 8e6}, (one_way){.bytes_per_s = 4e6}, NULL);
        took_ms = clock_ms_since(start);
        right = is_within_quarter(got.out_bytes_per_s, 8e6) && is_within_quarter(got.in_bytes_per_s, 4e6) &&
                took_ms < 10000;
    }
    cr_expect(right, "%.0f and %.0f bytes/s after %.0f ms, about 3 s are promised", got.out_bytes_per_s,
              got.in_bytes_per_s, took_ms);
}

/* Bursts grow until one is long enough, by steps of which none leads past what a worker gives. */
Test(link, bursts_grow_to_the_limit)
{
    static const double seconds_of[] = {0, 0.001, 0.0124, 0.0126, 0.05, 0.0999};

    for (uint64_t n = 1; n < PROBE_MAX_FRAMES; n++) {
        for (size_t i = 0; i < sizeof seconds_of / sizeof *seconds_of; i++) {
            uint64_t next = probe_next_burst(n, seconds_of[i]);
            cr_assert(next > n && next <= PROBE_MAX_FRAMES, "%llu after %llu", (unsigned long long)next,
                      (unsigned long long)n);
        }
        cr_assert_eq(probe_next_burst(n, 0.11), 0u);
    }
    cr_expect_eq(probe_next_burst(PROBE_MAX_FRAMES, 0), 0u);
}

/* --- strangers -------------------------------------------------------------------------------------------
 */
static sock visit(void)
{
    sock s;
    cr_assert_eq(sock_connect(&s, &worker_at, &pair_no_options, false, sock_deadline(5), &err), PR_OK);
    return s;
}

static void say_and_wait(const char *what, size_t n)
{
    sock s = visit();
    char answer[64];

    cr_assert_eq(sock_write(&s, what, n, sock_deadline(1), NULL), PR_OK);
    cr_expect_eq(sock_read(&s, answer, sizeof answer, sock_deadline(9), &err), PR_EPEER);
    cr_expect_null(strstr(err.msg, "in time"), "the worker keeps a stranger's connection");
    sock_close(&s);
}

static int probe_with_key(const char *key_file)
{
    link_options o = {.address = worker_text, .peer = "laptop", .key_file = key_file};
    probe_figures got;

    err = (pr_err){0};
    return probe_link(&got, &o, &err);
}

Test(link, strangers_are_sent_away_and_the_worker_goes_on)
{
    sock s;

    start_worker(NULL, NULL);
    say_and_wait("GET / HTTP/1.1\r\n\r\n", 18);
    say_and_wait("\x16\x03\x01\x00\x04\xff\xff\xff\xff", 9);
    say_and_wait("", 0); /* silence: sent away after 5 s */
    s = visit();
    sock_close(&s); /* comes and goes */
    cr_assert_eq(
        cmd_keygen(3, (char *[]){(char *)"keygen", (char *)"-o", (char *)in_dir("other"), NULL}, &err),
        PR_OK);
    cr_expect_eq(probe_with_key(in_dir("other")), PR_EAUTH, "%s", err.msg);
    cr_expect(strstr(err.msg, worker_text), "%s", err.msg);
    expect_lines(" warn ", 4); /* one line each */
    expect_lines("came and left without a word", 1);
    cr_expect_eq(probe_with_key(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(probe_with_key(NULL), PR_OK, "and again: %s", err.msg);
    expect_lines("measured the link (TLS_AES_128_GCM_SHA256)", 2);
    cr_expect_eq(end_worker(SIGTERM), 0);
}

/* Holders of the key who ask for too much, or for what is not served, are cut off as well. */
Test(link, frames_that_are_not_requests)
{
    static const frame bad[] = {
        {.type = FRAME_GIVE, .batch = PROBE_MAX_FRAMES + 1},
        {.type = FRAME_GIVE, .batch = UINT64_MAX},
        {.type = FRAME_TYPES_END},
        {.type = FRAME_ECHO, .payload_bytes = 32769},
        {.type = FRAME_ECHO, .elem = FRAME_F32, .rows = 2, .cols = 1, .payload_bytes = 4}};
    cluster_key key;
    security sec;
    uint8_t room[FRAME_HEADER_BYTES];

    start_worker(NULL, NULL);
    cr_assert_eq(security_read(&sec, &key, NULL, false, &err), PR_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sock s = visit();
        channel *c;
        cr_assert_eq(channel_open(&c, &s, CHANNEL_CLIENT, &sec, sock_deadline(5), &err), PR_OK, "%s",
                     err.msg);
        frame_encode(room, &bad[i]);
        cr_assert_eq(channel_write(c, room, sizeof room, sock_deadline(5), &err), PR_OK);
        cr_expect_eq(channel_read(c, room, 1, sock_deadline(5), &err), PR_EPEER);
        cr_expect_null(strstr(err.msg, "in time"), "%zu is still open", i);
        channel_close(c);
    }
    expect_lines(" warn ", sizeof bad / sizeof *bad);
    cr_expect_eq(probe_with_key(NULL), PR_OK, "%s", err.msg);
    cr_expect_eq(end_worker(SIGINT), 0);
}

Test(link, a_signal_ends_the_worker_in_the_middle)
{
    sock s;

    start_worker(NULL, NULL);
    s = visit(); /* the worker waits for its greeting */
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    uint64_t start = clock_ns();
    cr_expect_eq(end_worker(SIGINT), 0);
    cr_expect_lt(clock_ms_since(start), 4000, "it waits for the greeting");
    sock_close(&s);
}

Test(link, insecure_is_spelled_out_on_both_sides)
{
    link_options o = {.address = worker_text, .peer = "laptop", .insecure = true};
    probe_figures got;

    start_worker("--insecure", NULL);
    expect_lines("INSECURE", 1);
    cr_expect_eq(probe_with_key(NULL), PR_EPEER, "%s", err.msg);
    cr_expect(strstr(err.msg, "--insecure"), "%s", err.msg);
    err = (pr_err){0};
    cr_expect_eq(probe_link(&got, &o, &err), PR_OK, "%s", err.msg);
    expect_lines("measured the link (plain)", 1);
}

Test(link, no_key_no_worker)
{
    char *argv[] = {(char *)"worker", (char *)"--probe", NULL}, *nothing[] = {(char *)"worker", NULL};

    cr_assert_eq(chmod(in_dir("key"), 0644), 0);
    cr_expect_eq(cmd_worker(2, argv, &err), PR_EAUTH);
    cr_expect(strstr(err.msg, "chmod 600"), "%s", err.msg);
    cr_expect_eq(cmd_worker(1, nothing, &err), PR_EUSAGE);
    cr_expect_eq(cmd_keygen(1, (char *[]){(char *)"keygen", NULL}, &err), PR_EAUTH, "never overwritten");
}

/* --- options -----------------------------------------------------------------------------------------------
 */
Test(link, options)
{
    static const struct {
        link_options o;
        int rc;
    } cases[] = {{{.address = NULL}, PR_OK},
                 {{.address = "laptop:9700"}, PR_OK},
                 {{.address = "192.168.1.3:9700", .peer = "laptop"}, PR_OK},
                 {{.address = "192.168.1.3:9700"}, PR_EUSAGE}, /* no device is called that */
                 {{.address = "laptop:9700", .peer = "Laptop"}, PR_EUSAGE},
                 {{.address = "laptop:9700", .peer = ""}, PR_EUSAGE},
                 {{.address = "laptop"}, PR_EUSAGE},
                 {{.peer = "laptop"}, PR_EUSAGE},
                 {{.insecure = true}, PR_EUSAGE}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_eq(link_options_check(&cases[i].o, &err), cases[i].rc, "case %zu", i);
}

/* --- into the profile, and on to the plan ------------------------------------------------------------------
 */
#define PROFILE(name, net)                                                                                   \
    "{\"schema\":\"prima/profile/1\",\"device\":\"" name "\",\"threads\":2,\"ram_total_bytes\":8589934592,"  \
    "\"ram_available_bytes\":8589934592,\"mem_bytes_per_s\":[1e10],\"gpus\":[],"                             \
    "\"compute\":[{\"type\":\"Q4_K\",\"batch\":1,\"gflops\":50.0},{\"type\":\"Q4_K\",\"batch\":512,"         \
    "\"gflops\":90.0}],\"disk\":[{\"pattern\":\"seq\",\"bs_bytes\":1048576,\"iodepth\":8,"                   \
    "\"engine\":\"libaio\",\"direct\":true,\"read_bytes_per_s\":1e9}],\"net\":[" net "]}"

static const profile_net *entry(const profile *p, const char *peer)
{
    for (size_t i = 0; i < p->n_net; i++)
        if (!strcmp(p->net[i].peer, peer)) return &p->net[i];
    return NULL;
}

Test(link, into_a_profile)
{
    link_options o = {.address = worker_text, .peer = "laptop"};
    profile *p;

    start_worker(NULL, NULL);
    write_file(in_dir("desk.json"),
               PROFILE("desk", "{\"peer\":\"phone\",\"bytes_per_s\":5e6,\"rtt_ms\":4.0},"
                               "{\"peer\":\"laptop\",\"bytes_per_s\":7.0,\"rtt_ms\":5000.0}"));
    cr_assert_eq(probe_link_into(in_dir("desk.json"), &o, &err), PR_OK, "%s", err.msg);
    o.peer = "tower";
    cr_assert_eq(probe_link_into(in_dir("desk.json"), &o, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(profile_read(&p, in_dir("desk.json"), &err), PR_OK, "%s", err.msg);
    cr_expect_eq(p->n_net, 3u, "laptop is replaced, tower is new");
    cr_expect_float_eq(entry(p, "phone")->rtt_ms, 4, 0);
    for (int i = 0; i < 2;
         i++) { /* loopback: more than 8 Mbit/s and less than 8 Tbit/s, on a busy machine too */
        const profile_net *n = entry(p, i ? "tower" : "laptop");
        cr_assert_not_null(n);
        cr_expect(n->bytes_per_s > 1e6 && n->bytes_per_s < 1e12, "%g", n->bytes_per_s);
        cr_expect(n->rtt_ms > 0 && n->rtt_ms < 500, "%g", n->rtt_ms);
    }
    profile_free(p);
}

static const char cluster_text[] = "schema: prima/cluster/1\n"
                                   "cluster: home\n"
                                   "devices:\n"
                                   "  - {name: desk, host: 192.0.2.1, ram: 6GiB, profile: desk.json}\n"
                                   "  - {name: laptop, host: 192.0.2.2, ram: 6GiB, profile: laptop.json}\n";

/* The slower direction counts, whichever it is. */
Test(link, the_slower_direction_into_a_profile)
{
    start_worker(NULL, NULL);
    for (int turn = 0; turn < 2; turn++) {
        one_way fast = {.bytes_per_s = 16e6}, slow = {.bytes_per_s = 4e6};
        double rate = 0;
        for (int i = 0; i < TRIES && !is_within_quarter(rate, 4e6); i++) {
            profile *p;
            write_file(in_dir("desk.json"), PROFILE("desk", ""));
            probe_through(turn ? fast : slow, turn ? slow : fast, in_dir("desk.json"));
            cr_assert_eq(profile_read(&p, in_dir("desk.json"), &err), PR_OK, "%s", err.msg);
            cr_assert_eq(p->n_net, 1u);
            rate = p->net[0].bytes_per_s;
            profile_free(p);
        }
        cr_expect(is_within_quarter(rate, 4e6), "%g", rate);
    }
}

Test(link, the_plan_uses_what_was_measured)
{
    link_options o = {.address = worker_text, .peer = "laptop"};
    profile *p[2];
    cluster *c;
    double mbit_per_s, rtt_ms;

    start_worker(NULL, NULL);
    write_file(in_dir("cluster.yaml"), cluster_text);
    write_file(in_dir("laptop.json"), PROFILE("laptop", ""));
    write_file(in_dir("desk.json"), PROFILE("desk", ""));
    cr_assert_eq(cluster_read(&c, in_dir("cluster.yaml"), &err), PR_OK, "%s", err.msg);
    for (int measured = 0; measured < 2; measured++) {
        if (measured) cr_assert_eq(probe_link_into(in_dir("desk.json"), &o, &err), PR_OK, "%s", err.msg);
        cr_assert_eq(profile_read(&p[0], in_dir("desk.json"), &err), PR_OK, "%s", err.msg);
        cr_assert_eq(profile_read(&p[1], in_dir("laptop.json"), &err), PR_OK, "%s", err.msg);
        for (uint32_t from = 0; from < 2; from++)
            cr_expect_eq(cost_link(c, p, from, 1 - from, &mbit_per_s, &rtt_ms), measured == 1);
        if (measured) {
            cr_expect_float_eq(mbit_per_s, p[0]->net[0].bytes_per_s * 8 / 1e6, 1e-9 * mbit_per_s);
            cr_expect_float_eq(rtt_ms, p[0]->net[0].rtt_ms, 0);
        }
        profile_free(p[0]);
        profile_free(p[1]);
    }
    cluster_free(c);
}

/* The whole way by the commands: a profile with its link; the plan that follows has nothing to assume. */
Test(link, by_the_commands)
{
    static const char fio[] =
        "{\"fio version\":\"fio-3.33\",\"jobs\":[{\"groupid\":0,\"error\":0,\"job "
        "options\":{\"rw\":\"read\"},"
        "\"read\":{\"bw_bytes\":100000000,\"iops\":95,\"clat_ns\":{\"percentile\":{\"50.000000\":1000,"
        "\"99.000000\":2000}}}}]}";
    prima_result r;

    start_worker(NULL, NULL);
    write_file(in_dir("cluster.yaml"), cluster_text);
    write_file(in_dir("laptop.json"), PROFILE("laptop", ""));
    write_file(in_dir("fio.json"), fio);
    r = prima_run(NULL, (const char *[]){"profile", "--device", "desk", "--runtime", "100ms", "--threads",
                                         "1", "--import", in_dir("fio.json"), "-o", in_dir("desk.json"),
                                         "--link", worker_text, "--peer", "laptop", NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect(strstr(r.err, "link to laptop ("), "%s", r.err);
    r = prima_run(NULL, (const char *[]){"plan", in_dir("cluster.yaml"), "--shape",
                                         "datasets/shapes/llama-3-8b.yaml", "-o", in_dir("plan.yaml"), NULL});
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect_null(strstr(r.err, "assumed"), "%s", r.err);
}
