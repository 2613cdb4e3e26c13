/* The latency and throughput model: figures worked out by hand from halda.md 7.1, and a second writing of the
 * formulas for random problems. */
#include "planner/problem.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const double MB = 1e6;

static problem_device device(double cpu_ms, double gpu_ms, double ram_mb, double vram_mb,
                             double disk_gb_per_s, double hop_ms, double theta)
{
    return (problem_device){.cpu_ms = cpu_ms,
                            .gpu_ms = gpu_ms,
                            .ram_bytes = ram_mb * MB,
                            .vram_bytes = vram_mb * MB,
                            .disk_bytes_per_ms = disk_gb_per_s * MB,
                            .hop_ms = hop_ms,
                            .theta = theta,
                            .fixed_layers = -1,
                            .fixed_gpu_layers = -1};
}

/* T3 of halda.md 7.8: two devices of 300 MB, twelve layers of 100 MB. */
static problem t3(void)
{
    problem p = {.n_layers = 12, .layer_bytes = 100 * MB, .n_devices = 2, .max_rounds = 6};
    p.device[0] = p.device[1] = device(8, 0, 300, 0, 3, 5, 1);
    return p;
}

static bool evaluate(const problem *p, assignment *a, uint32_t rounds, uint32_t l0, uint32_t l1)
{
    memset(a, 0, sizeof *a);
    a->rounds = rounds;
    a->device[0].layers = l0;
    a->device[1].layers = l1;
    return assignment_evaluate(p, a, NULL, NULL);
}

/* k = 3: E = 300, S = 150, X = 450 MB, 150 ms of disk against 2 (48 + 15). k = 4: X = 400, 133.3 < 136. */
Test(problem, by_hand)
{
    problem p = t3();
    assignment a;

    cr_assert(evaluate(&p, &a, 3, 6, 6));
    cr_assert_float_eq(a.pass_ms, 150, 1e-9);
    cr_assert_eq(a.bound, BOUND_DISK);
    cr_assert_float_eq(a.device[0].excess_bytes, 300 * MB, 1);
    cr_assert_float_eq(a.device[0].buffer_bytes, 150 * MB, 1);
    cr_assert_float_eq(a.device[0].read_bytes, 450 * MB, 1);
    cr_assert_float_eq(a.device[0].stall_ms, 0, 1e-9);
    cr_assert(evaluate(&p, &a, 4, 6, 6));
    cr_assert_float_eq(a.pass_ms, 136, 1e-9);
    cr_assert_eq(a.bound, BOUND_SUM);
    /* k = 1: nothing hides but behind own compute: stall 100 - 48 each, 2 (48 + 52 + 5) = 210. */
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 210, 1e-9);
    cr_assert_float_eq(a.device[1].stall_ms, 52, 1e-9);
    cr_assert_float_eq(a.device[1].net_ms, 5, 1e-9);
}

/* 3 MB to spare in RAM, 2 layers too many: S is capped there, everything is streamed. u = (200 - 3) / 2 MB.
 */
Test(problem, buffer_capped)
{
    problem p = {.n_layers = 3, .layer_bytes = 100 * MB, .n_devices = 2, .max_rounds = 2};
    assignment a;

    p.device[0] = device(1, 0, 3, 0, 1, 0, 0);
    p.device[1] = device(1, 0, 100, 0, 1, 0, 0);
    cr_assert(evaluate(&p, &a, 2, 2, 1));
    cr_assert_float_eq(a.device[0].excess_bytes, 197 * MB, 1);
    cr_assert_float_eq(a.device[0].buffer_bytes, 3 * MB, 1);
    cr_assert_float_eq(a.device[0].read_bytes, 200 * MB, 1);
    cr_assert_float_eq(a.device[0].stall_ms, 194, 1e-9);
}

Test(problem, one_device_has_no_hop)
{
    problem p = t3();
    assignment a;

    p.device[0].ram_bytes = 1200 * MB;
    cr_assert(evaluate(&p, &a, 1, 12, 0));
    cr_assert_float_eq(a.pass_ms, 96, 1e-9);
    cr_assert(evaluate(&p, &a, 1, 11, 1));
    cr_assert_float_eq(a.pass_ms, 106, 1e-9);
}

Test(problem, what_is_missing)
{
    problem p = t3();
    assignment a = {.rounds = 1};
    size_t who = 9;
    double missing = -1;

    p.kv_layer_bytes = 20 * MB;
    p.device[0].head_bytes = 30 * MB;
    p.device[0].cpu_buffer_bytes = 7 * MB;
    p.device[1].vram_bytes = 250 * MB;
    p.device[1].gpu_buffer_bytes = 20 * MB;
    a.device[0].layers = 12; /* 300 - 240 - 30 - 7 = 23 MB for weights: streamed */
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_float_eq(a.device[0].excess_bytes, 1177 * MB, 1);
    p.device[0].disk_bytes_per_ms = 0;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(who, 0);
    cr_assert_float_eq(missing, 1177 * MB, 1);
    p.device[0].disk_bytes_per_ms = 1;
    p.device[0].ram_bytes = 200 * MB; /* even the KV cache does not fit, disk or not */
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_float_eq(missing, 77 * MB, 1);
    a.device[0].layers = 1;
    a.device[1].layers = 11;
    a.device[1].gpu_layers = 2; /* 2 x 120 + 20 of 250 MB */
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(who, 1);
    cr_assert_float_eq(missing, 10 * MB, 1);
    a.device[1].gpu_layers = 1;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    a.device[1].layers = 10;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(missing, 0);
    a.device[1].layers = 11;
    p.device[1].fixed_layers = 10;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    p.device[1].fixed_layers = 11;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    p.device[1].fixed_gpu_layers = 0;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
}

/* Enough micro-batches in flight: only the busiest of compute, disk and link counts. */
Test(problem, throughput)
{
    problem p = t3();
    assignment a;

    p.throughput = true;
    p.device[0].out_ms = 10;
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 100, 1e-9); /* 300 MB at 3 GB/s */
    cr_assert_eq(a.bound, BOUND_DISK);
    p.device[0].ram_bytes = p.device[1].ram_bytes = 600 * MB;
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 58, 1e-9);
    cr_assert_eq(a.bound, BOUND_COMPUTE);
    cr_assert_eq(a.bound_device, 0);
    p.device[1].hop_ms = 30;
    cr_assert(evaluate(&p, &a, 2, 6, 6));
    cr_assert_float_eq(a.pass_ms, 60, 1e-9);
    cr_assert_eq(a.bound, BOUND_NET);
    cr_assert_eq(a.bound_device, 1);
}

static double uniform(uint64_t *s, double low, double high)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*s >> 11) / 9007199254740992.0;
}

/* halda.md 7.1 once more, in MB and written as there: P pinned, S buffer, X read, u not hidden a round. */
static double again(const problem *p, uint32_t k, const uint32_t *l, const uint32_t *g)
{
    double sum = p->device[0].out_ms, most = 0;

    for (size_t m = 0; m < p->n_devices; m++) {
        const problem_device *d = &p->device[m];
        double c = (double)l[m] - g[m], C = d->cpu_ms * c + d->gpu_ms * g[m], s = d->disk_bytes_per_ms / MB;
        double A = (d->ram_bytes - p->kv_layer_bytes * c - (c > 0 ? d->cpu_buffer_bytes : 0)) / MB;
        double Y = p->layer_bytes * c / MB, S = 0, u = 0, X = 0, E, stall;

        if (m == 0) A -= d->head_bytes / MB;
        if (A < 0) return INFINITY;
        E = Y > A ? Y - A : 0;
        if (E > 0 && k == 1) { X = u = E; }
        if (E > 0 && k > 1) {
            S = E / (k - 1);
            if (S > A) S = A;
            X = S == A ? Y : E * k / (k - 1);
            u = (E - (k - 1) * S) / k;
        }
        if (g[m] && g[m] * (p->layer_bytes + p->kv_layer_bytes) + d->gpu_buffer_bytes > d->vram_bytes)
            return INFINITY;
        stall = k * (u / s - d->theta * C / k);
        sum += C + (stall > 0 ? stall : 0) + (l[m] > 0 ? k * d->hop_ms : 0);
        if (X / s + (1 - d->theta) * C > most) most = X / s + (1 - d->theta) * C;
    }
    return sum > most ? sum : most;
}

Test(problem, written_twice)
{
    uint64_t s = 5;
    int feasible = 0;

    for (int i = 0; i < 20000; i++) {
        uint32_t l[3], g[3], k = 1 + (uint32_t)uniform(&s, 0, 6);
        problem p = {.layer_bytes = 100 * MB, .kv_layer_bytes = uniform(&s, 0, 20) * MB, .n_devices = 3};
        assignment a = {.rounds = k};
        for (size_t m = 0; m < 3; m++) {
            p.device[m] = device(uniform(&s, 1, 30), 1, uniform(&s, 50, 800), uniform(&s, 0, 600),
                                 uniform(&s, 0.2, 3), uniform(&s, 0, 5), uniform(&s, 0, 1));
            p.device[m].cpu_buffer_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].gpu_buffer_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].head_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].out_ms = uniform(&s, 0, 30);
            a.device[m].layers = l[m] = 1 + (uint32_t)uniform(&s, 0, 8);
            a.device[m].gpu_layers = g[m] = (uint32_t)uniform(&s, 0, l[m] + 1);
            p.n_layers += l[m];
        }
        double expected = again(&p, k, l, g);
        bool fits = assignment_evaluate(&p, &a, NULL, NULL);
        cr_assert_eq(fits, isfinite(expected), "case %d", i);
        if (fits)
            cr_assert_float_eq(a.pass_ms, expected, 1e-9 * expected, "case %d: %g %g", i, a.pass_ms,
                               expected);
        feasible += fits;
    }
    cr_assert_gt(feasible, 2000, "only %d", feasible);
}
