/* The quick question agrees with the solver: what the best plan takes is within reach, anything less is not.
 */
#include "planner/reach.h"
#include "planner/solve.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>

static bool reaches(const problem *p, double target_ms)
{
    size_t size = reach_row_size(p), n = reach_rounds(p) * size;
    double *price = malloc(n * sizeof *price), *sum = malloc(n * sizeof *sum),
           *next = malloc(n * sizeof *next);
    bool any = false;

    for (size_t at = 0; at < n; at += size) reach_begin(p, sum + at);
    for (size_t i = 0; i < p->n_devices; i++) {
        double *swap = sum;
        reach_prices(p, i, target_ms, price);
        for (size_t at = 0; at < n; at += size) reach_add(p, sum + at, price + at, target_ms, next + at);
        sum = next;
        next = swap;
    }
    for (size_t at = 0; at < n; at += size) any |= sum[at + size - 1] < target_ms;
    free(price);
    free(sum);
    free(next);
    return any;
}

Test(reach, agrees_with_the_solver, .timeout = 60)
{
    int n = 0;

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = seed % 2 ? random_pieces_problem(seed) : random_problem(seed);
        solution s;
        if (dp_solve(&p, &s, NULL)) {
            cr_assert_not(reaches(&p, INFINITY), "seed %zu", (size_t)seed);
            continue;
        }
        cr_assert(reaches(&p, s.best.pass_ms * (1 + 1e-6)), "seed %zu", (size_t)seed);
        cr_assert_not(reaches(&p, s.best.pass_ms * (1 - 1e-6)), "seed %zu", (size_t)seed);
        n++;
    }
    cr_assert_gt(n, 1000, "%d", n);
}

/* Some rounds only: the best of these. */
Test(reach, a_range_of_rounds)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        problem p = random_pieces_problem(seed);
        double best = INFINITY;
        solution all, some;
        if (p.n_layers < 4 || p.max_rounds < 4 || dp_solve(&p, &all, NULL)) continue;
        p.min_rounds = 2;
        p.max_rounds = 3;
        cr_assert_eq(reach_rounds(&p), 2);
        for (int k = 2; k <= 3; k++) best = fmin(best, all.per_rounds_ms[k]);
        if (isinf(best) || isnan(best)) continue;
        cr_assert_eq(dp_solve(&p, &some, NULL), PR_OK);
        cr_assert_float_eq(some.best.pass_ms, best, 1e-8 * best);
        cr_assert(isnan(some.per_rounds_ms[1]) && isnan(some.per_rounds_ms[4]));
        cr_assert(reaches(&p, best * (1 + 1e-6)));
        cr_assert_not(reaches(&p, best * (1 - 1e-6)));
    }
}

/* Whether some read buffer makes a at least as good as b in cost and bound. */
static bool some_buffer_is_as_good(const problem *p, uint32_t k, device_cost a, const device_cost *b)
{
    for (;;) {
        if (a.cost_ms <= b->cost_ms * (1 + 1e-12) && a.bound_ms <= b->bound_ms * (1 + 1e-12)) return true;
        if (!a.detail.buffer_pieces || !problem_set_buffer(p, 0, k, a.detail.buffer_pieces - 1, &a))
            return false;
    }
}

/* problem_prefers_gpu: one layer more on a fast GPU is never worse, whatever is streamed. */
Test(reach, more_on_the_gpu_is_never_worse)
{
    uint64_t s = 5;
    int n = 0;

    for (uint64_t seed = 0; seed < 2000; seed++) {
        problem p = random_pieces_problem(seed);
        problem_device *d = &p.device[0];
        if (seed % 2) p.n_layers = 10 + up_to(&s, 70);
        d->vram_bytes = 1e12;
        d->fixed_layers = d->fixed_gpu_layers = -1;
        d->theta = uniform(&s, 0, 1);
        d->gpu_ms = d->cpu_ms * (1 - d->theta) * (seed % 5 ? uniform(&s, 0, 1) : 1);
        d->disk_bytes_per_ms = uniform(&s, 1e5, 3e6);
        d->ram_bytes = uniform(&s, 0.3e8, p.n_layers * 1e8);
        cr_assert(problem_prefers_gpu(&p, 0));
        for (int i = 0; i < 60; i++) {
            uint32_t l = 1 + up_to(&s, p.n_layers - 1), g = 1 + up_to(&s, l - 1), k = 1 + up_to(&s, 31);
            device_cost more, less;
            if (!problem_device_cost(&p, 0, k, l, g - 1, false, &less)) continue;
            cr_assert(problem_device_cost(&p, 0, k, l, g, false, &more));
            do {
                cr_assert(some_buffer_is_as_good(&p, k, more, &less), "seed %zu: %u layers, %u, k %u",
                          (size_t)seed, l, g, k);
                n++;
            } while (less.detail.buffer_pieces &&
                     problem_set_buffer(&p, 0, k, less.detail.buffer_pieces - 1, &less));
        }
    }
    cr_assert_gt(n, 100000, "%d", n);
}
