/* The model of problem.h with the figures of a chunk in place of those of a micro-batch: once for one chunk
 * in the ring, once for as many as it takes to keep the busiest device working. */
#include "planner/ttft.h"
#include <math.h>

/* The share of a chunk's figure that so many tokens of it take, as in the simulator: never less than a decode
 * pass. */
static double share_ms(const problem *p, double prefill_ms, double decode_ms, uint32_t tokens)
{
    return tokens < p->prefill_tokens ? fmax(prefill_ms * tokens / p->prefill_tokens, decode_ms) : prefill_ms;
}

static bool chunk_problem(const problem *p, uint32_t tokens, problem *chunk)
{
    *chunk = *p;
    chunk->throughput = false;
    chunk->in_flight = 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        problem_device *d = &chunk->device[i];
        if (d->prefill_cpu_ms <= 0 || (d->vram_bytes > 0 && d->prefill_gpu_ms <= 0)) return false;
        d->cpu_ms = share_ms(p, d->prefill_cpu_ms, d->cpu_ms, tokens);
        d->gpu_ms = share_ms(p, d->prefill_gpu_ms, d->gpu_ms, tokens);
        d->hop_ms = share_ms(p, d->prefill_hop_ms, d->hop_ms, tokens);
        d->fixed_layers = d->fixed_gpu_layers = -1;
    }
    return p->prefill_tokens > 0;
}

/* A chunk of so many tokens: alone from beginning to end, and on the busiest device when others follow it, of
 * which only the last one's last token's logits are computed. */
typedef struct {
    double alone_ms, busiest_ms;
} chunk_time;

static bool time_chunk(const problem *p, const assignment *a, uint32_t tokens, chunk_time *t)
{
    assignment one = *a, many = *a;
    problem chunk;

    if (!chunk_problem(p, tokens, &chunk) || !assignment_evaluate(&chunk, &one, NULL, NULL)) return false;
    chunk.throughput = true;
    chunk.device[0].out_ms = 0;
    if (!assignment_evaluate(&chunk, &many, NULL, NULL)) return false;
    *t = (chunk_time){one.pass_ms, many.pass_ms};
    return true;
}

double ttft_ms(const problem *p, const assignment *a, uint32_t n_tokens)
{
    double out_ms = p->device[0].out_ms, others_ms;
    uint32_t n_whole, rest;
    chunk_time whole, last = {0, 0};

    if (n_tokens == 0 || p->prefill_tokens == 0) return 0;
    n_whole = n_tokens / p->prefill_tokens;
    rest = n_tokens % p->prefill_tokens;
    if (rest && !time_chunk(p, a, rest, &last)) return 0;
    if (n_whole == 0) return last.alone_ms;
    if (!time_chunk(p, a, p->prefill_tokens, &whole)) return 0;
    /* The busiest one waits for the others only in the first chunk's first round and the last one's last. */
    others_ms = fmax(0, whole.alone_ms - out_ms - whole.busiest_ms) / a->rounds;
    return fmax(whole.alone_ms, n_whole * whole.busiest_ms + last.busiest_ms + others_ms + out_ms);
}
