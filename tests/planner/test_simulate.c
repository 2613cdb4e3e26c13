/* The simulator: cases computed by hand, conservation, monotonicity, and how far the closed formula of
 * problem.h agrees with it. */
#include "planner/simulate.h"
#include "planner/solve.h"
#include "planner/ttft.h"
#include "src/base/json.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double MB = 1e6;

static problem_device device(double cpu_ms, double ram_mb, double disk_mb_per_ms, double hop_ms)
{
    return (problem_device){.cpu_ms = cpu_ms,
                            .hop_ms = hop_ms,
                            .ram_bytes = ram_mb * MB,
                            .disk_bytes_per_ms = disk_mb_per_ms * MB,
                            .theta = 1,
                            .fixed_layers = -1,
                            .fixed_gpu_layers = -1};
}

static sim_result play(const problem *p, const assignment *a, sim_options o)
{
    sim_result r = {0};
    pr_err err = {0};

    cr_assert_eq(simulate(p, a, &o, &r, &err), PR_OK, "%s", err.msg);
    return r;
}

#define near(a, b)                                                                                           \
    cr_assert_float_eq((double)(a), (double)(b), 1e-6 * (1 + fabs((double)(b))), "%.9g, expected %.9g",      \
                       (double)(a), (double)(b))

static void check_conservation(const sim_result *r)
{
    for (size_t i = 0; i < r->n_devices; i++) {
        const sim_device *d = &r->device[i];
        near(d->busy_ms + d->disk_wait_ms + d->send_wait_ms + d->idle_ms, r->pass_ms);
        cr_assert(d->busy_ms >= 0 && d->disk_wait_ms >= 0 && d->send_wait_ms >= 0 && d->idle_ms >= -1e-9);
    }
}

/* --- by hand --------------------------------------------------------------------------------------- */
Test(simulate, one_resident_device)
{
    problem p = {.n_layers = 10, .layer_bytes = 100 * MB, .n_devices = 1, .device = {device(8, 1000, 0, 5)}};
    assignment a = {.rounds = 1, .n_devices = 1, .device = {{.layers = 10, .gpu_layers = 4}}};

    p.device[0].out_ms = 3;
    p.device[0].gpu_ms = 1;
    p.device[0].vram_bytes = 400 * MB;
    sim_result r = play(&p, &a, (sim_options){.passes = 3, .in_flight = 1});
    near(r.pass_ms, 6 * 8 + 4 * 1 + 3);
    near(r.first_ms, 55);
    near(r.device[0].busy_ms, 55);
    near(r.device[0].read_bytes, 0);
    near(r.device[0].send_ms, 0);
    check_conservation(&r);
}

Test(simulate, two_devices_with_hops)
{
    problem p = {.n_layers = 5,
                 .layer_bytes = 100 * MB,
                 .n_devices = 2,
                 .device = {device(10, 900, 0, 2), device(20, 900, 0, 3)}};
    assignment a = {.rounds = 2, .n_devices = 2, .device = {{.layers = 3}, {.layers = 2}}};

    p.device[0].out_ms = 1;
    sim_result r = play(&p, &a, (sim_options){.passes = 6, .in_flight = 1});
    near(r.pass_ms, 3 * 10 + 2 * 20 + 2 * (2 + 3) + 1);
    near(r.device[0].busy_ms, 31);
    near(r.device[1].busy_ms, 40);
    near(r.device[0].send_ms, 4);
    near(r.device[1].send_ms, 6);
    check_conservation(&r);
}

/* The head has no layers: it sends the embedding to the only worker and gets the last hidden state back. */
Test(simulate, head_without_layers)
{
    problem p = {.n_layers = 4,
                 .layer_bytes = 100 * MB,
                 .n_devices = 2,
                 .device = {device(10, 900, 0, 2), device(20, 900, 0, 3)}};
    assignment a = {.rounds = 1, .n_devices = 2, .device = {{.layers = 0}, {.layers = 4}}};

    p.device[0].out_ms = 1;
    sim_result r = play(&p, &a, (sim_options){.passes = 3, .in_flight = 1});
    near(r.pass_ms, 4 * 20 + 2 + 3 + 1);
    check_conservation(&r);
}

/* A device streams x of its layers of 100 MB beside one that computes 25 ms a layer. Disk 10 MB/ms: a layer
 * takes 10 ms to read (theta 0: never while computing), 5 ms to compute. Layers are in `pieces`, of which x
 * are streamed through a buffer of b; the rest is resident. */
typedef struct {
    uint32_t rounds, layers, other_layers, pieces, x, b;
    double theta;
} stream_case;

static sim_result play_streaming(stream_case c)
{
    problem p = {.n_layers = c.layers + c.other_layers,
                 .layer_bytes = 100 * MB,
                 .pieces = c.pieces,
                 .n_devices = 2,
                 .device = {device(5, 0, 10, 0), device(25, 9000, 0, 0)}};
    double piece = p.layer_bytes / c.pieces;
    assignment a = {.rounds = c.rounds,
                    .n_devices = 2,
                    .device = {{.layers = c.layers, .streamed_pieces = c.x, .buffer_bytes = c.b * piece},
                               {.layers = c.other_layers}}};

    p.device[0].theta = c.theta;
    p.device[0].ram_bytes = (c.layers * c.pieces - c.x + c.b) * piece;
    sim_result r = play(&p, &a, (sim_options){.passes = 30, .in_flight = 1});
    check_conservation(&r);
    near(r.device[0].read_bytes, c.x * piece);
    return r;
}

Test(simulate, streaming_one_round)
{
    /* Both buffer places are full when the window begins: 2 of 4 layers wait 10 ms each (theta 0: a place
     * that became free is filled only while the device waits). */
    sim_result r = play_streaming((stream_case){1, 8, 4, 1, 4, 2, 0});

    near(r.pass_ms, 8 * 5 + 4 * 25 + 2 * 10);
    near(r.device[0].disk_wait_ms, 20);
    near(r.device[0].disk_busy_ms, 40);
}

Test(simulate, streaming_two_rounds)
{
    /* Two streamed layers a round, both in the buffer when the window begins. */
    sim_result r = play_streaming((stream_case){2, 8, 4, 1, 4, 2, 0});

    near(r.pass_ms, 8 * 5 + 4 * 25);
    near(r.device[0].disk_wait_ms, 0);
}

Test(simulate, streaming_four_rounds)
{
    /* 5 streamed in 4 rounds: 1, 1, 1, 2 a window. Everything is hidden while the other device computes 25 ms
     * a round (two layers read in 20). */
    sim_result r = play_streaming((stream_case){4, 8, 4, 1, 5, 2, 0});

    near(r.pass_ms, 8 * 5 + 4 * 25);
}

Test(simulate, disk_bound)
{
    /* The other device computes 25 ms a pass only, and the buffer (3 places) is never full: the disk needs 50
     * ms and never reads while the device computes: 50 + 40. */
    sim_result r = play_streaming((stream_case){4, 8, 1, 1, 5, 3, 0});

    near(r.pass_ms, 50 + 40);
    near(r.device[0].disk_busy_ms, 50);
}

/* Three layers, two of them streamed: resident, streamed, streamed (1 where floor((i+1)2/3) > floor(2i/3)).
 * One place: it is full at 0, free at 10, full again at 20. Any other order would take 20 ms. */
Test(simulate, resident_and_streamed_pieces_in_turn)
{
    near(play_streaming((stream_case){1, 3, 4, 1, 2, 1, 1}).pass_ms, 25 + 4 * 25);
}

/* Windows of two and three layers, everything streamed, two places: the second waits for one layer, 10 ms. */
Test(simulate, uneven_windows)
{
    near(play_streaming((stream_case){2, 5, 4, 1, 5, 2, 0}).pass_ms, 5 * 5 + 4 * 25 + 10);
    /* In halves of layers: windows of 4 and 6, which the second must do because the first has no more: it
     * waits for the sixth, 5 ms. */
    near(play_streaming((stream_case){2, 5, 4, 2, 10, 5, 0}).pass_ms, 5 * 5 + 4 * 25 + 5);
    near(play_streaming((stream_case){2, 5, 4, 2, 10, 6, 0}).pass_ms, 5 * 5 + 4 * 25);
}

/* Three CPU layers in four rounds are three windows: six quarters of a layer are two in each, for which two
 * places are enough. */
Test(simulate, more_rounds_than_layers)
{
    near(play_streaming((stream_case){4, 3, 4, 4, 6, 2, 0}).pass_ms, 3 * 5 + 4 * 25);
    near(play_streaming((stream_case){4, 3, 4, 4, 7, 2, 0}).pass_ms, 3 * 5 + 4 * 25 + 2.5);
}

/* Two places are enough for two pieces a window and one more does not help; with one less 2.5 ms a window are
 * waited for. */
Test(simulate, buffers)
{
    near(play_streaming((stream_case){2, 4, 4, 4, 4, 2, 0}).pass_ms, 4 * 5 + 4 * 25);
    near(play_streaming((stream_case){2, 4, 4, 4, 4, 3, 0}).pass_ms, 4 * 5 + 4 * 25);
    near(play_streaming((stream_case){2, 4, 4, 4, 4, 1, 0}).pass_ms, 4 * 5 + 4 * 25 + 2 * 2.5);
}

static problem alone(uint32_t layers, double theta)
{
    problem p = {.n_layers = layers, .layer_bytes = 100 * MB, .pieces = 1, .n_devices = 1};

    p.device[0] = device(5, 9000, 10, 0);
    p.device[0].theta = theta;
    return p;
}

Test(simulate, theta_one_reads_under_own_compute)
{
    /* Alone, 4 of 4 layers streamed, two places, 5 ms compute, 10 ms read at all times: the disk decides. */
    problem p = alone(4, 1);
    assignment a = {.rounds = 1, .device = {{.layers = 4, .streamed_pieces = 4, .buffer_bytes = 200 * MB}}};

    near(play(&p, &a, (sim_options){.passes = 9, .in_flight = 1}).pass_ms, 40);
    p = alone(4, 0.5); /* 5 ms of computing read 25 MB: 4 x (100 - 25) / 10 + 4 x 5 */
    near(play(&p, &a, (sim_options){.passes = 9, .in_flight = 1}).pass_ms, 50);
}

Test(simulate, reads_under_resident_layers)
{
    /* Alone, 10 layers of 5 ms, 4 of them streamed through two places: the third, fifth, eighth and tenth. A
     * place becomes free at 15, 25, 40 and 50 ms of a pass; what was read into it 10 ms later is needed at
     * 35, 45, 60 and 70. (With the streamed ones last, the disk would stand still until 35, and 60 ms be
     * needed.)
     */
    problem p = alone(10, 1);
    assignment a = {.rounds = 1, .device = {{.layers = 10, .streamed_pieces = 4, .buffer_bytes = 200 * MB}}};

    near(play(&p, &a, (sim_options){.passes = 9, .in_flight = 1}).pass_ms, 50);
}

/* --- prompts by hand ------------------------------------------------------------------------------- */
/* Two devices, two layers each, two rounds. A chunk of 100 tokens: 10 and 20 ms a layer, 3 and 4 ms a hop; a
 * decode pass: 4 and 6, 1 and 2; output 5. */
static problem two_for_prompts(void)
{
    problem p = {.n_layers = 4,
                 .layer_bytes = 100 * MB,
                 .pieces = 8,
                 .prefill_tokens = 100,
                 .n_devices = 2,
                 .device = {device(4, 900, 0, 1), device(6, 900, 0, 2)}};

    p.device[0].out_ms = 5;
    p.device[0].prefill_cpu_ms = 10;
    p.device[1].prefill_cpu_ms = 20;
    p.device[0].prefill_hop_ms = 3;
    p.device[1].prefill_hop_ms = 4;
    return p;
}

static double first_token(const problem *p, const assignment *a, uint32_t tokens)
{
    sim_result r = play(p, a, (sim_options){.passes = 6, .in_flight = 1, .prompt_tokens = tokens});

    near(r.prefill_tps, tokens / r.ttft_ms * 1000);
    check_conservation(&r);
    return r.ttft_ms;
}

Test(simulate, prompt)
{
    problem p = two_for_prompts();
    assignment a = {.rounds = 2, .device = {{.layers = 2}, {.layers = 2}}};

    /* Three chunks. First device, round 0: 0-10, 10-20, 20-30; hops of 3; second device: 13-33, 33-53, 53-73;
     * hops of 4; round 1: 37-47, 57-67, 77-87; hops of 3; 73-93, 93-113, 113-133. One token's hidden state
     * goes back: 135; output: 140. */
    near(first_token(&p, &a, 300), 140);
    /* A last chunk of 50 tokens: 20-25, 53-63, 67-72, 103-113. One of 10 takes no less than a decode pass: 4
     * and 6 a layer, hops 1 and 2: 20-24, 53-59, 67-71, 99-105. */
    near(first_token(&p, &a, 250), 113 + 2 + 5);
    near(first_token(&p, &a, 210), 105 + 2 + 5);
    /* One chunk alone. */
    near(first_token(&p, &a, 100), 2 * (10 + 3 + 20) + 4 + 2 + 5);

    sim_result r = play(&p, &a, (sim_options){.passes = 6, .in_flight = 1, .prompt_tokens = 300});
    near(r.pass_ms, 2 * 4 + 2 * 6 + 2 * (1 + 2) + 5); /* what follows is not changed by the prompt */
    near(r.first_ms, r.pass_ms);
    near(r.device[1].busy_ms, 12);
}

/* More chunks than are in the ring at a time (four). The second device is never idle after its first chunk
 * arrived; only for the last lap of a single one it waits 10 ms between the rounds. */
Test(simulate, long_prompt)
{
    problem p = two_for_prompts();
    assignment a = {.rounds = 2, .device = {{.layers = 2}, {.layers = 2}}};

    for (int i = 0; i < 2; i++) p.device[i].hop_ms = p.device[i].prefill_hop_ms = 0;
    near(first_token(&p, &a, 1200), 10 + 12 * 2 * 20 + 5);
    near(first_token(&p, &a, 1300), 10 + 13 * 2 * 20 + 10 + 5);
    a.rounds = 1;
    near(first_token(&p, &a, 1300), 20 + 13 * 40 + 5);
    a.device[0].layers = 4;
    a.device[1].layers = 0;
    near(first_token(&p, &a, 1300), 13 * 40 + 5);
}

/* A head without layers sends the chunks, 3 ms each, and gets one hidden state back. */
Test(simulate, prompt_from_a_head_without_layers)
{
    problem p = two_for_prompts();
    assignment a = {.rounds = 1, .device = {{.layers = 0}, {.layers = 4}}};

    near(first_token(&p, &a, 200), 3 + 2 * 80 + 2 + 5);
    a.rounds = 2; /* both chunks in round 0, then both in round 1 */
    near(first_token(&p, &a, 200), 3 + 2 * 80 + 2 + 5);
}

/* Each chunk reads what is streamed, theta 0: four times 10 ms of reading and 15 of computing, but for the
 * two that an idle ring has read before. */
Test(simulate, prompt_on_a_streaming_device)
{
    problem p = alone(4, 0);
    assignment a = {.rounds = 1, .device = {{.layers = 4, .streamed_pieces = 4, .buffer_bytes = 200 * MB}}};

    p.prefill_tokens = 64;
    p.device[0].prefill_cpu_ms = 15;
    p.device[0].out_ms = 5;
    near(first_token(&p, &a, 64), 4 * 25 - 2 * 10 + 5);
    near(first_token(&p, &a, 128), 8 * 25 - 2 * 10 + 5);
    p.device[0].theta = 1; /* all under compute */
    near(first_token(&p, &a, 128), 8 * 15 + 5);
    a.device[0].gpu_layers = 2;
    a.device[0].streamed_pieces = 1;
    p.device[0].vram_bytes = 200 * MB;
    p.device[0].prefill_gpu_ms = 7;
    near(first_token(&p, &a, 128), 2 * (2 * 7 + 2 * 15) + 5);
}

/* --- micro-batches by hand ------------------------------------------------------------------------- */
Test(simulate, several_in_flight)
{
    /* Two equal devices without hops: with two micro-batches both always compute. */
    problem p = {.n_layers = 8,
                 .layer_bytes = MB,
                 .n_devices = 2,
                 .device = {device(10, 900, 0, 0), device(10, 900, 0, 0)}};
    assignment a = {.rounds = 2, .n_devices = 2, .device = {{.layers = 4}, {.layers = 4}}};
    sim_result r = play(&p, &a, (sim_options){.passes = 9, .in_flight = 2});

    near(r.pass_ms, 40);
    near(r.device[1].idle_ms, 0);
    check_conservation(&r);

    /* A slow link decides: 30 ms a round. More in flight than the ring holds are not admitted. */
    p.device[0].hop_ms = 30;
    r = play(&p, &a, (sim_options){.passes = 9, .in_flight = 100});
    cr_assert_eq(r.in_flight, 5);
    near(r.pass_ms, 60);
    near(r.device[0].send_wait_ms, 20);
    check_conservation(&r);
}

/* Every micro-batch reads for itself: alone, everything streamed, theta 1, the disk needs 40 ms for each. A
 * device serves a round of all of them before the next: with two rounds of two layers and two micro-batches
 * the order of use is 01 01 23 23. */
Test(simulate, several_in_flight_on_a_streaming_device)
{
    problem p = alone(4, 1);
    assignment a = {.rounds = 2, .device = {{.layers = 4, .streamed_pieces = 4, .buffer_bytes = 200 * MB}}};
    sim_result r = play(&p, &a, (sim_options){.passes = 9, .in_flight = 2});

    cr_assert_eq(r.in_flight, 2);
    near(r.pass_ms, 40);
    near(r.device[0].read_bytes, 400 * MB);
    near(r.device[0].disk_busy_ms, 40);
    near(r.device[0].disk_wait_ms, 20);
    /* The first two pieces were there; the third is read from 5 to 15, when a place is free, the eighth until
     * 65, and is computed at 70; then the first micro-batch is served again, its output first. */
    near(r.first_ms, 70);
}

/* --- random problems ------------------------------------------------------------------------------- */
static uint64_t rng_state;
static double uniform(double lo, double hi)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(rng_state >> 11) * 0x1p-53;
}
static uint32_t below(uint32_t n)
{
    return (uint32_t)uniform(0, n);
}

/* A cluster of 1..4 devices around a model that fits it more or less; some stream, some have a GPU. */
static problem random_problem(uint32_t pieces)
{
    problem p = {.n_layers = 24 + below(57),
                 .layer_bytes = uniform(50, 500) * MB,
                 .pieces = pieces,
                 .n_devices = 1 + below(4)};

    p.kv_layer_bytes = p.layer_bytes * uniform(0, 0.1);
    for (size_t i = 0; i < p.n_devices; i++) {
        double room = p.n_layers * p.layer_bytes / p.n_devices;
        problem_device *d = &p.device[i];
        *d = device(uniform(2, 20), 0, uniform(0.3, 3.5), uniform(0, 5));
        d->ram_bytes = room * uniform(0.3, 1.5);
        d->theta = uniform(0, 1);
        d->cpu_buffer_bytes = room * uniform(0, 0.02);
        d->out_ms = uniform(0, 10);
        d->head_bytes = room * uniform(0, 0.1);
        d->gpu_ms = d->cpu_ms * uniform(0.05, 0.5);
        if (below(3) == 0) d->vram_bytes = room * uniform(0.2, 1);
    }
    return p;
}

/* Feasible, or n_devices 0 when this draw is not. */
static assignment random_assignment(const problem *p)
{
    assignment a = {.rounds = 1 + below(8), .n_devices = p->n_devices};
    uint32_t left = p->n_layers;

    for (size_t i = 0; i < p->n_devices; i++) {
        assignment_device *d = &a.device[i];
        uint32_t fair = left / (uint32_t)(p->n_devices - i);
        d->layers = i + 1 == p->n_devices ? left : (uint32_t)(fair * uniform(0.3, 1.4));
        if (d->layers > left) d->layers = left;
        left -= d->layers;
        if (p->device[i].vram_bytes > 0) {
            double fit = p->device[i].vram_bytes / (p->layer_bytes + p->kv_layer_bytes);
            d->gpu_layers = d->layers < fit ? d->layers : (uint32_t)fit;
        }
    }
    if (!assignment_evaluate(p, &a, NULL, NULL)) a.n_devices = 0;
    return a;
}

/* What is read in a pass is what does not fit beside the buffer, in whole pieces. The disk may be ahead by
 * what the buffer holds, and with several in flight some are half-way at both ends. */
static void check_reads(const problem *p, const assignment_device *d, const sim_result *r, size_t device,
                        double passes)
{
    double piece = p->layer_bytes / (p->pieces ? p->pieces : 32), read_bytes = r->device[device].read_bytes;
    double ahead = (d->buffer_bytes + 3 * piece) / (passes * r->in_flight);
    double least = d->read_bytes, most = least;

    if (p->pieces == 0 && d->excess_bytes > 0) most += 4 * piece; /* whole ones, two for the buffer */
    if (r->in_flight > 1) ahead += d->read_bytes / passes;
    cr_assert(read_bytes >= least - ahead && read_bytes <= most + ahead, "%g, expected %g to %g", read_bytes,
              least - ahead, most + ahead);
}

Test(simulate, conservation_and_bytes)
{
    rng_state = 7;
    for (int done = 0; done < 200;) {
        problem p = random_problem(below(9));
        assignment a = random_assignment(&p);
        sim_options o = {.passes = 12, .in_flight = 1 + below(4)};
        sim_result r;
        pr_err err;
        if (!a.n_devices || simulate(&p, &a, &o, &r, &err)) continue;
        check_conservation(&r);
        for (size_t i = 0; i < p.n_devices; i++) {
            double passes = o.passes - o.passes / 3;
            double busy = a.device[i].compute_ms + (i ? 0 : p.device[0].out_ms);
            double off = r.device[i].busy_ms - busy;
            check_reads(&p, &a.device[i], &r, i, passes);
            cr_assert(fabs(off) <= 1e-6 + (r.in_flight > 1) * busy / passes, "%g, expected %g",
                      r.device[i].busy_ms, busy);
        }
        done++;
    }
}

/* A pass that ends as it began ends the play, unless a trace is wanted: the figures are the same. */
Test(simulate, a_steady_ring_need_not_be_played)
{
    FILE *nowhere = fopen("/dev/null", "w");
    int n_shorter = 0;

    cr_assert_not_null(nowhere);
    rng_state = 17;
    for (int done = 0; done < 200;) {
        problem p = random_problem(below(9));
        assignment a = random_assignment(&p);
        sim_options o = {.passes = 12 + below(20), .in_flight = 1 + below(6)};
        sim_result r, all;
        pr_err err;
        if (!a.n_devices || simulate(&p, &a, &o, &r, &err)) continue;
        o.trace = nowhere;
        cr_assert_eq(simulate(&p, &a, &o, &all, &err), PR_OK);
        cr_assert_float_eq(r.pass_ms, all.pass_ms, 1e-7 * all.pass_ms, "%g, not %g", r.pass_ms, all.pass_ms);
        cr_assert_eq(r.first_ms, all.first_ms);
        check_conservation(&r);
        for (size_t i = 0; i < p.n_devices; i++) {
            cr_assert_float_eq(r.device[i].busy_ms, all.device[i].busy_ms, 1e-6 * all.pass_ms);
            cr_assert_float_eq(r.device[i].disk_wait_ms, all.device[i].disk_wait_ms, 1e-6 * all.pass_ms);
            cr_assert_float_eq(r.device[i].read_bytes, all.device[i].read_bytes,
                               1e-6 * (1 + all.device[i].read_bytes));
        }
        n_shorter += r.n_events < all.n_events;
        done++;
    }
    cr_assert_gt(n_shorter, 100, "%d", n_shorter);
    fclose(nowhere);
}

/* A prompt takes no less than the busiest device computes for it, or than its disk reads, or than one chunk
 * needs to go around; and no more than all work one after the other, because something is always done. */
Test(simulate, prompts_stay_between_their_bounds)
{
    rng_state = 9;
    for (int done = 0; done < 300;) {
        problem p = random_problem(8);
        assignment a = random_assignment(&p);
        uint32_t chunks = 1 + below(12);
        sim_options o = {.passes = 3, .in_flight = 1 + below(4), .prompt_tokens = chunks * 64};
        double least, all, around;
        sim_result r;
        pr_err err;

        p.prefill_tokens = 64;
        least = all = around = p.device[0].out_ms;
        for (size_t i = 0; i < p.n_devices; i++) {
            problem_device *d = &p.device[i];
            const assignment_device *ad = &a.device[i];
            d->prefill_cpu_ms = d->cpu_ms * uniform(2, 20);
            d->prefill_gpu_ms = d->gpu_ms * uniform(2, 20);
            d->prefill_hop_ms = d->hop_ms * uniform(1, 20);
            double compute =
                (ad->layers - ad->gpu_layers) * d->prefill_cpu_ms + ad->gpu_layers * d->prefill_gpu_ms;
            least = fmax(least, chunks * compute);
            if (ad->disk_ms > 0) /* the buffer was full */
                least = fmax(least, chunks * ad->disk_ms - ad->buffer_bytes / d->disk_bytes_per_ms);
            around += compute;
            all += chunks * (compute + ad->disk_ms + (a.rounds + 1) * d->prefill_hop_ms);
        }
        if (!a.n_devices || simulate(&p, &a, &o, &r, &err)) continue;
        least = fmax(least, around);
        cr_assert(r.ttft_ms >= least * (1 - 1e-9) && r.ttft_ms <= all * (1 + 1e-9), "%g, expected %g to %g",
                  r.ttft_ms, least, all);
        done++;
    }
}

/* --- how far the closed formula agrees -------------------------------------------------------------- */
typedef struct {
    bool solved; /* best plans of dp.c, not random ones */
    uint32_t pieces, in_flight;
    int at_least;
} agreement;

typedef struct {
    int agree, streaming, faster; /* of 200; faster: by more than 5 % than the formula's lower bound */
    int uneven, near_bound, other;
} agreed;

static double ratio(const problem *p, const assignment *a, double predicted_ms)
{
    sim_options o = {.passes = 30, .in_flight = p->throughput ? p->in_flight : 1};
    sim_result r;
    pr_err err;

    return simulate(p, a, &o, &r, &err) ? NAN : r.pass_ms / predicted_ms;
}

static bool is_close(double x)
{
    return fabs(x - 1) <= 0.05;
}

/* The same plan with every layer cut into as many as there are rounds: all windows of a device are equal. */
static bool even_windows_agree(const problem *p, const assignment *a)
{
    problem even = *p;
    assignment b = *a;
    uint32_t k = a->rounds;

    even.n_layers *= k;
    even.layer_bytes /= k;
    even.kv_layer_bytes /= k;
    for (size_t i = 0; i < p->n_devices; i++) {
        even.device[i].cpu_ms /= k;
        even.device[i].gpu_ms /= k;
        b.device[i].layers *= k;
        b.device[i].gpu_layers *= k;
        b.device[i].streamed_pieces *= k;
    }
    return is_close(ratio(&even, &b, a->pass_ms));
}

/* Does some disk have to work for more than nine tenths of the predicted time? */
static bool near_disk_bound(const problem *p, const assignment *a)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        const assignment_device *d = &a->device[i];
        double bound = d->disk_ms + (1 - p->device[i].theta) * d->compute_ms;
        if (d->disk_ms > 0 && bound > 0.9 * a->pass_ms) return true;
    }
    return false;
}

static void count(const problem *p, const assignment *a, double sim_ratio, agreed *n)
{
    bool streams = false;

    for (size_t i = 0; i < p->n_devices; i++) streams |= a->device[i].excess_bytes > 0;
    n->streaming += streams;
    n->faster += sim_ratio < 0.95;
    if (is_close(sim_ratio)) n->agree++;
    else if (even_windows_agree(p, a)) n->uneven++;
    else if (near_disk_bound(p, a)) n->near_bound++;
    else n->other++;
}

static agreed count_agreeing(agreement how)
{
    agreed found = {0};

    rng_state = 11;
    for (int n = 0; n < 200;) {
        problem p = random_problem(how.pieces);
        assignment a;
        solution s;
        pr_err err;
        double found_ratio;

        p.throughput = how.in_flight > 0;
        p.in_flight = how.in_flight;
        p.max_rounds = 16;
        if (how.solved && dp_solve(&p, &s, &err)) continue;
        a = how.solved ? s.best : random_assignment(&p);
        if (!a.n_devices || isnan(found_ratio = ratio(&p, &a, a.pass_ms))) continue;
        count(&p, &a, found_ratio, &found);
        n++;
    }
    return found;
}

/* Of 200 random feasible assignments and of 200 best plans of the solver, which goes where the formula is too
 * kind. The formula is a lower bound; where it is more than 5 % too low the reason is said. The limits stand
 * a little below what was found, so that a change on either side is noticed. */
Test(simulate, agrees_with_the_closed_formula)
{
    static const agreement how[] = {{false, 8, 0, 193}, {true, 8, 0, 185},  {false, 8, 4, 197},
                                    {true, 8, 4, 192},  {false, 8, 2, 194}, {true, 8, 2, 184},
                                    {false, 1, 0, 197}, {false, 0, 0, 196}, {true, 0, 0, 178}};

    cr_log_info("within 5 %% of 200 | streaming | else: uneven windows, near a disk bound, other");
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        agreed n = count_agreeing(how[i]);
        cr_log_info("%s, layers in %u pieces, %u in flight: %d | %d | %d, %d, %d",
                    how[i].solved ? "solved" : "random", how[i].pieces,
                    how[i].in_flight ? how[i].in_flight : 1, n.agree, n.streaming, n.uneven, n.near_bound,
                    n.other);
        cr_assert_geq(n.agree, how[i].at_least, "row %zu: %d of 200", i, n.agree);
        cr_assert_eq(n.faster, 0, "row %zu: the formula is a lower bound", i);
        cr_assert(n.streaming > 100);
    }
}

/* Times to the first token of prompts of 1 to 16 chunks, on 200 random plans. */
Test(simulate, agrees_with_the_time_to_the_first_token)
{
    int agree = 0, longer = 0, shorter = 0;

    rng_state = 13;
    for (int n = 0; n < 200;) {
        problem p = random_problem(8);
        assignment a = random_assignment(&p);
        sim_options o = {.passes = 3, .in_flight = 1, .prompt_tokens = 64 * (1 + below(16))};
        double predicted_ms;
        sim_result r;
        pr_err err;

        p.prefill_tokens = 64;
        for (size_t i = 0; i < p.n_devices; i++) {
            problem_device *d = &p.device[i];
            d->prefill_cpu_ms = d->cpu_ms * uniform(2, 20);
            d->prefill_gpu_ms = d->gpu_ms * uniform(2, 20);
            d->prefill_hop_ms = d->hop_ms * uniform(1, 20);
        }
        if (!a.n_devices || simulate(&p, &a, &o, &r, &err)) continue;
        predicted_ms = ttft_ms(&p, &a, o.prompt_tokens);
        agree += is_close(r.ttft_ms / predicted_ms);
        longer += r.ttft_ms > 1.05 * predicted_ms;
        shorter += r.ttft_ms < 0.95 * predicted_ms;
        n++;
    }
    cr_log_info("first token: %d of 200 within 5 %%, %d longer, %d shorter than predicted", agree, longer,
                shorter);
    cr_assert_geq(agree, 182, "%d of 200", agree);
    cr_assert_eq(shorter, 0);
}

Test(simulate, never_slower_on_better_machines)
{
    rng_state = 5;
    for (int done = 0; done < 300;) {
        problem p = random_problem(below(9)), better;
        assignment a = random_assignment(&p);
        sim_options o = {.passes = 30, .in_flight = 1 + below(3)};
        sim_result before, after;
        pr_err err;
        problem_device *d = &better.device[below((uint32_t)p.n_devices)];
        uint32_t what = below(5);

        if (!a.n_devices || simulate(&p, &a, &o, &before, &err)) continue;
        better = p;
        if (what == 0) d->cpu_ms *= 0.8;
        if (what == 1) d->disk_bytes_per_ms *= 1.3;
        if (what == 2) d->hop_ms *= 0.5;
        if (what == 3) d->theta = fmin(1, d->theta * 1.3);
        if (what == 4) d->ram_bytes += 3 * p.layer_bytes;
        after = play(&better, &a, o);
        cr_assert(after.pass_ms <= before.pass_ms * 1.001, "change %u: from %g to %g ms", what,
                  before.pass_ms, after.pass_ms);
        done++;
    }
}

/* --- the rest -------------------------------------------------------------------------------------- */
Test(simulate, as_many_devices_as_there_can_be)
{
    problem p = {.n_layers = 4 * PROBLEM_MAX_DEVICES,
                 .layer_bytes = MB,
                 .pieces = 8,
                 .prefill_tokens = 100,
                 .n_devices = PROBLEM_MAX_DEVICES};
    assignment a = {.rounds = 2, .n_devices = PROBLEM_MAX_DEVICES};

    for (size_t i = 0; i < p.n_devices; i++) {
        p.device[i] = device(1 + (double)(i % 3), i % 8 ? 9 : 3, 1, 0.25);
        p.device[i].theta = 0.5;
        p.device[i].prefill_cpu_ms = 2 * p.device[i].cpu_ms;
        a.device[i].layers = 4;
    }
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    sim_result r = play(&p, &a, (sim_options){.passes = 9, .in_flight = 1});
    near(r.pass_ms, a.pass_ms);
    /* More than the links can hold; the slowest device decides: 3 ms, 4 layers. */
    r = play(&p, &a, (sim_options){.passes = 3, .in_flight = 1000, .prompt_tokens = 100000});
    cr_assert_eq(r.in_flight, 3 * PROBLEM_MAX_DEVICES - 1);
    near(r.pass_ms, 12);
    cr_assert(r.ttft_ms > 1000 * 4 * 6 && r.ttft_ms < 1.1 * (1000 * 4 * 6 + PROBLEM_MAX_DEVICES * 2 * 4),
              "%g", r.ttft_ms);
}

/* Sums of the spans of a trace, in ms, by device. */
typedef struct {
    double compute[2], prefill[2], disk_wait[2], send[2], read[2];
} span_sums;

/* Spans of a lane do not overlap. */
static span_sums read_trace(const char *text, size_t size)
{
    span_sums sum = {.compute = {0}};
    double end_us[2][3] = {{0}};
    pr_err err = {0};
    json_t *root = json_parse(text, size, &err), *e;
    size_t i;

    cr_assert(root, "%s", err.msg);
    json_array_foreach(json_object_get(root, "traceEvents"), i, e)
    {
        const char *name = json_string_value(json_object_get(e, "name"));
        json_int_t pid = json_integer_value(json_object_get(e, "pid"));
        json_int_t tid = json_integer_value(json_object_get(e, "tid"));
        double ts = json_number_value(json_object_get(e, "ts"));
        double dur = json_number_value(json_object_get(e, "dur"));
        if (strcmp(json_string_value(json_object_get(e, "ph")), "X") != 0) continue;
        cr_assert(pid >= 0 && pid < 2 && tid >= 0 && tid < 3);
        cr_assert_geq(ts, end_us[pid][tid] - 0.002);
        end_us[pid][tid] = ts + dur;
        if (strcmp(name, "compute") == 0) sum.compute[pid] += dur / 1e3;
        if (strcmp(name, "prefill") == 0) sum.prefill[pid] += dur / 1e3;
        if (strcmp(name, "wait for disk") == 0) sum.disk_wait[pid] += dur / 1e3;
        if (strcmp(name, "send") == 0) sum.send[pid] += dur / 1e3;
        if (strcmp(name, "read") == 0) sum.read[pid] += dur / 1e3;
    }
    json_decref(root);
    return sum;
}

/* A chunk, then three passes. Five layers, four of them streamed through two places: two wait 5 ms. */
Test(simulate, trace)
{
    problem p = {.n_layers = 8,
                 .layer_bytes = 100 * MB,
                 .pieces = 1,
                 .prefill_tokens = 64,
                 .n_devices = 2,
                 .device = {device(5, 300, 10, 2), device(25, 9000, 0, 2)}};
    assignment a = {.rounds = 1,
                    .n_devices = 2,
                    .device = {{.layers = 5, .streamed_pieces = 4, .buffer_bytes = 200 * MB}, {.layers = 3}}};
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    p.device[0].prefill_cpu_ms = 20;
    p.device[1].prefill_cpu_ms = 30;
    p.device[0].prefill_hop_ms = p.device[1].prefill_hop_ms = 7;
    sim_result r = play(&p, &a, (sim_options){.passes = 3, .in_flight = 1, .prompt_tokens = 64, .trace = f});
    fclose(f);
    span_sums sum = read_trace(text, n);
    near(r.device[0].disk_wait_ms, 10);
    near(sum.prefill[0], 5 * 20);
    near(sum.prefill[1], 3 * 30);
    near(sum.compute[0], 3 * 25);
    near(sum.compute[1], 3 * 75);
    near(sum.send[0], 7 + 3 * 2);
    near(sum.send[1], 2 + 3 * 2); /* also after the prompt one token's hidden state goes back */
    near(sum.disk_wait[0], 3 * 10);
    cr_assert(sum.read[0] >= 4 * 4 * 10 && sum.read[1] <= 0, "only the first device reads: %g, %g",
              sum.read[0], sum.read[1]);
    free(text);
}

static pr_code refused(const problem *p, const assignment *a, sim_options o, const char *says)
{
    sim_result r;
    pr_err err = {0};
    int rc = simulate(p, a, &o, &r, &err);

    cr_assert(strstr(err.msg, says), "%s", err.msg);
    return (pr_code)rc;
}

Test(simulate, refusals)
{
    sim_options o = {.passes = 3, .in_flight = 1};
    problem p = {.n_layers = 8, .layer_bytes = 100 * MB, .n_devices = 1, .device = {device(5, 900, 0, 2)}};
    assignment a = {.rounds = 1, .n_devices = 1, .device = {{.layers = 8}}};

    cr_assert_eq(refused(&p, &a, (sim_options){.passes = 2, .in_flight = 1}, "2 passes"), PR_EUSAGE);
    cr_assert_eq(refused(&p, &a, (sim_options){.passes = 3}, "0 micro-batches"), PR_EUSAGE);
    a.rounds = 9;
    cr_assert_eq(refused(&p, &a, o, "9 rounds: expected 1 to 8"), PR_EUSAGE);
    a.rounds = 1;
    a.device[0].layers = 7;
    cr_assert_eq(refused(&p, &a, o, "7 layers are assigned, the model has 8"), PR_EUSAGE);
    a.device[0].layers = 8;
    a.device[0].gpu_layers = 1;
    cr_assert_eq(refused(&p, &a, o, "100000000 bytes of VRAM"), PR_EINFEASIBLE);
    a.device[0].gpu_layers = 0;
    p.device[0].ram_bytes = 750 * MB;
    cr_assert_eq(refused(&p, &a, o, "lacks 50000000 bytes of RAM and has no disk"), PR_EINFEASIBLE);
    p.device[0].disk_bytes_per_ms = MB;
    p.device[0].ram_bytes = 60 * MB;
    p.pieces = 1;
    a.device[0].streamed_pieces = 7;
    a.device[0].buffer_bytes = 100 * MB;
    cr_assert_eq(refused(&p, &a, o, "40000000 bytes of RAM for one piece of a layer"), PR_EINFEASIBLE);
    p.device[0].ram_bytes = 150 * MB;
    cr_assert_eq(refused(&p, &a, o, "lacks 50000000 bytes of RAM"), PR_EINFEASIBLE);
    a.device[0].streamed_pieces = 9;
    cr_assert_eq(refused(&p, &a, o, "streams 9 of 8 pieces through 100000000 bytes"), PR_EUSAGE);
    a.device[0].streamed_pieces = 8;
    play(&p, &a, o);
    a.device[0].buffer_bytes = 99 * MB;
    cr_assert_eq(refused(&p, &a, o, "streams 8 of 8 pieces through 99000000 bytes"), PR_EUSAGE);
    o.prompt_tokens = 100;
    cr_assert_eq(refused(&p, &a, o, "the plan has no figures for prompts"), PR_EUSAGE);
    p.prefill_tokens = 50;
    cr_assert_eq(refused(&p, &a, o, "device 0  has no figure for prompts on its CPU"), PR_EUSAGE);
    p.device[0].ram_bytes = 60 * MB;
    o.prompt_tokens = 0;
    p.device[0].head_bytes = 61 * MB;
    cr_assert_eq(refused(&p, &a, o, "lacks 1000000 bytes of RAM"), PR_EINFEASIBLE);
}
