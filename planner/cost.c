/* Where each figure of a problem comes from.
 *
 * Time of a layer: its products, 2 floating point operations a weight and token at the measured rate of the
 * weight type for this batch, and reading the KV cache from memory: the sequences of a pass (as many as
 * there are tokens, at most the slots), each half full on average. Norms, rotary embedding and activation
 * functions are left out (below 1 %). Rates were measured with all threads; with fewer, time grows in
 * proportion, which is pessimistic where memory is the limit.
 *
 * A chunk of a prompt: the same products for a batch of that many tokens; reading the KV cache is left out,
 * for it is read once for many tokens.
 *
 * Several GPUs of a device work one after another: the problem sees one of their summed memory, whose layer
 * takes the mean time weighted by memory. A layer is on one of them: what is left over beside whole layers
 * does not count.
 *
 * Memory: weights and output projection as in the file (packing for the kernels changes the order, not the
 * size), KV cache of slots x ctx in whole pages, and the work buffers of the runtime: activations of the
 * largest batch (a prefill chunk), scratch of each thread, and the frames that wait on the two links. The
 * embedding stays in the file: the head keeps the rows of a batch. */
#include "planner/cost.h"
#include "src/base/log.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    KV_PAGE_TOKENS = 32,   /* kernels/kernels.h: KV_PAGE */
    CHUNK_TOKENS = 256,    /* `run` computes at most so many at once unless it is told otherwise */
    GPU_SPAN_TOKENS = 256, /* kernels/gpu_layout.h: GPU_ATTN_SPAN */
    GPU_SPLIT_MOST = 512,  /* kernels/gpu_map.h: GPU_SPLIT_BLOCKS */
    SCRATCH_BYTES = 65536  /* kernels/kernels.h: MATMUL_SCRATCH, ATTN_SCRATCH; the least of a thread */
};
static const double ASSUMED_THETA = 0.5; /* halda.md 7.1, where the profile has not measured it */
static const double ASSUMED_MBIT_PER_S = 1000, ASSUMED_RTT_MS = 0.5;
static const double FRAME_HEADER_BYTES = 64;
static const double GPU_CONTEXT_BYTES = 400.0 * 1024 * 1024; /* driver and libraries, halda.md 2.6 */

/* --- time ------------------------------------------------------------------------------------------- */
static double product_ms(const profile *p, int gpu, const char *type, uint32_t batch, double elements)
{
    double gflops = profile_gflops(p, gpu, type, batch);

    if (elements <= 0) return 0;
    return gflops > 0 ? 2 * elements * batch / (gflops * 1e6) : NAN;
}

double cost_layer_ms(const profile *p, const model_facts *f, int gpu, uint32_t batch)
{
    double ms = 0;

    for (size_t i = 0; i < f->n_work; i++)
        ms += product_ms(p, gpu, f->work[i].type, batch, f->work[i].layer_elements);
    return ms;
}

double cost_output_ms(const profile *p, const model_facts *f, int gpu, uint32_t batch)
{
    double ms = 0;

    for (size_t i = 0; i < f->n_work; i++)
        ms += product_ms(p, gpu, f->work[i].type, batch, f->work[i].output_elements);
    return ms;
}

/* KV bytes that the sequences of a pass read in one layer. */
static double kv_read_bytes(const model_facts *f, const workload *w)
{
    double sequences = w->micro_batch < w->slots ? w->micro_batch : w->slots;
    return sequences * w->ctx / 2 * (double)facts_kv_token_bytes(f, w->kv_type);
}

static uint32_t threads_of(const cluster_device *d, const profile *p)
{
    uint32_t most = p->threads ? p->threads : 1;
    return d->threads && d->threads < most ? d->threads : most;
}

/* Memory bandwidth with n threads: of the nearest count that was measured; INFINITY when none was. */
static double memory_bytes_per_s(const profile *p, uint32_t n_threads)
{
    if (p->n_mem == 0) return INFINITY;
    size_t i = n_threads <= p->n_mem ? n_threads - 1 : p->n_mem - 1;
    return p->mem_bytes_per_s[i] > 0 ? p->mem_bytes_per_s[i] : INFINITY;
}

/* --- links ------------------------------------------------------------------------------------------ */
double cost_hop_ms(const model_facts *f, uint32_t n_tokens, double mbit_per_s, double rtt_ms)
{
    double bytes = FRAME_HEADER_BYTES + (double)n_tokens * f->n_embd * sizeof(float);
    return rtt_ms / 2 + bytes * 8 / (mbit_per_s * 1e3);
}

static const profile_net *measured_link(const profile *p, const char *peer)
{
    for (size_t i = 0; i < p->n_net; i++) {
        if (!strcmp(p->net[i].peer, peer) && p->net[i].bytes_per_s > 0) return &p->net[i];
    }
    return NULL;
}

bool cost_link(const cluster *c, profile *const *profiles, uint32_t from, uint32_t to, double *mbit_per_s,
               double *rtt_ms)
{
    const profile_net *net;

    for (size_t i = 0; i < c->n_links; i++) {
        const cluster_link *l = &c->link[i];
        if (!(l->from == from && l->to == to) && !(l->from == to && l->to == from)) continue;
        *mbit_per_s = l->mbit_per_s;
        *rtt_ms = l->rtt_ms;
        return true;
    }
    net = measured_link(profiles[from], c->device[to].name);
    if (!net) net = measured_link(profiles[to], c->device[from].name);
    *mbit_per_s = net ? net->bytes_per_s * 8 / 1e6 : ASSUMED_MBIT_PER_S;
    *rtt_ms = net ? net->rtt_ms : ASSUMED_RTT_MS;
    return net != NULL;
}

size_t cost_warn_links(const cluster *c, profile *const *profiles, const uint32_t *order, size_t n_order)
{
    size_t n_assumed = 0;
    double mbit_per_s, rtt_ms;

    for (size_t i = 0; n_order > 1 && i < n_order; i++) {
        uint32_t from = order[i], to = order[(i + 1) % n_order];
        if (n_order == 2 && i == 1) break; /* the same link back */
        if (cost_link(c, profiles, from, to, &mbit_per_s, &rtt_ms)) continue;
        log_warn("link %s - %s: assumed %.0f Mbit/s and %.1f ms round trip; give it under links in the "
                 "cluster file",
                 c->device[from].name, c->device[to].name, mbit_per_s, rtt_ms);
        n_assumed++;
    }
    return n_assumed;
}

/* --- memory ----------------------------------------------------------------------------------------- */
/* One row of activations in the kinds that products read: f32 and two of int8 blocks (1.25 bytes a value),
 * each with at most two cache lines of padding. */
static double act_row_bytes(double n)
{
    return n * (4 + 1.25 + 1.25) + 3 * 128.0;
}

static uint32_t chunk_tokens(const workload *w)
{
    uint32_t t = CHUNK_TOKENS;
    if (t < w->micro_batch) t = w->micro_batch;
    return t < w->slots ? w->slots : t;
}

static double scratch_bytes(const model_facts *f, const workload *w, uint32_t n_threads)
{
    double product = chunk_tokens(w) * 256.0;
    double attention = f->n_kv_heads ? 64.0 * f->head_size * (f->n_heads / f->n_kv_heads) : 0;
    return n_threads * (SCRATCH_BYTES + fmax(product, attention));
}

/* Hidden states: the batch, and two frames on the link at either side. */
static double hidden_bytes(const model_facts *f, const workload *w)
{
    return 5.0 * chunk_tokens(w) * f->n_embd * sizeof(float);
}

/* Values of a token between the products of a layer: q, k, v, gate, up, branch, rope. */
static double layer_values(const model_facts *f)
{
    double heads = (double)f->n_heads * f->head_size, kv = (double)f->n_kv_heads * f->head_size;
    return heads + 2 * kv + 2.0 * f->n_ff + f->n_embd + f->head_size;
}

static double cpu_buffer_bytes(const model_facts *f, const workload *w, uint32_t n_threads)
{
    double heads = (double)f->n_heads * f->head_size;
    double row = act_row_bytes(f->n_embd) + act_row_bytes(heads) + act_row_bytes(f->n_ff) +
                 layer_values(f) * sizeof(float);
    return chunk_tokens(w) * row + scratch_bytes(f, w, n_threads) + hidden_bytes(f, w);
}

/* Attention of a decoding step, which is cut in spans where it has few sequences. */
static double gpu_attention_bytes(const model_facts *f, const workload *w)
{
    double spans = ceil((double)w->ctx / GPU_SPAN_TOKENS);
    double tokens = f->n_kv_heads ? fmin(w->slots, fmax(1, GPU_SPLIT_MOST / f->n_kv_heads)) : 0;
    return tokens * spans * f->n_heads * (f->head_size + 2.0) * sizeof(float);
}

static double gpu_buffer_bytes(const model_facts *f, const workload *w)
{
    double heads = (double)f->n_heads * f->head_size;
    double values = f->n_embd + heads + f->n_ff + layer_values(f);
    return GPU_CONTEXT_BYTES + chunk_tokens(w) * values * sizeof(float) + hidden_bytes(f, w) +
           gpu_attention_bytes(f, w);
}

/* Output projection, embedding rows, logits of every slot, and what the projection works in: a head without
 * CPU layers needs that too. */
static double head_bytes(const model_facts *f, const workload *w, uint32_t n_threads)
{
    double logits = (double)w->slots * ((f->n_vocab + 15) / 16 * 16) * sizeof(float);
    double rows = chunk_tokens(w) * ((double)f->input_row_bytes + act_row_bytes(f->n_embd));
    return (double)f->output_bytes + logits + rows + scratch_bytes(f, w, n_threads) + hidden_bytes(f, w);
}

static int ram_bytes(const cluster_device *d, const profile *p, double *out, pr_err *err)
{
    if (d->ram_bytes) {
        if (p->ram_total_bytes && d->ram_bytes > p->ram_total_bytes)
            return pr_fail(err, PR_EMISMATCH,
                           "device %s: its ram is %llu bytes, but its profile says that the machine has "
                           "%llu: lower ram in the cluster file or measure a new profile",
                           d->name, (unsigned long long)d->ram_bytes, (unsigned long long)p->ram_total_bytes);
        *out = (double)d->ram_bytes;
        return PR_OK;
    }
    if (p->ram_available_bytes == 0)
        return pr_fail(err, PR_EMISMATCH,
                       "device %s: no ram in the cluster file and no ram_available_bytes in its profile: "
                       "give one of them",
                       d->name);
    *out =
        p->ram_available_bytes > d->reserve_bytes ? (double)(p->ram_available_bytes - d->reserve_bytes) : 0;
    return PR_OK;
}

/* --- a device --------------------------------------------------------------------------------------- */
static uint32_t prefill_tokens(const workload *w)
{
    return w->ctx < CHUNK_TOKENS ? w->ctx : CHUNK_TOKENS;
}

/* What layers can have of it, and its buffers; 0 when it holds none. */
static double usable_vram(double vram, double buffers, double layer_bytes)
{
    double layers = floor((vram - buffers) / layer_bytes);
    return layers >= 1 ? buffers + layers * layer_bytes : 0;
}

static int add_gpus(problem_device *out, const problem *pr, const cluster_device *d, const profile *p,
                    const model_facts *f, const workload *w, pr_err *err)
{
    double weighted_ms = 0, weighted_prefill_ms = 0, buffers = gpu_buffer_bytes(f, w);

    for (size_t i = 0; i < d->n_gpus; i++) {
        const cluster_gpu *g = &d->gpu[i];
        double ms = cost_layer_ms(p, f, (int)g->index, w->micro_batch), vram = (double)g->vram_bytes;
        if (!(ms > 0))
            return pr_fail(
                err, PR_EMISMATCH,
                "device %s: its profile has no compute measured on GPU %u: measure a new one there (`prima "
                "profile`), or take gpus out of the cluster file",
                d->name, g->index);
        if (d->n_gpus > 1) vram = usable_vram(vram, buffers, pr->layer_bytes + pr->kv_layer_bytes);
        if (vram <= 0) continue;
        if (g->index < p->n_gpus && p->gpu[g->index].mem_bytes_per_s > 0)
            ms += kv_read_bytes(f, w) / p->gpu[g->index].mem_bytes_per_s * 1e3;
        out->vram_bytes += vram;
        weighted_ms += ms * vram;
        weighted_prefill_ms += cost_layer_ms(p, f, (int)g->index, prefill_tokens(w)) * vram;
        out->gpu_buffer_bytes += buffers;
    }
    if (out->vram_bytes <= 0) return PR_OK;
    out->gpu_ms = weighted_ms / out->vram_bytes;
    out->prefill_gpu_ms = weighted_prefill_ms / out->vram_bytes;
    return PR_OK;
}

/* The output projection of a head on its first GPU: weights, logits of every slot, and its input. It stays in
 * RAM where there is no room. */
static void put_output_on_gpu(problem_device *out, const cluster_device *d, const profile *p,
                              const model_facts *f, const workload *w)
{
    uint32_t first = UINT32_MAX;
    double logits = (double)w->slots * ((f->n_vocab + 15) / 16 * 16) * sizeof(float), bytes, ms;

    for (size_t i = 0; i < d->n_gpus; i++)
        if (d->gpu[i].index < first) first = d->gpu[i].index;
    if (first == UINT32_MAX) return;
    bytes = (double)f->output_bytes + logits + w->slots * act_row_bytes(f->n_embd);
    ms = cost_output_ms(p, f, (int)first, w->micro_batch);
    if (!(ms >= 0) || bytes >= out->vram_bytes - out->gpu_buffer_bytes) return;
    out->gpu_output_bytes = bytes;
    out->vram_bytes -= bytes;
    out->head_bytes -= (double)f->output_bytes;
    out->out_ms = ms;
}

static int add_device(problem_device *out, const problem *pr, const cluster_device *d, const profile *p,
                      const model_facts *f, const workload *w, pr_err *err)
{
    uint32_t n_threads = threads_of(d, p);
    double slower = p->threads ? (double)p->threads / n_threads : 1, theta = profile_theta(p, w->micro_batch);
    int rc;

    *out = (problem_device){
        .theta = theta >= 0 ? fmin(theta, 1) : ASSUMED_THETA, .fixed_layers = -1, .fixed_gpu_layers = -1};
    memcpy(out->name, d->name, sizeof out->name);
    out->cpu_ms = slower * cost_layer_ms(p, f, -1, w->micro_batch);
    out->prefill_cpu_ms = slower * cost_layer_ms(p, f, -1, prefill_tokens(w));
    out->out_ms = slower * cost_output_ms(p, f, -1, w->micro_batch);
    if (!(out->cpu_ms > 0) || !(out->out_ms >= 0))
        return pr_fail(err, PR_EMISMATCH,
                       "device %s: its profile has no compute measured on the CPU: measure a new one "
                       "(`prima profile`)",
                       d->name);
    out->cpu_ms += kv_read_bytes(f, w) / memory_bytes_per_s(p, n_threads) * 1e3;
    if ((rc = ram_bytes(d, p, &out->ram_bytes, err))) return rc;
    out->cpu_buffer_bytes = cpu_buffer_bytes(f, w, n_threads);
    out->head_bytes = head_bytes(f, w, n_threads);
    out->disk_bytes_per_ms = profile_disk_bytes_per_s(p) / 1e3;
    return add_gpus(out, pr, d, p, f, w, err);
}

static uint32_t rounds_to_try(const model_facts *f, const workload *w)
{
    uint32_t k = w->max_rounds ? w->max_rounds : PROBLEM_MAX_ROUNDS;

    if (k > PROBLEM_MAX_ROUNDS) k = PROBLEM_MAX_ROUNDS;
    return k < f->n_layers ? k : f->n_layers;
}

int cost_problem(problem *p, const cluster *c, profile *const *profiles, const model_facts *f,
                 const workload *w, const uint32_t *order, size_t n_order, pr_err *err)
{
    uint64_t kv_token_bytes = facts_kv_token_bytes(f, w->kv_type), pages;

    assert(n_order >= 1 && n_order <= PROBLEM_MAX_DEVICES);
    if (!w->ctx || !w->slots || !w->micro_batch)
        return pr_fail(err, PR_EUSAGE, "ctx %u, slots %u, micro-batch %u: each must be at least 1", w->ctx,
                       w->slots, w->micro_batch);
    if (!kv_token_bytes)
        return pr_fail(err, PR_EUSAGE, "KV type '%s' is not known: expected f16, q8_0 or f32", w->kv_type);
    pages = (uint64_t)w->slots * (((uint64_t)w->ctx + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS);
    memset(p, 0, sizeof *p);
    p->n_layers = f->n_layers;
    p->layer_bytes = facts_mean_layer_bytes(f);
    p->pieces = PROBLEM_PIECES;
    p->prefill_tokens = prefill_tokens(w);
    p->kv_layer_bytes = (double)(pages * KV_PAGE_TOKENS) * (double)kv_token_bytes;
    p->n_devices = n_order;
    p->max_rounds = rounds_to_try(f, w);
    p->throughput = w->throughput;
    if (w->throughput) p->in_flight = (w->slots + w->micro_batch - 1) / w->micro_batch;
    for (size_t i = 0; i < n_order; i++) {
        uint32_t from = order[i], to = order[(i + 1) % n_order];
        double mbit_per_s, rtt_ms;
        int rc = add_device(&p->device[i], p, &c->device[from], profiles[from], f, w, err);
        if (rc) return rc;
        if (i == 0 && w->output_on_gpu)
            put_output_on_gpu(&p->device[0], &c->device[from], profiles[from], f, w);
        if (n_order == 1) break;
        cost_link(c, profiles, from, to, &mbit_per_s, &rtt_ms);
        p->device[i].hop_ms = cost_hop_ms(f, w->micro_batch, mbit_per_s, rtt_ms);
        p->device[i].prefill_hop_ms = cost_hop_ms(f, p->prefill_tokens, mbit_per_s, rtt_ms);
    }
    return PR_OK;
}
