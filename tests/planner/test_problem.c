/* The latency and throughput model: figures worked out by hand from halda.md 7.1, and a second writing of the
 * formulas for random problems. */
#include "planner/problem.h"
#include "planner/simulate.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const double MB = 1e6;

static problem_device device(double cpu_ms, double gpu_ms, double ram_mb, double vram_mb,
                             double disk_gb_per_s, double hop_ms, double theta)
{
    return (problem_device){.cpu_ms = cpu_ms,
                            .gpu_ms = gpu_ms,
                            .ram_bytes = ram_mb * MB,
                            .vram_bytes = vram_mb * MB,
                            .disk_bytes_per_ms = disk_gb_per_s * MB,
                            .hop_ms = hop_ms,
                            .theta = theta,
                            .fixed_layers = -1,
                            .fixed_gpu_layers = -1};
}

/* T3 of halda.md 7.8: two devices of 300 MB, twelve layers of 100 MB. */
static problem t3(void)
{
    problem p = {.n_layers = 12, .layer_bytes = 100 * MB, .n_devices = 2, .max_rounds = 6};
    p.device[0] = p.device[1] = device(8, 0, 300, 0, 3, 5, 1);
    return p;
}

static bool evaluate(const problem *p, assignment *a, uint32_t rounds, uint32_t l0, uint32_t l1)
{
    memset(a, 0, sizeof *a);
    a->rounds = rounds;
    a->device[0].layers = l0;
    a->device[1].layers = l1;
    return assignment_evaluate(p, a, NULL, NULL);
}

/* k = 3: E = 300, S = 150, X = 450 MB, 150 ms of disk against 2 (48 + 15). k = 4: X = 400, 133.3 < 136. */
Test(problem, by_hand)
{
    problem p = t3();
    assignment a;

    cr_assert(evaluate(&p, &a, 3, 6, 6));
    cr_assert_float_eq(a.pass_ms, 150, 1e-9);
    cr_assert_eq(a.bound, BOUND_DISK);
    cr_assert_float_eq(a.device[0].excess_bytes, 300 * MB, 1);
    cr_assert_float_eq(a.device[0].buffer_bytes, 150 * MB, 1);
    cr_assert_float_eq(a.device[0].read_bytes, 450 * MB, 1);
    cr_assert_float_eq(a.device[0].stall_ms, 0, 1e-9);
    cr_assert(evaluate(&p, &a, 4, 6, 6));
    cr_assert_float_eq(a.pass_ms, 136, 1e-9);
    cr_assert_eq(a.bound, BOUND_SUM);
    /* k = 1: nothing hides but behind own compute: stall 100 - 48 each, 2 (48 + 52 + 5) = 210. */
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 210, 1e-9);
    cr_assert_float_eq(a.device[1].stall_ms, 52, 1e-9);
    cr_assert_float_eq(a.device[1].net_ms, 5, 1e-9);
}

/* 3 MB to spare in RAM, 2 layers too many: S is capped there, everything is streamed. u = (200 - 3) / 2 MB.
 */
Test(problem, buffer_capped)
{
    problem p = {.n_layers = 3, .layer_bytes = 100 * MB, .n_devices = 2, .max_rounds = 2};
    assignment a;

    p.device[0] = device(1, 0, 3, 0, 1, 0, 0);
    p.device[1] = device(1, 0, 100, 0, 1, 0, 0);
    cr_assert(evaluate(&p, &a, 2, 2, 1));
    cr_assert_float_eq(a.device[0].excess_bytes, 197 * MB, 1);
    cr_assert_float_eq(a.device[0].buffer_bytes, 3 * MB, 1);
    cr_assert_float_eq(a.device[0].read_bytes, 200 * MB, 1);
    cr_assert_float_eq(a.device[0].stall_ms, 194, 1e-9);
}

Test(problem, one_device_has_no_hop)
{
    problem p = t3();
    assignment a;

    p.device[0].ram_bytes = 1200 * MB;
    cr_assert(evaluate(&p, &a, 1, 12, 0));
    cr_assert_float_eq(a.pass_ms, 96, 1e-9);
    cr_assert(evaluate(&p, &a, 1, 11, 1));
    cr_assert_float_eq(a.pass_ms, 106, 1e-9);
}

Test(problem, what_is_missing)
{
    problem p = t3();
    assignment a = {.rounds = 1};
    size_t who = 9;
    double missing = -1;

    p.kv_layer_bytes = 20 * MB;
    p.device[0].head_bytes = 30 * MB;
    p.device[0].cpu_buffer_bytes = 7 * MB;
    p.device[1].vram_bytes = 250 * MB;
    p.device[1].gpu_buffer_bytes = 20 * MB;
    a.device[0].layers = 12; /* 300 - 240 - 30 - 7 = 23 MB for weights: streamed */
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_float_eq(a.device[0].excess_bytes, 1177 * MB, 1);
    p.device[0].disk_bytes_per_ms = 0;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(who, 0);
    cr_assert_float_eq(missing, 1177 * MB, 1);
    p.device[0].disk_bytes_per_ms = 1;
    p.device[0].ram_bytes = 200 * MB; /* even the KV cache does not fit, disk or not */
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_float_eq(missing, 77 * MB, 1);
    a.device[0].layers = 1;
    a.device[1].layers = 11;
    a.device[1].gpu_layers = 2; /* 2 x 120 + 20 of 250 MB */
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(who, 1);
    cr_assert_float_eq(missing, 10 * MB, 1);
    a.device[1].gpu_layers = 1;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    a.device[1].layers = 10;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(missing, 0);
    a.device[1].layers = 11;
    p.device[1].fixed_layers = 10;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    p.device[1].fixed_layers = 11;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    p.device[1].fixed_gpu_layers = 0;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
}

/* Enough micro-batches in flight: only the busiest of compute, disk and link counts. */
Test(problem, throughput)
{
    problem p = t3();
    assignment a;

    p.throughput = true;
    p.device[0].out_ms = 10;
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 100, 1e-9); /* 300 MB at 3 GB/s */
    cr_assert_eq(a.bound, BOUND_DISK);
    p.device[0].ram_bytes = p.device[1].ram_bytes = 600 * MB;
    cr_assert(evaluate(&p, &a, 1, 6, 6));
    cr_assert_float_eq(a.pass_ms, 58, 1e-9);
    cr_assert_eq(a.bound, BOUND_COMPUTE);
    cr_assert_eq(a.bound_device, 0);
    p.device[1].hop_ms = 30;
    cr_assert(evaluate(&p, &a, 2, 6, 6));
    cr_assert_float_eq(a.pass_ms, 60, 1e-9);
    cr_assert_eq(a.bound, BOUND_NET);
    cr_assert_eq(a.bound_device, 1);
}

static double uniform(uint64_t *s, double low, double high)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*s >> 11) / 9007199254740992.0;
}

/* halda.md 7.1 once more, in MB and written as there: P pinned, S buffer, X read, u not hidden a round. */
static double again(const problem *p, uint32_t k, const uint32_t *l, const uint32_t *g)
{
    double sum = p->device[0].out_ms, most = 0;

    for (size_t m = 0; m < p->n_devices; m++) {
        const problem_device *d = &p->device[m];
        double c = (double)l[m] - g[m], C = d->cpu_ms * c + d->gpu_ms * g[m], s = d->disk_bytes_per_ms / MB;
        double A = (d->ram_bytes - p->kv_layer_bytes * c - (c > 0 ? d->cpu_buffer_bytes : 0)) / MB;
        double Y = p->layer_bytes * c / MB, S = 0, u = 0, X = 0, E, stall;

        if (m == 0) A -= d->head_bytes / MB;
        if (A < 0) return INFINITY;
        E = Y > A ? Y - A : 0;
        if (E > 0 && k == 1) { X = u = E; }
        if (E > 0 && k > 1) {
            S = E / (k - 1);
            if (S > A) S = A;
            X = S == A ? Y : E * k / (k - 1);
            u = (E - (k - 1) * S) / k;
        }
        if (g[m] && g[m] * (p->layer_bytes + p->kv_layer_bytes) + d->gpu_buffer_bytes > d->vram_bytes)
            return INFINITY;
        stall = k * (u / s - d->theta * C / k);
        sum += C + (stall > 0 ? stall : 0) + (l[m] > 0 ? k * d->hop_ms : 0);
        if (X / s + (1 - d->theta) * C > most) most = X / s + (1 - d->theta) * C;
    }
    return sum > most ? sum : most;
}

Test(problem, written_twice)
{
    uint64_t s = 5;
    int feasible = 0;

    for (int i = 0; i < 20000; i++) {
        uint32_t l[3], g[3], k = 1 + (uint32_t)uniform(&s, 0, 6);
        problem p = {.layer_bytes = 100 * MB, .kv_layer_bytes = uniform(&s, 0, 20) * MB, .n_devices = 3};
        assignment a = {.rounds = k};
        for (size_t m = 0; m < 3; m++) {
            p.device[m] = device(uniform(&s, 1, 30), 1, uniform(&s, 50, 800), uniform(&s, 0, 600),
                                 uniform(&s, 0.2, 3), uniform(&s, 0, 5), uniform(&s, 0, 1));
            p.device[m].cpu_buffer_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].gpu_buffer_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].head_bytes = uniform(&s, 0, 30) * MB;
            p.device[m].out_ms = uniform(&s, 0, 30);
            a.device[m].layers = l[m] = 1 + (uint32_t)uniform(&s, 0, 8);
            a.device[m].gpu_layers = g[m] = (uint32_t)uniform(&s, 0, l[m] + 1);
            p.n_layers += l[m];
        }
        double expected = again(&p, k, l, g);
        bool fits = assignment_evaluate(&p, &a, NULL, NULL);
        cr_assert_eq(fits, isfinite(expected), "case %d", i);
        if (fits)
            cr_assert_float_eq(a.pass_ms, expected, 1e-9 * expected, "case %d: %g %g", i, a.pass_ms,
                               expected);
        feasible += fits;
    }
    cr_assert_gt(feasible, 2000, "only %d", feasible);
}

/* --- pieces --------------------------------------------------------------------------------------------- */

/* T3 in pieces of 12.5 MB: a piece is read in 4.17 ms and computed in 1; 24 of 48 fit. k = 4, so windows of
 * 8, 16, 8, 16 pieces. B = 6: X = 30, windows stream 7, 8, 7, 8; the late 1 and 2 hide behind 8 - 2 - 1 and
 * 16 - 2 - 1 ms. B = 5: X = 29 = 7 + 7 + 7 + 8, 8.33 - 5 late twice. B = 2: 26 = 6 + 7 + 6 + 7: 16.67 - 5 and
 * 20.83 - 12, each twice. */
Test(problem, in_pieces_by_hand)
{
    problem p = t3();
    assignment a = {.rounds = 4, .device = {{.layers = 6}, {.layers = 6}}};

    p.pieces = 8;
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    cr_assert_eq(a.device[0].buffer_pieces, 6);
    cr_assert_eq(a.device[0].streamed_pieces, 30);
    cr_assert_float_eq(a.device[0].buffer_bytes, 75 * MB, 1);
    cr_assert_float_eq(a.device[0].read_bytes, 375 * MB, 1);
    cr_assert_float_eq(a.device[0].excess_bytes, 300 * MB, 1);
    cr_assert_float_eq(a.device[0].disk_ms, 125, 1e-9);
    cr_assert_float_eq(a.pass_ms, 2 * (48 + 4 * 5), 1e-9);
    a.device[0].buffer_pieces = 5;
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    cr_assert_eq(a.device[0].streamed_pieces, 29);
    cr_assert_float_eq(a.device[0].stall_ms, 2 * (100 / 12. - 5), 1e-9);
    a.device[0].buffer_pieces = 2;
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    cr_assert_float_eq(a.device[0].stall_ms, 2 * (4 * 50 / 12. - 5) + 2 * (5 * 50 / 12. - 12), 1e-9);
    for (uint32_t b = 1; b < 30; b += b < 25 ? 24 : 2) { /* more than fits, or one */
        a.device[0].buffer_pieces = b;
        cr_assert(!assignment_evaluate(&p, &a, NULL, NULL), "%u", b);
    }
}

/* k = 4 and slow disks: with B = 6 the disk of device 0 needs 250 ms where the sum is 136. Fewer are read
 * with a smaller buffer: B = 4 is the first whose stall is more than the disk saves. */
Test(problem, chooses_the_buffer)
{
    problem p = t3();
    assignment a = {.rounds = 4, .device = {{.layers = 6}, {.layers = 6}}}, other;
    double best = INFINITY;

    p.pieces = 8;
    p.device[0].disk_bytes_per_ms = 1.5 * MB;
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    for (uint32_t b = 2; b <= 24; b++)
        for (uint32_t c = 2; c <= 24; c++) {
            other = a;
            other.device[0].buffer_pieces = b;
            other.device[1].buffer_pieces = c;
            cr_assert(assignment_evaluate(&p, &other, NULL, NULL));
            best = fmin(best, other.pass_ms);
        }
    cr_assert_float_eq(a.pass_ms, best, 1e-9);
    cr_assert_lt(a.device[0].buffer_pieces, 8);
}

/* With a disk RAM must hold two pieces, without one everything. */
Test(problem, missing_pieces)
{
    problem p = t3();
    assignment a = {.rounds = 2, .device = {{.layers = 4}, {.layers = 8}}};
    size_t who = 9;
    double missing = -1;

    p.pieces = 8;
    p.device[0].ram_bytes = 24 * MB;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(who, 0);
    cr_assert_float_eq(missing, 1 * MB, 1e-3);
    p.device[0].ram_bytes += missing;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(a.device[0].streamed_pieces, 32);
    p.device[0].disk_bytes_per_ms = 0;
    cr_assert(!assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_float_eq(missing, 375 * MB, 1e-3);
    p.device[0].ram_bytes += missing;
    cr_assert(assignment_evaluate(&p, &a, &who, &missing));
    cr_assert_eq(a.device[0].streamed_pieces, 0);
}

/* More rounds than CPU layers: each layer is a window. Three layers of eight pieces in five rounds, 12 fit; B
 * = 6: 18 = 3 x 6. */
Test(problem, windows_are_no_more_than_layers)
{
    problem p = {.n_layers = 8, .layer_bytes = 100 * MB, .n_devices = 2, .max_rounds = 6, .pieces = 8};
    assignment a = {.rounds = 5, .device = {{.layers = 3}, {.layers = 5}}};
    const uint32_t streamed[] = {0, 6, 0, 6, 6};
    uint32_t done = 0;

    p.device[0] = device(1, 0, 150, 0, 1, 0, 0);
    p.device[1] = device(100, 0, 500, 0, 1, 0, 0);
    cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
    cr_assert_eq(a.device[0].buffer_pieces, 6);
    cr_assert_eq(a.device[0].streamed_pieces, 18);
    cr_assert_float_eq(a.pass_ms, 503, 1e-9);
    for (uint32_t r = 0; r < 5; r++) {
        uint32_t x = problem_streamed(8, 5, 3, 18, r, done);
        cr_assert_eq(x, streamed[r], "round %u: %u", r, x);
        done += x;
    }
}

/* All pieces find a place whatever the windows are. */
Test(problem, nothing_streamed_is_left_over)
{
    for (uint32_t layers = 1; layers <= 12; layers++)
        for (uint32_t k = 1; k <= 14; k++)
            for (uint32_t x = 0; x <= 8 * layers; x++) {
                uint32_t done = 0;
                for (uint32_t r = 0; r < k; r++) {
                    uint32_t here = problem_streamed(8, k, layers, x, r, done);
                    cr_assert_leq(here, 8 * ((r + 1) * layers / k - r * layers / k));
                    done += here;
                }
                cr_assert_eq(done, x, "%u layers, %u rounds, %u pieces: %u", layers, k, x, done);
            }
}

/* One window, piece by piece: what it waits for its disk when it begins with a full buffer. */
static double wait_by_pieces(uint32_t n, uint32_t x, uint32_t buffer, double read_ms, double compute_ms,
                             double theta)
{
    uint32_t ready = buffer < x ? buffer : x, to_read = x - ready, places = 0;
    double left_ms = read_ms, waited = 0; /* left_ms: of the piece that is being read */

    for (uint32_t i = 0; i < n; i++) {
        bool streamed = (i + 1) * x / n > i * x / n;
        double disk_ms = compute_ms * theta; /* what the disk can do while this piece is computed */
        if (streamed && ready == 0) {
            waited += left_ms;
            left_ms = read_ms;
            ready = 1;
            to_read--;
            places--;
        }
        ready -= streamed;
        while (disk_ms > 0 && to_read > 0 && places > 0) {
            double part = fmin(disk_ms, left_ms);
            disk_ms -= part;
            left_ms -= part;
            if (left_ms > 1e-12) continue;
            left_ms = read_ms;
            ready++;
            to_read--;
            places--;
        }
        places += streamed;
    }
    return waited;
}

/* The formula is what happens piece by piece, but where the disk at times has no place to read to: then a
 * little less. */
Test(problem, a_window_piece_by_piece)
{
    uint64_t s = 9;
    int stalls = 0, same = 0;
    double formula = 0, pieces = 0;

    for (int i = 0; i < 20000; i++) {
        uint32_t layers = 2 + (uint32_t)uniform(&s, 0, 20), k = 2 + (uint32_t)uniform(&s, 0, 6), done = 0;
        problem p = {.n_layers = layers, .layer_bytes = 80 * MB, .n_devices = 1, .pieces = 8};
        assignment a = {.rounds = k, .device = {{.layers = layers}}};
        double expected = 0;
        p.device[0] = device(uniform(&s, 8, 80), 0, uniform(&s, 20, 80 * layers), 0, uniform(&s, 0.3, 5), 0,
                             uniform(&s, 0, 1));
        device_cost c;
        if (k > layers || !problem_device_cost(&p, 0, k, layers, 0, true, &c)) continue;
        if (c.detail.streamed_pieces == 0) continue;
        a.device[0].buffer_pieces = 2 + (uint32_t)uniform(&s, 0, p.device[0].ram_bytes / MB / 10 - 2);
        if (!problem_set_buffer(&p, 0, k, a.device[0].buffer_pieces, &c)) continue;
        for (uint32_t r = 0; r < k; r++) {
            uint32_t n = 8 * ((r + 1) * layers / k - r * layers / k);
            uint32_t x = problem_streamed(8, k, layers, c.detail.streamed_pieces, r, done);
            expected += wait_by_pieces(n, x, c.detail.buffer_pieces, 10 * MB / p.device[0].disk_bytes_per_ms,
                                       p.device[0].cpu_ms / 8, p.device[0].theta);
            done += x;
        }
        cr_assert_leq(c.detail.stall_ms, expected + 1e-6, "case %d: %g, not %g", i, c.detail.stall_ms,
                      expected);
        stalls += expected > 0;
        same += expected > 0 && c.detail.stall_ms > expected - 1e-6;
        formula += c.detail.stall_ms;
        pieces += expected;
    }
    cr_assert(stalls > 2000 && same > 0.9 * stalls && formula > 0.99 * pieces, "%d %d %g %g", stalls, same,
              formula, pieces);
}

/* --- hops ------------------------------------------------------------------------------------------------
 */

/* A ring of three with hops of 1, 10 and 100 ms, computing 2 ms a layer and 7 for the output; by hand and
 * played. */
Test(problem, hops)
{
    static const struct {
        uint32_t rounds, layers[3];
        double net_ms;
    } t[] = {
        {1, {6, 0, 0}, 0},             /* the head alone */
        {3, {6, 0, 0}, 0},             /* its rounds need no link */
        {1, {0, 6, 0}, 1 + 10},        /* embeddings there, the last hidden state back */
        {3, {0, 6, 0}, 1 + 10},        /* only once */
        {1, {3, 3, 0}, 1 + 10},        /* one lap */
        {3, {3, 0, 3}, 3 * (1 + 100)}, /* three laps; the last hop of the last lap ends at the head */
        {3, {0, 3, 3}, 1 + 3 * 110},   /* once from the head, then laps of the other two */
        {2, {2, 2, 2}, 2 * 111},
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        problem p = {.n_layers = 6, .layer_bytes = 1, .n_devices = 3, .max_rounds = 6, .pieces = 8};
        assignment a = {.rounds = t[i].rounds};
        sim_options o = {.passes = 30, .in_flight = 1};
        sim_result r;
        for (size_t m = 0; m < 3; m++) {
            p.device[m] = device(2, 0, 1, 0, 0, m == 0 ? 1 : m == 1 ? 10 : 100, 0);
            p.device[m].out_ms = 7;
            a.device[m].layers = t[i].layers[m];
        }
        cr_assert(assignment_evaluate(&p, &a, NULL, NULL));
        cr_assert_float_eq(a.pass_ms, 12 + 7 + t[i].net_ms, 1e-9, "case %zu: %g", i, a.pass_ms);
        cr_assert_eq(simulate(&p, &a, &o, &r, NULL), PR_OK);
        cr_assert_float_eq(r.pass_ms, a.pass_ms, 1e-9, "case %zu: played %g", i, r.pass_ms);
    }
}

/* With few micro-batches in flight the ring's own time counts: 2 x (48 + 10) + 10 ms / F. */
Test(problem, micro_batches_in_flight)
{
    problem p = t3();
    assignment a;

    p.throughput = true;
    p.device[0].out_ms = 10;
    p.device[0].ram_bytes = p.device[1].ram_bytes = 600 * MB;
    for (p.in_flight = 1; p.in_flight <= 4; p.in_flight++) {
        cr_assert(evaluate(&p, &a, 2, 6, 6));
        cr_assert_float_eq(a.pass_ms, fmax(126. / p.in_flight, 58), 1e-9, "%u: %g", p.in_flight, a.pass_ms);
        cr_assert_eq(a.bound, p.in_flight < 3 ? BOUND_SUM : BOUND_COMPUTE);
    }
}
