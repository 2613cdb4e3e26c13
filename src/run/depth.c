/* Micro-batches in flight; see depth.h.
 *
 * With d of them each sequence advances by a token every
 *
 *     max(d x busiest device, all devices + all hops)
 *
 * where a device takes t(b) for the b = slots / d tokens of a micro-batch. More of them hide hops and the
 * other devices; smaller ones cost more a token, because weights are read for each: from memory, which is in
 * t(b), and from disk, which no t(b) is shorter than. A plan tells t for two sizes, its micro-batch and a
 * chunk of a prompt: t is the line through them. */
#include "src/run/depth.h"
#include <math.h>
#include <string.h>

static const double WORTH = 1.05; /* more in flight must make it faster by this factor */

/* At n tokens, when it is at_batch for the plan's micro-batch and at_chunk for its prefill chunk. */
static double line(const plan *p, double at_batch, double at_chunk, double n)
{
    double slope = at_batch / (2.0 * p->micro_batch), ms; /* half of it, when nothing is known */

    if (at_chunk > at_batch && p->prefill_tokens > p->micro_batch)
        slope = (at_chunk - at_batch) / (p->prefill_tokens - p->micro_batch);
    ms = at_batch + slope * (n - p->micro_batch);
    return ms > 0 ? ms : 0;
}

/* Of device i, for n tokens: everything but its hops. */
static double stage_ms(const plan *p, size_t i, double n)
{
    const plan_device *d = &p->device[i];
    const problem_device *c = &d->cost;
    uint32_t gpu, all = plan_device_layers(d, &gpu);
    double cpu_ms = line(p, c->cpu_ms, c->prefill_cpu_ms, n),
           ms = (all - gpu) * cpu_ms + gpu * line(p, c->gpu_ms, c->prefill_gpu_ms, n) + d->disk_wait_ms;

    if (d->owns_output) ms += c->cpu_ms > 0 ? c->out_ms * cpu_ms / c->cpu_ms : c->out_ms;
    return ms;
}

/* Reading what device i streams, once. */
static double disk_ms(const plan *p, size_t i)
{
    const plan_device *d = &p->device[i];
    return d->read_bytes_per_pass ? (double)d->read_bytes_per_pass / d->cost.disk_bytes_per_ms : 0;
}

/* A micro-batch of n tokens: on the busiest device, and once round. */
static void lap(const plan *p, double n, double *busiest_ms, double *lap_ms)
{
    *busiest_ms = *lap_ms = 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        double ms = stage_ms(p, i, n);
        *busiest_ms = fmax(*busiest_ms, fmax(ms, disk_ms(p, i)));
        *lap_ms += ms + p->device[i].net_ms;
    }
}

/* Between two tokens of a sequence. */
static double token_ms(const plan *p, size_t slots, size_t depth)
{
    size_t n = (slots + depth - 1) / depth, lots = (slots + n - 1) / n;
    double busiest, once;

    lap(p, (double)n, &busiest, &once);
    return fmax((double)lots * busiest, once);
}

static bool streams(const plan *p)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        if (p->device[i].read_bytes_per_pass) return true;
    }
    return false;
}

size_t depth_best(const plan *p, size_t slots)
{
    size_t most = slots < DEPTH_MAX ? slots : DEPTH_MAX, depth = 1;
    double best = INFINITY;

    if (p->in_flight && slots == p->slots && !strcmp(p->objective, "throughput")) return p->in_flight;
    for (size_t d = 1; d <= most; d++) best = fmin(best, token_ms(p, slots, d));
    while (depth < most && token_ms(p, slots, depth) > best * WORTH) depth++;
    if (streams(p)) return depth;
    if (depth < p->n_devices && token_ms(p, slots, p->n_devices) <= best * WORTH) return p->n_devices;
    return depth;
}

/* The first chunk goes round, the others come behind it as fast as the busiest device can. */
static double prompt_ms(const plan *p, size_t chunk)
{
    double busiest, once;

    lap(p, (double)chunk, &busiest, &once);
    return once + (CHUNK_PROMPT / (double)chunk - 1) * busiest;
}

size_t depth_chunk(const plan *p)
{
    size_t chunk = CHUNK_LEAST;
    double best = INFINITY;

    for (size_t n = CHUNK_LEAST; n <= CHUNK_MOST; n *= 2) best = fmin(best, prompt_ms(p, n));
    while (chunk < CHUNK_MOST && prompt_ms(p, chunk) > best * WORTH) chunk *= 2;
    return chunk;
}
