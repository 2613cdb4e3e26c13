/* The frozen plan: layer ranges counted by hand from halda.md 7.4, its invariants, its text. The digest is
 * compared with sha256sum's. */
#include "planner/plan.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double MB = 1e6;

typedef struct {
    cluster c;
    model_facts f;
    problem pr;
    assignment a;
    plan *p;
} example;

/* Case T3 of halda.md 7.8 in pieces of 12.5 MB, and one device more that gets nothing: two devices, 12 layers
 * of 100 MB, 6 each, of which 3 fit: 24 of 48 pieces. A piece is read in 4.17 ms and computed in 1. In 4
 * rounds and with B = 6, 30 are read, 7, 8, 7, 8 in windows of 8, 16, 8, 16 pieces: one late piece hides
 * behind the 8 - 2 - 1, two behind the 16 - 2 - 1 pieces computed meanwhile. With B = 5 the first window has
 * two late ones and stalls. 30 x 12.5 = 375 MB are 125 ms; a pass takes 2 (48 + 4 x 5) = 136 ms. */
static example *make_example(uint32_t rounds)
{
    example *e = calloc(1, sizeof *e);
    static const char *const name[] = {"desk", "laptop", "phone"};
    uint32_t order[] = {0, 1, 2};
    pr_err err = {0};

    cr_assert_not_null(e);
    memset(e->c.sha256, 'c', 64);
    e->c.connect_s = 120;
    e->c.heartbeat_s = 2;
    e->c.peer_s = 15;
    e->c.n_devices = e->pr.n_devices = 3;
    for (size_t i = 0; i < 3; i++) {
        strcpy(e->c.device[i].name, name[i]);
        strcpy(e->c.device[i].host, "127.0.0.1");
        e->c.device[i].port = (uint16_t)(9700 + i);
        e->pr.device[i] = (problem_device){.cpu_ms = 8,
                                           .hop_ms = 5,
                                           .ram_bytes = 300 * MB,
                                           .disk_bytes_per_ms = 3 * MB,
                                           .theta = 1,
                                           .fixed_layers = -1,
                                           .fixed_gpu_layers = -1};
    }
    e->f = (model_facts){.name = "T3 \"test\" \\ \xC3\xA4",
                         .arch = "llama",
                         .quant = "Q8_0",
                         .n_layers = 12,
                         .file_bytes = 1234567890};
    memset(e->f.header_sha256, 'f', 64);
    for (size_t i = 0; i < 12; i++) e->f.layer_bytes[i] = (uint64_t)(100 * MB);
    e->pr.n_layers = 12;
    e->pr.layer_bytes = 100 * MB;
    e->pr.pieces = 8;
    e->pr.prefill_tokens = 512;
    e->pr.device[1].prefill_hop_ms = 12.345678;
    e->pr.max_rounds = rounds;
    e->a.rounds = rounds;
    e->a.n_devices = 3;
    e->a.device[0].layers = e->a.device[1].layers = 6;
    cr_assert(assignment_evaluate(&e->pr, &e->a, NULL, NULL));
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, &err), PR_OK, "%s", err.msg);
    strcpy(e->p->created_at, "2026-01-02T03:04:05Z");
    strcpy(e->p->objective, "latency");
    strcpy(e->p->kv_type, "f16");
    strcpy(e->p->solver.found_by, "dp");
    e->p->solver.gap_pct = NAN;
    e->p->ctx = e->p->slots = e->p->micro_batch = 1;
    e->p->n_profiles = 1;
    strcpy(e->p->profile[0].name, "desk");
    memset(e->p->profile[0].sha256, 'd', 64);
    e->p->n_fallbacks = 1;
    e->p->fallback[0] =
        (plan_fallback){.lost = "laptop", .rounds = 1, .tpot_ms = 12.5, .layers = strdup("desk=12")};
    return e;
}

static void free_example(example *e)
{
    plan_free(e->p);
    free(e);
}

static void expect_windows(const plan_device *d, const plan_window *want, size_t n)
{
    cr_assert_eq(d->n_windows, n, "%s: %zu windows", d->name, d->n_windows);
    for (size_t i = 0; i < n; i++) {
        const plan_window *w = &d->window[i];
        cr_assert(w->round == want[i].round && w->first_layer == want[i].first_layer &&
                      w->last_layer == want[i].last_layer && w->place == want[i].place &&
                      w->streamed_pieces == want[i].streamed_pieces,
                  "%s: window %zu is round %u, %u to %u, place %d, %u pieces", d->name, i, w->round,
                  w->first_layer, w->last_layer, (int)w->place, w->streamed_pieces);
    }
}

/* 6 layers over 4 rounds: 1, 2, 1, 2; 30 streamed pieces: 7, 8, 7, 8. */
Test(plan, layers_are_spread_over_the_rounds)
{
    example *e = make_example(4);
    const plan_window desk[] = {{0, 0, 0, PLACE_DISK, 7, 0},
                                {1, 2, 3, PLACE_DISK, 8, 0},
                                {2, 6, 6, PLACE_DISK, 7, 0},
                                {3, 8, 9, PLACE_DISK, 8, 0}};
    const plan_window laptop[] = {{0, 1, 1, PLACE_DISK, 7, 0},
                                  {1, 4, 5, PLACE_DISK, 8, 0},
                                  {2, 7, 7, PLACE_DISK, 7, 0},
                                  {3, 10, 11, PLACE_DISK, 8, 0}};

    cr_assert_eq(e->p->n_devices, 2);
    expect_windows(&e->p->device[0], desk, 4);
    expect_windows(&e->p->device[1], laptop, 4);
    cr_assert_eq(plan_check(e->p, NULL), PR_OK);
    cr_assert_eq(e->p->device[0].buffer_pieces, 6);
    cr_assert_eq(e->p->device[0].bytes.weights_ram, 600000000 - 375000000);
    cr_assert_eq(e->p->device[0].bytes.weights_disk, 375000000);
    cr_assert_eq(e->p->device[0].bytes.buffers_ram, 75000000);
    cr_assert_eq(e->p->device[0].read_bytes_per_pass, 375000000);
    free_example(e);
}

/* Buffer 2, 22 resident: 26 of 48 pieces are read. */
Test(plan, one_round_streams_what_does_not_fit)
{
    example *e = make_example(1);
    const plan_window laptop[] = {{0, 6, 11, PLACE_DISK, 26, 0}};

    expect_windows(&e->p->device[1], laptop, 1);
    cr_assert_eq(e->p->n_unused, 1);
    cr_assert_str_eq(e->p->unused[0].name, "phone");
    cr_assert(e->p->device[0].owns_embedding && e->p->device[0].owns_output);
    cr_assert_not(e->p->device[1].owns_embedding || e->p->device[1].owns_output);
    free_example(e);
}

/* Three GPU layers and two others in two rounds: a round has its GPU window first. */
Test(plan, gpu_layers_come_first)
{
    example *e = make_example(1);
    uint32_t order[] = {0, 1, 2};
    const plan_window desk[] = {{0, 0, 0, PLACE_GPU, 0, 0},
                                {0, 1, 1, PLACE_RAM, 0, 0},
                                {1, 5, 6, PLACE_GPU, 0, 0},
                                {1, 7, 7, PLACE_RAM, 0, 0}};

    plan_free(e->p);
    e->c.device[0].gpu[0].vram_bytes = e->pr.device[0].vram_bytes = 350 * MB;
    e->c.device[0].n_gpus = 1;
    e->pr.device[0].gpu_ms = 1;
    e->a = (assignment){.rounds = 2, .device = {{.layers = 5, .gpu_layers = 3}, {.layers = 7}}};
    cr_assert(assignment_evaluate(&e->pr, &e->a, NULL, NULL));
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, NULL), PR_OK);
    expect_windows(&e->p->device[0], desk, 4);
    cr_assert_eq(e->p->device[0].bytes.weights_gpu, 300000000);
    cr_assert_eq(e->p->device[0].bytes.budget_gpu, 350000000);
    cr_assert_eq(plan_check(e->p, NULL), PR_OK);
    free_example(e);
}

/* GPU 1 holds one layer beside its buffers of 10 MB, GPU 3 four; the cluster file names them the other way
 * round. The output projection, 30 MB, is on the first. Of GPU 1 230 - 10 - 30 - 100 MB are left over. */
Test(plan, gpus_are_filled_one_after_the_other)
{
    example *e = make_example(1);
    uint32_t order[] = {0, 1, 2};
    const plan_window desk[] = {{0, 0, 0, PLACE_GPU, 0, 1},
                                {0, 1, 1, PLACE_GPU, 0, 3},
                                {1, 5, 6, PLACE_GPU, 0, 3},
                                {1, 7, 7, PLACE_RAM, 0, 0}};
    problem_device *d = &e->pr.device[0];

    plan_free(e->p);
    e->c.device[0].gpu[0] = (cluster_gpu){.index = 3, .vram_bytes = (uint64_t)(420 * MB)};
    e->c.device[0].gpu[1] = (cluster_gpu){.index = 1, .vram_bytes = (uint64_t)(230 * MB)};
    e->c.device[0].n_gpus = 2;
    d->gpu_buffer_bytes = 20 * MB;
    d->gpu_output_bytes = 30 * MB;
    d->vram_bytes = 620 * MB;
    d->gpu_ms = 1;
    e->f.output_bytes = (uint64_t)(25 * MB);
    e->a = (assignment){.rounds = 2, .device = {{.layers = 5, .gpu_layers = 4}, {.layers = 7}}};
    cr_assert(assignment_evaluate(&e->pr, &e->a, NULL, NULL));
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, NULL), PR_OK);
    expect_windows(&e->p->device[0], desk, 4);
    for (size_t i = 0; i < 4; i++) cr_assert_eq(e->p->device[0].window[i].gpu, desk[i].gpu);
    cr_assert(e->p->device[0].output_on_gpu);
    cr_assert_eq(e->p->device[0].bytes.weights_gpu, 400000000 + 25000000);
    cr_assert_eq(e->p->device[0].bytes.buffers_gpu, 20000000 + 5000000);
    cr_assert_eq(e->p->device[0].bytes.budget_gpu, 650000000 - 90000000);
    cr_assert_eq(plan_check(e->p, NULL), PR_OK);
    free_example(e);
}

/* Three layers in two rounds, all but one piece streamed: the first window is one layer and takes no more
 * than its eight pieces, the second the rest. */
Test(plan, a_window_streams_no_more_than_it_has)
{
    example *e = make_example(1);
    uint32_t order[] = {0, 1, 2};

    plan_free(e->p);
    e->pr.device[0].ram_bytes = 45 * MB; /* three pieces */
    e->pr.device[1].ram_bytes = 900 * MB;
    e->a = (assignment){.rounds = 2, .device = {{.layers = 3, .buffer_pieces = 2}, {.layers = 9}}};
    cr_assert(assignment_evaluate(&e->pr, &e->a, NULL, NULL));
    cr_assert_eq(e->a.device[0].streamed_pieces, 23);
    cr_assert_float_eq(e->a.device[0].stall_ms, (6 + 13) * 12.5 / 3 - 6 - 13, 1e-9);
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, NULL), PR_OK);
    cr_assert_eq(e->p->device[0].window[0].streamed_pieces, 8);
    cr_assert_eq(e->p->device[0].window[1].streamed_pieces, 15);
    cr_assert_eq(plan_check(e->p, NULL), PR_OK);
    free_example(e);
}

/* --- invariants ---------------------------------------------------------------------------------- */
static void shift_first(plan *p)
{
    p->device[1].window[0].first_layer++;
}
static void overlap(plan *p)
{
    p->device[0].window[1].first_layer--;
}
static void lose_last(plan *p)
{
    p->device[1].n_windows--;
}
static void too_far(plan *p)
{
    p->device[1].window[3].last_layer = 12;
}
static void backwards(plan *p)
{
    p->device[1].window[3].last_layer = 9;
}
static void wrong_rank(plan *p)
{
    p->device[1].rank = 2;
}
static void same_name(plan *p)
{
    strcpy(p->device[1].name, "desk");
}
static void two_outputs(plan *p)
{
    p->device[1].owns_output = true;
}
static void late_round(plan *p)
{
    p->device[1].window[3].round = 4;
}
static void round_back(plan *p)
{
    p->device[1].window[3].round = 1;
}
static void place_twice(plan *p)
{
    p->device[0].window[1].round = 0;
}
static void gpu_in_ram(plan *p)
{
    p->device[0].window[0].gpu = 1;
}
static void output_on_no_gpu(plan *p)
{
    p->device[0].output_on_gpu = true;
}
static void others_output(plan *p)
{
    p->device[1].output_on_gpu = true;
}
static void unknown_gpu(plan *p)
{
    p->device[0].window[0].place = PLACE_GPU;
    p->device[0].window[0].streamed_pieces = 0;
}
static void gpus_fall(plan *p)
{
    p->device[0].gpu[0].index = 1;
    p->device[0].n_gpus = 2;
}
/* Three windows in round 0, of which the first two are on GPUs. */
static void same_gpu_twice(plan *p)
{
    for (size_t i = 0; i < 3; i++)
        p->device[0].window[i] =
            (plan_window){0, (uint32_t)i, (uint32_t)i, i < 2 ? PLACE_GPU : PLACE_RAM, 0, i < 2};
}
static void resident_streams(plan *p)
{
    p->device[0].window[1].place = PLACE_RAM;
}
static void nothing_streams(plan *p)
{
    p->device[0].window[1].streamed_pieces = 0;
}
static void too_many_stream(plan *p)
{
    p->device[0].window[1].streamed_pieces = 17;
}
static void small_buffer(plan *p)
{
    p->device[0].buffer_pieces = 1;
}
static void over_ram(plan *p)
{
    p->device[1].bytes.weights_ram = p->device[1].bytes.budget_ram - p->device[1].bytes.buffers_ram + 1;
}
static void over_vram(plan *p)
{
    p->device[0].bytes.kv_gpu = 1;
}
static void huge(plan *p)
{
    p->device[0].bytes.kv_ram = UINT64_MAX;
}
static void nobody(plan *p)
{
    p->n_devices = 0;
}

static const struct {
    void (*damage)(plan *p);
    const char *says;
} damages[] = {{shift_first, "expected layer 1"},
               {overlap, "expected layer 2"},
               {lose_last, "layer 10 is on no device"},
               {too_far, "of a model with 12"},
               {backwards, "layers 10 to 9"},
               {wrong_rank, "rank 2, expected 1"},
               {same_name, "twice"},
               {two_outputs, "rank 0 alone"},
               {late_round, "round 4 of a plan of 4"},
               {round_back, "go by rounds"},
               {place_twice, "then ram or disk"},
               {same_gpu_twice, "one for each GPU by rising number"},
               {unknown_gpu, "on GPU 0, which is none of its gpus"},
               {gpus_fall, "by rising index"},
               {gpu_in_ram, "name GPU 1, but are not on a GPU"},
               {output_on_no_gpu, "no layers there"},
               {others_output, "another device's"},
               {resident_streams, "are not on disk"},
               {nothing_streams, "expected 1 to 16"},
               {too_many_stream, "stream 17 pieces, expected 1 to 16"},
               {small_buffer, "a buffer of 1 pieces"},
               {over_ram, "need 1 bytes more than its RAM budget"},
               {over_vram, "need 1 bytes more than its GPU budget"},
               {huge, "RAM budget"},
               {nobody, "no device"}};

Test(plan, broken_invariants_are_named)
{
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        example *e = make_example(4);
        size_t n = e->p->n_devices;
        pr_err err = {0};

        damages[i].damage(e->p);
        cr_assert_eq(plan_check(e->p, &err), PR_EMISMATCH, "damage %zu", i);
        cr_assert_not_null(strstr(err.msg, damages[i].says), "damage %zu: %s", i, err.msg);
        e->p->n_devices = n;
        free_example(e);
    }
}

/* Layers of unequal size: the mean fits, the real ones of one device do not. Layer 7 is the laptop's second,
 * of which pieces 8 .. 15 of 48 are: floor((i+1) 26/48) > floor(i 26/48) for i = 9, 11, 12, 14: 4 of 8. A
 * piece is 10 bytes larger, but for the last, and the buffer's two places too: 4 x 10 resident and 20 more.
 */
Test(plan, what_is_lacking_is_counted)
{
    example *e = make_example(1);
    uint32_t order[] = {0, 1, 2};
    size_t device = 9;
    uint64_t bytes = 0;
    bool gpu = true;

    plan_free(e->p);
    e->f.layer_bytes[7] += 80;
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, NULL), PR_OK);
    cr_assert(plan_lacks(e->p, &device, &gpu, &bytes));
    cr_assert(device == 1 && !gpu && bytes == 60, "%zu %llu", device, (unsigned long long)bytes);
    free_example(e);
}

/* A plan whose device had to stream more than the mean layer asks for is still the problem's: with less RAM.
 */
Test(plan, problem_of_larger_layers)
{
    example *e = make_example(4);
    uint32_t order[] = {0, 1, 2};
    problem cut = e->pr, pr;
    assignment a;
    pr_err err = {0};

    plan_free(e->p);
    cut.device[1].ram_bytes -= 3 * MB;
    e->a.device[1].buffer_pieces = 0;
    cr_assert(assignment_evaluate(&cut, &e->a, NULL, NULL));
    cr_assert_eq(e->a.device[1].streamed_pieces, 32);
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, NULL), PR_OK);
    strcpy(e->p->objective, "latency");
    cr_assert_eq(plan_problem(e->p, &pr, &a, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(a.device[1].streamed_pieces, 32);
    cr_assert_eq(a.device[1].buffer_pieces, e->a.device[1].buffer_pieces);
    cr_assert_float_eq(a.pass_ms, e->a.pass_ms, 1e-9);
    e->p->device[1].window[3].streamed_pieces -= 4; /* less than the problem asks for */
    cr_assert_eq(plan_problem(e->p, &pr, &a, &err), PR_EMISMATCH);
    free_example(e);
}

/* --- the file ---------------------------------------------------------------------------------------- */
static void make_dir(void)
{
    test_dir_new();
}
TestSuite(plan_file, .init = make_dir, .fini = test_dir_remove, .timeout = 60);

Test(plan_file, reads_back_byte_for_byte)
{
    example *e = make_example(4);
    plan *again;
    pr_err err = {0};
    char *first, *second;
    problem pr;
    assignment a;

    cr_assert_eq(plan_write(e->p, in_dir("plan.yaml"), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(plan_read(&again, in_dir("plan.yaml"), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(plan_write(again, in_dir("again.yaml"), &err), PR_OK);
    first = read_file(in_dir("plan.yaml"));
    second = read_file(in_dir("again.yaml"));
    cr_assert_str_eq(first, second);
    cr_assert_str_eq(again->model.name, "T3 \"test\" \\ ??");
    cr_assert_eq(again->device[1].port, 9701);
    cr_assert(isnan(again->solver.gap_pct));
    cr_assert_float_eq(again->fallback[0].tpot_ms, 12.5, 1e-12);
    cr_assert_eq(plan_problem(again, &pr, &a, &err), PR_OK, "%s", err.msg);
    cr_assert_float_eq(a.pass_ms, 136, 1e-9); /* T3 at k = 4 */
    cr_assert_eq(a.device[1].streamed_pieces, 30);
    cr_assert_eq(pr.pieces, 8);
    cr_assert_eq(pr.prefill_tokens, 512);
    cr_assert_float_eq(pr.device[1].prefill_hop_ms, 12.345678, 1e-12);
    cr_assert_str_eq(again->fallback[0].layers, "desk=12");
    free(first);
    free(second);
    plan_free(again);
    free_example(e);
}

/* Files have names in all scripts, and what YAML would take for something else. */
Test(plan_file, paths_of_all_kinds_read_back)
{
    static const char *const path[] = {
        "/srv/m\xC3\xB6"
        "del 'q' \"z\" \\ #: {a}, [b] & *c",
        "-leading/\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E.gguf",
        "  spaces on both ends  ",
        "\xF0\x9F\xA6\x99",
        "m\xCC\x88", /* a combining mark */
        "next\xC2\x85line\xE2\x80\xA8"
        "and\xE2\x80\xA9paragraph", /* breaks of lines, to YAML */
        "c1\xC2\x9B, bom \xEF\xBB\xBF, no characters \xEF\xBF\xBE \xEF\xBF\xBF",
        "\xED\x9F\xBF \xEE\x80\x80 \xF4\x8F\xBF\xBF"};

    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        example *e = make_example(1);
        pr_err err = {0};
        plan *again;
        size_t n;
        char *text, *second;
        strcpy(e->p->device[1].model, path[i]);
        strcpy(e->p->net.key_file, path[i]);
        cr_assert_not_null(text = plan_text(e->p, &n));
        cr_assert_eq(plan_parse(&again, text, n, "p", &err), PR_OK, "%s: %s", path[i], err.msg);
        cr_expect_str_eq(again->device[1].model, path[i]);
        cr_expect_str_eq(again->net.key_file, path[i]);
        second = plan_text(again, &n);
        cr_expect_str_eq(second, text);
        free(second);
        free(text);
        plan_free(again);
        free_example(e);
    }
}

/* What cluster.yaml says arrives as it was. */
Test(plan, paths_of_the_cluster_are_kept)
{
    example *e = make_example(1);
    static const uint32_t order[] = {0, 1, 2};
    pr_err err = {0};

    plan_free(e->p);
    strcpy(e->c.device[1].model, "/m\xC3\xB6"
                                 "del");
    strcpy(e->c.key_file, "~/\xE9\x8D\xB5");
    cr_assert_eq(plan_build(&e->p, &e->c, &e->f, order, 3, &e->pr, &e->a, &err), PR_OK, "%s", err.msg);
    cr_expect_str_eq(e->p->device[1].model, "/m\xC3\xB6"
                                            "del");
    cr_expect_str_eq(e->p->net.key_file, "~/\xE9\x8D\xB5");
    free_example(e);
}

/* Two GPUs and the output projection on the first of them; where there is none the file says nothing. */
Test(plan_file, gpus_read_back)
{
    example *e = make_example(1);
    plan_device *d = &e->p->device[0];
    plan *again;
    pr_err err = {0};
    size_t n;
    char *text = plan_text(e->p, &n);

    cr_assert_null(strstr(text, ", gpu: "));
    cr_assert_null(strstr(text, "output_place"));
    cr_assert_null(strstr(text, "gpus:"));
    cr_assert_null(strstr(text, "gpu_output_bytes"));
    free(text);
    d->window = realloc(d->window, 3 * sizeof *d->window);
    cr_assert_not_null(d->window);
    d->window[0] = (plan_window){0, 0, 1, PLACE_GPU, 0, 0};
    d->window[1] = (plan_window){0, 2, 3, PLACE_GPU, 0, 2};
    d->window[2] = (plan_window){0, 4, 5, PLACE_RAM, 0, 0};
    d->n_windows = 3;
    d->output_on_gpu = true;
    d->gpu[0] = (cluster_gpu){0, 8000000000};
    d->gpu[1] = (cluster_gpu){2, 4000000000};
    d->n_gpus = 2;
    d->cost.gpu_output_bytes = 1234;
    text = plan_text(e->p, &n);
    cr_assert_not_null(
        strstr(text, "{round: 0, first_layer: 2, last_layer: 3, place: gpu, gpu: 2, streamed_"));
    cr_assert_not_null(strstr(text, "output_place: gpu\n"));
    cr_assert_eq(plan_parse(&again, text, n, "p", &err), PR_OK, "%s", err.msg);
    d = &again->device[0];
    cr_assert(d->output_on_gpu && d->n_windows == 3);
    cr_assert(d->n_gpus == 2 && d->gpu[1].index == 2 && d->gpu[1].vram_bytes == 4000000000);
    cr_assert_eq(d->cost.gpu_output_bytes, 1234);
    cr_assert(d->window[0].gpu == 0 && d->window[1].gpu == 2 && d->window[1].place == PLACE_GPU);
    free(text);
    plan_free(again);
    free_example(e);
}

Test(plan_file, digest_is_that_of_the_file_without_its_line)
{
    example *e = make_example(4);
    char command[1200], digest[65] = "";
    FILE *sum;

    cr_assert_eq(plan_write(e->p, in_dir("plan.yaml"), NULL), PR_OK);
    snprintf(command, sizeof command, "sed 2d '%s' | sha256sum", in_dir("plan.yaml"));
    sum = popen(command, "r");
    cr_assert_not_null(sum);
    cr_assert_eq(fread(digest, 1, 64, sum), 64);
    pclose(sum);
    cr_assert_str_eq(e->p->plan_sha256, digest);
    free_example(e);
}

/* Every cut and every changed byte is refused. */
Test(plan_file, damage_is_refused)
{
    example *e = make_example(1);
    plan *p;
    size_t n;
    char *text = plan_text(e->p, &n);

    cr_assert_not_null(text);
    for (size_t cut = 0; cut < n; cut++)
        cr_assert_neq(plan_parse(&p, text, cut, "p", NULL), PR_OK, "%zu", cut);
    for (size_t i = 0; i < n; i++) {
        text[i] ^= 1;
        cr_assert_neq(plan_parse(&p, text, n, "p", NULL), PR_OK, "byte %zu", i);
        text[i] ^= 1;
    }
    cr_assert_eq(plan_parse(&p, text, n, "p", NULL), PR_OK);
    plan_free(p);
    free(text);
    free_example(e);
}

/* The file with one text in place of another; PR_OK never happens because the digest is then wrong. */
static void expect_refusal(const char *old, const char *new, int code, const char *says)
{
    example *e = make_example(1);
    size_t n;
    char *text = plan_text(e->p, &n), *at = strstr(text, old), *changed = malloc(n + strlen(new) + 1);
    plan *p;
    pr_err err = {0};

    cr_assert(at && changed, "%s", old);
    sprintf(changed, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    cr_assert_eq(plan_parse(&p, changed, strlen(changed), "plan.yaml", &err), code, "%s: %s", new, err.msg);
    cr_assert_not_null(strstr(err.msg, says), "%s: %s", new, err.msg);
    free(changed);
    free(text);
    free_example(e);
}

Test(plan_file, errors_say_where)
{
    expect_refusal("plan/1", "plan/2", PR_EUSAGE, "plan.yaml:1:9:");
    expect_refusal("n_layers: 12", "n_layers: 0", PR_EUSAGE, "n_layers");
    expect_refusal("n_layers: 12", "n_layer: 12", PR_EUSAGE, "did you mean 'n_layers'");
    expect_refusal("place: disk", "place: disc", PR_EUSAGE, "place");
    expect_refusal("\"latency\"", "\"speed\"", PR_EUSAGE, "objective");
    expect_refusal("rounds: 1", "rounds: 33", PR_EUSAGE, "rounds");
    expect_refusal("host: \"127.0.0.1\"", "host: \"h\xC3\xB6st\"", PR_EUSAGE,
                   "host: expected printable ASCII");
    expect_refusal("model: \"\"", "model: \"a\\nb\"", PR_EUSAGE, "model: a control character");
    expect_refusal("12.500", "nan", PR_EUSAGE, "tpot_ms");
    expect_refusal("12.500", "12.501", PR_EMISMATCH, "changed after it was made");
    expect_refusal("last_layer: 5", "last_layer: 6", PR_EMISMATCH, "expected layer 7");
    expect_refusal("schema: prima/plan/1\n", "# mine\nschema: prima/plan/1\n", PR_EMISMATCH,
                   "first two lines");
    expect_refusal("\"desk\": ", "\"DESK\": ", PR_EUSAGE, "not a device's name");
}
