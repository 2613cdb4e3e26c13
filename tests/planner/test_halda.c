/* The paper's algorithm on the paper's cluster (halda.md 5): the split that is reported, the table of a
 * re-run that is independent of this code (5.2), and the exact inner solver against trying everything. */
#include "planner/solve.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>

static const double GIB = 1073741824.0;

/* --- the cluster of section 5
 * --------------------------------------------------------------------------------- */

enum { D1, D2, D3, D4 };

/* n_embd, n_ff, n_heads, vocabulary; sizes of the Q4_K_M files; f16 KV of 1024 tokens, 512 tokens a
 * micro-batch */
typedef struct {
    uint32_t n_layers;
    double E, F, H, kv_width, V, file_bytes;
} shape;
static const shape llama3_8b = {32, 4096, 14336, 32, 1024, 128256, 4.9207e9};
static const shape llama1_30b = {60, 6656, 17920, 52, 6656, 32000, 19.62e9};
static const shape llama1_65b = {80, 8192, 22016, 64, 8192, 32000, 39.43e9};
static const shape llama3_70b = {80, 8192, 28672, 64, 1024, 128256, 42.52e9};

/* Compute buffers by halda.md 2.6, with its bug: a head that has CPU layers forgets the buffers of a head. */
static void set_buffers(halda_device *d, const shape *s, bool head)
{
    const double C = 1024, U = 512, KQ = C * U * s->H, MSK = C * U, NE = s->E * U, NF = s->F * U;
    double pinned = d->gpu_gflops > 0 ? 4 * (NE + U + MSK) : 0, gpu = 4 * (3 * NE + KQ) + 700 * 1048576.0;

    d->cpu_buffer_bytes = pinned + 4 * (U + MSK + 2 * NE) + 4 * fmax(2 * NF, 2 * NE + KQ);
    d->cpu_buffer_all_gpu_bytes = pinned + (head ? 4 * (2 * U + 2 * NE + s->V * U) : 0);
    d->gpu_buffer_bytes = gpu + fmax(4 * (MSK + NE), s->kv_width * C * 4 + s->E * s->E * 0.5625);
    d->gpu_buffer_all_gpu_bytes = gpu + 4 * (U + MSK + NE);
}

static halda_problem cluster(const shape *s, const int *order, bool select)
{
    const double ram[] = {2.4, 4.1, 9.7, 1.9}, disk[] = {0.72, 2.98, 3.17, 1.37}, cpu[] = {120, 150, 220, 45};
    const double vram[] = {0, 8, 11, 0}, gpu[] = {0, 6000, 7000, 0};
    double embedding = s->V * s->E * 0.5625,
           params = 2 * s->E * s->E + 2 * s->E * s->kv_width + 3 * s->E * s->F;
    halda_problem p = {.n_layers = s->n_layers, .n_devices = 4, .master_priority = 1.01, .select = select};

    p.output_bytes = s->V * s->E * 0.8203125;
    p.input_row_bytes = embedding / s->V;
    p.layer_bytes = (s->file_bytes - embedding - p.output_bytes) / s->n_layers;
    p.kv_layer_bytes = 4 * s->kv_width * 1024;
    p.layer_flops = 2 * params;
    p.output_flops = 2 * s->V * s->E;
    for (int i = 0; i < 4; i++) {
        halda_device *d = &p.device[i];
        int m = order[i];
        *d = (halda_device){.cpu_gflops = cpu[m],
                            .gpu_gflops = gpu[m],
                            .ram_available_bytes = ram[m] * GIB,
                            .vram_bytes = vram[m] * GIB,
                            .disk_bytes_per_ms = disk[m] * 1e6,
                            .os = m == D1 ? HALDA_MACOS : HALDA_LINUX};
        set_buffers(d, s, i == 0);
    }
    return p;
}

/* The published model with its real max() terms (halda.md 2), without the output projection: ms of l layers,
 * g of them on the GPU, on device m; INFINITY: they must fit the GPU and do not (the algorithm takes the
 * buffers of the last iteration's split, so its own plan may exceed it by a layer). */
static double published_ms(const halda_problem *p, size_t m, uint32_t l, uint32_t g, bool fit)
{
    const halda_device *d = &p->device[m];
    double b = p->layer_bytes + p->kv_layer_bytes, io = m == 0 ? p->input_row_bytes + p->output_bytes : 0,
           excess;
    double c_cpu = l > g ? d->cpu_buffer_bytes : l > 0 ? d->cpu_buffer_all_gpu_bytes : 0;
    double ms = (l - g) * p->layer_flops / (d->cpu_gflops * 1e6);

    if (g > 0) ms += g * p->layer_flops / (d->gpu_gflops * 1e6);
    if (fit && g > 0 && g * b + (l > g ? d->gpu_buffer_bytes : d->gpu_buffer_all_gpu_bytes) > d->vram_bytes)
        return INFINITY;
    excess = (l - g) * b + io + c_cpu - d->ram_available_bytes;
    return ms + fmax(0, excess) / d->disk_bytes_per_ms;
}

static double optimum_ms(const halda_problem *p, size_t m, uint32_t left)
{
    static double known[5][101];
    double best = INFINITY;

    if (m == 0) memset(known, 0, sizeof known);
    if (m == p->n_devices) return left == 0 ? 0 : INFINITY;
    if (known[m][left] > 0) return known[m][left];
    for (uint32_t l = 0; l <= left; l++) {
        double rest = optimum_ms(p, m + 1, left - l);
        for (uint32_t g = 0; g <= l && (g == 0 || p->device[m].vram_bytes > 0); g++)
            best = fmin(best, published_ms(p, m, l, g, true) + rest);
    }
    return known[m][left] = best;
}

/* Windows and GPU layers; what the plan takes by the published model; the least that any plan takes. */
static void expect(const halda_problem *p, const uint32_t *w, const uint32_t *n, double plan_ms,
                   double least_ms)
{
    halda_result r;
    pr_err err = {0};
    double ms = 0;

    cr_assert_eq(halda_solve(p, &r, &err), PR_OK, "%s", err.msg);
    cr_expect_eq(r.rounds, 1);
    for (size_t i = 0; i < p->n_devices; i++) {
        cr_expect(r.window[i] == w[i] && r.gpu[i] == n[i], "device %zu: %u (%u), not %u (%u)", i, r.window[i],
                  r.gpu[i], w[i], n[i]);
        ms += published_ms(p, i, r.window[i], r.gpu[i], false);
    }
    if (plan_ms > 0) cr_expect_float_eq(ms, plan_ms, 0.03 * plan_ms, "%g ms", ms);
    if (least_ms > 0)
        cr_expect_float_eq(optimum_ms(p, 0, p->n_layers), least_ms, 0.03 * least_ms, "%g",
                           optimum_ms(p, 0, p->n_layers));
}

static const int d3_first[] = {D3, D1, D2, D4}, d1_first[] = {D1, D2, D3, D4};

/* The paper's table: 1 : 1 : 29 : 1 for D1 : D2 : D3 : D4. */
Test(halda, reported_split)
{
    halda_problem p = cluster(&llama3_8b, d3_first, false);
    expect(&p, (uint32_t[]){29, 1, 1, 1}, (uint32_t[]){29, 0, 1, 0}, 0, 0);
}

Test(halda, reported_split_with_selection)
{
    halda_problem p = cluster(&llama3_8b, d3_first, true);
    expect(&p, (uint32_t[]){32, 0, 0, 0}, (uint32_t[]){32, 0, 0, 0}, 2.0, 2.0);
}

Test(halda, rerun_30b)
{
    halda_problem p = cluster(&llama1_30b, d3_first, true);
    expect(&p, (uint32_t[]){32, 0, 22, 6}, (uint32_t[]){31, 0, 22, 0}, 318, 43);
}

Test(halda, rerun_65b)
{
    halda_problem p = cluster(&llama1_65b, d3_first, true);
    expect(&p, (uint32_t[]){39, 5, 22, 14}, (uint32_t[]){20, 0, 14, 0}, 5086, 2429);
}

Test(halda, rerun_70b)
{
    halda_problem p = cluster(&llama3_70b, d3_first, true);
    expect(&p, (uint32_t[]){38, 5, 22, 15}, (uint32_t[]){21, 0, 14, 0}, 5491, 2637);
}

Test(halda, rerun_70b_other_head)
{
    halda_problem p = cluster(&llama3_70b, d1_first, true);
    expect(&p, (uint32_t[]){3, 22, 51, 4}, (uint32_t[]){0, 14, 20, 0}, 2604, 2567);
}

static halda_problem random_cluster(uint64_t seed)
{
    uint64_t s = seed * 131 + 7;
    halda_problem p = {
        .n_layers = 12 * (1 + up_to(&s, 5)), .layer_bytes = uniform(&s, 1e8, 5e8), .master_priority = 1.01};

    for (int i = 0; i < 10; i++) uniform(&s, 0, 1);
    p.kv_layer_bytes = uniform(&s, 0, 3e7);
    p.layer_flops = 4 * p.layer_bytes;
    p.output_bytes = p.layer_bytes;
    p.n_devices = 2 + up_to(&s, 3);
    for (size_t i = 0; i < p.n_devices; i++) {
        halda_device *d = &p.device[i];
        bool gpu = up_to(&s, 1);
        *d = (halda_device){.cpu_gflops = uniform(&s, 40, 300),
                            .gpu_gflops = gpu ? 6000 : 0,
                            .ram_available_bytes = uniform(&s, 2, 16) * GIB,
                            .vram_bytes = gpu ? uniform(&s, 4, 12) * GIB : 0,
                            .metal_bytes = 8 * GIB,
                            .swap_bytes = uniform(&s, 0, 1e9),
                            .disk_bytes_per_ms = uniform(&s, 1.5e5, 3.5e6),
                            .cpu_buffer_bytes = 2e8,
                            .gpu_buffer_bytes = 9e8,
                            .os = up_to(&s, 3)};
    }
    return p;
}

/* With one round no plan of the published model loses to one with more (halda.md 6.1). */
Test(halda, one_round_always)
{
    int plans = 0;

    for (uint64_t seed = 0; seed < 1500; seed++) {
        halda_problem p = random_cluster(seed);
        halda_result r;
        uint32_t sum = 0;
        p.select = seed % 2;
        if (halda_solve(&p, &r, NULL)) continue;
        cr_assert_eq(r.rounds, 1, "seed %zu: %u", (size_t)seed, r.rounds);
        for (size_t i = 0; i < p.n_devices; i++) {
            sum += r.window[i];
            cr_assert_leq(r.gpu[i], r.window[i]);
            cr_assert(p.select || r.window[i] > 0);
        }
        cr_assert_eq(sum, p.n_layers);
        plans++;
    }
    cr_assert(plans > 1000 && plans < 1500, "%d", plans);
}

Test(halda, rounds_fixed_by_option)
{
    halda_problem p = cluster(&llama3_8b, d3_first, false);
    halda_result r;

    p.fixed_rounds = 4;
    cr_assert_eq(halda_solve(&p, &r, NULL), PR_OK);
    cr_assert_eq(r.rounds, 4);
    cr_assert_eq(r.window[0] + r.window[1] + r.window[2] + r.window[3], 8);
}

/* Nobody overloads, no GPU: all in M4, and the answer is the cheapest split with at least one layer each. */
Test(halda, inner_problem_is_exact)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        halda_problem p = random_cluster(seed);
        halda_result r;
        double best = INFINITY, got = 0, cost[3];
        uint64_t s = seed;
        p.n_devices = 3;
        p.n_layers = 12;
        p.layer_bytes = 3e8;
        for (size_t i = 0; i < 3; i++) {
            p.device[i].os = HALDA_LINUX;
            p.device[i].gpu_gflops = 0;
            p.device[i].cpu_gflops = uniform(&s, 40, 300);
            p.device[i].ram_available_bytes = uniform(&s, 2.4, 2.6) * 1e9;
            cost[i] = 1 / p.device[i].cpu_gflops / (i == 0 ? p.master_priority : 1);
        }
        if (halda_solve(&p, &r, NULL)) continue;
        for (uint32_t a = 1; a <= 10; a++)
            for (uint32_t b = 1; a + b <= 11; b++) {
                const uint32_t w[] = {a, b, 12 - a - b};
                double sum = 0;
                for (size_t i = 0; i < 3; i++) {
                    double need = w[i] * (p.layer_bytes + p.kv_layer_bytes) + 2e8 + (i ? 0 : p.output_bytes);
                    sum += need <= p.device[i].ram_available_bytes ? w[i] * cost[i] : INFINITY;
                }
                best = fmin(best, sum);
            }
        if (isinf(best)) continue;
        for (size_t i = 0; i < 3; i++) got += r.window[i] * cost[i];
        cr_assert_leq(got, best * (1 + 1e-6), "seed %zu: %g, best %g", (size_t)seed, got, best);
    }
}

/* Memory for a fraction of the layers and disks too slow to be planned: no plan, and it says so. */
Test(halda, ends_without_a_plan)
{
    halda_problem p = cluster(&llama3_70b, d3_first, false);
    halda_result r;
    pr_err err;

    for (int i = 0; i < 4; i++) p.device[i].disk_bytes_per_ms = 5e4;
    cr_assert_eq(halda_solve(&p, &r, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "without a plan"), "%s", err.msg);
}
