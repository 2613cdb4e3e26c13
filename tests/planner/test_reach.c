/* The quick question agrees with the solver: what the best plan takes is within reach, anything less is not.
 */
#include "planner/reach.h"
#include "planner/solve.h"
#include "planner/stream.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>

static bool reaches(const problem *p, double target_ms)
{
    double from_ms[PROBLEM_MAX_ROUNDS + 1];
    bool any = false;

    cr_assert_eq(reach_times(p, target_ms, from_ms, NULL), PR_OK);
    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p); k++) any |= isfinite(from_ms[k]);
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

/* problem_gpu_settles: one layer more on the GPU is never worse, whatever is streamed. */
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
        d->gpu_ms = d->cpu_ms * (seed % 5 ? uniform(&s, 0, 1) : 1);
        d->disk_bytes_per_ms = uniform(&s, 1e5, 3e6);
        d->ram_bytes = uniform(&s, 0.3e8, p.n_layers * 1e8);
        for (int i = 0; i < 60; i++) {
            uint32_t l = 1 + up_to(&s, p.n_layers - 1), g = 1 + up_to(&s, l - 1), k = 1 + up_to(&s, 31);
            device_cost more, less;
            cr_assert_eq(problem_gpu_settles(&p, 0, l, g), l - g != 1);
            if (l - g == 1 || !problem_device_cost(&p, 0, k, l, g - 1, false, &less)) continue;
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

/* What its proof leaves to trying: with a layer less on the CPU, and as many resident pieces or up to a layer
 * less, some buffer has no longer stall. Times in those that hide a piece; n pieces of a window, x streamed,
 * begin to wait where (x - B) read = n - ceil(n/x) - 1. */
typedef struct {
    uint32_t layers, rounds, resident, buffer;
} streaming;

static bool stalls_longer(const streaming *c, double read_ms)
{
    const stream more = {PROBLEM_PIECES, c->layers, c->rounds, c->resident + c->buffer, read_ms, 1};
    const stream less = {PROBLEM_PIECES, c->layers - 1, c->rounds, c->resident + c->buffer, read_ms, 1};
    double before = stream_stall_ms(&more, c->buffer);
    uint32_t most = stream_largest_buffer(&less);

    for (uint32_t b = c->buffer; b <= c->buffer + PROBLEM_PIECES && b <= most; b++) {
        if (stream_stall_ms(&less, b) <= before * (1 + 1e-12)) return false;
    }
    return true;
}

static int try_kinks(const streaming *c)
{
    uint32_t left = c->layers - 1, windows = c->rounds < left ? c->rounds : left;
    uint32_t x = (PROBLEM_PIECES * left - c->resident) / windows;
    int n = 0;

    for (uint32_t more = 0; more < 2; more++) {
        uint32_t pieces = PROBLEM_PIECES * (left / windows + more);
        const uint32_t streamed[] = {x, x + 1, pieces - PROBLEM_PIECES, pieces};
        for (size_t i = 0; i < 4; i++) {
            if (streamed[i] <= c->buffer || streamed[i] > pieces) continue;
            double first = (pieces + streamed[i] - 1) / streamed[i];
            double kink = (pieces - first - 1) / (streamed[i] - c->buffer);
            if (kink < 1) continue;
            cr_assert_not(stalls_longer(c, kink) || stalls_longer(c, kink * 1.001) ||
                              stalls_longer(c, kink * 1.5),
                          "%u layers, %u rounds, %u resident, buffer %u, read %g", c->layers, c->rounds,
                          c->resident, c->buffer, kink);
            n++;
        }
    }
    return n;
}

Test(reach, a_layer_less_never_stalls_longer, .timeout = 60)
{
    uint64_t s = 11;
    int n = 0;

    for (uint32_t layers = 3; layers <= 9; layers++)
        for (uint32_t rounds = 1; rounds <= layers; rounds++)
            for (uint32_t resident = 0; resident < PROBLEM_PIECES * (layers - 1); resident++)
                for (uint32_t b = 2; resident + b < PROBLEM_PIECES * (layers - 1) && (rounds > 1 || b == 2);
                     b++)
                    n += try_kinks(&(streaming){layers, rounds, resident, b});
    for (int i = 0; i < 50000; i++) {
        uint32_t layers = 3 + up_to(&s, 77), rounds = 2 + up_to(&s, 30), most = PROBLEM_PIECES * (layers - 1);
        uint32_t resident = up_to(&s, most - 3), b = 2 + up_to(&s, most - resident - 3);
        n += try_kinks(&(streaming){layers, rounds, resident, b});
    }
    cr_assert_gt(n, 100000, "%d", n);
}
