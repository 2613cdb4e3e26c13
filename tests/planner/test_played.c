/* Rounds and buffers chosen by playing: never slower than the formula's choice when played, and what the plan
 * then predicts is what is played. */
#include "planner/played.h"
#include "planner/simulate.h"
#include <criterion/criterion.h>
#include <string.h>

static double play(const problem *p, const assignment *a)
{
    const sim_options o = {.passes = 15, .in_flight = p->in_flight > 1 ? p->in_flight : 1};
    sim_result r;
    pr_err err = {0};

    cr_assert_eq(simulate(p, a, &o, &r, &err), PR_OK, "%s", err.msg);
    return r.pass_ms;
}

/* 40 layers of 100 MB on two devices that hold a half of them. */
static problem streaming(void)
{
    problem p = {.n_layers = 40, .layer_bytes = 1e8, .pieces = 8, .n_devices = 2, .max_rounds = 16};

    for (size_t i = 0; i < 2; i++)
        p.device[i] = (problem_device){.cpu_ms = 8 + 4 * (double)i,
                                       .hop_ms = 1.5,
                                       .ram_bytes = 1.0e9 + 2e8 * (double)i,
                                       .disk_bytes_per_ms = 2e6,
                                       .theta = 0.5,
                                       .fixed_layers = -1,
                                       .fixed_gpu_layers = -1};
    return p;
}

Test(played, is_as_fast_as_the_formulas_choice_or_faster)
{
    problem p = streaming();
    int better = 0, streamed = 0;

    for (int n = 0; n < 60; n++) {
        solution s;
        assignment a;
        played choice;
        p.device[0].ram_bytes = 6e8 + 4e7 * n;
        p.device[1].cpu_ms = 6 + n % 7;
        p.in_flight = n % 3 == 2 ? 4 : 0;
        p.throughput = p.in_flight > 0;
        cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
        a = s.best;
        cr_assert_eq(played_choose(&p, &a, &choice, NULL), PR_OK);
        if (choice.played_ms == 0) continue;
        double before = play(&p, &s.best), after = play(&p, &a);
        cr_assert_leq(after, before * (1 + 1e-9), "case %d: %g, was %g", n, after, before);
        cr_assert_float_eq(after, choice.played_ms, 1e-9 * after);
        cr_assert_eq(a.rounds, choice.rounds);
        cr_assert_geq(a.pass_ms, s.best.pass_ms * (1 - 1e-9), "the formula's optimum is its optimum");
        streamed++;
        better += after < 0.99 * before;

        assignment again;
        cr_assert_eq(played_again(&p, &choice, &again, NULL), PR_OK);
        cr_assert_float_eq(play(&p, &again), after, 1e-9 * after, "the same choice gives the same plan");
    }
    cr_log_info("%d of 60 stream, %d are more than 1 %% faster", streamed, better);
    cr_assert_geq(streamed, 40);
    cr_assert_geq(better, 1);
}

Test(played, leaves_alone_what_does_not_stream)
{
    problem p = streaming();
    solution s;
    played choice;

    p.device[0].ram_bytes = p.device[1].ram_bytes = 1e10;
    cr_assert_eq(dp_solve(&p, &s, NULL), PR_OK);
    assignment a = s.best;
    cr_assert_eq(played_choose(&p, &a, &choice, NULL), PR_OK);
    cr_assert_eq(choice.played_ms, 0);
    cr_assert_eq(memcmp(&a, &s.best, sizeof a), 0);
}
