/* The certificate: never above the plan of the DP, equal to it where the buffer S has no freedom, and equal
 * to an exact search with free S where it has. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>
#include <time.h>

typedef struct {
    solution s;
    double bound_ms, gap_pct;
    bool complete;
    const char *status;
} certified;

static bool certify(const problem *p, double time_limit_s, certified *c)
{
    pr_err err = {0};

    if (dp_solve(p, &c->s, &err)) return false;
    cr_assert_eq(milp_certify(p, &c->s.best, time_limit_s, &c->bound_ms, &c->complete, &err), PR_OK, "%s",
                 err.msg);
    c->status = milp_status(&c->s.best, c->bound_ms, &c->gap_pct);
    cr_assert_leq(c->bound_ms, c->s.best.pass_ms);
    return true;
}

/* One round, or no excess, or throughput: the closed form of S is the only one. GLPK is told of a plan that
 * takes half as long again, so that it has to find the optimum itself. */
Test(milp, proves_the_optimum, .timeout = 120)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 600; seed++) {
        problem p = random_problem(seed);
        double bound_ms, gap_pct;
        assignment slower;
        bool complete;
        solution s;
        if (seed % 3 == 0) p.max_rounds = 1;
        if (seed % 3 == 1) p.throughput = true;
        if (seed % 3 == 2)
            for (size_t i = 0; i < p.n_devices; i++) p.device[i].disk_bytes_per_ms = 0;
        if (dp_solve(&p, &s, NULL)) continue;
        slower = s.best;
        slower.pass_ms *= 1.5;
        cr_assert_eq(milp_certify(&p, &slower, 10, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, s.best.pass_ms, 5e-6 * bound_ms, "seed %zu: %g, plan %g", (size_t)seed,
                           bound_ms, s.best.pass_ms);
        cr_assert_str_eq(milp_status(&s.best, fmin(bound_ms, s.best.pass_ms), &gap_pct), "optimal");
        n++;
    }
    cr_assert_gt(n, 300, "%d", n);
}

/* All of the random clusters of test_dp: what streams in several rounds may be a little better with S free.
 */
Test(milp, stays_near_the_plan, .timeout = 120)
{
    double most = 0;
    int optimal = 0, n = 0;

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = random_problem(seed);
        certified c;
        if (!certify(&p, 10, &c)) continue;
        cr_assert(c.complete, "seed %zu", (size_t)seed);
        most = fmax(most, c.gap_pct);
        optimal += strcmp(c.status, "optimal") == 0;
        n++;
    }
    cr_log_info("%d of %d plans optimal with S free too, the others within %.1f %%", optimal, n, most);
    cr_assert_gt(optimal, 0.75 * n);
    cr_assert_lt(most, 25, "%g", most);
}

/* Nothing faster exists: a plan made worse on purpose is not called optimal, and the bound is the true best.
 */
Test(milp, sees_a_worse_plan, .timeout = 60)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        problem p = random_problem(seed), rich;
        double bound_ms, gap_pct;
        bool complete;
        solution best, worse;
        p.max_rounds = 1;
        rich = p;
        for (size_t i = 0; i < rich.n_devices; i++) rich.device[i].ram_bytes *= 1.5;
        if (dp_solve(&p, &worse, NULL) || dp_solve(&rich, &best, NULL)) continue;
        if (worse.best.pass_ms < best.best.pass_ms * 1.01) continue;
        assignment_evaluate(&rich, &worse.best, NULL, NULL);
        if (worse.best.pass_ms < best.best.pass_ms * 1.01) continue;
        cr_assert_eq(milp_certify(&rich, &worse.best, 10, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, best.best.pass_ms, 1e-5 * bound_ms, "seed %zu", (size_t)seed);
        cr_assert_str_eq(milp_status(&worse.best, bound_ms, &gap_pct), "feasible");
        cr_assert_gt(gap_pct, 0.9);
        n++;
    }
    cr_assert_gt(n, 10, "%d", n);
}

/* --- S free: for a time T every device reads as far ahead as its disk allows, which hides most
 * ---------------- */

/* Cost of a device whose disk may be busy until T; INFINITY when even S = 0 takes longer. */
static double free_cost(const problem *p, const device_cost *c, size_t device, uint32_t k, double T)
{
    const problem_device *d = &p->device[device];
    const assignment_device *a = &c->detail;
    double cpu_layers = (double)a->layers - a->gpu_layers, E = a->excess_bytes, S, most, exposed;
    double ram = d->ram_bytes - p->kv_layer_bytes * cpu_layers - (cpu_layers > 0 ? d->cpu_buffer_bytes : 0) -
                 (device == 0 ? d->head_bytes : 0);

    if (E <= 0) return c->cost_ms;
    most = (T - (1 - d->theta) * a->compute_ms) * d->disk_bytes_per_ms - E;
    if (most < 0) return INFINITY;
    S = k > 1 ? fmin(fmin(most, ram), E / (k - 1)) : 0;
    exposed = fmax(0, (E - (k - 1) * S) / d->disk_bytes_per_ms - d->theta * a->compute_ms);
    return a->compute_ms + exposed + a->net_ms;
}

static double free_sum(const problem *p, uint32_t k, size_t device, uint32_t left, double T)
{
    double best = INFINITY;
    device_cost c;

    if (device == p->n_devices) return left == 0 ? p->device[0].out_ms : INFINITY;
    for (uint32_t l = 0; l <= left; l++)
        for (uint32_t g = 0; g <= l; g++) {
            if (!problem_device_cost(p, device, k, l, g, false, &c)) continue;
            if ((1 - p->device[device].theta) * c.detail.compute_ms > T) continue;
            double cost = free_cost(p, &c, device, k, T);
            if (isinf(cost)) continue;
            best = fmin(best, cost + free_sum(p, k, device + 1, left - l, T));
        }
    return best;
}

static double free_best(const problem *p, double plan_ms)
{
    double best = plan_ms;

    for (uint32_t k = 1; k <= p->max_rounds && k <= p->n_layers; k++) {
        double low = 0, high = best;
        if (free_sum(p, k, 0, p->n_layers, high) > high) continue;
        for (int i = 0; i < 40; i++) {
            double T = (low + high) / 2;
            if (free_sum(p, k, 0, p->n_layers, T) <= T) high = T;
            else low = T;
        }
        best = high;
    }
    return best;
}

Test(milp, free_buffer, .timeout = 120)
{
    int n = 0, better = 0;

    for (uint64_t seed = 0; n < 60; seed++) {
        problem p = random_problem(seed);
        certified c;
        if (p.throughput || p.n_devices < 2 || p.n_devices > 3 || p.n_layers > 9 || p.max_rounds < 2)
            continue;
        if (!certify(&p, 10, &c)) continue;
        double expected = free_best(&p, c.s.best.pass_ms);
        cr_assert(c.complete);
        cr_assert_float_eq(c.bound_ms, expected, 5e-6 * expected, "seed %zu: %g, not %g (plan %g)",
                           (size_t)seed, c.bound_ms, expected, c.s.best.pass_ms);
        if (expected < 0.9999 * c.s.best.pass_ms) {
            better++;
            cr_assert_str_eq(c.status, "feasible");
        }
        n++;
    }
    cr_assert_gt(better, 2, "%d of %d", better, n);
}

static problem many_devices(size_t n_devices)
{
    problem p = {
        .n_layers = 80, .layer_bytes = 5e8, .kv_layer_bytes = 4e6, .n_devices = n_devices, .max_rounds = 32};
    uint64_t seed = 3;

    for (size_t i = 0; i < n_devices; i++)
        p.device[i] = (problem_device){.cpu_ms = uniform(&seed, 8, 40),
                                       .gpu_ms = uniform(&seed, 1, 2),
                                       .out_ms = 10,
                                       .hop_ms = 2,
                                       .ram_bytes = uniform(&seed, 0.7, 1.3) * 3.5e10 / (double)n_devices,
                                       .vram_bytes = i % 2 ? uniform(&seed, 0, 8e9) : 0,
                                       .disk_bytes_per_ms = uniform(&seed, 3e5, 3e6),
                                       .theta = 0.5,
                                       .fixed_layers = -1,
                                       .fixed_gpu_layers = -1};
    return p;
}

/* However little time there is, the bound holds and the label says how it came about. */
Test(milp, time_limit, .timeout = 30)
{
    problem p = many_devices(24);
    certified c;
    uint64_t start = clock_ns();

    cr_assert(certify(&p, 0.3, &c));
    cr_assert_lt(clock_ms_since(start), 4000);
    cr_assert_gt(c.bound_ms, 0);
    cr_assert(c.complete || strcmp(c.status, "feasible") == 0);
    cr_assert(certify(&p, 0, &c));
    cr_assert(!c.complete);
    cr_assert_str_eq(c.status, "feasible");
}

/* Four devices and 70B in all: DP and certificate, in time of the processor, which others may share. */
Test(milp, fast_on_four_devices)
{
    problem p = many_devices(4);
    clock_t start = clock();
    certified c;

    cr_assert(certify(&p, 2, &c));
    cr_assert(c.complete);
    cr_assert_lt((double)(clock() - start) / CLOCKS_PER_SEC, 0.05 * SLOWER);
}
