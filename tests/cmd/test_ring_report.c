/* What a run says about itself: `prima run --trace --metrics-file --timings` on three devices that are
 * processes on this machine, and on one alone. Trace, tables and metrics come by different ways (spans,
 * differences of counts, sums of counts), so that they check each other. */
#include "src/base/clock.h"
#include "src/model/model.h"
#include "tests/common/free_ports.h"
#include "tests/common/prima.h"
#include "tests/common/prom.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "datasets/demo/demo.gguf"
enum { DEVICES = 3, ROUNDS = 2, LAYERS = 8, MAX_BATCHES = 20000 };

static char marker[64];

/* --- a run -------------------------------------------------------------------------------------------------
 */
static void write_plan(void)
{
    uint16_t port[DEVICES];
    pr_err err = {0};
    model m;
    plan *p;

    free_ports(port, DEVICES);
    cr_assert_eq(model_open(&m, MODEL, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(m.hp.n_layers, LAYERS);
    p = ring_plan_new(DEVICES, ROUNDS, m.hp.n_layers, m.header_sha256, port);
    model_close(&m);
    for (size_t i = 0; i < DEVICES; i++) {
        snprintf(p->device[i].model, sizeof p->device[i].model, "%s", MODEL);
        p->device[i].threads = 1;
    }
    cr_assert_eq(plan_write(p, in_dir("plan.yaml"), &err), PR_OK, "%s", err.msg);
    plan_free(p);
}

static void write_prompts(int n)
{
    FILE *f = fopen(in_dir("in.jsonl"), "w");

    cr_assert_not_null(f);
    for (int i = 0; i < n; i++)
        fprintf(f,
                "{\"id\":\"p%d\",\"prompt\":\"Once upon a time there was a cat number %d, and it was "
                "%s\",\"ignore_eos\":true,\"max_tokens\":%d}\n",
                i, i, i % 7 ? "black." : "as large as a house with many windows and a red door.",
                10 + i % 30);
    fclose(f);
}

static void setup(void)
{
    test_dir_new();
    snprintf(marker, sizeof marker, "prima-test-report-%ld", (long)getpid());
    setenv("PRIMA_TEST_MARKER", marker, 1);
    setenv("PRIMA_CACHE", in_dir("cache"), 1);
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    cr_assert_eq(prima_run(NULL, (const char *[]){"keygen", NULL}).status, 0);
    write_plan();
}
TestSuite(report, .init = setup, .fini = test_dir_remove, .timeout = 200);

static pid_t start(const char *model_or_plan)
{
    return prima_start(NULL, (const char *[]){"run", model_or_plan, in_dir("in.jsonl"), "-o", in_dir("out"),
                                              "--trace", in_dir("t.json"), "--metrics-file", in_dir("m.prom"),
                                              "--timings", in_dir("times.csv"), NULL});
}

/* --- reading it --------------------------------------------------------------------------------------------
 */
static prom *read_metrics(void)
{
    char *text = read_file(in_dir("m.prom"));
    prom *r = prom_parse(text);

    cr_assert_str_empty(r->wrong, "%s", r->wrong);
    free(text);
    return r;
}

/* Sum of a column of timings.devices.csv over the rows of a device. */
static double sum_of(const char *device, const char *column)
{
    FILE *f = fopen(in_dir("times.devices.csv"), "r");
    char line[2048];
    double sum = 0;
    int want = -1;

    cr_assert_not_null(f);
    for (int row = 0; fgets(line, sizeof line, f); row++) {
        char *rest = line, *field, *name = NULL, *value = NULL;
        for (int i = 0; (field = strsep(&rest, ",")); i++) {
            if (row == 0 && !strcmp(field, column)) want = i;
            if (i == 3) name = field;
            if (i == want) value = field;
        }
        if (row && value && !strcmp(name, device)) sum += atof(value);
    }
    fclose(f);
    cr_assert_geq(want, 0);
    return sum;
}

typedef struct {
    double start_us, end_us, error_us;
} when;

/* What a device's lanes hold. */
typedef struct {
    char name[64];
    double error_us;  /* of its clock, as it was stated last */
    double end_us[3]; /* compute, wait, send */
    double sum_ms[3];
    size_t n[3], lost;
    /* Of a window: [micro-batch][round]; end_us 0: none. */
    when (*window)[ROUNDS];
} lanes;

static lanes device[DEVICES];
static uint64_t n_batches;

static double number(const json_t *e, const char *key)
{
    const json_t *v = json_object_get(e, key);
    cr_assert(json_is_number(v), "%s", key);
    return json_number_value(v);
}

static const char *text_of(const json_t *e, const char *key)
{
    return json_string_value(json_object_get(e, key));
}

static void take_window(lanes *d, const json_t *e, const when *w)
{
    const json_t *args = json_object_get(e, "args"), *id;
    size_t i;

    json_array_foreach(json_object_get(args, "micro_batches"), i, id)
    {
        uint64_t n = (uint64_t)json_integer_value(id);
        when *at;
        cr_assert(n > 0 && n < MAX_BATCHES);
        if (n > n_batches) n_batches = n;
        at = &d->window[n][(size_t)number(args, "round")];
        cr_expect_eq(at->end_us, 0, "%s: micro-batch %llu is computed twice in a round", d->name,
                     (unsigned long long)n);
        *at = *w;
    }
}

static void take_span(lanes *d, const json_t *e)
{
    static const char *const name[] = {"compute", "wait", "send"};
    when w = {number(e, "ts"), number(e, "ts") + number(e, "dur"), d->error_us};
    size_t l = 0;

    while (l < 3 && strcmp(text_of(e, "cat"), name[l])) l++;
    cr_assert_lt(l, 3u);
    cr_expect_geq(w.start_us, d->end_us[l] - 1e-2, "%s: spans of lane %s overlap", d->name, name[l]);
    d->end_us[l] = w.end_us;
    d->sum_ms[l] += (w.end_us - w.start_us) / 1e3;
    d->n[l]++;
    if (!strncmp(text_of(e, "name"), "layers", 6)) take_window(d, e, &w);
}

static void read_trace(size_t n_devices)
{
    json_error_t why;
    json_t *all = json_load_file(in_dir("t.json"), 0, &why), *e;
    size_t i;

    cr_assert_not_null(all, "line %d: %s", why.line, why.text);
    for (i = 0; i < DEVICES; i++) device[i].window = calloc(MAX_BATCHES, sizeof *device[i].window);
    json_array_foreach(all, i, e)
    {
        size_t pid = (size_t)number(e, "pid");
        const char *phase = text_of(e, "ph"), *name = text_of(e, "name");
        cr_assert(pid >= 1 && pid <= n_devices, "pid %zu", pid);
        lanes *d = &device[pid - 1];
        if (!strcmp(phase, "X")) take_span(d, e);
        else if (!strcmp(name, "clock")) d->error_us = number(json_object_get(e, "args"), "error_us");
        else if (!strcmp(name, "spans lost")) d->lost += (size_t)number(json_object_get(e, "args"), "count");
        else if (!strcmp(name, "process_name"))
            snprintf(d->name, sizeof d->name, "%s", text_of(json_object_get(e, "args"), "name"));
    }
    json_decref(all);
}

static void check_sums(const char *name, const lanes *d)
{
    double counted = sum_of(name, "compute_cpu_ms");
    prom *m = read_metrics();

    cr_expect_str_eq(d->name, name);
    cr_expect_eq(d->lost, 0u);
    cr_expect_gt(counted, 1);
    cr_expect_float_eq(d->sum_ms[0], counted, 0.01 * counted, "%s: spans %.3f ms, counts %.3f ms", name,
                       d->sum_ms[0], counted);
    cr_expect_float_eq(1e3 * prom_get(m, "prima_device_compute_seconds_total", "device", name), counted,
                       0.01 * counted);
    free(m);
}

/* Round by round, device by device: none begins before the one before it has ended, as far as one can tell.
 */
static void check_order(uint64_t id)
{
    const when *before = NULL;
    size_t n = 0;

    for (size_t r = 0; r < ROUNDS; r++) {
        for (size_t i = 0; i < DEVICES; i++) {
            const when *w = &device[i].window[id][r];
            if (w->end_us == 0) continue;
            if (before)
                cr_expect_geq(w->start_us, before->end_us - before->error_us - w->error_us,
                              "micro-batch %llu, round %zu, %s", (unsigned long long)id, r, device[i].name);
            before = w;
            n++;
        }
    }
    cr_expect_eq(n, (size_t)DEVICES * ROUNDS, "micro-batch %llu", (unsigned long long)id);
}

/* --- tests
 * -------------------------------------------------------------------------------------------------- */
/* The file is valid whenever it is looked at, and counters never fall. Returns how often it has grown before
 * the end. */
static int watch_metrics(pid_t pid)
{
    double tokens = 0;
    int grown = 0;
    siginfo_t info = {0};

    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid) {
        if (access(in_dir("m.prom"), F_OK) == 0) {
            prom *m = read_metrics();
            double now = prom_get(m, "prima_tokens_total", "kind", "completion");
            cr_assert_geq(now, tokens);
            grown += now > tokens && prom_get(m, "prima_run_active", NULL, NULL) == 1;
            tokens = now;
            free(m);
        }
        usleep(20000);
    }
    return grown;
}

Test(report, ring)
{
    uint64_t begin = clock_ns();
    prom *m;

    write_prompts(200);
    pid_t pid = start(in_dir("plan.yaml"));
    int grown = watch_metrics(pid);
    prima_result r = prima_wait(pid);
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect(grown > 0 || clock_ms_since(begin) < 4000, "the metrics file has not followed the run");

    read_trace(DEVICES);
    for (size_t i = 0; i < DEVICES; i++) {
        check_sums((const char *[]){"d0", "d1", "d2"}[i], &device[i]);
        for (size_t l = 0; l < 3; l++) cr_expect_gt(device[i].n[l], 100u, "lane %zu of device %zu", l, i);
        cr_expect_lt(device[i].error_us, 1e5, "the clock of device %zu is not known", i);
    }
    cr_expect_gt(n_batches, 100u);
    for (uint64_t id = 1; id <= n_batches; id++) check_order(id);

    m = read_metrics();
    cr_expect_eq(prom_get(m, "prima_run_active", NULL, NULL), 0);
    cr_expect_eq(prom_get(m, "prima_requests_total", "status", "ok"), 200);
    cr_expect_eq(prom_get(m, "prima_requests_left", NULL, NULL), 0);
    cr_expect_eq(prom_get(m, "prima_restarts_total", NULL, NULL), 0);
    for (size_t i = 0; i < DEVICES; i++) {
        const char *name = device[i].name;
        cr_expect_eq(prom_get(m, "prima_device_up", "device", name), 1);
        cr_expect_eq(prom_get(m, "prima_device_receive_bytes_total", "device", name),
                     sum_of(name, "net_rx_bytes"), "%s", name);
        cr_expect_float_eq(1e3 * prom_get(m, "prima_device_wait_seconds_total", "device", name),
                           sum_of(name, "recv_wait_ms"), 1);
    }
    free(m);
}

Test(report, one_device)
{
    write_prompts(40);
    prima_result r = prima_wait(start(MODEL));
    cr_assert_eq(r.status, 0, "%s", r.err);
    read_trace(1);
    check_sums("local", &device[0]);
    cr_expect_eq((double)device[0].n[0], sum_of("local", "passes"));
    cr_expect_eq(device[0].n[1] + device[0].n[2], 0u);
}

static bool file_contains(const char *path, const char *what)
{
    static char text[1 << 16];
    FILE *f = fopen(path, "r");

    if (!f) return false;
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    return memmem(text, n, what, strlen(what)) != NULL;
}

/* A worker of this test's run: 0, none. */
static pid_t find_worker(void)
{
    DIR *d = opendir("/proc");
    pid_t pid = 0;

    for (struct dirent *e; !pid && (e = readdir(d));) {
        char cmdline[300], environ_path[300];
        if (*e->d_name < '1' || *e->d_name > '9') continue;
        snprintf(cmdline, sizeof cmdline, "/proc/%s/cmdline", e->d_name);
        snprintf(environ_path, sizeof environ_path, "/proc/%s/environ", e->d_name);
        if (file_contains(cmdline, "--stdio") && file_contains(environ_path, marker))
            pid = (pid_t)atol(e->d_name);
    }
    closedir(d);
    return pid;
}

Test(report, worker_that_is_lost_and_comes_back)
{
    write_prompts(200);
    pid_t pid = start(in_dir("plan.yaml")), worker = 0;
    for (int i = 0; i < 2000 && !(access(in_dir("out"), F_OK) == 0 && count_lines(in_dir("out")) > 20); i++)
        usleep(5000);
    worker = find_worker();
    cr_assert_gt(worker, 0);
    cr_assert_eq(kill(worker, SIGKILL), 0);
    prima_result r = prima_wait(pid);
    cr_assert_eq(r.status, 0, "%s", r.err);

    read_trace(DEVICES); /* also: no overlaps */
    prom *m = read_metrics();
    cr_expect_eq(prom_get(m, "prima_restarts_total", NULL, NULL), 1);
    cr_expect_eq(prom_get(m, "prima_requests_total", "status", "ok"), 200);
    /* Of the worker that was killed the last spans have come, but perhaps not the beat behind them. */
    size_t n_equal = 0;
    for (size_t i = 0; i < DEVICES; i++) {
        const char *name = device[i].name;
        double traced = device[i].sum_ms[0],
               counted = 1e3 * prom_get(m, "prima_device_compute_seconds_total", "device", name);
        cr_expect_eq(prom_get(m, "prima_device_up", "device", name), 1);
        cr_expect_float_eq(sum_of(name, "compute_cpu_ms"), counted, 0.01 * counted, "%s", name);
        cr_expect_geq(traced, 0.99 * counted, "%s: %.3f and %.3f ms", name, traced, counted);
        n_equal += traced <= 1.01 * counted;
    }
    cr_expect_geq(n_equal, DEVICES - 1u);
    free(m);
}

Test(report, files_that_cannot_be_written)
{
    write_prompts(1);
    for (int i = 0; i < 2; i++) {
        prima_result r =
            prima_run(NULL, (const char *[]){"run", MODEL, in_dir("in.jsonl"), "-o", in_dir(i ? "a" : "b"),
                                             i ? "--trace" : "--metrics-file", "/nonexistent/file", NULL});
        cr_expect_eq(r.status, 9, "%s", r.err);
        cr_expect(strstr(r.err, "/nonexistent/file"), "%s", r.err);
    }
}
