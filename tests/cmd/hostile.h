/* A worker in a process with a log of its own, the head that it is for, and visitors: what the tests of
 * strangers and of members who misbehave share. */
#ifndef PRIMA_TESTS_HOSTILE_H
#define PRIMA_TESTS_HOSTILE_H
#include "src/base/clock.h"
#include "src/run/control.h"
#include "src/run/ship.h"
#include "tests/common/free_ports.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MODEL_PATH "datasets/demo/demo.gguf"
enum { HEAD, WORKER, N_DEVICES };
static const double GREETING_S = 5; /* that a worker waits for a stranger's first words */
static const double AT_ONCE_S = 4;  /* less than that, also on a busy machine */
static const sock_options no_options = {.lost_after_ms = 0};
static pr_err err;
static cluster_key key;
static security sec = {.key = &key};
static uint16_t port[N_DEVICES];
static sock_addr at; /* of the worker */
static char version[64];
static pid_t worker;
static model m;
static ship_source *source;

static inline void must(int rc)
{
    cr_assert_eq(rc, PR_OK, "%s", err.msg);
}

static inline void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* --- a plan, its prompts, and what one device answers ------------------------------------------------------
 */
static inline char *make_plan(uint32_t n_layers, size_t *n)
{
    plan *p = ring_plan_new(N_DEVICES, 2, n_layers, m.header_sha256, port);
    char *text;

    cr_assert_not_null(p);
    text = plan_text(p, n);
    cr_assert_not_null(text);
    plan_free(p);
    return text;
}

static inline void write_job(void)
{
    size_t n;
    char *text = make_plan(m.hp.n_layers, &n);
    FILE *f = fopen(in_dir("prompts"), "w");

    write_file(in_dir("plan.yaml"), text);
    free(text);
    for (int i = 0; i < 12; i++)
        fprintf(f,
                "{\"id\":\"p%d\",\"prompt\":\"Once upon a time there was a "
                "%s\",\"max_tokens\":%d,\"ignore_eos\":true}\n",
                i, i % 2 ? "dog" : "cat", 20 + i);
    fclose(f);
}

static inline void get_version(void)
{
    cr_assert_eq(prima_run(in_dir("version"), (const char *[]){"--version", NULL}).status, 0);
    char *text = read_file(in_dir("version"));
    snprintf(version, sizeof version, "%.*s", (int)strcspn(text + 6, " \n"), text + 6);
    free(text);
}

/* --- the worker: a process with a log of its own -----------------------------------------------------------
 */
static inline void start_worker(void)
{
    char listen[64];
    struct stat st;

    snprintf(listen, sizeof listen, "127.0.0.1:%u", port[WORKER]);
    write_file(in_dir("address"), "");
    fflush(NULL);
    cr_assert_geq(worker = fork(), 0);
    if (!worker) {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(open(in_dir("address"), O_WRONLY), 1);
        dup2(open(in_dir("log"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644), 2);
        execl(prima_program(), "prima", "worker", "--listen", listen, "--model", MODEL_PATH, "--threads", "1",
              (char *)NULL);
        _exit(127);
    }
    for (int i = 0; (stat(in_dir("address"), &st) || !st.st_size) && i < 1000; i++) sleep_ms(10);
    cr_assert_eq(count_lines(in_dir("address")), 1u, "the worker has not started");
}

static inline void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_dir_new();
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    cr_assert_eq(prima_run(NULL, (const char *[]){"keygen", NULL}).status, 0);
    must(key_read(&key, in_dir("key"), &err));
    must(model_open(&m, MODEL_PATH, &err));
    must(ship_source_new(&source, &m, &err));
    get_version();
    free_ports(port, N_DEVICES);
    at = (sock_addr){.host = "127.0.0.1", .port = port[WORKER]};
    write_job();
    prima_result r = prima_run(NULL, (const char *[]){"run", MODEL_PATH, in_dir("prompts"), "--ctx", "256",
                                                      "-o", in_dir("expected"), NULL});
    cr_assert_eq(r.status, 0, "%s", r.err);
    start_worker();
}

static inline void teardown(void)
{
    if (worker > 0) {
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
    }
    ship_source_free(source);
    model_close(&m);
    test_dir_remove();
}

/* Lines that warn, or tell of somebody who came for nothing, and the last of them. */
static inline size_t warnings(char last[512])
{
    char *text = read_file(in_dir("log"));
    size_t n = 0;

    *last = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (!strstr(line, " warn ") && !strstr(line, " error ") && !strstr(line, "without a word")) continue;
        n++;
        snprintf(last, 512, "%s", line);
    }
    free(text);
    return n;
}

/* --- the right head --------------------------------------------------------------------------------------
 */
static inline pid_t start_head(void)
{
    return prima_start(NULL,
                       (const char *[]){"run", in_dir("plan.yaml"), in_dir("prompts"), "--model", MODEL_PATH,
                                        "--threads", "1", "--restarts", "0", "-o", in_dir("out"), NULL});
}

static inline void expect_right_result(const prima_result *r)
{
    json_t *got, *expected;

    cr_assert_eq(r->status, 0, "%s", r->err);
    got = read_jsonl_sorted(in_dir("out"), true);
    expected = read_jsonl_sorted(in_dir("expected"), true);
    cr_expect(json_array_size(got) == 12 && json_equal(got, expected), "another output than one device's");
    json_decref(got);
    json_decref(expected);
    unlink(in_dir("out"));
    unlink(in_dir("out.manifest.json"));
}

static inline void expect_right_output(pid_t run)
{
    prima_result r = prima_wait(run);
    expect_right_result(&r);
}

/* That the last head has gone without a word takes the worker a moment to notice, on a busy machine a longer
 * one: until then it serves another run. */
static inline void serves_the_right_head(void)
{
    prima_result r = {.status = 9};

    for (int i = 0; i < 100 && r.status == 9; i++) {
        if (i) sleep_ms(100);
        r = prima_wait(start_head());
        if (r.status == 9) cr_assert(strstr(r.err, "serves another run"), "%s", r.err);
    }
    expect_right_result(&r);
    cr_expect_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker has ended");
}

/* --- strangers without the key -----------------------------------------------------------------------------
 */
static inline sock visit(void)
{
    sock s;
    must(sock_connect(&s, &at, &no_options, false, sock_deadline(5), &err));
    return s;
}

/* Until the worker closes the connection, whatever it says before. */
static inline bool is_shut_within(int fd, double seconds)
{
    uint64_t start = clock_ns();
    char rest[4096];

    while (clock_ms_since(start) < seconds * 1e3) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t n = read(fd, rest, sizeof rest);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return true;
    }
    return false;
}

/* One line for this visit, soon after it has ended. */
static inline void expect_one_line(size_t before, const char *says, const char *name)
{
    char last[512];
    size_t n = before;

    for (int i = 0; i < 1000 && (n = warnings(last)) == before; i++) sleep_ms(10);
    sleep_ms(50);
    n = warnings(last);
    cr_expect_eq(n, before + 1, "%s: %zu lines", name, n - before);
    cr_expect(strstr(last, says), "%s: %s", name, last);
}

/* --- those who hold the key --------------------------------------------------------------------------------
 */
static inline channel *enter(void)
{
    sock s = visit();
    channel *c;

    must(channel_open(&c, &s, CHANNEL_CLIENT, &sec, sock_deadline(5), &err));
    return c;
}

static inline bool channel_is_shut_within(channel *c, double seconds)
{
    uint64_t start = clock_ns();
    uint8_t byte;

    while (!channel_read(c, &byte, 1, sock_deadline(seconds), NULL)) {}
    return clock_ms_since(start) < seconds * 1e3;
}

static inline void send_text(channel *c, uint16_t type, const char *text)
{
    uint8_t room[FRAME_HEADER_BYTES + 4096];
    uint32_t n = (uint32_t)strlen(text);
    frame f = {.type = type, .rank = 0, .session = 1, .extra = n, .payload_bytes = n};

    memcpy(room + FRAME_HEADER_BYTES, text, n);
    must(frame_send(c, room, &f, sock_deadline(2), &err));
}

#endif
