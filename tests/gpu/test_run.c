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

/* Products of 8-bit weights take 45 KB of a block's shared memory, 4 KB of it in static arrays. */
Test(gpu_run, a_card_with_too_little_shared_memory)
{
    setenv("PRIMA_EMULATE_SHARED", "45000", 1);
    make_short_prompts(1);
    expect_end(ARGS("--gpu-layers", "all"), 9,
               "few_32<q8_0, 8>(product_args) takes 45824 bytes of shared memory");
    setenv("PRIMA_EMULATE_SHARED", "46000", 1);
    expect_end(ARGS("--gpu-layers", "all"), 0, "1 completions");
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

#ifdef PRIMA_EMULATED_GPU
/* --- several GPUs
 * -------------------------------------------------------------------------------------------- */
enum { FIRST_GPU = 1, SECOND_GPU = 3, LARGE = 1 << 30 };

/* A device with two GPUs, each with a cap of its own: of its windows the first layers are on one, one on the
 * other, the rest on the CPU. Even windows of `rounds` rounds, from ring_plan_new. */
static void put_on_two_gpus(plan_device *d, uint64_t first_cap, uint64_t second_cap)
{
    size_t n = d->n_windows;
    plan_window *w = calloc(2 * n, sizeof *w);

    cr_assert_not_null(w);
    for (size_t i = 0; i < n; i++) {
        w[2 * i] = w[2 * i + 1] = d->window[i];
        w[2 * i].place = w[2 * i + 1].place = PLACE_GPU;
        w[2 * i].gpu = FIRST_GPU;
        w[2 * i + 1].gpu = SECOND_GPU;
        w[2 * i].last_layer = d->window[i].last_layer - 1;
        w[2 * i + 1].first_layer = d->window[i].last_layer;
    }
    free(d->window);
    d->window = w;
    d->n_windows = 2 * n;
    d->n_gpus = 2;
    d->gpu[0] = (cluster_gpu){.index = FIRST_GPU, .vram_bytes = first_cap};
    d->gpu[1] = (cluster_gpu){.index = SECOND_GPU, .vram_bytes = second_cap};
    d->bytes.budget_gpu = first_cap + second_cap;
}

/* What processes took of a GPU, the largest of them; 0: none did. */
static size_t peak_of(int gpu)
{
    FILE *f = fopen(in_dir("peaks"), "r");
    size_t bytes, most = 0;
    int at;

    cr_assert_not_null(f);
    while (fscanf(f, "%d %zu", &at, &bytes) == 2)
        if (at == gpu && bytes > most) most = bytes;
    fclose(f);
    return most;
}

static plan *plan_for_two_gpus(uint32_t rounds, uint64_t first_cap, uint64_t second_cap)
{
    plan *p = new_plan(MODEL, 1, rounds, 4);

    put_on_two_gpus(&p->device[0], first_cap, second_cap);
    p->device[0].output_on_gpu = true;
    return p;
}

/* The caps are what the first run takes, to the byte: then the same bytes come out; one byte less of either
 * is refused by its number. */
Test(gpu_run, two_gpus_give_the_bytes_of_one)
{
    size_t first, second;
    char cards[64];

    setenv("PRIMA_EMULATE_GPUS", "4", 1);
    make_short_prompts(4);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all"), "one GPU");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    setenv("PRIMA_EMULATE_PEAKS", in_dir("peaks"), 1);
    run_well(save(plan_for_two_gpus(2, LARGE, LARGE)), NULL, "two GPUs");
    assert_same("two GPUs");
    forget_output();
    first = peak_of(FIRST_GPU);
    second = peak_of(SECOND_GPU);
    cr_assert(first > second && second > 100000, "%zu, %zu", first, second); /* 6 layers and the output; 2 */
    cr_assert(!peak_of(0) && !peak_of(2), "memory of GPUs that the plan does not name");

    snprintf(cards, sizeof cards, "0,%zu,0,%zu", first, second);
    setenv("PRIMA_EMULATE_VRAM", cards, 1);
    run_well(save(plan_for_two_gpus(2, first, second)), NULL, "cards that are just large enough");
    assert_same("just large enough");
    forget_output();
    unsetenv("PRIMA_EMULATE_VRAM");
    for (size_t less = 0; less < 2; less++) {
        prima_result r = run(save(plan_for_two_gpus(2, first - less, second - !less)), NULL);
        cr_expect_eq(r.status, 9, "%d: %s", r.status, r.err);
        cr_expect_not_null(strstr(r.err, less ? "GPU 1 take" : "GPU 3 take"), "%s", r.err);
        cr_expect_not_null(strstr(r.err, "(1 missing)"), "%s", r.err);
        forget_output();
    }
}

/* In a ring, too: one device with two, one with one; and it does not matter which GPU it is. */
Test(gpu_run, a_ring_with_three_gpus)
{
    plan *p;

    setenv("PRIMA_EMULATE_GPUS", "4", 1);
    make_short_prompts(3);
    run_well(MODEL, ARGS("--ctx", "512", "--gpu-layers", "all", "--gpu", "2"), "one GPU");
    cr_assert_eq(rename(out, alone), 0);
    forget_output();
    p = new_plan(MODEL, 2, 2, 4);
    put_on_gpu(&p->device[0], LARGE);
    p->device[0].output_on_gpu = true;
    put_on_two_gpus(&p->device[1], LARGE, LARGE);
    setenv("PRIMA_EMULATE_PEAKS", in_dir("peaks"), 1);
    run_well(save(p), NULL, "ring");
    assert_same("ring");
    cr_expect(peak_of(0) && peak_of(FIRST_GPU) && peak_of(SECOND_GPU) && !peak_of(2));
}

/* A GPU that is not there is found before anything is started or written, on the head and on a worker. */
Test(gpu_run, gpus_that_are_not_there)
{
    make_short_prompts(1);
    setenv("PRIMA_EMULATE_GPUS", "3", 1);
    for (size_t device = 0; device < 2; device++) {
        plan *p = new_plan(MODEL, 2, 1, 4);
        put_on_two_gpus(&p->device[device], LARGE, LARGE);
        prima_result r = run(save(p), ARGS("--restarts", "0"));
        cr_expect_eq(r.status, 5, "device %zu: %d: %s", device, r.status, r.err);
        cr_expect_not_null(strstr(r.err, "GPUs 0 to 2, not 3"), "%s", r.err);
        forget_output();
    }
}
#endif

/* --- the benchmark
 * ---------------------------------------------------------------------------------------------- */
/* Four processes on one GPU: what their rows hold; and a budget that is too small, refused with what is
 * missing. */
Test(gpu_run, devices_that_share_a_gpu)
{
    prima_result r = prima_run(NULL, ARGS("bench", "ring", "-m", MODEL, "--vram", "16MiB", "--only", "pp512",
                                          "-r", "1", "-o", in_dir(".")));

    cr_assert_eq(r.status, 0, "%d: %s", r.status, r.err);
    read_table(in_dir("ring_gpu.csv"), true);
    cr_assert_gt(n_rows, 0);
    for (size_t i = 0; i < n_rows; i++) {
        double ring = column(i, "ring_tps"), base = column(i, "base_tps");
        cr_expect_str_eq(get(i, "schema"), "prima/bench-ring-gpu/1");
        cr_expect_str_eq(get(i, "layers"), "2:2:2:2");
        cr_expect_str_neq(get(i, "gpu"), "");
        cr_expect(ring > 0 && base > 0 && column(i, "ceiling_tps") > 0);
        cr_expect_float_eq(column(i, "ring_over_base"), ring / base, 2e-3);
        cr_expect_eq(column(i, "vram_budget_bytes"), 16 << 20);
        cr_expect(column(i, "head_vram_bytes") > 1e6 && column(i, "head_vram_bytes") <= 16 << 20);
    }
    r = prima_run(NULL, ARGS("bench", "ring", "-m", MODEL, "--vram", "2MiB", "-o", in_dir(".")));
    cr_expect_eq(r.status, 9, "%d: %s", r.status, r.err);
    cr_expect_not_null(strstr(r.err, "its budget is 2097152"), "%s", r.err);
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
/* A worker's GPU fails in the middle: the session ends by name, and so does the worker, though it listens: no
 * other job could use its GPU. Another one (a service would start it again; here the head does) takes its
 * place, and every byte is as it would have been. */
Test(gpu_run, a_ring_mends_after_a_lost_gpu)
{
    plan *p;
    pid_t ended;
    int status;

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
    for (int i = 0; !(ended = waitpid(by_hand, &status, WNOHANG)) && i < 2000; i++) sleep_ms(10);
    if (!ended) end_by_hand();
    cr_assert_eq(ended, by_hand, "the worker still listens");
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 9, "%x", (unsigned)status);
}
#endif
