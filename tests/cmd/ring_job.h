/* A job on several machines, as a user runs it: `prima run plan.yaml in.jsonl` with the demo model on devices
 * that are processes on this machine. What the tests of the ring share: plans, prompts, processes, and the
 * completions of one device that all others are compared with (rule 3). */
#ifndef PRIMA_TESTS_RING_JOB_H
#define PRIMA_TESTS_RING_JOB_H
#include "src/base/clock.h"
#include "src/model/model.h"
#include "tests/common/free_ports.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "datasets/demo/demo.gguf"
enum { CTX = 512, MAX_DEVICES = 6, MAX_ARGS = 24 };
static const double PEER_S = 5;

static char marker[64], header[65];
static char prompts[512], out[512], alone[512], plan_path[512], stderr_path[512];
static uint32_t n_layers;

/* --- processes ----------------------------------------------------------------------------------------- */
static inline void sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

static inline bool file_contains(const char *path, const char *what)
{
    static char text[1 << 16];
    FILE *f = fopen(path, "r");
    size_t n;

    if (!f) return false;
    n = fread(text, 1, sizeof text, f);
    fclose(f);
    return memmem(text, n, what, strlen(what)) != NULL;
}

/* Workers of this test's runs, whoever their parent is by now: the environment says whose they are. They are
 * in the order in which they were started, as long as process ids grow. */
static inline size_t find_workers(pid_t *pid, size_t max)
{
    DIR *d = opendir("/proc");
    size_t n = 0;

    cr_assert_not_null(d);
    for (struct dirent *e; (e = readdir(d)) && n < max;) {
        char path[300];
        if (*e->d_name < '1' || *e->d_name > '9') continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        if (!file_contains(path, "--stdio")) continue;
        snprintf(path, sizeof path, "/proc/%s/environ", e->d_name);
        if (file_contains(path, marker)) pid[n++] = (pid_t)atol(e->d_name);
    }
    closedir(d);
    return n;
}

static inline size_t count_workers(void)
{
    pid_t pid[2 * MAX_DEVICES];
    return find_workers(pid, 2 * MAX_DEVICES);
}

static inline void assert_no_workers_after(double seconds)
{
    uint64_t until = clock_ns() + (uint64_t)(seconds * 1e9);

    while (count_workers() && clock_ns() < until) sleep_ms(10);
    cr_assert_eq(count_workers(), 0, "workers are left behind");
}

static inline void open_dir(void)
{
    test_dir_new();
    snprintf(marker, sizeof marker, "prima-test-ring-%ld", (long)getpid());
    setenv("PRIMA_TEST_MARKER", marker, 1);
    setenv("PRIMA_CACHE", in_dir("cache"), 1);
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    unsetenv("PRIMA_LOG");
    snprintf(prompts, sizeof prompts, "%s", in_dir("in.jsonl"));
    snprintf(out, sizeof out, "%s", in_dir("out"));
    snprintf(stderr_path, sizeof stderr_path, "%s", in_dir("stderr"));
    snprintf(alone, sizeof alone, "%s", in_dir("alone"));
    snprintf(plan_path, sizeof plan_path, "%s", in_dir("plan.yaml"));
    cr_assert_eq(prima_run(NULL, (const char *[]){"keygen", NULL}).status, 0);
}

static inline void close_dir(void)
{
    assert_no_workers_after(5);
    test_dir_remove();
}

/* --- plans --------------------------------------------------------------------------------------------- */
static inline void look_at(const char *path)
{
    pr_err err = {0};
    model m;

    cr_assert_eq(model_open(&m, path, &err), PR_OK, "%s", err.msg);
    snprintf(header, sizeof header, "%s", m.header_sha256);
    n_layers = m.hp.n_layers;
    model_close(&m);
}

/* Layers shared evenly over n devices in each of k rounds, and the model where everybody finds it. */
static inline plan *new_plan(const char *model_path, size_t n, uint32_t k, uint32_t slots)
{
    uint16_t port[MAX_DEVICES];
    plan *p;

    look_at(model_path);
    free_ports(port, n);
    p = ring_plan_new(n, k, n_layers, header, port);
    cr_assert_not_null(p);
    p->ctx = CTX;
    p->slots = slots;
    p->net.peer_s = PEER_S;
    for (size_t i = 0; i < n; i++) {
        snprintf(p->device[i].model, sizeof p->device[i].model, "%s", model_path);
        p->device[i].threads = 1;
    }
    return p;
}

/* Writes it, digest and all, and frees it. */
static inline const char *save(plan *p)
{
    pr_err err = {0};

    cr_assert_eq(plan_write(p, plan_path, &err), PR_OK, "%s", err.msg);
    plan_free(p);
    return plan_path;
}

static inline const char *demo_plan(size_t n, uint32_t k, uint32_t slots)
{
    return save(new_plan(MODEL, n, k, slots));
}

/* --- prompts and completions ---------------------------------------------------------------------------- */
static const char story[] =
    "Anna and Ben went to the park with their dog, and they played there until it was dark.";

/* Greedy and sampled, seeds given and not, short and long, some with a shared beginning. Every fourth is a
 * greedy one. */
static inline void write_prompt(FILE *f, int i, bool chat)
{
    const char *ends = i % 3 ? "true" : "false";
    int n = 8 + i % 40;

    if (i % 4 == 0)
        fprintf(
            f,
            "{\"id\":\"p%03d\",\"prompt\":\"Once upon a time there was a cat number %d\",\"ignore_eos\":%s,"
            "\"max_tokens\":%d}\n",
            i, i, ends, n);
    else if (i % 4 == 1)
        fprintf(f,
                "{\"id\":\"p%03d\",\"prompt\":\"%s The dog\",\"temperature\":0.8,\"top_p\":0.9,"
                "\"ignore_eos\":%s,\"max_tokens\":%d}\n",
                i, story, ends, n);
    else if (i % 4 == 2 && chat)
        fprintf(
            f,
            "{\"custom_id\":\"p%03d\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{"
            "\"messages\":[{\"role\":\"user\",\"content\":\"What is %d plus %d?\"}],\"max_tokens\":%d}}\n",
            i, i % 10, i % 7, n);
    else
        fprintf(f,
                "{\"id\":\"p%03d\",\"prompt\":\"%s On day %d\",\"temperature\":1,\"seed\":%d,"
                "\"repeat_penalty\":1.1,\"logprobs\":true,\"max_tokens\":%d}\n",
                i, story, i, i, n);
}

static inline void make_prompts(int n, bool chat)
{
    FILE *f = fopen(prompts, "w");

    cr_assert_not_null(f);
    for (int i = 0; i < n; i++) write_prompt(f, i, chat);
    fclose(f);
}

/* Every byte but the timings: also ids and request_ids that prima makes up. */
static inline void assert_same(const char *how)
{
    json_t *x = read_jsonl_sorted(alone, true), *y = read_jsonl_sorted(out, true);

    cr_assert_eq(json_array_size(x), json_array_size(y), "%s: %zu and %zu lines", how, json_array_size(x),
                 json_array_size(y));
    for (size_t i = 0; i < json_array_size(x); i++) {
        char *p = json_dumps(json_array_get(x, i), 0), *q = json_dumps(json_array_get(y, i), 0);
        cr_assert_str_eq(p, q, "%s", how);
        free(p);
        free(q);
    }
    json_decref(x);
    json_decref(y);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* prima run SOURCE in.jsonl -o out and more arguments. */
static inline pid_t start(const char *source, const char *const more[])
{
    const char *argv[MAX_ARGS] = {"run", source, prompts, "-o", out};

    for (int i = 0; more && more[i]; i++) argv[5 + i] = more[i];
    return prima_start(NULL, argv);
}

static inline prima_result run(const char *source, const char *const more[])
{
    return prima_wait(start(source, more));
}

static inline void forget_output(void)
{
    unlink(out);
    unlink(in_dir("out.manifest.json"));
}

/* This machine alone: what must come out of every ring. */
static inline void run_alone(const char *model_path)
{
    prima_result r = run(model_path, ARGS("--ctx", "512"));

    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
}

/* --- waiting, and ending workers ------------------------------------------------------------------------ */
static inline size_t lines_of(const char *path)
{
    return access(path, F_OK) ? 0 : count_lines(path);
}

static inline void await_lines(size_t n)
{
    uint64_t until = clock_ns() + UINT64_C(30000000000);

    while (lines_of(out) < n && clock_ns() < until) sleep_ms(2);
    cr_assert_geq(lines_of(out), n, "%zu lines after 30 s", lines_of(out));
}

static inline void await_workers(size_t n)
{
    uint64_t until = clock_ns() + UINT64_C(10000000000);

    while (count_workers() < n && clock_ns() < until) sleep_ms(1);
    cr_assert_geq(count_workers(), n, "no %zu workers: %s", n, read_file(stderr_path));
}

static inline void signal_worker(size_t i, int sig)
{
    pid_t pid[MAX_DEVICES];
    size_t n = find_workers(pid, MAX_DEVICES);

    cr_assert_gt(n, i, "%zu workers", n);
    kill(pid[i], sig);
}

/* All is done, every byte is what it would have been, and nobody is left. */
static inline void finish(pid_t head, const char *says)
{
    prima_result r = prima_wait(head);

    cr_assert_eq(r.status, 0, "exit status %d: %s", r.status, r.err);
    if (says) cr_expect(strstr(r.err, says), "not said: %s: %s", says, r.err);
    assert_same("after all that");
    assert_no_workers_after(3);
    forget_output();
}

/* --- a worker that is nobody's child ---------------------------------------------------------------------
 */
static pid_t by_hand;

static inline void start_program_by_hand(const char *program, uint16_t port, const char *isa)
{
    char address[64];
    struct stat st;

    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    write_file(in_dir("address"), "");
    fflush(NULL);
    cr_assert_geq(by_hand = fork(), 0);
    if (!by_hand) {
        dup2(open(in_dir("address"), O_WRONLY), 1);
        dup2(open("/dev/null", O_WRONLY), 2);
        execl(program, "prima", "worker", "--listen", address, "--threads", "1", isa ? "--isa" : NULL, isa,
              (char *)NULL);
        _exit(127);
    }
    for (int i = 0; (stat(in_dir("address"), &st) || !st.st_size) && i < 1000; i++) sleep_ms(10);
    cr_assert_eq(count_lines(in_dir("address")), 1u, "the worker has not started");
}

/* isa NULL: the best of this CPU. */
static inline void start_by_hand(uint16_t port, const char *isa)
{
    start_program_by_hand(prima_program(), port, isa);
}

static inline void end_by_hand(void)
{
    kill(by_hand, SIGTERM);
    waitpid(by_hand, NULL, 0);
}

#endif
