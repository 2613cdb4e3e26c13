/* Micro-batches in flight: rules that anybody can check by hand, and the optimum by trying a small pipeline
 * out, event by event. */
#include "src/run/depth.h"
#include "tests/common/ring_plan.h"
#include <criterion/criterion.h>
#include <math.h>

enum { LAYERS = 24, MAX_DEVICES = 4 };

/* Devices with `layers[i]` layers that take base + n ms each for n tokens, and hops of hop_ms. */
typedef struct {
    size_t devices, slots;
    uint32_t layers[MAX_DEVICES];
    double base, each, hop_ms;
} ring_case;

static plan *make(const ring_case *c)
{
    static const uint16_t port[MAX_DEVICES] = {1, 2, 3, 4};
    plan *p = ring_plan_new(c->devices, 1, LAYERS, "", port);

    cr_assert_not_null(p);
    p->micro_batch = 8;
    p->prefill_tokens = 256;
    for (size_t i = 0, at = 0; i < c->devices; i++) {
        plan_device *d = &p->device[i];
        d->window[0] = (plan_window){0, (uint32_t)at, (uint32_t)at + c->layers[i] - 1, PLACE_RAM, 0, 0};
        at += c->layers[i];
        d->cost.cpu_ms = c->base + 8 * c->each;
        d->cost.prefill_cpu_ms = c->base + 256 * c->each;
        d->net_ms = d->cost.hop_ms = c->hop_ms;
    }
    return p;
}

static size_t best(const ring_case *c)
{
    plan *p = make(c);
    size_t d = depth_best(p, c->slots);

    plan_free(p);
    return d;
}

/* Milliseconds a token when d micro-batches go round for a while: each device takes one after the other. */
static double played(const ring_case *c, size_t d)
{
    double free_at[MAX_DEVICES] = {0}, at[64] = {0}, n = ceil((double)c->slots / (double)d);
    size_t lots = (size_t)ceil((double)c->slots / n), laps = 200;

    for (size_t lap = 0; lap < laps; lap++) {
        for (size_t lot = 0; lot < lots; lot++) {
            for (size_t i = 0; i < c->devices; i++) {
                at[lot] = fmax(at[lot], free_at[i]) + c->layers[i] * (c->base + n * c->each);
                free_at[i] = at[lot];
                at[lot] += c->hop_ms;
            }
        }
    }
    return at[lots - 1] / (double)laps;
}

static const ring_case cases[] = {
    {2, 16, {12, 12}, 0.66, 0.13, 0.05},  {2, 16, {12, 12}, 0.66, 0.13, 20},
    {2, 16, {12, 12}, 0.66, 0.13, 5},     {4, 16, {6, 6, 6, 6}, 0.66, 0.13, 0.05},
    {4, 32, {6, 6, 6, 6}, 0.66, 0.13, 5}, {2, 16, {20, 4}, 0.66, 0.13, 0.05},
    {3, 16, {8, 8, 8}, 0.1, 0.2, 0.05},   {3, 16, {8, 8, 8}, 5, 0.01, 0.5},
    {2, 2, {12, 12}, 0.66, 0.13, 50},     {4, 7, {12, 4, 4, 4}, 0.66, 0.13, 2},
};

Test(depth, nothing_is_much_faster_than_the_choice)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ring_case *c = &cases[i];
        double least = INFINITY, chosen = played(c, best(c));
        for (size_t d = 1; d <= c->slots; d++) least = fmin(least, played(c, d));
        cr_expect_leq(chosen, least * 1.08, "case %zu: %zu in flight: %g ms, best %g", i, best(c), chosen,
                      least);
    }
}

Test(depth, one_for_each_device_when_hops_are_short)
{
    cr_expect_eq(best(&cases[0]), 2);
    cr_expect_eq(best(&cases[3]), 4);
    cr_expect_gt(best(&cases[1]), 2, "hops are longer than a device computes");
}

/* Chunks of its prompt follow each other all the same. */
Test(depth, one_sequence_leaves_room_for_chunks)
{
    ring_case c = cases[3];

    c.slots = 1;
    cr_expect_eq(best(&c), 4);
}

/* Where a token costs the same in any company, small chunks; where reading the weights is nearly all, large
 * ones; in a plan that says nothing, some. */
Test(depth, chunks_are_small_where_they_cost_nothing)
{
    static const ring_case cpu = {2, 16, {12, 12}, 0.66, 0.13, 0.05}, gpu = {2, 16, {12, 12}, 1, 0.001, 0.05};
    plan *p = make(&cpu), *q = make(&gpu);

    cr_expect_eq(depth_chunk(p), 32);
    cr_expect_eq(depth_chunk(q), 256);
    for (size_t i = 0; i < 2; i++) p->device[i].cost.cpu_ms = p->device[i].cost.prefill_cpu_ms = 0;
    cr_expect(depth_chunk(p) >= 32 && depth_chunk(p) <= 256);
    plan_free(p);
    plan_free(q);
}

/* Every micro-batch reads what is streamed for itself. Where that takes longer than all else, one micro-batch
 * of all sequences is best; where it hides behind computing, what is best without it. */
Test(depth, streamed_weights_are_read_for_as_many_as_possible)
{
    static const double read_ms[] = {1, 500};

    for (size_t i = 0; i < 2; i++) {
        plan *p = make(&cases[0]);
        for (size_t d = 0; d < 2; d++) {
            p->device[d].read_bytes_per_pass = (uint64_t)(read_ms[i] * 200000);
            p->device[d].cost.disk_bytes_per_ms = 200000;
        }
        cr_expect_eq(depth_best(p, 16), i ? 1 : 2);
        plan_free(p);
    }
}

/* A plan without figures for prompts, or without any. */
Test(depth, missing_figures_are_no_trouble)
{
    plan *p = make(&cases[0]);

    for (size_t i = 0; i < 2; i++) p->device[i].cost.prefill_cpu_ms = 0;
    cr_expect_eq(depth_best(p, 16), 2);
    for (size_t i = 0; i < 2; i++) p->device[i].cost.cpu_ms = p->device[i].net_ms = 0;
    cr_expect(depth_best(p, 16) >= 1 && depth_best(p, 16) <= 16);
    plan_free(p);
}
