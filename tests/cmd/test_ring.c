/* A job on several machines, as a user runs it: `prima run plan.yaml prompts.jsonl` with the demo model on
 * devices that are processes on this machine. What is compared are completions of one device with those of
 * many (rule 3), and of an undisturbed run with one in which workers were ended, stopped, or refused. */
#include "src/base/clock.h"
#include "src/model/model.h"
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL "datasets/demo/demo.gguf"
enum { CTX = 512, MAX_DEVICES = 6, MAX_ARGS = 24 };
static const double PEER_S = 5;

static char marker[64], header[65];
static char prompts[512], out[512], alone[512], plan_path[512], stderr_path[512];
static uint32_t n_layers;

/* --- processes ----------------------------------------------------------------------------------------- */
static void sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

static bool file_contains(const char *path, const char *what)
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
static size_t find_workers(pid_t *pid, size_t max)
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

static size_t count_workers(void)
{
    pid_t pid[2 * MAX_DEVICES];
    return find_workers(pid, 2 * MAX_DEVICES);
}

static void assert_no_workers_after(double seconds)
{
    uint64_t until = clock_ns() + (uint64_t)(seconds * 1e9);

    while (count_workers() && clock_ns() < until) sleep_ms(10);
    cr_assert_eq(count_workers(), 0, "workers are left behind");
}

static void open_dir(void)
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

static void close_dir(void)
{
    assert_no_workers_after(5);
    test_dir_remove();
}

TestSuite(ring, .init = open_dir, .fini = close_dir, .timeout = 200);

/* --- plans --------------------------------------------------------------------------------------------- */
/* Below the ports that the system gives to connections, where somebody may sit at any moment. Tests run
 * beside each other: each has a hundred of its own. */
static void find_ports(uint16_t *port, size_t n)
{
    static unsigned next;

    for (size_t i = 0; i < n;) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
        port[i] = (uint16_t)(12000 + (unsigned)getpid() % 191 * 100 + next++ % 100);
        a.sin_port = htons(port[i]);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0) i++;
        close(fd);
    }
}

static void look_at(const char *path)
{
    pr_err err = {0};
    model m;

    cr_assert_eq(model_open(&m, path, &err), PR_OK, "%s", err.msg);
    snprintf(header, sizeof header, "%s", m.header_sha256);
    n_layers = m.hp.n_layers;
    model_close(&m);
}

/* Layers shared evenly over n devices in each of k rounds, and the model where everybody finds it. */
static plan *new_plan(const char *model_path, size_t n, uint32_t k, uint32_t slots)
{
    uint16_t port[MAX_DEVICES];
    plan *p;

    look_at(model_path);
    find_ports(port, n);
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
static const char *save(plan *p)
{
    pr_err err = {0};

    cr_assert_eq(plan_write(p, plan_path, &err), PR_OK, "%s", err.msg);
    plan_free(p);
    return plan_path;
}

static const char *demo_plan(size_t n, uint32_t k, uint32_t slots)
{
    return save(new_plan(MODEL, n, k, slots));
}

/* --- prompts and completions ---------------------------------------------------------------------------- */
static const char story[] =
    "Anna and Ben went to the park with their dog, and they played there until it was dark.";

/* Greedy and sampled, seeds given and not, short and long, some with a shared beginning. Every fourth is a
 * greedy one. */
static void write_prompt(FILE *f, int i, bool chat)
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

static void make_prompts(int n, bool chat)
{
    FILE *f = fopen(prompts, "w");

    cr_assert_not_null(f);
    for (int i = 0; i < n; i++) write_prompt(f, i, chat);
    fclose(f);
}

/* Every byte but the timings: also ids and request_ids that prima makes up. */
static void assert_same(const char *how)
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
static pid_t start(const char *source, const char *const more[])
{
    const char *argv[MAX_ARGS] = {"run", source, prompts, "-o", out};

    for (int i = 0; more && more[i]; i++) argv[5 + i] = more[i];
    return prima_start(NULL, argv);
}

static prima_result run(const char *source, const char *const more[])
{
    return prima_wait(start(source, more));
}

static void forget_output(void)
{
    unlink(out);
    unlink(in_dir("out.manifest.json"));
}

/* This machine alone: what must come out of every ring. */
static void run_alone(const char *model_path)
{
    prima_result r = run(model_path, ARGS("--ctx", "512"));

    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
}

/* --- rule 3 --------------------------------------------------------------------------------------------- */
static void check_ring(const char *model_path, size_t n, uint32_t k, uint32_t slots, const char *in_flight)
{
    char how[128];
    prima_result r;

    snprintf(how, sizeof how, "%zu devices, %u rounds, %u slots, %s in flight", n, k, slots, in_flight);
    r = run(save(new_plan(model_path, n, k, slots)), ARGS("--in-flight", in_flight));
    cr_assert_eq(r.status, 0, "%s: %s", how, r.err);
    assert_same(how);
    cr_assert_eq(count_workers(), 0, "%s: workers are left behind", how);
    forget_output();
}

Test(ring, any_devices_and_rounds_give_the_bytes_of_one)
{
    static const size_t devices[] = {1, 2, 3, 4, 6};
    static const uint32_t rounds[] = {1, 2, 3, 5}, slots[] = {4, 16, 1};
    static const char *const in_flight[] = {"1", "2", "3", "4", "8"};
    int way = 0;

    make_prompts(16, true);
    run_alone(MODEL);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++, way++)
            check_ring(MODEL, devices[i], rounds[j], slots[way % 3], in_flight[(way + i) % 5]);
}

Test(ring, another_model)
{
    const char *path = test_data("models/stories260K.gguf");

    make_prompts(16, false);
    run_alone(path);
    check_ring(path, 2, 1, 16, "2");
    check_ring(path, 2, 3, 4, "5");
    check_ring(path, 3, 2, 1, "1");
    check_ring(path, 4, 1, 4, "4");
    check_ring(path, 6, 1, 16, "8");
}

/* Who has how many layers is the plan's business. */
Test(ring, uneven_windows)
{
    static const struct {
        size_t n;
        uint32_t rounds, end[4]; /* of windows in the order of computing; 0 ends them */
        uint8_t rank[4], round[4];
    } ways[] = {
        {2, 1, {8}, {1}, {0}},                            /* the head embeds and projects only */
        {3, 1, {1, 8}, {1, 2}, {0, 0}},                   /* so here, and one layer, and seven */
        {2, 2, {1, 2, 7, 8}, {0, 1, 0, 1}, {0, 0, 1, 1}}, /* uneven rounds */
        {2, 3, {3, 5, 8}, {1, 0, 1}, {0, 1, 2}},          /* rounds without one of the two */
    };

    make_prompts(12, true);
    run_alone(MODEL);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        plan *p = new_plan(MODEL, ways[i].n, ways[i].rounds, 4);
        uint32_t first = 0;
        char how[32];
        prima_result r;

        for (size_t j = 0; j < p->n_devices; j++) p->device[j].n_windows = 0;
        for (int j = 0; j < 4 && ways[i].end[j]; first = ways[i].end[j++]) {
            plan_device *d = &p->device[ways[i].rank[j]];
            d->window[d->n_windows++] =
                (plan_window){ways[i].round[j], first, ways[i].end[j] - 1, PLACE_RAM, 0};
        }
        snprintf(how, sizeof how, "way %zu", i);
        r = run(save(p), NULL);
        cr_assert_eq(r.status, 0, "%s: %s", how, r.err);
        assert_same(how);
        forget_output();
    }
}

/* Rounded hidden states give other bits: text of this small model goes astray sooner or later, but begins as
 * it should. And such a job is not gone on with in another way. */
Test(ring, half_precision_on_the_wire)
{
    static const char *const wire[] = {"f16", "bf16"};

    make_prompts(40, true);
    run_alone(MODEL);
    for (int i = 0; i < 2; i++) {
        json_t *exact, *half;
        size_t same = 0;
        prima_result r = run(demo_plan(3, 2, 16), ARGS("--wire", wire[i]));

        cr_assert_eq(r.status, 0, "%s", r.err);
        exact = read_jsonl_sorted(alone, true);
        half = read_jsonl_sorted(out, true);
        cr_assert_eq(json_array_size(half), 40);
        for (size_t j = 0; j < 40; j += 4) { /* the greedy ones */
            const char *a = json_string_value(json_object_get(json_array_get(exact, j), "text")),
                       *b = json_string_value(json_object_get(json_array_get(half, j), "text"));
            cr_assert(a && b && *b);
            same += strncmp(a, b, 12) == 0;
        }
        cr_expect_geq(same, 7, "%s: only %zu of 10 begin as they should", wire[i], same);
        json_decref(exact);
        json_decref(half);
        cr_expect_eq(run(plan_path, ARGS("--resume")).status, 5, "%s and then f32", wire[i]);
        forget_output();
    }
}

/* --- what is refused ------------------------------------------------------------------------------------ */
static void refused(const char *source, const char *const more[], int status, const char *message)
{
    prima_result r = run(source, more);

    cr_expect_eq(r.status, status, "%s: exit status %d: %s", message, r.status, r.err);
    cr_expect(strstr(r.err, message), "not said: %s: %s", message, r.err);
    cr_expect_eq(access(out, F_OK), -1, "%s: an output was made", message);
    cr_expect_not(strstr(r.err, "listening on"), "%s: a worker was started", message);
    forget_output();
}

Test(ring, plans_that_this_build_cannot_run)
{
    plan *p;

    make_prompts(2, true);
    for (size_t i = 0; i < 3; i++) { /* a ring's worker, its head, and a device alone */
        p = new_plan(MODEL, i < 2 ? 2 : 1, 1, 4);
        p->device[i % 2].window[0].place = PLACE_GPU;
        p->device[i % 2].bytes.budget_gpu = (uint64_t)1 << 30;
        refused(save(p), NULL, 5, "on the GPU");
        p = new_plan(MODEL, i < 2 ? 2 : 1, 1, 4);
        p->device[i % 2].window[0].place = PLACE_DISK;
        p->device[i % 2].window[0].streamed_pieces = 3;
        p->device[i % 2].buffer_pieces = 2;
        refused(save(p), NULL, 5, "on disk");
    }
}

Test(ring, plans_that_are_not_what_they_were)
{
    char *text, *at;
    plan *p;

    make_prompts(2, true);
    text = read_file(demo_plan(2, 1, 4));
    cr_assert_not_null(at = strstr(text, "\nslots: 4"));
    at[8] = '5';
    write_file(plan_path, text);
    free(text);
    refused(plan_path, NULL, 5, "it was changed after it was made");
    p = new_plan(MODEL, 2, 1, 4);
    memset(p->model.header_sha256, 'a', 64);
    refused(save(p), NULL, 5, "is not the model of the plan");
    p = new_plan(MODEL, 2, 1, 4);
    *p->device[0].model = 0;
    refused(save(p), NULL, 2, "--model FILE");
    refused(plan_path, ARGS("--model", in_dir("absent.gguf")), 9, "absent.gguf");
    refused(demo_plan(2, 1, 4), ARGS("--slots", "2"), 2, "are the plan's");
    refused(MODEL, ARGS("--wire", "f16"), 2, "go with a plan");
}

/* Found where it is so, and said here. */
Test(ring, a_budget_that_is_too_small)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    prima_result r;

    make_prompts(2, true);
    p->device[1].bytes.budget_ram = 1 << 16;
    r = run(save(p), NULL);
    cr_expect_eq(r.status, 9, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "prima run: d1: "), "%s", r.err);
}

Test(ring, the_key)
{
    plan *p;
    prima_result r;

    make_prompts(2, true);
    cr_assert_eq(chmod(in_dir("key"), 0644), 0);
    refused(demo_plan(2, 1, 4), NULL, 7, "expected 0600");
    cr_assert_eq(unlink(in_dir("key")), 0);
    refused(plan_path, NULL, 7, "key file");
    p = new_plan(MODEL, 2, 1, 4);
    p->net.secure = false;
    r = run(save(p), NULL);
    cr_expect_eq(r.status, 0, "without a key, on loopback: %s", r.err);
}

/* --- devices that are lost ------------------------------------------------------------------------------ */
static size_t lines_of(const char *path)
{
    return access(path, F_OK) ? 0 : count_lines(path);
}

static void await_lines(size_t n)
{
    uint64_t until = clock_ns() + UINT64_C(30000000000);

    while (lines_of(out) < n && clock_ns() < until) sleep_ms(2);
    cr_assert_geq(lines_of(out), n, "%zu lines after 30 s", lines_of(out));
}

static void await_workers(size_t n)
{
    uint64_t until = clock_ns() + UINT64_C(10000000000);

    while (count_workers() < n && clock_ns() < until) sleep_ms(1);
    cr_assert_geq(count_workers(), n, "no %zu workers: %s", n, read_file(stderr_path));
}

static void signal_worker(size_t i, int sig)
{
    pid_t pid[MAX_DEVICES];
    size_t n = find_workers(pid, MAX_DEVICES);

    cr_assert_gt(n, i, "%zu workers", n);
    kill(pid[i], sig);
}

/* All is done, every byte is what it would have been, and nobody is left. */
static void finish(pid_t head, const char *says)
{
    prima_result r = prima_wait(head);

    cr_assert_eq(r.status, 0, "exit status %d: %s", r.status, r.err);
    if (says) cr_expect(strstr(r.err, says), "not said: %s: %s", says, r.err);
    assert_same("after all that");
    assert_no_workers_after(3);
    forget_output();
}

Test(ring, workers_killed_at_several_moments)
{
    unsigned restarts = 0;
    char *csv;
    pid_t head;

    make_prompts(300, true);
    run_alone(MODEL);
    head = start(demo_plan(3, 2, 16), ARGS("--restarts", "20", "--timings", in_dir("t.csv")));
    for (size_t i = 0; i < 4; i++) {
        await_lines(1 + 50 * i);
        await_workers(1); /* two, unless the last one was killed while it came back */
        signal_worker(i % count_workers(), SIGKILL);
    }
    finish(head, "is lost");
    csv = read_file(in_dir("t.run.csv"));
    cr_assert_eq(sscanf(strrchr(csv, ','), ",%u", &restarts), 1, "%s", csv);
    cr_expect(restarts >= 2 && restarts <= 20, "%u restarts", restarts);
    free(csv);
}

/* Whoever comes back dies as soon as it is there, while it loads; then all that are left at once. */
Test(ring, workers_killed_in_a_row_and_together)
{
    pid_t pid[2 * MAX_DEVICES], head;

    make_prompts(200, true);
    run_alone(MODEL);
    head = start(demo_plan(3, 1, 16), ARGS("--restarts", "20"));
    await_lines(10);
    for (unsigned ms = 0; ms < 60; ms += 10) {
        size_t n = find_workers(pid, 2 * MAX_DEVICES);
        if (n) kill(pid[n - 1], SIGKILL); /* by now it may have gone on without any */
        sleep_ms(20 + ms);
    }
    await_lines(80);
    for (size_t n = find_workers(pid, 2 * MAX_DEVICES); n-- > 0;) kill(pid[n], SIGKILL);
    finish(head, NULL);
}

/* Killed before it has said where it listens, it has never been there: nothing is begun. Later it is like one
 * that is lost in the middle of the job. */
Test(ring, a_worker_killed_before_it_was_ready)
{
    make_prompts(20, true);
    run_alone(MODEL);
    for (unsigned ms = 0; ms < 40; ms += 8) {
        pid_t head = start(demo_plan(3, 1, 4), NULL);
        prima_result r;

        await_workers(1);
        sleep_ms(ms);
        signal_worker(0, SIGKILL);
        r = prima_wait(head);
        if (r.status == 0) assert_same("killed while it loads");
        else cr_expect(r.status == 6 && strstr(r.err, "d1"), "exit status %d: %s", r.status, r.err);
        assert_no_workers_after(3);
        forget_output();
    }
}

/* Three devices as the planner wants them, with so much memory each. How fast they are does not matter here:
 * their profiles are those of an example. */
static void plan_for_three(const char *ram)
{
    char text[1024], command[2048];
    uint16_t port[3];
    prima_result r;

    find_ports(port, 3);
    snprintf(text, sizeof text,
             "schema: prima/cluster/1\ncluster: box\nsecurity: {mode: psk}\ndevices:\n"
             "  - {name: d0, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d0.json, model: %s}\n"
             "  - {name: d1, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d1.json}\n"
             "  - {name: d2, host: 127.0.0.1, ram: %s, port: %u, threads: 1, profile: d2.json}\n",
             ram, port[0], MODEL, ram, port[1], ram, port[2]);
    write_file(in_dir("cluster.yaml"), text);
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command,
                 "sed 's/\"device\": \"d3-desktop\"/\"device\": \"d%d\"/' "
                 "datasets/clusters/paper-home/d3-desktop.json >'%s/d%d.json'",
                 i, in_dir("."), i);
        cr_assert_eq(system(command), 0);
    }
    r = prima_run(NULL, ARGS("plan", in_dir("cluster.yaml"), "-m", MODEL, "--ctx", "512", "--slots", "32",
                             "--layers", "3,3,2", "-o", plan_path));
    cr_assert_eq(r.status, 0, "%s", r.err);
}

/* A job that loses a device for good. Devices without a copy of the model get their tensors
 * from the head. 64 MiB: the others can hold its layers; 19 MiB: they cannot. */
Test(ring, no_restarts)
{
    prima_result r;
    pid_t head;
    size_t n;

    make_prompts(200, true);
    run_alone(MODEL);
    plan_for_three("64MiB");
    head = start(plan_path, ARGS("--restarts", "0"));
    await_lines(20);
    signal_worker(0, SIGKILL);
    finish(head, "going on without d");

    plan_for_three("19MiB");
    head = start(plan_path, ARGS("--restarts", "1"));
    await_lines(20);
    signal_worker(0, SIGKILL);
    await_lines(lines_of(out) + 5);
    await_workers(2);
    signal_worker(0, SIGKILL);
    r = prima_wait(head);
    cr_expect_eq(r.status, 6, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "restarts are used up"), "%s", r.err);
    cr_expect(strstr(r.err, "run again with --resume"), "%s", r.err);
    cr_expect(strstr(r.err, "  [d1] "), "lines of workers have their names in front: %s", r.err);
    n = count_lines(out);
    cr_assert(n >= 25 && n < 200, "%zu lines", n);
    assert_no_workers_after(3);
    finish(start(demo_plan(2, 3, 4), ARGS("--resume")), NULL); /* on any other ring */
}

Test(ring, the_head_is_ended)
{
    static const int sig[] = {SIGTERM, SIGINT, SIGKILL};

    make_prompts(200, true);
    run_alone(MODEL);
    demo_plan(3, 1, 16);
    for (int i = 0; i < 3; i++) {
        pid_t head = start(plan_path, ARGS("--grace", "0s", i ? "--resume" : NULL));
        prima_result r;
        await_lines(20 + lines_of(out));
        kill(head, sig[i]);
        r = prima_wait(head);
        cr_expect_eq(r.status, 128 + sig[i], "exit status %d: %s", r.status, r.err);
        if (sig[i] != SIGKILL) cr_expect(strstr(r.err, "--resume"), "%s", r.err);
        assert_no_workers_after(3);
    }
    finish(start(plan_path, ARGS("--resume")), NULL);
}

/* A closed lid: nothing is refused, nothing answers. Only the silence tells. */
Test(ring, a_worker_that_hangs_is_found_by_its_silence)
{
    plan *p = new_plan(MODEL, 3, 1, 16);
    uint64_t start_ns;
    pid_t head;

    make_prompts(200, true);
    run_alone(MODEL);
    p->net.heartbeat_s = 0.2;
    p->net.peer_s = 0.5;
    head = start(save(p), ARGS("--restarts", "20"));
    await_lines(20);
    signal_worker(0, SIGSTOP);
    start_ns = clock_ns();
    while (!file_contains(stderr_path, "is lost: ") && clock_ms_since(start_ns) < 5000) sleep_ms(5);
    cr_expect_lt(clock_ms_since(start_ns), 1500, "found after %.0f ms", clock_ms_since(start_ns));
    finish(head, "is lost: ");
}

/* --- a look at the ring --------------------------------------------------------------------------------- */
Test(ring, check_computes_nothing)
{
    prima_result r;

    make_prompts(4, true);
    r = run(demo_plan(3, 2, 4), ARGS("--check"));
    cr_expect_eq(r.status, 0, "%s", r.err);
    cr_expect_eq(access(out, F_OK), -1, "an output was made");
    cr_expect_eq(count_workers(), 0);
    r = prima_run(NULL, ARGS("run", plan_path, "--check"));
    cr_expect_eq(r.status, 0, "without prompts: %s", r.err);
    cr_expect(strstr(r.err, "links: "), "nothing about the links: %s", r.err);
    cr_expect_eq(count_workers(), 0);
    cr_expect_eq(prima_run(NULL, ARGS("run", plan_path)).status, 2, "a run needs prompts");
}
