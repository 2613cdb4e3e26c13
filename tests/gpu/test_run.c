/* Jobs with layers on a GPU, as a user runs them: `prima run` with the demo model, alone and in rings. */
#include "tests/common/csv_table.h"

/* Behind it, for it has a global `out`. */
#include "kernels/cuda/device.h"
#include "tests/cmd/ring_job.h"
#include <cuda_runtime_api.h>

/* A test is a process; the first thing in it. Emulated GPUs are slow, real ones are started once a run. */
static void open_gpu_dir(void)
{
    pr_err why = {0};

    if (!gpu_count(&why)) cr_skip_test("%s", why.msg);
    open_dir();
}
TestSuite(gpu_run, .init = open_gpu_dir, .fini = close_dir, .timeout = 500);

/* Prompts of some tokens, completions of some more; every second one is sampled. */
static void make_short_prompts(int n)
{
    FILE *f = fopen(prompts, "w");

    cr_assert_not_null(f);
    for (int i = 0; i < n; i++)
        fprintf(f, "{\"id\":\"p%d\",\"prompt\":\"One day %d\",\"max_tokens\":%d,\"ignore_eos\":true%s}\n", i,
                i, 3 + i % 3, i % 2 ? ",\"temperature\":0.8,\"seed\":5" : "");
    fclose(f);
}

static void run_well(const char *source, const char *const more[], const char *how)
{
    prima_result r = run(source, more);

    cr_assert_eq(r.status, 0, "%s: %s", how, r.err);
}

/* --- one machine -------------------------------------------------------------------------------------------
 */
static void assert_same_texts(const char *how)
{
    json_t *x = read_jsonl_sorted(alone, true), *y = read_jsonl_sorted(out, true);

    cr_assert_eq(json_array_size(y), json_array_size(x));
    for (size_t k = 0; k < json_array_size(x); k++)
        cr_expect_str_eq(json_string_value(json_object_get(json_array_get(y, k), "text")),
                         json_string_value(json_object_get(json_array_get(x, k), "text")), "%s", how);
    json_decref(x);
    json_decref(y);
}

/* The demo model says the same on the GPU as on the CPU, for a few tokens at least. */
Test(gpu_run, texts_are_those_of_the_cpu)
{
    static const char *const layers[] = {"all", "3"};

    make_short_prompts(3);
    run_alone(MODEL);
    for (size_t i = 0; i < 2; i++) {
        run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", layers[i]), layers[i]);
        assert_same_texts(layers[i]);
        forget_output();
    }
}

Test(gpu_run, slots_and_micro_batches_do_not_matter)
{
    make_short_prompts(5);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all", "--slots", "1"), "one slot");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all", "--slots", "4"), "four slots");
    assert_same("four slots");
    forget_output();
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all", "--slots", "16", "--micro-batch", "5"),
             "chunks");
    assert_same("chunks of five");
}

static double column(size_t row, const char *title)
{
    return atof(get(row, title));
}

Test(gpu_run, tables_know_the_gpu)
{
    make_short_prompts(1);
    run_well(MODEL, ARGS("--gpu-layers", "all", "--timings", in_dir("t.csv")), "timings");
    read_table(in_dir("t.devices.csv"), true);
    for (size_t i = 0; i < n_rows; i++) {
        cr_assert_gt(column(i, "compute_gpu_ms"), 0);
        cr_assert_geq(column(i, "wall_ms") + 1, column(i, "compute_gpu_ms"));
        cr_assert_gt(column(i, "gpu_mem_peak_bytes"), 1e6);
    }
    cr_assert_geq(n_rows, 1);
}

static void expect_end(const char *const more[], int status, const char *says)
{
    prima_result r = run(MODEL, more);

    cr_expect_eq(r.status, status, "%s: %d: %s", says, r.status, r.err);
    cr_expect_not_null(strstr(r.err, says), "not said: %s: %s", says, r.err);
    forget_output();
}

Test(gpu_run, options_are_checked)
{
    make_short_prompts(1);
    expect_end(ARGS("--gpu-layers", "9"), 2, "the model has 8");
    expect_end(ARGS("--gpu-layers", "many"), 2, "expected auto, all, or a number");
    expect_end(ARGS("--gpu-layers", "-1"), 2, "expected auto, all, or a number");
    expect_end(ARGS("--gpu", "1"), 2, "go with --gpu-layers");
    expect_end(ARGS("--gpu-layers", "2", "--kv-type", "f32"), 2, "f16 or q8_0");
    expect_end(ARGS("--gpu-layers", "2", "--gpu", "200"), 9, "this machine has");
    expect_end(ARGS("--gpu-layers", "all", "--vram", "1MiB"), 9, "its budget is 1048576");
    expect_end(ARGS("--gpu-layers", "2", "--dry-run"), 0, "memory of the GPU");
    run_well(MODEL, ARGS("--gpu-layers", "2"), "two layers");
    cr_expect_eq(run(MODEL, ARGS("--gpu-layers", "3", "--resume")).status, 5, "other layers, other bytes");
}

#ifdef PRIMA_EMULATED_GPU
Test(gpu_run, without_a_gpu)
{
    setenv("PRIMA_EMULATE_GPUS", "0", 1);
    make_short_prompts(1);
    expect_end(ARGS("--gpu-layers", "auto"), 0, "all layers run on the CPU: no GPU");
    expect_end(ARGS("--gpu-layers", "2"), 9, "layers on GPU 0 are asked for: no GPU");
    expect_end(ARGS("--gpu-layers", "0"), 0, "1 completions");
}

/* As many layers as there is room for. */
Test(gpu_run, automatic_layers)
{
    setenv("PRIMA_EMULATE_VRAM", "3000000", 1);
    make_short_prompts(1);
    expect_end(ARGS("--gpu-layers", "auto"), 0, "of 8 layers, weights");
    expect_end(ARGS("--gpu-layers", "all"), 9, "missing");
    setenv("PRIMA_EMULATE_VRAM", "100000", 1);
    expect_end(ARGS("--gpu-layers", "auto"), 0, "too little for a layer");
    unsetenv("PRIMA_EMULATE_VRAM");
    expect_end(ARGS("--gpu-layers", "auto"), 0, "8 of 8 layers and the output projection");
}

/* The run ends by name; what was finished is there, and --resume goes on. */
Test(gpu_run, a_lost_gpu_ends_the_run)
{
    make_short_prompts(1);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all"), "whole");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    setenv("PRIMA_EMULATE_FAIL", "cudaStreamSynchronize:4", 1);
    prima_result r = run(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all"));
    cr_expect_eq(r.status, 9, "%d: %s", r.status, r.err);
    cr_expect_not_null(strstr(r.err, "GPU 0: computing"), "%s", r.err);
    unsetenv("PRIMA_EMULATE_FAIL");
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all", "--resume"), "resumed");
    assert_same("resumed");
}
#endif

/* --- rings
 * --------------------------------------------------------------------------------------------------- */
/* Every layer of a device on its GPU 0, at most so many bytes. */
static void put_on_gpu(plan_device *d, uint64_t budget)
{
    for (size_t i = 0; i < d->n_windows; i++) d->window[i].place = PLACE_GPU;
    d->n_gpus = 1;
    d->gpu[0] = (cluster_gpu){.index = 0, .vram_bytes = budget};
    d->bytes.budget_gpu = budget;
}

Test(gpu_run, rings_give_the_bytes_of_one)
{
    plan *p;

    make_short_prompts(4);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all"), "alone");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    for (uint32_t rounds = 1; rounds <= 2; rounds++) {
        p = new_plan(MODEL, 2, rounds, 4);
        put_on_gpu(&p->device[0], (uint64_t)1 << 30);
        put_on_gpu(&p->device[1], (uint64_t)1 << 30);
        p->device[0].output_on_gpu = true;
        run_well(save(p), ARGS("--timings", in_dir("t.csv")), "ring");
        assert_same("ring");
        forget_output();
    }
    read_table(in_dir("t.devices.csv"), true);
    for (size_t i = 0; i < n_rows; i++) {
        cr_expect_gt(column(i, "compute_gpu_ms"), 0);
        cr_expect_gt(column(i, "gpu_mem_peak_bytes"), 100000);
    }
}

/* A plan of one device with GPU and CPU layers in each of two rounds. */
Test(gpu_run, a_plan_for_one_device)
{
    plan *p;
    plan_device *d;

    make_short_prompts(2);
    run_alone(MODEL);
    p = new_plan(MODEL, 1, 2, 4);
    d = &p->device[0];
    d->window = realloc(d->window, 4 * sizeof *d->window);
    cr_assert_not_null(d->window);
    for (uint32_t r = 0; r < 2; r++) {
        d->window[2 * r] = (plan_window){r, 4 * r, 4 * r + 2, PLACE_GPU, 0, 0};
        d->window[2 * r + 1] = (plan_window){r, 4 * r + 3, 4 * r + 3, PLACE_RAM, 0, 0};
    }
    d->n_windows = 4;
    d->n_gpus = 1;
    d->gpu[0] = (cluster_gpu){.index = 0, .vram_bytes = 1 << 28};
    d->bytes.budget_gpu = 1 << 28;
    prima_result r = run(save(p), NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_assert_not_null(strstr(r.err, "6 of 8 layers, weights"), "%s", r.err);
    assert_same_texts("a plan for one device");
}

/* The plan's budget is a hard cap, whatever the card has. */
Test(gpu_run, budgets_are_kept)
{
    plan *p = new_plan(MODEL, 2, 1, 4);

    make_short_prompts(1);
    put_on_gpu(&p->device[1], 1 << 20);
    prima_result r = run(save(p), ARGS("--restarts", "0"));
    cr_expect_neq(r.status, 0);
    cr_expect_not_null(strstr(r.err, "its budget is 1048576"), "%s", r.err);
    cr_expect_not_null(strstr(r.err, "d1"), "%s", r.err);
}

#ifdef PRIMA_EMULATED_GPU
/* A worker's GPU fails in the middle: the session ends by name, the head comes again, and every byte is as it
 * would have been. */
Test(gpu_run, a_ring_mends_after_a_lost_gpu)
{
    plan *p;

    make_short_prompts(2);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all"), "alone");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    p = new_plan(MODEL, 2, 1, 4);
    put_on_gpu(&p->device[0], (uint64_t)1 << 30);
    put_on_gpu(&p->device[1], (uint64_t)1 << 30);
    p->device[0].output_on_gpu = true;
    setenv("PRIMA_EMULATE_FAIL", "cudaStreamSynchronize:5", 1);
    start_by_hand(p->device[1].port, NULL);
    unsetenv("PRIMA_EMULATE_FAIL");
    prima_result r = run(save(p), NULL);
    cr_assert_eq(r.status, 0, "%s", r.err);
    cr_expect_not_null(strstr(r.err, "GPU 0: computing layers"), "%s", r.err);
    cr_expect_not_null(strstr(r.err, "d1"), "%s", r.err);
    assert_same("mended");
    end_by_hand();
}
#endif
