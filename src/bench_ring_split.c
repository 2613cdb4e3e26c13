/* The planner's split: what its solver decides for equal devices with the figures of this machine. */
#include "planner/solve.h"
#include "src/base/clock.h"
#include "src/bench_ring.h"
#include <math.h>
#include <stdlib.h>

/* Milliseconds of a layer and of the output for n sequences, the least of some. */
static int measure_parts(engine *e, const hparams *hp, const batch *b, double *layer_ms, double *out_ms,
                         pr_err *err)
{
    float *hidden = calloc(b->n_tokens * hp->n_embd, sizeof *hidden);
    int rc = hidden ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    *layer_ms = *out_ms = INFINITY;
    for (int i = 0; i < 5 && !rc; i++) {
        uint64_t start = clock_ns();
        rc = engine_window(e, 0, b, hidden, err);
        *layer_ms = fmin(*layer_ms, clock_ms_since(start) / hp->n_layers);
        start = clock_ns();
        if (!rc) rc = engine_project(e, hidden, b->out, b->n_out, err);
        *out_ms = fmin(*out_ms, clock_ms_since(start));
    }
    free(hidden);
    return rc;
}

static int solve(uint32_t *layers, uint32_t n, const hparams *hp, double layer_ms, double out_ms, pr_err *err)
{
    problem *p = calloc(1, sizeof *p);
    solution *s = calloc(1, sizeof *s);
    int rc = p && s ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    if (!rc) {
        *p = (problem){.n_layers = hp->n_layers,
                       .layer_bytes = 1,
                       .n_devices = n,
                       .min_rounds = 1,
                       .max_rounds = 1,
                       .throughput = true,
                       .in_flight = n};
        for (uint32_t i = 0; i < n; i++)
            p->device[i] = (problem_device){.cpu_ms = layer_ms,
                                            .out_ms = out_ms,
                                            .ram_bytes = 1e12,
                                            .fixed_layers = -1,
                                            .fixed_gpu_layers = -1};
        rc = dp_solve(p, s, err);
    }
    for (uint32_t i = 0; i < n && !rc; i++) layers[i] = s->best.device[i].layers;
    free(p);
    free(s);
    return rc;
}

int ring_split_planned(uint32_t layers[RING_BENCH_DEVICES], uint32_t n, engine *e, const hparams *hp,
                       ring_lots *lots, pr_err *err)
{
    double layer_ms, out_ms;
    int rc = measure_parts(e, hp, ring_lots_batch(lots, RING_BENCH_SEQUENCES / n), &layer_ms, &out_ms, err);

    return rc ? rc : solve(layers, n, hp, layer_ms, out_ms, err);
}
