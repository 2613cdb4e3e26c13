/* Rings of x86-64 and aarch64 devices on this machine: prima, cross-built, runs under qemu-user. Its kernels
 * round differently, so that completions need not be the bytes of one device: token by token, the ring's
 * greedy choice is that of this machine alone, up to the first where the two best were nearly equal. */
#include "src/model/model.h"
#include "tests/common/free_ports.h"
#include "tests/common/prima.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL     "datasets/demo/demo.gguf"
#define PROMPTS   "datasets/demo-prompts.jsonl"
#define NATIVE    "build/release/prima"
#define SYSROOT   "build/sysroot-arm64"
#define QEMU(cpu) "qemu-aarch64", "-cpu", cpu, "-L", SYSROOT, "build/aarch64/prima"
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

enum { N_DEVICES = 3, N_PROMPTS = 20, CTX = 512 };

/* What two logits of two implementations may be off together, and a log probability, too: 0.005 (the data's
 * README: nrmse with an F16 KV cache) x 18, as in tests/run/test_models.c. */
static const double DOUBT = 0.09;

/* --- processes ----------------------------------------------------------------------------------------- */
static const char *path_of(const char *name, const char *end)
{
    char file[64];

    snprintf(file, sizeof file, "%s.%s", name, end);
    return in_dir(file);
}

/* Its standard output goes to NAME.out, its log to NAME.err. It does not outlive the test by much. */
static pid_t start(const char *name, const char *const argv[])
{
    const char *out = path_of(name, "out"), *log = path_of(name, "err");
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0) {
        alarm(120);
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
        dup2(open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

static void assert_ends_well(const char *name, pid_t pid)
{
    char *log;
    int status;

    cr_assert_eq(waitpid(pid, &status, 0), pid);
    log = read_file(path_of(name, "err"));
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status %d: %s", name, status, log);
    free(log);
}

static void assert_logged(const char *name, const char *what)
{
    char *log = read_file(path_of(name, "err"));

    cr_assert(strstr(log, what), "%s does not say \"%s\": %s", name, what, log);
    free(log);
}

static bool can(const char *command)
{
    char silent[512];

    snprintf(silent, sizeof silent, "%s >/dev/null 2>&1", command);
    return system(silent) == 0;
}

/* --- what is needed ------------------------------------------------------------------------------------ */
static void need_what_it_takes(void)
{
    struct utsname u;

    cr_assert_eq(uname(&u), 0);
    if (!strcmp(u.machine, "aarch64")) cr_skip_test("this is aarch64: tests/cmd/test_ring runs natively");
    if (prima_is_sanitized()) cr_skip_test("the cross build has one mode");
    if (!can("command -v aarch64-linux-gnu-gcc")) cr_skip_test("no aarch64-linux-gnu-gcc (make deps-test)");
    if (!can("command -v qemu-aarch64")) cr_skip_test("no qemu-aarch64 (make deps-test)");
    if (access(SYSROOT "/complete", F_OK)) cr_skip_test("no libraries for aarch64 (make sysroot)");
}

/* As of the same version, whatever was committed since: others refuse each other. */
static void build(void)
{
    char command[600];

    snprintf(command, sizeof command,
             "version=$(" NATIVE " --version) && version=${version#prima } && "
             "tests/cross-build VERSION=\"${version%%%% *}\" build/aarch64/prima >'%s' 2>&1",
             in_dir("make"));
    cr_assert_eq(system(command), 0, "the cross build fails: %s", read_file(in_dir("make")));
}

/* The demo prompts, with probabilities of the two best tokens asked for. */
static void make_prompts(void)
{
    json_t *all = read_jsonl_sorted(PROMPTS, false), *line;
    FILE *f = fopen(in_dir("in.jsonl"), "w");
    size_t i;

    cr_assert_not_null(f);
    cr_assert_eq(json_array_size(all), N_PROMPTS);
    json_array_foreach(all, i, line)
    {
        json_t *body = json_object_get(line, "body"), *request = body ? body : line;
        json_object_set_new(request, "logprobs", json_true());
        json_object_set_new(request, "top_logprobs", json_integer(2));
        json_dumpf(line, f, JSON_COMPACT);
        fputc('\n', f);
    }
    fclose(f);
    json_decref(all);
}

static void open_dir(void)
{
    test_dir_new();
    setenv("PRIMA_CACHE", in_dir("cache"), 1);
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    unsetenv("PRIMA_LOG");
}

TestSuite(aarch64, .init = open_dir, .fini = test_dir_remove, .timeout = 500);

static void make_plan(const uint16_t *port)
{
    pr_err err = {0};
    model m;
    plan *p;

    cr_assert_eq(model_open(&m, MODEL, &err), PR_OK, "%s", err.msg);
    p = ring_plan_new(N_DEVICES, 1, m.hp.n_layers, m.header_sha256, port);
    model_close(&m);
    cr_assert_not_null(p);
    p->ctx = CTX;
    p->slots = N_PROMPTS; /* few passes: each has to wait for qemu */
    snprintf(p->device[0].model, sizeof p->device[0].model, "%s", MODEL);
    for (size_t i = 0; i < N_DEVICES; i++) p->device[i].threads = 1;
    cr_assert_eq(plan_write(p, in_dir("plan.yaml"), &err), PR_OK, "%s", err.msg);
    plan_free(p);
}

/* And the completions of this machine alone. */
static void prepare(uint16_t *port, const char *max_tokens)
{
    need_what_it_takes();
    build();
    make_prompts();
    free_ports(port, N_DEVICES);
    make_plan(port);
    cr_assert_eq(prima_run(NULL, ARGS("keygen")).status, 0);
    assert_ends_well(
        "alone", start("alone", ARGS(NATIVE, "run", MODEL, in_dir("in.jsonl"), "-o", in_dir("alone.jsonl"),
                                     "--ctx", "512", "-t", "1", "--max-tokens", max_tokens)));
}

/* --- completions --------------------------------------------------------------------------------------- */
typedef struct {
    const char *token;
    double logprob, margin; /* of the best to the second best */
} choice;

static json_t *logprobs_of(const json_t *line)
{
    const json_t *body = json_object_get(json_object_get(line, "response"), "body"),
                 *first = json_array_get(json_object_get(body, "choices"), 0);
    return json_object_get(first ? first : line, "logprobs");
}

/* Completions of chats list tokens as objects, others as arrays. NULL token: there is none. */
static choice choice_at(const json_t *logprobs, size_t i)
{
    const json_t *chat = json_array_get(json_object_get(logprobs, "content"), i);
    json_t *top = json_array_get(json_object_get(logprobs, "top_logprobs"), i), *v;
    const char *key;
    double low = 0, high = -INFINITY;
    choice c = {NULL, 0, 0};

    if (chat) {
        top = json_object_get(chat, "top_logprobs");
        high = json_number_value(json_object_get(json_array_get(top, 0), "logprob"));
        low = json_number_value(json_object_get(json_array_get(top, 1), "logprob"));
        c = (choice){json_string_value(json_object_get(chat, "token")),
                     json_number_value(json_object_get(chat, "logprob")), high - low};
    } else if (top) {
        json_object_foreach(top, key, v)
        {
            low = fmin(low, json_number_value(v));
            high = fmax(high, json_number_value(v));
        }
        c = (choice){json_string_value(json_array_get(json_object_get(logprobs, "tokens"), i)),
                     json_number_value(json_array_get(json_object_get(logprobs, "token_logprobs"), i)),
                     json_object_size(top) == 2 ? high - low : INFINITY}; /* two tokens of the same text */
    }
    return c;
}

/* How many tokens are the same before the first doubtful one that differs. */
static size_t compare(const char *id, const json_t *want, const json_t *got)
{
    for (size_t i = 0;; i++) {
        choice w = choice_at(want, i), g = choice_at(got, i);

        if (!w.token && !g.token) return i;
        cr_assert(w.token && g.token, "%s: one of the completions ends after %zu tokens", id, i);
        if (strcmp(w.token, g.token)) {
            cr_assert_lt(w.margin, DOUBT, "%s: token %zu is \"%s\", not \"%s\" (which was better by %g)", id,
                         i, g.token, w.token, w.margin);
            return i;
        }
        cr_assert_leq(fabs(w.logprob - g.logprob), DOUBT, "%s: token %zu \"%s\": log probability %g, not %g",
                      id, i, w.token, g.logprob, w.logprob);
    }
}

static void assert_same_up_to_doubt(const char *ring)
{
    json_t *want = read_jsonl_sorted(in_dir("alone.jsonl"), true),
           *got = read_jsonl_sorted(in_dir(ring), true), *w;
    size_t i, all = 0, same = 0;

    cr_assert_eq(json_array_size(want), N_PROMPTS);
    cr_assert_eq(json_array_size(got), N_PROMPTS);
    json_array_foreach(want, i, w)
    {
        const char *id = json_string_value(json_object_get(w, "custom_id"));
        json_t *logprobs = logprobs_of(w);
        if (!id) id = json_string_value(json_object_get(w, "id"));
        cr_assert_not_null(choice_at(logprobs, 0).token, "%s: no tokens", id);
        same += compare(id, logprobs, logprobs_of(json_array_get(got, i)));
        for (size_t k = 0; choice_at(logprobs, k).token; k++) all++;
    }
    cr_assert_gt(2 * same, all, "only %zu of %zu tokens could be compared", same, all);
    json_decref(want);
    json_decref(got);
}

/* --- rings --------------------------------------------------------------------------------------------- */
/* Until it says that it listens. */
static void await_worker(const char *name, uint16_t port)
{
    char address[32];

    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    for (int i = 0; i < 1000; i++) {
        char *out = read_file(path_of(name, "out"));
        bool is_there = strstr(out, address) != NULL;
        free(out);
        if (is_there) return;
        usleep(10000);
    }
    cr_assert_fail("%s does not listen on %s: %s", name, address, read_file(path_of(name, "err")));
}

/* `program` and what follows it start prima. */
static pid_t start_worker(const char *name, uint16_t port, const char *const program[])
{
    const char *argv[16] = {0};
    char address[32];
    size_t n = 0;
    pid_t pid;

    for (; program[n]; n++) argv[n] = program[n];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    argv[n++] = "worker";
    argv[n++] = "--listen";
    argv[n++] = address;
    write_file(path_of(name, "out"), "");
    pid = start(name, argv);
    await_worker(name, port);
    return pid;
}

/* A worker of the given CPU among devices that the head starts itself. */
static void run_with_worker(const char *cpu, const char *isa, const char *max_tokens)
{
    uint16_t port[N_DEVICES];
    char ready[32];
    pid_t worker;

    prepare(port, max_tokens);
    worker = start_worker("d2", port[2], ARGS(QEMU(cpu)));
    assert_ends_well("head", start("head", ARGS(NATIVE, "run", in_dir("plan.yaml"), in_dir("in.jsonl"), "-o",
                                                in_dir("ring.jsonl"), "--max-tokens", max_tokens)));
    kill(worker, SIGTERM);
    assert_ends_well("d2", worker);
    snprintf(ready, sizeof ready, "s, %s\n", isa);
    assert_logged("head", ready);
    assert_logged("head", "different instruction sets");
    assert_same_up_to_doubt("ring.jsonl");
}

Test(aarch64, a_worker_with_neon)
{
    run_with_worker("neoverse-n1", "neon", "150");
}

/* As in a Raspberry Pi 4: without products of bytes, it runs the reference kernels, in 32-bit floats. */
Test(aarch64, a_worker_without_dot_products)
{
    run_with_worker("cortex-a72", "ref", "12");
}

/* qemu cannot start programs as a system does, so somebody has started the workers. */
Test(aarch64, a_head)
{
    static const char *const names[N_DEVICES] = {"head", "d1", "d2"};
    uint16_t port[N_DEVICES];
    pid_t worker[N_DEVICES];

    prepare(port, "150");
    for (int i = 1; i < N_DEVICES; i++) worker[i] = start_worker(names[i], port[i], ARGS(NATIVE));
    assert_ends_well("head", start("head", ARGS(QEMU("max"), "run", in_dir("plan.yaml"), in_dir("in.jsonl"),
                                                "-o", in_dir("ring.jsonl"), "--max-tokens", "150")));
    for (int i = 1; i < N_DEVICES; i++) {
        kill(worker[i], SIGTERM);
        assert_ends_well(names[i], worker[i]);
    }
    assert_logged("head", "different instruction sets");
    assert_same_up_to_doubt("ring.jsonl");
}
