/* The certificate: GLPK finds what the DP finds, says so for every plan that is best, and for no other; what
 * limits leave of it is still true, and the same on every machine. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const milp_limits no_limits = {0, 1000000, INFINITY, 0};

/* Half idealised, half in pieces; every third without disks, so that nothing streams. */
static problem any_problem(uint64_t seed)
{
    problem p = seed % 2 ? random_pieces_problem(seed) : random_problem(seed);

    for (size_t i = 0; seed % 3 == 0 && i < p.n_devices; i++) p.device[i].disk_bytes_per_ms = 0;
    return p;
}

/* GLPK is told of a plan that takes half as long again, so that it has to find the optimum itself. */
Test(milp, finds_the_optimum, .timeout = 300)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = any_problem(seed);
        double bound_ms, gap_pct;
        assignment slower;
        bool complete;
        solution s;
        if (dp_solve(&p, &s, NULL)) continue;
        slower = s.best;
        slower.pass_ms *= 1.5;
        cr_assert_eq(milp_certify(&p, &slower, &no_limits, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, s.best.pass_ms, 5e-6 * bound_ms, "seed %zu: %g, plan %g", (size_t)seed,
                           bound_ms, s.best.pass_ms);
        cr_assert_str_eq(milp_status(&s.best, fmin(bound_ms, s.best.pass_ms), &gap_pct), "optimal");
        n++;
    }
    cr_assert_gt(n, 1000, "%d", n);
}

Test(milp, certifies_the_plan, .timeout = 300)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = any_problem(seed);
        double bound_ms, gap_pct;
        bool complete;
        solution s;
        if (dp_solve(&p, &s, NULL)) continue;
        cr_assert_eq(milp_certify(&p, &s.best, &no_limits, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_leq(bound_ms, s.best.pass_ms);
        cr_assert_str_eq(milp_status(&s.best, bound_ms, &gap_pct), "optimal", "seed %zu: gap %g %%",
                         (size_t)seed, gap_pct);
        n++;
    }
    cr_assert_gt(n, 1000, "%d", n);
}

/* A plan for less RAM than there is, is not called optimal, and the bound is the true best. */
Test(milp, sees_a_worse_plan, .timeout = 60)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 400; seed++) {
        problem p = any_problem(seed), rich;
        double bound_ms, gap_pct;
        bool complete;
        solution best, worse;
        rich = p;
        for (size_t i = 0; i < rich.n_devices; i++) rich.device[i].ram_bytes *= 1.5;
        if (dp_solve(&p, &worse, NULL) || dp_solve(&rich, &best, NULL)) continue;
        for (size_t i = 0; i < rich.n_devices; i++) worse.best.device[i].buffer_pieces = 0;
        assignment_evaluate(&rich, &worse.best, NULL, NULL);
        if (worse.best.pass_ms < best.best.pass_ms * 1.01) continue;
        cr_assert_eq(milp_certify(&rich, &worse.best, &no_limits, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, best.best.pass_ms, 1e-5 * bound_ms, "seed %zu", (size_t)seed);
        cr_assert_str_eq(milp_status(&worse.best, bound_ms, &gap_pct), "feasible");
        cr_assert_gt(gap_pct, 0.9);
        /* The same with what is known of a better one, which is easier. */
        const milp_limits known = {0, 1000000, INFINITY, best.best.pass_ms};
        cr_assert_eq(milp_certify(&rich, &worse.best, &known, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, best.best.pass_ms * (1 - 1e-6), 1e-9 * bound_ms, "seed %zu",
                           (size_t)seed);
        n++;
    }
    cr_assert_gt(n, 30, "%d", n);
}

/* Asked whether the plan is within a tenth of the best, it answers just that. */
Test(milp, a_gap_is_enough)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        problem p = any_problem(seed);
        const milp_limits limits = {0.1, 1000000, INFINITY, 0};
        double bound_ms, gap_pct;
        bool complete;
        solution s;
        if (dp_solve(&p, &s, NULL)) continue;
        cr_assert_eq(milp_certify(&p, &s.best, &limits, &bound_ms, &complete, NULL), PR_OK);
        cr_assert(complete);
        cr_assert_float_eq(bound_ms, 0.9 * s.best.pass_ms, 1e-9 * s.best.pass_ms);
        cr_assert_str_eq(milp_status(&s.best, bound_ms, &gap_pct), "feasible");
        cr_assert_float_eq(gap_pct, 10, 1e-6);
    }
}

static problem many_devices(size_t n_devices)
{
    problem p = {.n_layers = 80,
                 .layer_bytes = 5e8,
                 .pieces = PROBLEM_PIECES,
                 .kv_layer_bytes = 4e6,
                 .n_devices = n_devices,
                 .max_rounds = 32};
    uint64_t seed = 3;

    for (size_t i = 0; i < n_devices; i++)
        p.device[i] = (problem_device){.cpu_ms = uniform(&seed, 8, 40),
                                       .gpu_ms = uniform(&seed, 1, 2),
                                       .out_ms = 10,
                                       .hop_ms = 2,
                                       .ram_bytes = uniform(&seed, 0.7, 1.3) * 3e10 / (double)n_devices,
                                       .vram_bytes = i % 4 == 1 ? uniform(&seed, 0, 8e9) : 0,
                                       .disk_bytes_per_ms = uniform(&seed, 3e5, 3e6),
                                       .theta = 0.5,
                                       .fixed_layers = -1,
                                       .fixed_gpu_layers = -1};
    return p;
}

/* However little is tried, the bound holds and the label says how it came about. */
Test(milp, limits, .timeout = 60)
{
    const milp_limits limits[] = {{0, 0, INFINITY, 0}, {0, 1, INFINITY, 0}, {0, 1000000, 0, 0}};
    problem p = many_devices(24);
    solution s;

    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        assignment slower = s.best;
        double bound_ms, gap_pct;
        bool complete;

        slower.pass_ms *= 1.01; /* there is something to search for */
        cr_assert_eq(milp_certify(&p, &slower, &limits[i], &bound_ms, &complete, NULL), PR_OK);
        cr_assert_leq(bound_ms, s.best.pass_ms * (1 + 1e-9));
        cr_assert_not(complete);
        cr_assert_str_eq(milp_status(&slower, bound_ms, &gap_pct), "feasible");
        if (isinf(limits[i].time_limit_s)) cr_assert_gt(bound_ms, 0.9 * s.best.pass_ms);
    }
}

/* DP and certificate of 70B, in time of the processor, which others may share. */
Test(milp, fast_enough, .timeout = 60)
{
    const size_t n_devices[] = {4, 32};
    const double limit_s[] = {0.05, 1};

    for (int i = 0; i < 2; i++) {
        problem p = many_devices(n_devices[i]);
        const milp_limits limits = {0, 2000, INFINITY, 0};
        double bound_ms;
        bool complete;
        solution s;
        clock_t start = clock();

        cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
        cr_assert_eq(milp_certify(&p, &s.best, &limits, &bound_ms, &complete, NULL), PR_OK);
        double took_s = (double)(clock() - start) / CLOCKS_PER_SEC;
        cr_log_info("%zu devices: %.3f s", n_devices[i], took_s);
        cr_assert_lt(took_s, limit_s[i] * SLOWER, "%zu devices: %g s", n_devices[i], took_s);
        cr_assert(complete);
    }
}

/* Bounds of searches that a limit cuts, bit by bit. */
static void cut_searches(double *bound_ms, size_t n)
{
    const milp_limits limits = {0, 1, INFINITY, 0};
    bool complete;

    for (size_t i = 0; i < n; i++) {
        problem p = many_devices(3 + i);
        assignment slower;
        solution s;
        cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
        slower = s.best;
        slower.pass_ms *= 1.02;
        cr_assert_eq(milp_certify(&p, &slower, &limits, &bound_ms[i], &complete, NULL), PR_OK);
    }
}

/* Others compete for the processor. */
Test(milp, the_same_on_a_busy_machine, .timeout = 120)
{
    enum { N = 9, BUSY = 4 };
    double before[N], under_load[N];
    pid_t busy[BUSY];

    cut_searches(before, N);
    for (int i = 0; i < BUSY; i++)
        if ((busy[i] = fork()) == 0) {
            alarm(60);
            for (volatile int on = 1; on;) {}
        }
    cut_searches(under_load, N);
    for (int i = 0; i < BUSY; i++) {
        kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
    cr_assert_arr_eq(before, under_load, sizeof before);
}
