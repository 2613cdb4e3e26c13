/* Time to the first token against sums made by hand. */
#include "planner/ttft.h"
#include <criterion/criterion.h>

/* Two devices, 5 layers each of 80 MB in 8 pieces; the first keeps all its layers, the second 30 of 40 pieces
 * or all. A chunk of 256 tokens: 100 and 60 ms a layer, 7 and 9 ms a hop; a single token: 1 ms and nothing.
 */
static problem two_devices(bool streams)
{
    problem p = {.n_layers = 10,
                 .layer_bytes = 8e7,
                 .pieces = 8,
                 .prefill_tokens = 256,
                 .n_devices = 2,
                 .max_rounds = 4};

    for (int i = 0; i < 2; i++)
        p.device[i] = (problem_device){.cpu_ms = 1,
                                       .out_ms = i ? 3 : 11,
                                       .ram_bytes = i && streams ? 3e8 : 1e9,
                                       .disk_bytes_per_ms = 1e6,
                                       .theta = 1,
                                       .fixed_layers = -1,
                                       .fixed_gpu_layers = -1,
                                       .prefill_cpu_ms = i ? 60 : 100,
                                       .prefill_hop_ms = i ? 9 : 7};
    return p;
}

static assignment five_each(const problem *p, uint32_t rounds)
{
    assignment a = {.rounds = rounds};

    a.device[0].layers = a.device[1].layers = 5;
    cr_assert(assignment_evaluate(p, &a, NULL, NULL));
    return a;
}

/* 500 + 300 of compute, 2 rounds of 7 + 9, 11 for the logits. The first device works for each chunk more, and
 * waits for the second, and for hops, one round long: half of 300 + 2 x (7 + 9). */
Test(ttft, chunks_follow_each_other)
{
    problem p = two_devices(false);
    assignment a = five_each(&p, 2);
    const double one = 500 + 300 + 2 * (7 + 9) + 11;

    cr_assert_float_eq(ttft_ms(&p, &a, 256), one, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 512), 2 * 500 + 166 + 11, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 1024), 4 * 500 + 166 + 11, 1e-9);
}

/* A short chunk takes its share, and no less than a decode pass: 1 ms a layer, also where 60 x 4 / 256 is
 * less. */
Test(ttft, short_prompts_and_last_chunks)
{
    problem p = two_devices(false);
    assignment a = five_each(&p, 2);

    cr_assert_float_eq(ttft_ms(&p, &a, 64), (500 + 300 + 2 * (7 + 9)) / 4.0 + 11, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 4), 5 * 100 * 4 / 256.0 + 5 * 1 + 2 * (7 + 9) * 4 / 256.0 + 11, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 512 + 128), 2 * 500 + 250 + 166 + 11, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 513), 2 * 500 + 5 + 166 + 11, 1e-9);
}

/* At one round the second device reads 10 pieces and its buffer of 2 in a chunk, 10 ms each: 120 ms, of which
 * 100 are not ahead of time, but hidden behind 262.5 ms: the 35 pieces between the first streamed one, which
 * is the fourth, and the last. With a tenth of the rate 737.5 ms are not. */
Test(ttft, streamed_weights_are_read_once_a_chunk)
{
    problem p = two_devices(true);
    assignment a = five_each(&p, 1);
    const double others = 500 + (7 + 9) + 11;

    cr_assert_eq(a.device[1].streamed_pieces, 12);
    cr_assert_float_eq(ttft_ms(&p, &a, 512), others + 300 + 500, 1e-9);
    p.device[1].disk_bytes_per_ms = 1e5;
    a = five_each(&p, 1);
    cr_assert_float_eq(ttft_ms(&p, &a, 256), others + 300 + 737.5, 1e-9);
    cr_assert_float_eq(ttft_ms(&p, &a, 512), others + 300 + 737.5 + 1200, 1e-9);
}

Test(ttft, pins_and_objective_do_not_matter)
{
    problem p = two_devices(false), other = p;
    assignment a = five_each(&p, 2);

    other.throughput = true;
    other.in_flight = 4;
    other.device[0].fixed_layers = 3;
    cr_assert_float_eq(ttft_ms(&other, &a, 700), ttft_ms(&p, &a, 700), 1e-9);
}

Test(ttft, nothing_known)
{
    problem p = two_devices(false);
    assignment a = five_each(&p, 1);

    cr_assert_eq(ttft_ms(&p, &a, 0), 0);
    p.device[1].prefill_cpu_ms = 0;
    cr_assert_eq(ttft_ms(&p, &a, 100), 0);
    p = two_devices(false);
    p.prefill_tokens = 0;
    cr_assert_eq(ttft_ms(&p, &a, 100), 0);
}
