/* Jobs that a ring refuses, each with its message and exit status, before anything is started or written. */
#include "tests/cmd/ring_job.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

TestSuite(ring_refused, .init = open_dir, .fini = close_dir, .timeout = 200);

static void refused(const char *source, const char *const more[], int status, const char *message)
{
    prima_result r = run(source, more);

    cr_expect_eq(r.status, status, "%s: exit status %d: %s", message, r.status, r.err);
    cr_expect(strstr(r.err, message), "not said: %s: %s", message, r.err);
    cr_expect_eq(access(out, F_OK), -1, "%s: an output was made", message);
    cr_expect_not(strstr(r.err, "listening on"), "%s: a worker was started", message);
    forget_output();
}

static const char *plan_with_gpu(size_t n, size_t rank)
{
    plan *p = new_plan(MODEL, n, 1, 4);
    plan_device *d = &p->device[rank];

    d->window[0].place = PLACE_GPU;
    d->n_gpus = 1;
    d->gpu[0].vram_bytes = d->bytes.budget_gpu = (uint64_t)1 << 30;
    return save(p);
}

/* Layers on a GPU that is not there: known at once of the head; a worker says it when it is asked. */
Test(ring_refused, plans_for_a_gpu_that_is_not_there)
{
    prima_result r;

    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    make_prompts(2, true);
    refused(plan_with_gpu(2, 0), NULL, 5, "d0: the plan puts layers 0 to 3 on the GPU");
    refused(plan_with_gpu(1, 0), NULL, 5, "d0: the plan puts layers 0 to 7 on the GPU");
    r = run(plan_with_gpu(2, 1), ARGS("--restarts", "0"));
    cr_expect_eq(r.status, 5, "%d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "d1: the plan puts layers 4 to 7 on the GPU, which cannot be done here"), "%s",
              r.err);
}

Test(ring_refused, plans_that_are_not_what_they_were)
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
Test(ring_refused, a_budget_that_is_too_small)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    prima_result r;

    make_prompts(2, true);
    p->device[1].bytes.budget_ram = 1 << 16;
    r = run(save(p), NULL);
    cr_expect_eq(r.status, 9, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "prima run: d1: "), "%s", r.err);
}

Test(ring_refused, the_key)
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

/* --- workers that listen, and should not be spoken to ------------------------------------------------------
 */
/* A plan for two whose second device is to be started by hand; *port is where. */
static void plan_for_a_listener(uint16_t *port)
{
    plan *p = new_plan(MODEL, 2, 1, 4);

    make_prompts(2, true);
    *port = p->device[1].port;
    p->net.peer_s = 60; /* nobody is lost here */
    save(p);
}

Test(ring_refused, a_worker_with_another_key)
{
    uint16_t port;

    plan_for_a_listener(&port);
    setenv("PRIMA_KEY_FILE", in_dir("other"), 1);
    cr_assert_eq(prima_run(NULL, ARGS("keygen", "-o", in_dir("other"))).status, 0);
    start_by_hand(port, NULL);
    setenv("PRIMA_KEY_FILE", in_dir("key"), 1);
    for (int i = 0; i < 2; i++) { /* and the worker is still there afterwards */
        refused(plan_path, NULL, 7, "both devices need the same key file");
        cr_expect_eq(waitpid(by_hand, NULL, WNOHANG), 0, "the worker has ended");
    }
    end_by_hand();
}

/* The program with another version in it, of the same length. */
static void write_other_version(const char *path, char version[64], char other[64])
{
    char *text;
    struct stat st;
    FILE *f;

    cr_assert_eq(prima_run(in_dir("version"), ARGS("--version")).status, 0);
    text = read_file(in_dir("version"));
    snprintf(version, 64, "%.*s", (int)strcspn(text + 6, " \n"), text + 6);
    free(text);
    memset(other, 'x', strlen(version));
    other[strlen(version)] = 0;
    cr_assert_eq(stat(prima_program(), &st), 0);
    char *bytes = malloc((size_t)st.st_size), *end = bytes + st.st_size;
    cr_assert_not_null(f = fopen(prima_program(), "r"));
    cr_assert_eq(fread(bytes, 1, (size_t)st.st_size, f), (size_t)st.st_size);
    fclose(f);
    for (char *at = bytes; (at = memmem(at, (size_t)(end - at), version, strlen(version) + 1));)
        memcpy(at, other, strlen(other));
    cr_assert_not_null(f = fopen(path, "w"));
    cr_assert_eq(fwrite(bytes, 1, (size_t)st.st_size, f), (size_t)st.st_size);
    fclose(f);
    free(bytes);
    cr_assert_eq(chmod(path, 0755), 0);
}

Test(ring_refused, a_worker_of_another_version)
{
    char version[64], other[64];
    uint16_t port;

    plan_for_a_listener(&port);
    write_other_version(in_dir("prima"), version, other);
    start_program_by_hand(in_dir("prima"), port, NULL);
    refused(plan_path, NULL, 5, version);
    refused(plan_path, NULL, 5, other);
    refused(plan_path, NULL, 5, "install the same");
    end_by_hand();
}

/* The first run is stopped in the middle, so that it lasts. */
Test(ring_refused, a_worker_that_serves_another_run)
{
    uint16_t port;
    prima_result r;
    pid_t first;

    plan_for_a_listener(&port);
    make_prompts(200, true);
    start_by_hand(port, NULL);
    first = start(plan_path, NULL);
    await_lines(2);
    cr_assert_eq(kill(first, SIGSTOP), 0);
    plan *p = new_plan(MODEL, 2, 1, 4); /* the head of the first has its port */
    p->device[1].port = port;
    save(p);
    r = prima_run(NULL, ARGS("run", plan_path, prompts, "-o", in_dir("out2")));
    cr_expect_eq(r.status, 9, "exit status %d: %s", r.status, r.err);
    cr_expect(strstr(r.err, "d1: this worker serves another run"), "%s", r.err);
    cr_expect_eq(access(in_dir("out2"), F_OK), -1, "an output was made");
    kill(first, SIGCONT);
    r = prima_wait(first);
    cr_expect_eq(r.status, 0, "the first is none the wiser: %d: %s", r.status, r.err);
    cr_expect_eq(lines_of(out), 200u);
    end_by_hand();
}

Test(ring_refused, the_head_s_port_is_in_use)
{
    plan *p = new_plan(MODEL, 2, 1, 4);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    make_prompts(2, true);
    a.sin_port = htons(p->device[0].port);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(fd, 1), 0);
    refused(save(p), NULL, 9, "the port is in use");
    close(fd);
}
