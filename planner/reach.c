/* Prices and their sums, with the weight that a sum of costs has in the time of a pass. What is dearer than
 * the target or bound by a slower disk is left out at once: few numbers of layers remain for each device, and
 * most k are out after some devices. */
#include "planner/reach.h"
#include "planner/choices.h"
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
    uint32_t most = problem_max_gpu_layers(p, device);

    for (uint32_t k = problem_first_rounds(p); k <= problem_last_rounds(p); k++, prices += reach_row_size(p))
        for (uint32_t l = 0; l <= p->n_layers; l++) {
            prices[l] = INFINITY;
            for (uint32_t left = (l < most ? l : most) + 1; left > 0; left--) {
                device_cost c;
                if (choices_compute_ms(p, device, l, left - 1) >= target_ms) continue;
                if (!problem_device_cost(p, device, k, l, left - 1, l == p->n_layers, &c)) continue;
                prices[l] = fmin(prices[l], price_of(p, device, k, target_ms, &c));
                if (problem_prefers_gpu(p, device)) break;
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

/* The first and last number of rounds in which a plan could take less than the target; false: none, or no
 * memory. */
static bool rounds_within(const problem *p, double target_ms, uint32_t *first, uint32_t *last)
{
    size_t size = reach_row_size(p), n = reach_rounds(p) * size;
    double *price = malloc(3 * n * sizeof *price), *sum, *next;
    bool any = false;

    if (!price) return false;
    sum = price + n;
    next = sum + n;
    for (size_t at = 0; at < n; at += size) reach_begin(p, sum + at);
    for (size_t i = 0; i < p->n_devices; i++) {
        double *swap = sum;
        reach_prices(p, i, target_ms, price);
        for (size_t at = 0; at < n; at += size) reach_add(p, sum + at, price + at, target_ms, next + at);
        sum = next;
        next = swap;
    }
    for (uint32_t i = 0; i < reach_rounds(p); i++) {
        if (sum[(i + 1) * size - 1] >= target_ms) continue;
        *last = problem_first_rounds(p) + i;
        if (!any) *first = *last;
        any = true;
    }
    free(price);
    return any;
}

int reach_solve(const problem *p, uint32_t guess, solution *s, pr_err *err)
{
    static const double TIES = 2e-9; /* relative; dp.c chooses among equal times */
    uint32_t first = problem_first_rounds(p), last = problem_last_rounds(p);
    problem some = *p;

    some.min_rounds = some.max_rounds = guess < first ? first : guess > last ? last : guess;
    guess = some.min_rounds;
    if (dp_solve(&some, s, NULL)) return dp_solve(p, s, err);
    if (rounds_within(p, s->best.pass_ms * (1 + TIES), &first, &last) && first == last && first == guess)
        return PR_OK;
    some.min_rounds = first;
    some.max_rounds = last;
    return dp_solve(&some, s, err);
}
