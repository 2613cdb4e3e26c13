/* Rates of a GPU's layers by weight type: whole layers of the model's shape, all of whose matrices are of one
 * type, computed as in a run (gpu_forward: products, norms, attention over few keys, launches, the copies of
 * hidden states). So what a plan is made of holds what a layer costs besides its products, which on a GPU is
 * much. As many layers as its caches cannot hold.
 *
 * Sixteen rows' worth of blocks is repeated: a product's time does not depend on the values. */
#include "kernels/cuda.h"
#include "kernels/cuda/device.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/model/gpu_layers.h"
#include "src/probe_gpu.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPS = 5, MAX_TOKENS = 512, MAX_RUNS = 64, MAX_LAYERS = 64, MAX_REPEATS = 1 << 12 };
static const uint32_t batches[] = {1, 2, 4, 8, 16, 64, 512};
enum { N_BATCHES = sizeof batches / sizeof *batches };
static const double WARM_UP_MS = 300, MIN_REP_MS = 10;
#define MIN_WEIGHTS ((uint64_t)512 << 20) /* several times what the caches of a GPU hold */

/* --- a model to measure ----------------------------------------------------------------------------- */
/* Shape, and for each weight type some blocks of it. */
typedef struct {
    gpu_shape shape;
    const uint8_t *blocks[Q_TYPE_COUNT]; /* NULL: the model has no such matrix */
    size_t block_bytes[Q_TYPE_COUNT];    /* how many bytes of them */
    uint8_t *made[Q_TYPE_COUNT];         /* those of our own */
} subject;

static void add_tensor(subject *s, const gguf_tensor *t)
{
    size_t rows = t->ne[1] < PACK_ROWS ? (size_t)t->ne[1] : PACK_ROWS;

    if (s->blocks[t->type]) return;
    s->blocks[t->type] = t->data;
    s->block_bytes[t->type] = rows * quant_row_bytes(t->type, (size_t)t->ne[0]);
}

static void model_subject(subject *s, const hparams *hp)
{
    s->shape = gpu_layers_shape(hp, 0); /* how many: options_of */
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        const layer_tensors *t = &hp->layer[i];
        const gguf_tensor *const all[] = {t->attn_q,   t->attn_k, t->attn_v,  t->attn_output,
                                          t->ffn_gate, t->ffn_up, t->ffn_down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) add_tensor(s, all[j]);
    }
    add_tensor(s, hp->output);
}

static int usual_subject(subject *s, pr_err *err)
{
    static const uint32_t types[] = {Q_Q4_K, Q_Q6_K, Q_Q8_0, Q_F16};
    float x[4096];

    s->shape = (gpu_shape){.n_embd = 4096,
                           .n_heads = 32,
                           .n_kv_heads = 8,
                           .head_size = 128,
                           .n_ff = 14336,
                           .n_rot = 128,
                           .n_vocab = 32000,
                           .norm_eps = 1e-5f,
                           .attn_scale = (float)(1 / sqrt(128))};
    for (size_t i = 0; i < 4096; i++) x[i] = ((float)((i * 7919 + 17) % 1000) / 1000 - 0.5f) / 32;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        size_t bytes = quant_row_bytes(types[i], 4096);
        uint8_t *blocks = malloc(bytes);
        if (!blocks) return pr_fail(err, PR_ERESOURCE, "out of memory");
        quant_quantize(types[i], x, blocks, 4096);
        s->made[types[i]] = blocks;
        s->blocks[types[i]] = blocks;
        s->block_bytes[types[i]] = bytes;
    }
    return PR_OK;
}

static void subject_clear(subject *s)
{
    for (size_t i = 0; i < Q_TYPE_COUNT; i++) free(s->made[i]);
}

/* --- one type on one GPU ------------------------------------------------------------------------------ */
typedef struct {
    gpu_place *g;
    gpu_layer layer[MAX_LAYERS]; /* all the same */
    size_t n_layers;
    float *norm;
    uint8_t *matrix; /* of the largest; all others are its beginning */
    float *hidden, *rope;
    gpu_run run[MAX_RUNS];
    int32_t pages[MAX_RUNS];
} rig;

static double layer_values(const gpu_shape *s)
{
    double heads = (double)s->n_heads * (double)s->head_size,
           kv = (double)s->n_kv_heads * (double)s->head_size, d = (double)s->n_embd;
    return d * (2 * heads + 2 * kv + 3 * (double)s->n_ff);
}

static gpu_matrix matrix_of(const rig *r, uint32_t type, size_t n_rows, size_t n_cols)
{
    return (gpu_matrix){type, n_rows, n_cols, r->matrix};
}

/* False: rows of this model cannot be of this type. */
static bool fill_layers(rig *r, const subject *s, uint32_t type)
{
    const gpu_shape *h = &s->shape;
    size_t heads = h->n_heads * h->head_size, kv = h->n_kv_heads * h->head_size, most = 0;
    r->layer[0] = (gpu_layer){.attn_norm = r->norm,
                              .ffn_norm = r->norm,
                              .q = matrix_of(r, type, heads, h->n_embd),
                              .k = matrix_of(r, type, kv, h->n_embd),
                              .v = matrix_of(r, type, kv, h->n_embd),
                              .o = matrix_of(r, type, h->n_embd, heads),
                              .gate = matrix_of(r, type, h->n_ff, h->n_embd),
                              .up = matrix_of(r, type, h->n_ff, h->n_embd),
                              .down = matrix_of(r, type, h->n_embd, h->n_ff)};
    gpu_matrix *const all[] = {&r->layer[0].q,    &r->layer[0].k,  &r->layer[0].v,   &r->layer[0].o,
                               &r->layer[0].gate, &r->layer[0].up, &r->layer[0].down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t bytes = all[i]->n_rows * quant_row_bytes(type, all[i]->n_cols);
        if (!bytes) return false;
        if (bytes > most) most = bytes;
    }
    if (!(r->matrix = malloc(most))) return false;
    for (size_t at = 0; at < most; at += s->block_bytes[type]) {
        size_t left = most - at;
        memcpy(r->matrix + at, s->blocks[type], left < s->block_bytes[type] ? left : s->block_bytes[type]);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) all[i]->data = r->matrix;
    for (size_t i = 1; i < MAX_LAYERS; i++) r->layer[i] = r->layer[0];
    return true;
}

static gpu_options options_of(const rig *r, const subject *s, int gpu, size_t n_layers)
{
    gpu_options o = {.gpu = gpu,
                     .shape = s->shape,
                     .layer = r->layer,
                     .kv = KV_F16,
                     .n_pages = MAX_RUNS,
                     .max_tokens = MAX_TOKENS,
                     .max_runs = MAX_RUNS,
                     .max_positions = MAX_TOKENS};
    o.shape.n_layers = n_layers;
    return o;
}

/* So many layers that their weights are MIN_WEIGHTS, if half of what is free allows it. */
static int open_layers(rig *r, const subject *s, int gpu, uint64_t free_bytes, pool *p, pr_err *err)
{
    gpu_options o;
    gpu_memory need;
    int rc;

    for (r->n_layers = 1; r->n_layers <= MAX_LAYERS; r->n_layers++) {
        o = options_of(r, s, gpu, r->n_layers);
        if ((rc = gpu_need(&need, &o, err))) return rc;
        if (need.weights >= MIN_WEIGHTS || r->n_layers == MAX_LAYERS) break;
    }
    for (; r->n_layers > 1 && need.total > free_bytes / 2; r->n_layers--) {
        o = options_of(r, s, gpu, r->n_layers - 1);
        if ((rc = gpu_need(&need, &o, err))) return rc;
    }
    return gpu_open(&r->g, &o, p, "layers to measure", err);
}

/* A batch as decoding has it, each token of its own sequence and with 16 tokens before it; a large one as a
 * chunk of a prompt. */
static gpu_batch batch_of(rig *r, size_t n)
{
    bool decode = n <= MAX_RUNS;

    for (size_t i = 0; i < MAX_RUNS; i++) {
        r->pages[i] = (int32_t)i;
        r->run[i] = (gpu_run){.first = i, .n = 1, .pos = 16, .pages = &r->pages[i]};
    }
    if (!decode) r->run[0] = (gpu_run){.first = 0, .n = n, .pages = r->pages};
    return (gpu_batch){.n_tokens = n, .n_runs = decode ? n : 1, .run = r->run, .rope = r->rope};
}

/* ms of one pass over all layers, the mean of n. */
static int pass_ms(rig *r, const gpu_batch *b, size_t n, double *ms, pr_err *err)
{
    uint64_t start = clock_ns();

    for (size_t i = 0; i < n; i++) {
        int rc = gpu_forward(r->g, 0, r->n_layers, b, r->hidden, err);
        if (rc) return rc;
    }
    *ms = clock_ms_since(start) / (double)n;
    return PR_OK;
}

static void put_rising(double *rep, size_t i, double x)
{
    for (; i > 0 && rep[i - 1] > x; i--) rep[i] = rep[i - 1];
    rep[i] = x;
}

static int measure_batch(rig *r, const subject *s, profile_compute *c, uint32_t n_tokens, double warm_up_ms,
                         pr_err *err)
{
    gpu_batch b = batch_of(r, n_tokens);
    double flop = 2 * layer_values(&s->shape) * n_tokens * (double)r->n_layers, ms, rep[REPS];
    uint64_t begin = clock_ns();
    size_t n = 1;
    int rc;

    for (;;) {
        if ((rc = pass_ms(r, &b, n, &ms, err))) return rc;
        if (ms * (double)n < MIN_REP_MS && n < MAX_REPEATS) n *= 2;
        else if (clock_ms_since(begin) >= warm_up_ms) break;
    }
    for (size_t i = 0; i < REPS; i++) {
        if ((rc = pass_ms(r, &b, n, &ms, err))) return rc;
        put_rising(rep, i, ms);
    }
    c->batch = n_tokens;
    c->gflops = flop / (rep[REPS / 2] * 1e6);
    c->spread_pct = 100 * (rep[REPS - 1] - rep[0]) / rep[REPS / 2];
    return PR_OK;
}

static void rig_clear(rig *r)
{
    gpu_close(r->g);
    free(r->norm);
    free(r->matrix);
    free(r->hidden);
    free(r->rope);
}

static int rig_init(rig *r, const subject *s, pr_err *err)
{
    const gpu_shape *h = &s->shape;

    r->norm = malloc(h->n_embd * sizeof *r->norm);
    r->hidden = calloc(MAX_TOKENS * h->n_embd, sizeof *r->hidden);
    r->rope = calloc(MAX_TOKENS * h->n_rot, sizeof *r->rope);
    if (!r->norm || !r->hidden || !r->rope) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < h->n_embd; i++) r->norm[i] = 1;
    for (size_t i = 0; i < MAX_TOKENS * h->n_embd; i++) r->hidden[i] = (float)(i * 104729 % 2000) / 1000 - 1;
    for (size_t i = 0; i < MAX_TOKENS * h->n_rot; i += 2) r->rope[i] = 1;
    return PR_OK;
}

static int measure_type(profile *p, const subject *s, uint32_t type, int gpu, pool *workers, pr_err *err)
{
    rig r = {0};
    size_t before = p->n_compute;
    int rc = rig_init(&r, s, err);

    if (!rc && fill_layers(&r, s, type)) {
        rc = open_layers(&r, s, gpu, p->gpu[gpu].vram_free_bytes, workers, err);
        for (size_t i = 0; i < N_BATCHES && !rc && p->n_compute < PROFILE_MAX_COMPUTE; i++) {
            profile_compute *c = &p->compute[p->n_compute];
            *c = (profile_compute){.gpu = gpu};
            snprintf(c->type, sizeof c->type, "%s", quant_info(type)->name);
            log_progress("GPU %d: layers of %s, %u tokens", gpu, c->type, batches[i]);
            rc = measure_batch(&r, s, c, batches[i], i ? 0 : WARM_UP_MS, err);
            if (!rc) p->n_compute++;
        }
    }
    rig_clear(&r);
    if (rc) p->n_compute = before;
    return rc;
}

void probe_gpu_layers(profile *p, const hparams *hp, int n_threads)
{
    subject s = {0};
    pool *workers = NULL;
    pr_err err = {0};
    int rc = PR_OK;

    if (!p->n_gpus) return;
    if (hp) model_subject(&s, hp);
    else rc = usual_subject(&s, &err);
    if (!rc) rc = pool_new(&workers, n_threads, &err);
    for (int i = 0; !rc && i < (int)p->n_gpus; i++) {
        for (uint32_t type = 0; type < Q_TYPE_COUNT && !rc; type++)
            if (s.blocks[type]) rc = measure_type(p, &s, type, i, workers, &err);
    }
    if (rc) log_warn("layers on a GPU are not measured: %s", err.msg);
    log_progress("%s", "");
    pool_free(workers);
    subject_clear(&s);
}
