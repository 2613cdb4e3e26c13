/* The model of problem.h with the figures of a chunk in place of those of a micro-batch: once for one chunk
 * in the ring, once for as many as it takes to keep the busiest device working. */
#include "planner/ttft.h"
#include <math.h>

static bool chunk_problem(const problem *p, problem *chunk)
{
    *chunk = *p;
    chunk->throughput = false;
    chunk->in_flight = 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        problem_device *d = &chunk->device[i];
        if (d->prefill_cpu_ms <= 0 || (d->vram_bytes > 0 && d->prefill_gpu_ms <= 0)) return false;
        d->cpu_ms = d->prefill_cpu_ms;
        d->gpu_ms = d->prefill_gpu_ms;
        d->hop_ms = d->prefill_hop_ms;
        d->fixed_layers = d->fixed_gpu_layers = -1;
    }
    return p->prefill_tokens > 0;
}

double ttft_ms(const problem *p, const assignment *a, uint32_t n_tokens)
{
    assignment one = *a, many = *a;
    double out_ms = p->device[0].out_ms, n_chunks, others_ms;
    problem chunk;

    if (!chunk_problem(p, &chunk) || n_tokens == 0) return 0;
    if (!assignment_evaluate(&chunk, &one, NULL, NULL)) return 0;
    chunk.throughput = true;
    chunk.device[0].out_ms = 0; /* only the last token's logits are computed */
    if (!assignment_evaluate(&chunk, &many, NULL, NULL)) return 0;
    n_chunks = (n_tokens - 1) / chunk.prefill_tokens + 1;
    /* The busiest one waits for the others only in the first chunk's first round and the last one's last. */
    others_ms = fmax(0, one.pass_ms - out_ms - many.pass_ms) / a->rounds;
    return fmax(one.pass_ms, n_chunks * many.pass_ms + others_ms + out_ms);
}
