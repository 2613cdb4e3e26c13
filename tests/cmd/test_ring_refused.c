/* Jobs that a ring refuses, each with its message and exit status, before anything is started or written. */
#include "tests/cmd/ring_job.h"
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
