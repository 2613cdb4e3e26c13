/* Prices and their sums, with the weight that a sum of costs has in the time of a pass. What is dearer than
 * the target or bound by a slower disk is left out at once: few numbers of layers remain for each device, and
 * most k are out after some devices. */
#include "planner/reach.h"
#include <math.h>
#include <stdlib.h>

uint32_t reach_rounds(const problem *p)
{
    return problem_last_rounds(p) - problem_first_rounds(p) + 1;
}

size_t reach_row_size(const problem *p)
{
    return (size_t)p->n_layers + 1;
}

/* The least cost within the target, with the largest read buffer whose reads are within it too. INFINITY:
 * there is none. */
static double price_of(const problem *p, size_t device, uint32_t rounds, double target_ms, device_cost *c)
{
    const problem_device *d = &p->device[device];
    double weight = problem_sum_weight(p);

    while (c->bound_ms >= target_ms) {
        uint32_t buffer = c->detail.buffer_pieces, less;
        double before = c->bound_ms, piece_ms;
        if (buffer == 0 || weight * c->cost_ms >= target_ms) return INFINITY;
        piece_ms = p->layer_bytes / p->pieces / d->disk_bytes_per_ms;
        less = (uint32_t)fmin(fmax(1, floor((before - target_ms) / piece_ms)), buffer);
        if (!problem_set_buffer(p, device, rounds, buffer - less, c) || c->bound_ms >= before)
            return INFINITY;
    }
    return weight * c->cost_ms < target_ms ? weight * c->cost_ms : INFINITY;
}

void reach_prices(const problem *p, size_t device, double target_ms, double *prices)
{
    uint32_t most = problem_max_gpu_layers(p, device), last = problem_most_layers(p, device, target_ms);

    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p);
         k++, prices += reach_row_size(p)) {
        for (uint32_t l = 0; l <= p->n_layers; l++) prices[l] = INFINITY;
        for (uint32_t l = 0; l <= last; l++) {
            for (uint32_t left = (l < most ? l : most) + 1; left > 0; left--) {
                device_cost c;
                if (problem_least_ms(p, device, l, left - 1) >= target_ms) {
                    if (problem_gpu_is_fast(p, device)) break;
                    continue;
                }
                if (!problem_device_cost(p, device, k, l, left - 1, l == p->n_layers, &c)) continue;
                prices[l] = fmin(prices[l], price_of(p, device, k, target_ms, &c));
                if (problem_gpu_settles(p, device, l, left - 1)) break;
            }
        }
    }
}

void reach_begin(const problem *p, double *sum)
{
    for (uint32_t l = 0; l <= p->n_layers; l++) sum[l] = INFINITY;
    sum[0] = problem_sum_weight(p) * p->device[0].out_ms;
}

void reach_add(const problem *p, const double *before, const double *price, double target_ms, double *after)
{
    uint32_t n = p->n_layers, first = 0, end = n + 1;

    for (uint32_t r = 0; r <= n; r++) after[r] = INFINITY;
    while (first <= n && before[first] >= target_ms) first++;
    while (end > first && before[end - 1] >= target_ms) end--;
    for (uint32_t l = 0; l <= n; l++) {
        if (price[l] >= target_ms) continue;
        for (uint32_t r = first; r < end && r + l <= n; r++) {
            double sum = before[r] + price[l];
            if (sum < after[r + l] && sum < target_ms) after[r + l] = sum;
        }
    }
}

void reach_from(const problem *p, const double *const *price, double target_ms, double *scratch,
                double *from_ms)
{
    size_t size = reach_row_size(p), at = 0;

    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) from_ms[k] = INFINITY;
    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p); k++, at += size) {
        double *now = scratch, *after = scratch + size;
        reach_begin(p, now);
        for (size_t i = 0; i < p->n_devices; i++) {
            double *swap = now;
            reach_add(p, now, price[i] + at, target_ms, after);
            now = after;
            after = swap;
        }
        from_ms[k] = now[size - 1];
    }
}

int reach_times(const problem *p, double target_ms, double *from_ms, pr_err *err)
{
    size_t n = reach_rounds(p) * reach_row_size(p);
    const double *price[PROBLEM_MAX_DEVICES];
    double *all = malloc((p->n_devices * n + 2 * reach_row_size(p)) * sizeof *all);

    if (!all) return pr_fail(err, PR_ERESOURCE, "planner: out of memory");
    for (size_t i = 0; i < p->n_devices; i++) {
        reach_prices(p, i, target_ms, all + i * n);
        price[i] = all + i * n;
    }
    reach_from(p, price, target_ms, all + p->n_devices * n, from_ms);
    free(all);
    return PR_OK;
}

int reach_solve(const problem *p, uint32_t guess, solution *s, pr_err *err)
{
    static const double TIES = 2e-9; /* relative; dp.c chooses among equal times */
    uint32_t first = problem_first_rounds(p), last = problem_last_rounds(p);
    double from_ms[PROBLEM_MAX_ROUNDS + 1], guess_ms;
    int rc;

    guess = guess < first ? first : guess > last ? last : guess;
    for (uint32_t k = 0; k <= PROBLEM_MAX_ROUNDS; k++) from_ms[k] = k == guess ? 0 : INFINITY;
    if ((rc = dp_time_within(p, from_ms, INFINITY, &guess_ms, NULL)))
        return rc == PR_EINFEASIBLE ? dp_solve(p, s, err) : pr_fail(err, rc, "planner: out of memory");
    if ((rc = reach_times(p, guess_ms * (1 + TIES), from_ms, err))) return rc;
    from_ms[guess] = guess_ms * (1 - TIES);
    return dp_solve_within(p, from_ms, guess_ms * (1 + TIES), s, err);
}
