/* The exact solver against the fixed vectors of halda.md 7.8, against trying everything on 2,000 random
 * clusters, and its properties. */
#include "planner/reach.h"
#include "planner/solve.h"
#include "planner/stream.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>
#include <time.h>

/* alphaC, alphaG ms a layer; A MB; VRAM MB; s GB/s; hop ms */
static problem_device device(double cpu_ms, double gpu_ms, double ram_mb, double vram_mb,
                             double disk_gb_per_s, double hop_ms, double theta)
{
    return (problem_device){.cpu_ms = cpu_ms,
                            .gpu_ms = gpu_ms,
                            .ram_bytes = ram_mb * 1e6,
                            .vram_bytes = vram_mb * 1e6,
                            .disk_bytes_per_ms = disk_gb_per_s * 1e6,
                            .hop_ms = hop_ms,
                            .theta = theta,
                            .fixed_layers = -1,
                            .fixed_gpu_layers = -1};
}

static void expect_times(const problem *p, const double *ms)
{
    solution s;
    pr_err err = {0};

    cr_assert_eq(dp_solve(p, &s, &err), PR_OK, "%s", err.msg);
    for (uint32_t k = 1; k <= p->max_rounds; k++)
        if (ms[k] > 0)
            cr_expect_float_eq(s.per_rounds_ms[k], ms[k], 5e-4, "k = %u: %g", k, s.per_rounds_ms[k]);
}

Test(dp, t1)
{
    problem p = {.n_layers = 12, .layer_bytes = 1e8, .n_devices = 3, .max_rounds = 6};
    p.device[0] = device(10, 0, 400, 0, 1.0, 1, 0.5);
    p.device[1] = device(20, 0, 300, 0, 0.5, 1, 0.5);
    p.device[2] = device(5, 0, 150, 0, 2.0, 1, 0.5);
    expect_times(&p, (double[]){0, 290.5, 225, 197.5, 176.6667, 0, 160});
}

Test(dp, t2)
{
    problem p = {.n_layers = 12, .layer_bytes = 1e8, .n_devices = 3, .max_rounds = 6};
    solution s;
    p.device[0] = device(10, 1, 400, 250, 1.0, 2, 0.5);
    p.device[1] = device(20, 0, 300, 0, 0.5, 2, 0.5);
    p.device[2] = device(40, 0, 800, 0, 0.2, 2, 0.5);
    expect_times(&p, (double[]){0, 228, 226, 210, 216, 0, 228});
    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    cr_assert_eq(s.best.rounds, 3);
    cr_assert_eq(s.best.device[0].gpu_layers, 2);
}

Test(dp, t3)
{
    problem p = {.n_layers = 12, .layer_bytes = 1e8, .n_devices = 2, .max_rounds = 6};
    p.device[0] = p.device[1] = device(8, 0, 300, 0, 3, 5, 1);
    expect_times(&p, (double[]){0, 210, 200, 150, 136, 0, 156});
}

Test(dp, t4)
{
    problem p = {.n_layers = 10, .layer_bytes = 1e8, .n_devices = 2, .max_rounds = 4};
    solution s;
    p.device[0] = device(8, 1, 1500, 1500, 3, 5, 0.5);
    p.device[1] = device(8, 0, 1000, 0, 3, 5, 0.5);
    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    cr_assert_float_eq(s.best.pass_ms, 10, 1e-9);
    cr_assert_eq(s.best.rounds, 1);
    cr_assert_eq(s.best.device[0].layers, 10);
    cr_assert_eq(s.best.device[0].gpu_layers, 10);
    cr_assert_eq(s.best.device[1].layers, 0);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b)) + 1e-12;
}

typedef struct {
    int feasible, disk, several_rounds, idle, throughput, streams, small_buffer;
} counts;

/* The ways that the search goes, with less work: the same answer. */
static void the_same_quicker(const problem *p, const solution *s, uint64_t seed, size_t used)
{
    double from_ms[PROBLEM_MAX_ROUNDS + 1] = {0}, ms, best = s->best.pass_ms;
    problem remembers = *p;
    size_t n = 0;
    solution q;

    remembers.memo = stream_memo_new();
    cr_assert_eq(reach_solve(&remembers, 1 + (uint32_t)(seed % 9), &q, NULL), PR_OK);
    for (size_t i = 0; i < p->n_devices; i++) n += q.best.device[i].layers > 0;
    cr_assert(near(q.best.pass_ms, best) && q.best.rounds == s->best.rounds && n == used,
              "seed %zu: %.12g in %u rounds, %zu devices; not %.12g in %u, %zu", (size_t)seed, q.best.pass_ms,
              q.best.rounds, n, best, s->best.rounds, used);
    cr_assert_eq(dp_solve_within(&remembers, from_ms, best * 1.5, &q, NULL), PR_OK);
    cr_assert(near(q.best.pass_ms, best) && q.best.rounds == s->best.rounds);
    cr_assert_eq(dp_time_within(&remembers, from_ms, INFINITY, &ms, NULL), PR_OK);
    cr_assert(near(ms, best), "seed %zu: %.12g, not %.12g", (size_t)seed, ms, best);
    cr_assert_eq(dp_time_within(&remembers, from_ms, best * (1 - 1e-6), &ms, NULL), PR_EINFEASIBLE);
    cr_assert_eq(dp_solve_within(&remembers, from_ms, best * (1 - 1e-6), &q, NULL), PR_EINFEASIBLE);
    stream_memo_free(remembers.memo);
}

static void compare_with_everything(const problem *p, uint64_t seed, counts *n)
{
    tried t = try_everything(p);
    solution s;
    pr_err err = {0};
    int rc = dp_solve(p, &s, &err);
    size_t used = 0;
    bool streams = false;

    cr_assert_eq(rc, isfinite(t.ms) ? PR_OK : PR_EINFEASIBLE, "seed %zu: %d %s", (size_t)seed, rc, err.msg);
    if (rc) return;
    cr_assert(near(s.best.pass_ms, t.ms), "seed %zu: %.12g, best %.12g", (size_t)seed, s.best.pass_ms, t.ms);
    for (uint32_t k = 1; k <= p->max_rounds && k <= p->n_layers; k++)
        if (isfinite(t.per_rounds_ms[k]))
            cr_assert(near(s.per_rounds_ms[k], t.per_rounds_ms[k]), "seed %zu k %u: %.12g, best %.12g",
                      (size_t)seed, k, s.per_rounds_ms[k], t.per_rounds_ms[k]);
        else cr_assert(isnan(s.per_rounds_ms[k]));
    for (size_t i = 0; i < p->n_devices; i++) used += s.best.device[i].layers > 0;
    cr_assert_eq(used, t.used, "seed %zu: %zu devices, %zu would do", (size_t)seed, used, t.used);
    cr_assert_eq(s.best.rounds, t.rounds, "seed %zu: %u rounds, not %u", (size_t)seed, s.best.rounds,
                 t.rounds);

    if (seed % 4 == 0) the_same_quicker(p, &s, seed, used);
    assignment again = s.best;
    cr_assert(assignment_evaluate(p, &again, NULL, NULL));
    cr_assert_eq(again.pass_ms, s.best.pass_ms);
    for (size_t i = 0; i < p->n_devices; i++) {
        streams |= s.best.device[i].streamed_pieces > 0;
        again.device[i].buffer_pieces = 0; /* the model chooses as well */
    }
    cr_assert(assignment_evaluate(p, &again, NULL, NULL));
    cr_assert(near(again.pass_ms, s.best.pass_ms), "seed %zu: %.12g, chosen again %.12g", (size_t)seed,
              s.best.pass_ms, again.pass_ms);
    for (size_t i = 0; i < p->n_devices; i++) n->small_buffer += s.best.device[i].stall_ms > 0;
    n->feasible++;
    n->disk += s.best.bound == BOUND_DISK;
    n->several_rounds += s.best.rounds > 1;
    n->idle += used < p->n_devices;
    n->throughput += p->throughput;
    n->streams += streams;
}

Test(dp, equals_trying_everything, .timeout = 120)
{
    counts n = {0};

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = random_problem(seed);
        compare_with_everything(&p, seed, &n);
    }
    cr_assert(n.feasible > 1200 && n.disk > 100 && n.several_rounds > 100 && n.idle > 300 &&
                  n.throughput > 200,
              "%d %d %d %d %d", n.feasible, n.disk, n.several_rounds, n.idle, n.throughput);
}

Test(dp, equals_trying_everything_in_pieces, .timeout = 120)
{
    counts n = {0};

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = random_pieces_problem(seed);
        compare_with_everything(&p, seed, &n);
    }
    cr_assert(n.feasible > 1200 && n.disk > 50 && n.several_rounds > 50 && n.streams > 300 &&
                  n.throughput > 200 && n.small_buffer > 50,
              "%d %d %d %d %d %d", n.feasible, n.disk, n.several_rounds, n.streams, n.throughput,
              n.small_buffer);
}

static double best_ms(const problem *p)
{
    solution s;
    int rc = dp_solve(p, &s, NULL);

    cr_assert(rc == PR_OK || rc == PR_EINFEASIBLE);
    return rc ? INFINITY : s.best.pass_ms;
}

/* More of anything never costs time; nor does a shorter hop or a second device that may stay idle. */
static void improve(problem *q, size_t device, int what)
{
    problem_device *d = &q->device[device];

    if (what == 0) d->ram_bytes *= 1.3;
    if (what == 1) d->vram_bytes += d->vram_bytes > 0 ? 1.5e8 : 0;
    if (what == 2) d->disk_bytes_per_ms = d->disk_bytes_per_ms * 1.4 + 1e4;
    if (what == 3) d->hop_ms *= 0.6;
    if (what == 4) d->cpu_ms *= 0.8;
    if (what == 5) d->theta += 0.5 * (1 - d->theta);
    if (what == 6) q->max_rounds++;
    if (what == 7) q->in_flight += q->in_flight > 0;
}

static void expect_no_harm(problem (*make)(uint64_t seed))
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        problem p = make(seed);
        double before = best_ms(&p) * (1 + 1e-9);
        for (size_t i = 0; i < p.n_devices; i++)
            for (int what = 0; what < 8; what++) {
                problem q = p;
                improve(&q, i, what);
                cr_assert_leq(best_ms(&q), before, "seed %zu, device %zu, resource %d", (size_t)seed, i,
                              what);
            }
        if (p.n_devices < 4) {
            p.device[p.n_devices++] = device(5, 0, 400, 0, 1, 3, 0.5);
            cr_assert_leq(best_ms(&p), before, "seed %zu, another device", (size_t)seed);
        }
    }
}

Test(dp, more_never_hurts, .timeout = 60)
{
    expect_no_harm(random_problem);
}

Test(dp, more_never_hurts_in_pieces, .timeout = 60)
{
    expect_no_harm(random_pieces_problem);
}

Test(dp, one_round_when_everything_fits)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        problem p = seed % 2 ? random_problem(seed) : random_pieces_problem(seed);
        solution s;
        for (size_t i = 0; i < p.n_devices; i++) {
            p.device[i].ram_bytes = 4e9;
            p.device[i].hop_ms = 0.5 + 0.01 * (double)i;
        }
        if (dp_solve(&p, &s, NULL)) continue; /* pins */
        cr_assert_eq(s.best.rounds, 1, "seed %zu", (size_t)seed);
    }
}

/* halda.md 5 and the guessed bandwidths of 7.1: milliseconds a layer = bytes / bandwidth. */
static problem paper_home(uint32_t n_layers, double layer_bytes, double out_bytes)
{
    static const double GIB = 1073741824.0;
    const double ram[] = {9.7, 2.4, 4.1, 1.9}, gb_per_s[] = {45, 60, 40, 15},
                 disk[] = {3.17, 0.72, 2.98, 1.37};
    const double vram[] = {11, 0, 8, 0}, gpu_gb_per_s[] = {550, 1, 400, 1};
    problem p = {.n_layers = n_layers, .layer_bytes = layer_bytes, .n_devices = 4, .max_rounds = 32};

    p.kv_layer_bytes = 4096 * 1024;
    for (int i = 0; i < 4; i++) {
        p.device[i] = device(layer_bytes / gb_per_s[i] / 1e6, layer_bytes / gpu_gb_per_s[i] / 1e6, 0, 0,
                             disk[i], 4.7, 0.5);
        p.device[i].ram_bytes = ram[i] * GIB;
        p.device[i].cpu_buffer_bytes = 2e8;
        p.device[i].vram_bytes = vram[i] > 0 ? vram[i] * GIB - 3e8 : 0;
        p.device[i].head_bytes = out_bytes;
        p.device[i].out_ms = out_bytes / gb_per_s[i] / 1e6;
    }
    return p;
}

Test(dp, small_model_on_one_device)
{
    problem p = paper_home(32, 131e6, 431e6);
    solution s;

    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    cr_assert_eq(s.best.device[0].gpu_layers, 32);
    cr_assert_eq(s.best.rounds, 1);
    cr_assert(s.best.pass_ms > 14 && s.best.pass_ms < 20, "%g",
              s.best.pass_ms); /* 17 ms there, 15 reported */
}

/* 70B: k = 1 -> 1828, 2 -> 1179, 4 -> 814, 6 -> 767, 8 -> 804, 16 -> 910 ms there; best l = (43, 5, 27, 5),
 * g = (22, 0, 16, 0). Reported: 674 ms. The buffers are not given there: 200 MB of RAM and, of the "0.3-0.5
 * GB" of VRAM, 0.3 GB were chosen here because they give that split (0.4 GiB give one GPU layer less,
 * best k = 9 and 4-21 % more time), so this shows that the curve can be reproduced; T1-T4 are what checks the
 * formula. */
Test(dp, large_model_wants_rounds)
{
    const uint32_t k[] = {1, 2, 4, 6, 8, 16}, l[] = {43, 5, 27, 5}, g[] = {22, 0, 16, 0};
    const double ms[] = {1828, 1179, 814, 767, 804, 910};
    problem p = paper_home(80, 513e6, 862e6);
    solution s;

    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    for (int i = 0; i < 6; i++)
        cr_expect_float_eq(s.per_rounds_ms[k[i]], ms[i], 0.02 * ms[i], "k = %u", k[i]);
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(s.best.device[i].layers, l[i]);
        cr_expect_eq(s.best.device[i].gpu_layers, g[i]);
    }
}

Test(dp, says_what_is_missing)
{
    problem p = {.n_layers = 12, .layer_bytes = 1e8, .kv_layer_bytes = 1e7, .n_devices = 2, .max_rounds = 4};
    solution s;
    pr_err err;

    p.device[0] = device(8, 0, 500, 0, 0, 5, 1); /* four layers, 60 MB left */
    p.device[1] = device(8, 0, 340, 0, 0, 5, 1); /* three layers, 10 MB left */
    strcpy(p.device[0].name, "desk");
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg,
                     "nearest is desk, which lacks 490000000 bytes beyond its RAM budget of 500000000 bytes"),
              "%s", err.msg);
    cr_assert(strstr(err.msg, "7 of 12 layers"), "%s", err.msg);
    p.device[0].ram_bytes += 490e6;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_OK);
    p.device[0].ram_bytes -= 1;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "lacks 1 bytes"), "%s", err.msg);

    p.device[0].head_bytes = 2e9;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "desk as the head") && strstr(err.msg, "RAM budget"), "%s", err.msg);
    p.device[0].head_bytes = 0;
    p.device[1].fixed_layers = 4;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "device 1 with 4 layers lacks 100000000 bytes"), "%s", err.msg);
    p.device[1].fixed_layers = 3;
    p.device[0].fixed_layers = 8;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "11 of 12"), "%s", err.msg);
    p.device[0].fixed_layers = p.device[1].fixed_layers = -1;
    p.device[0].fixed_gpu_layers = 3;
    p.device[0].vram_bytes = 250e6;
    cr_assert_eq(dp_solve(&p, &s, &err), PR_EINFEASIBLE);
    cr_assert(strstr(err.msg, "desk with 3 layers lacks 80000000 bytes beyond its VRAM budget of 250000000"),
              "%s", err.msg);
}

/* A ring of devices, every other with a GPU, of a 70B model; how long the solver takes at most. */
static double seconds(size_t n_devices, double least_mb, double most_mb, bool throughput)
{
    problem p = {.n_layers = 80,
                 .layer_bytes = 5e8,
                 .kv_layer_bytes = 4e6,
                 .n_devices = n_devices,
                 .max_rounds = 32,
                 .pieces = PROBLEM_PIECES,
                 .throughput = throughput};
    uint64_t seed = 3;
    double worst = 0;
    solution s;

    for (int variant = 0; variant < 2; variant++) {
        for (size_t i = 0; i < n_devices; i++)
            p.device[i] = device(uniform(&seed, 8, 40), uniform(&seed, 1, 2),
                                 uniform(&seed, least_mb, most_mb), i % 2 ? uniform(&seed, 0, most_mb) : 0,
                                 uniform(&seed, 0.3, 3), variant ? 2 : 0.1, 0.5);
        p.in_flight = throughput && variant ? 4 : 0;
        clock_t start = clock(); /* of the processor, which others may share */
        cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
        worst = fmax(worst, (double)(clock() - start) / CLOCKS_PER_SEC);
    }
    return worst;
}

/* Measured: 4 devices 16 ms, for throughput 35; 32 devices 65 and 280 ms; 256 devices 0.5 and 1.3 s. */
Test(dp, fast_enough, .timeout = 60)
{
    cr_expect_lt(seconds(4, 2000, 9000, false), 0.04 * SLOWER);
    cr_expect_lt(seconds(4, 2000, 9000, true), 0.3 * SLOWER);
    cr_expect_lt(seconds(32, 300, 900, false), 1 * SLOWER);
    cr_expect_lt(seconds(32, 500, 1500, true), 1 * SLOWER);
    cr_expect_lt(seconds(256, 300, 1500, false), 3 * SLOWER);
    cr_expect_lt(seconds(256, 300, 1500, true), 3 * SLOWER);
}
