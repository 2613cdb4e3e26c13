/* Plans are played in the order of what the formula says, so that most are not played at all: the formula is
 * at most a little slower than the simulator, and nothing behind the first one that is slower can win. */
#include "planner/played.h"
#include "planner/reach.h"
#include "planner/simulate.h"
#include <math.h>
#include <stdlib.h>

enum { PASSES = 15 };
static const double NOISE = 1e-9;          /* relative: equal times go to fewer bytes read */
static const double FORMULA_MAY_BE = 1.05; /* slower than what is played (test_simulate.c) */

static bool streams(const problem *p, const assignment *a)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        if (a->device[i].streamed_pieces) return true;
    }
    return false;
}

/* Adds `more` pieces to the buffers where it can be done; a is evaluated. */
static bool add_buffer(const problem *p, assignment *a, uint32_t more)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        if (a->device[i].streamed_pieces) a->device[i].buffer_pieces += more;
    }
    return assignment_evaluate(p, a, NULL, NULL);
}

static double play(const problem *p, const assignment *a)
{
    const sim_options o = {.passes = PASSES, .in_flight = p->in_flight > 1 ? p->in_flight : 1};
    sim_result r;

    return simulate(p, a, &o, &r, NULL) ? INFINITY : r.pass_ms;
}

/* The fastest of one number of rounds. */
static void try_rounds(const problem *p, uint32_t rounds, const assignment *a, assignment *best, played *out)
{
    for (uint32_t more = 0; more <= PLAYED_MORE; more++) {
        assignment b = *a;
        double ms;
        if (!add_buffer(p, &b, more)) return;
        if ((ms = play(p, &b)) >= out->played_ms * (1 - NOISE)) continue;
        *out = (played){rounds, more, ms};
        *best = b;
    }
}

/* The best plan of each number of rounds that may take less than limit_ms; formula_ms INFINITY: none does. */
static int solve_all(const problem *p, double limit_ms, assignment *plans, double *formula_ms, pr_err *err)
{
    double from_ms[PROBLEM_MAX_ROUNDS + 1];
    problem one = *p;
    solution s;
    int rc = reach_times(p, limit_ms, from_ms, err);

    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p) && !rc; k++) {
        formula_ms[k] = INFINITY;
        one.min_rounds = one.max_rounds = k;
        if (isinf(from_ms[k])) continue;
        rc = dp_solve_within(&one, from_ms, limit_ms, &s, err);
        if (rc == PR_EINFEASIBLE) rc = PR_OK;
        else if (!rc) {
            plans[k] = s.best;
            formula_ms[k] = s.best.pass_ms;
        }
    }
    return rc;
}

static uint32_t fastest(const problem *p, const double *formula_ms)
{
    uint32_t next = 0;

    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p); k++) {
        if (isfinite(formula_ms[k]) && (!next || formula_ms[k] < formula_ms[next])) next = k;
    }
    return next;
}

int played_choose(const problem *p, assignment *best, played *out, pr_err *err)
{
    double formula_ms[PROBLEM_MAX_ROUNDS + 1];
    assignment *plans;
    int rc;

    *out = (played){best->rounds, 0, 0};
    if (!p->pieces || !streams(p, best)) return PR_OK;
    if (!(plans = malloc((PROBLEM_MAX_ROUNDS + 1) * sizeof *plans)))
        return pr_fail(err, PR_ERESOURCE, "planner: out of memory");
    rc = solve_all(p, FORMULA_MAY_BE * play(p, best), plans, formula_ms, err);
    out->played_ms = INFINITY;
    for (uint32_t k; !rc && (k = fastest(p, formula_ms));) {
        if (formula_ms[k] >= out->played_ms * FORMULA_MAY_BE) break;
        try_rounds(p, k, &plans[k], best, out);
        formula_ms[k] = INFINITY;
    }
    if (isinf(out->played_ms)) *out = (played){best->rounds, 0, 0}; /* none can be played: as it was */
    free(plans);
    return rc;
}

int played_again(const problem *p, const played *choice, assignment *out, pr_err *err)
{
    problem one = *p;
    solution s;
    int rc;

    one.min_rounds = one.max_rounds = choice->rounds;
    if ((rc = dp_solve(&one, &s, err))) return rc;
    *out = s.best;
    if (choice->more) {
        assignment more = *out;
        if (add_buffer(p, &more, choice->more)) *out = more;
    }
    return PR_OK;
}
