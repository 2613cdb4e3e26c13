/* The forward pass, top to bottom: window_forward() runs layer() for each layer on the CPU, after those on
 * GPUs (kernels/cuda.h); layer() is the text-book transformer block as a row of parallel loops. Loops over
 * tokens do what belongs to one token (norm, rotary embedding, quantising the input of the next product);
 * loops over row groups are the products; one loop over (run, tile, kv head) is attention.
 *
 * Shapes: T tokens, D embedding width, H query heads, K kv heads, S head size, F feed-forward width. */
#include "src/model/forward.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct workspace {
    const hparams *hp;
    exec e;
    workspace_size size;
    acts x;                /* [T][D] normed input of q, k, v and of gate, up; also of the output projection */
    acts att;              /* [T][H*S] attention result */
    acts ff;               /* [T][F] silu(gate) * up */
    float *q, *k, *v;      /* [T][H*S], [T][K*S], [T][K*S], rows padded to 16 */
    float *gate, *up;      /* [T][F] */
    float *branch;         /* [T][D] output of a residual branch, not yet added */
    float *rope;           /* [T][n_rot] cos, sin pairs */
    size_t *pos;           /* [T] position of each token */
    const batch_run **run; /* [T] the run it belongs to */
    gpu_run *gpu_run;      /* [T] the batch's runs, for GPUs */
};

static size_t padded(size_t n)
{
    return MEM_ALIGN_UP(n, (size_t)PACK_ROWS);
}

/* --- workspace --------------------------------------------------------------------------------- */
typedef struct {
    size_t qs, kvs, ff, d; /* padded row lengths in floats */
} widths;

static widths widths_of(const hparams *hp)
{
    return (widths){padded((size_t)hp->n_heads * hp->head_size),
                    padded((size_t)hp->n_kv_heads * hp->head_size), padded(hp->n_ff), padded(hp->n_embd)};
}

static size_t acts_need_bytes(size_t n_cols, size_t max_tokens)
{
    size_t n = 0;
    for (int kind = 0; kind < ACT_COUNT; kind++) n += act_row_bytes((act_kind)kind, n_cols);
    return n * max_tokens;
}

/* Rows of x: the input of a layer's products, and of the output projection's. */
static size_t rows_of_x(const workspace_size *size)
{
    return size->has_layers && size->max_tokens > size->max_out ? size->max_tokens : size->max_out;
}

static size_t scratch_of(const hparams *hp, const workspace_size *size)
{
    size_t rows = rows_of_x(size), mul = rows ? MATMUL_SCRATCH(rows) : 0,
           att = size->has_layers ? ATTN_SCRATCH(hp->head_size, hp->n_heads / hp->n_kv_heads) : 0;

    return mul > att ? mul : att;
}

size_t workspace_need_bytes(const hparams *hp, int n_threads, const workspace_size *size)
{
    widths w = widths_of(hp);
    size_t T = size->max_tokens, floats = w.qs + 2 * w.kvs + 2 * w.ff + w.d;
    size_t both = acts_need_bytes(hp->n_embd, rows_of_x(size)) + T * hp->n_rot * sizeof(float) +
                  scratch_of(hp, size) * (size_t)n_threads;

    if (!size->has_layers) return both;
    return both + acts_need_bytes((size_t)hp->n_heads * hp->head_size, T) + acts_need_bytes(hp->n_ff, T) +
           floats * T * sizeof(float);
}

static float *floats(size_t n_tokens, size_t width)
{
    return mem_alloc_aligned(n_tokens * width * sizeof(float));
}

static int no_memory(size_t n_tokens, pr_err *err)
{
    return pr_fail(err, PR_ERESOURCE, "out of memory for work buffers of %zu tokens", n_tokens);
}

/* What only layers on the CPU need. */
static int take_layer_buffers(workspace *ws, pr_err *err)
{
    const hparams *hp = ws->hp;
    widths w = widths_of(hp);
    size_t T = ws->size.max_tokens;
    int rc = acts_init(&ws->att, (size_t)hp->n_heads * hp->head_size, T, err);

    if (rc || (rc = acts_init(&ws->ff, hp->n_ff, T, err))) return rc;
    ws->q = floats(T, w.qs);
    ws->k = floats(T, w.kvs);
    ws->v = floats(T, w.kvs);
    ws->gate = floats(T, w.ff);
    ws->up = floats(T, w.ff);
    ws->branch = floats(T, w.d);
    return ws->q && ws->k && ws->v && ws->gate && ws->up && ws->branch ? PR_OK : no_memory(T, err);
}

/* What a batch is: GPUs are told as well. */
static int take_batch_buffers(workspace *ws, pr_err *err)
{
    size_t T = ws->size.max_tokens;

    ws->rope = floats(T, ws->hp->n_rot);
    ws->pos = calloc(T, sizeof *ws->pos);
    ws->run = calloc(T, sizeof *ws->run);
    ws->gpu_run = calloc(T, sizeof *ws->gpu_run);
    return ws->rope && ws->pos && ws->run && ws->gpu_run ? PR_OK : no_memory(T, err);
}

int workspace_new(workspace **out, const hparams *hp, const kernel_table *k, pool *p,
                  const workspace_size *size, pr_err *err)
{
    size_t rows = rows_of_x(size);
    workspace *ws = calloc(1, sizeof *ws);
    int rc = ws ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    if (!rc) {
        ws->hp = hp;
        ws->size = *size;
        rc = exec_init(&ws->e, k, p, scratch_of(hp, size), err);
    }
    if (!rc && rows) rc = acts_init(&ws->x, hp->n_embd, rows, err);
    if (!rc) rc = take_batch_buffers(ws, err);
    if (!rc && size->has_layers) rc = take_layer_buffers(ws, err);
    if (rc) workspace_free(ws);
    else *out = ws;
    return rc;
}

void workspace_free(workspace *ws)
{
    if (!ws) return;
    exec_clear(&ws->e);
    acts_clear(&ws->x);
    acts_clear(&ws->att);
    acts_clear(&ws->ff);
    mem_free_aligned(ws->q);
    mem_free_aligned(ws->k);
    mem_free_aligned(ws->v);
    mem_free_aligned(ws->gate);
    mem_free_aligned(ws->up);
    mem_free_aligned(ws->branch);
    mem_free_aligned(ws->rope);
    free(ws->pos);
    free(ws->run);
    free(ws->gpu_run);
    free(ws);
}

const exec *workspace_exec(const workspace *ws)
{
    return &ws->e;
}

/* --- per-token loops ----------------------------------------------------------------------------- */
static float *act_f32(const acts *a, size_t t)
{
    return (float *)(a->row[ACT_F32] + t * a->stride[ACT_F32]);
}

/* Token t's input of the next products, in the kinds they read. */
static void quantize_row(const exec *e, const acts *a, size_t t, const float *x, unsigned kinds)
{
    for (int kind = 0; kind < ACT_COUNT; kind++) {
        void *dst = a->row[kind] + t * a->stride[kind];
        if (kinds >> kind & 1 && dst != (const void *)x) e->k->quantize[kind](dst, x, a->n_cols);
    }
}

/* x += branch (when there is one), then acts = norm(x). */
typedef struct {
    workspace *ws;
    float *hidden;
    const float *branch, *branch_bias; /* NULL: nothing to add */
    const float *norm;                 /* NULL: only the addition */
    unsigned kinds;
} norm_loop;

static void norm_item(void *arg, size_t first, size_t end, int thread)
{
    const norm_loop *l = arg;
    const workspace *ws = l->ws;
    size_t d = ws->hp->n_embd, d_pad = padded(d);

    (void)thread;
    for (size_t t = first; t < end; t++) {
        float *x = l->hidden + t * d;
        if (l->branch) ws->e.k->add(x, l->branch + t * d_pad, d);
        if (l->branch_bias) ws->e.k->add(x, l->branch_bias, d);
        if (!l->norm) continue;
        float *normed = act_f32(&ws->x, t);
        ws->e.k->rms_norm(normed, x, l->norm, d, ws->hp->norm_eps);
        quantize_row(&ws->e, &ws->x, t, normed, l->kinds);
    }
}

/* q, k, v of a token: biases, head norms (qwen3), rotary embedding, into the KV cache. */
typedef struct {
    workspace *ws;
    window *win;
    const layer_weights *l;
    uint32_t layer;
} qkv_loop;

static void norm_heads(const kernel_table *k, float *x, size_t n_heads, size_t head_size, const float *w,
                       float eps)
{
    for (size_t h = 0; w && h < n_heads; h++)
        k->rms_norm(x + h * head_size, x + h * head_size, w, head_size, eps);
}

static void qkv_item(void *arg, size_t first, size_t end, int thread)
{
    const qkv_loop *j = arg;
    const workspace *ws = j->ws;
    const hparams *hp = ws->hp;
    const kernel_table *k = ws->e.k;
    const kv_cache *kv = &j->win->kv;
    widths w = widths_of(hp);
    size_t s = hp->head_size;

    (void)thread;
    for (size_t t = first; t < end; t++) {
        float *qt = ws->q + t * w.qs, *kt = ws->k + t * w.kvs, *vt = ws->v + t * w.kvs;
        const float *cs = ws->rope + t * hp->n_rot;
        int32_t page = ws->run[t]->pages[ws->pos[t] / KV_PAGE];

        if (j->l->q_bias) k->add(qt, j->l->q_bias, hp->n_heads * s);
        if (j->l->k_bias) k->add(kt, j->l->k_bias, hp->n_kv_heads * s);
        if (j->l->v_bias) k->add(vt, j->l->v_bias, hp->n_kv_heads * s);
        norm_heads(k, qt, hp->n_heads, s, j->l->q_norm, hp->norm_eps);
        norm_heads(k, kt, hp->n_kv_heads, s, j->l->k_norm, hp->norm_eps);
        k->rope(qt, hp->n_heads, s, hp->n_rot, cs, hp->rope_neox);
        k->rope(kt, hp->n_kv_heads, s, hp->n_rot, cs, hp->rope_neox);
        for (size_t h = 0; h < hp->n_kv_heads; h++)
            k->kv_put(kv->type, kv_base(kv, j->layer, h) + (size_t)page * kv->page_bytes,
                      ws->pos[t] % KV_PAGE, kt + h * s, vt + h * s, s);
    }
}

typedef struct {
    workspace *ws;
    const acts *a;
    unsigned kinds;
} quantize_loop;

static void quantize_att_item(void *arg, size_t first, size_t end, int thread)
{
    const quantize_loop *l = arg;

    (void)thread;
    for (size_t t = first; t < end; t++) quantize_row(&l->ws->e, l->a, t, act_f32(l->a, t), l->kinds);
}

static void silu_item(void *arg, size_t first, size_t end, int thread)
{
    const quantize_loop *l = arg;
    size_t f = padded(l->ws->hp->n_ff);

    (void)thread;
    for (size_t t = first; t < end; t++) {
        float *gate = l->ws->gate + t * f;
        l->ws->e.k->silu_mul(gate, l->ws->up + t * f, l->ws->hp->n_ff);
        quantize_row(&l->ws->e, l->a, t, gate, l->kinds);
    }
}

/* --- attention ----------------------------------------------------------------------------------- */
typedef struct {
    workspace *ws;
    const window *win;
    uint32_t layer;
    const batch *b;
    size_t n_tiles; /* over all runs: each run is cut in tiles of ATTN_QUERIES queries */
} attention_loop;

static size_t tiles_of(const batch_run *r)
{
    return (r->n + ATTN_QUERIES - 1) / ATTN_QUERIES;
}

/* Item i is kv head i % K of tile i / K: the heads of one tile go to different threads. */
static void attention_item(void *arg, size_t first, size_t end, int thread)
{
    const attention_loop *l = arg;
    const workspace *ws = l->ws;
    const hparams *hp = ws->hp;
    widths w = widths_of(hp);
    size_t n_group = hp->n_heads / hp->n_kv_heads;

    for (size_t item = first; item < end; item++) {
        size_t tile = item / hp->n_kv_heads, kv_head = item % hp->n_kv_heads,
               col = kv_head * n_group * hp->head_size;
        const batch_run *r = l->b->run;
        while (tile >= tiles_of(r)) tile -= tiles_of(r++);
        size_t skip = tile * ATTN_QUERIES, left = r->n - skip;
        attn_args a = {.type = l->win->kv.type,
                       .head_size = hp->head_size,
                       .n_group = n_group,
                       .scale = hp->attn_scale,
                       .kv = kv_base(&l->win->kv, l->layer, kv_head),
                       .page_stride = l->win->kv.page_bytes,
                       .pages = r->pages,
                       .q = ws->q + (r->first + skip) * w.qs + col,
                       .q_stride = w.qs,
                       .out = act_f32(&ws->att, r->first + skip) + col,
                       .out_stride = ws->att.stride[ACT_F32] / sizeof(float),
                       .n_queries = left < ATTN_QUERIES ? left : ATTN_QUERIES,
                       .pos = r->pos + skip};
        ws->e.k->attention(&a, exec_scratch(&ws->e, thread));
    }
}

static void attention(workspace *ws, const window *win, uint32_t layer, const batch *b)
{
    attention_loop l = {ws, win, layer, b, 0};

    for (size_t i = 0; i < b->n_runs; i++) l.n_tiles += tiles_of(&b->run[i]);
    pool_run(ws->e.pool, l.n_tiles * ws->hp->n_kv_heads, 1, attention_item, &l);
}

/* --- one layer ----------------------------------------------------------------------------------- */
/* Tokens a thread takes at a time in the per-token loops. One token is done by the caller alone. */
static size_t token_chunk(const workspace *ws, size_t n_tokens)
{
    size_t chunk = n_tokens / ((size_t)pool_threads(ws->e.pool) * 4);
    return chunk ? chunk : 1;
}

static void for_tokens(workspace *ws, size_t n_tokens, pool_fn fn, void *arg)
{
    pool_run(ws->e.pool, n_tokens, token_chunk(ws, n_tokens), fn, arg);
}

/* hidden += the branch left in ws->branch by the layer before (when `add`); ws->branch = this layer's
 * feed-forward branch. */
static void layer(window *win, workspace *ws, uint32_t il, const layer_weights *l, const batch *b,
                  float *hidden, bool add)
{
    const exec *e = &ws->e;
    size_t T = b->n_tokens;
    widths w = widths_of(ws->hp);
    const product qkv[3] = {
        {&l->q, &ws->x, ws->q, w.qs}, {&l->k, &ws->x, ws->k, w.kvs}, {&l->v, &ws->x, ws->v, w.kvs}};
    const product o = {&l->o, &ws->att, ws->branch, w.d};
    const product gate_up[2] = {{&l->gate, &ws->x, ws->gate, w.ff}, {&l->up, &ws->x, ws->up, w.ff}};
    const product down = {&l->down, &ws->ff, ws->branch, w.d};

    for_tokens(
        ws, T, norm_item,
        &(norm_loop){ws, hidden, add ? ws->branch : NULL, NULL, l->attn_norm, products_acts(e, qkv, 3)});
    products_run(e, qkv, 3, T);
    for_tokens(ws, T, qkv_item, &(qkv_loop){ws, win, l, il});
    attention(ws, win, il, b);
    for_tokens(ws, T, quantize_att_item, &(quantize_loop){ws, &ws->att, products_acts(e, &o, 1)});
    products_run(e, &o, 1, T);

    for_tokens(ws, T, norm_item,
               &(norm_loop){ws, hidden, ws->branch, l->o_bias, l->ffn_norm, products_acts(e, gate_up, 2)});
    products_run(e, gate_up, 2, T);
    for_tokens(ws, T, silu_item, &(quantize_loop){ws, &ws->ff, products_acts(e, &down, 1)});
    products_run(e, &down, 1, T);
}

/* --- the window ------------------------------------------------------------------------------------ */
static void rotations_item(void *arg, size_t first, size_t end, int thread)
{
    workspace *ws = arg;
    const hparams *hp = ws->hp;

    (void)thread;
    for (size_t t = first; t < end; t++) {
        float *cs = ws->rope + t * hp->n_rot;
        for (size_t d = 0; d < hp->n_rot / 2; d++) {
            double angle = (double)ws->pos[t] * (double)hp->rope_freq[d];
            cs[2 * d] = (float)(cos(angle) * (double)hp->rope_mscale);
            cs[2 * d + 1] = (float)(sin(angle) * (double)hp->rope_mscale);
        }
    }
}

static void locate_tokens(workspace *ws, const batch *b)
{
    for (size_t i = 0; i < b->n_runs; i++) {
        for (size_t j = 0; j < b->run[i].n; j++) {
            size_t t = b->run[i].first + j;
            ws->pos[t] = b->run[i].pos + j;
            ws->run[t] = &b->run[i];
        }
    }
    for_tokens(ws, b->n_tokens, rotations_item, ws);
}

/* The layers on GPUs, which come first. */
static int forward_parts(const window *win, workspace *ws, const batch *b, float *hidden, pr_err *err)
{
    gpu_batch gb = {.n_tokens = b->n_tokens,
                    .n_runs = b->n_runs,
                    .run = ws->gpu_run,
                    .rope = ws->rope,
                    .generation = b->number};
    int rc = PR_OK;

    for (size_t i = 0; win->n_parts && i < b->n_runs; i++) {
        const batch_run *r = &b->run[i];
        ws->gpu_run[i] = (gpu_run){r->first, r->n, r->pos, r->pages};
    }
    for (size_t i = 0; i < win->n_parts && !rc; i++)
        rc = gpu_forward(win->part[i].place, win->part[i].first, win->part[i].n, &gb, hidden, err);
    return rc;
}

int window_forward(window *win, workspace *ws, const batch *b, float *hidden, pr_err *err)
{
    int rc;

    if (win->first == win->end && !win->n_parts) return PR_OK;
    locate_tokens(ws, b);
    if ((rc = forward_parts(win, ws, b, hidden, err)) || win->first == win->end) return rc;
    weights_begin(win->w);
    for (uint32_t il = win->first; il < win->end; il++)
        layer(win, ws, il, weights_layer(win->w, il), b, hidden, il > win->first);
    for_tokens(ws, b->n_tokens, norm_item, &(norm_loop){ws, hidden, ws->branch, NULL, NULL, 0});
    return weights_end(win->w, err);
}

int window_init(window *win, const hparams *hp, uint32_t first, uint32_t end, kv_type kv, size_t n_pages,
                weights *w, pr_err *err)
{
    *win = (window){.hp = hp, .first = first, .end = end, .w = w};
    return kv_init(&win->kv, hp, kv, first, end, n_pages, err);
}

void window_clear(window *win)
{
    weights_free(win->w);
    kv_clear(&win->kv);
    win->w = NULL;
}

/* --- the head -------------------------------------------------------------------------------------- */
int head_init(head *h, const hparams *hp, bool with_output, pool *p, pr_err *err)
{
    *h = (head){.hp = hp};
    if (!with_output) return PR_OK;
    return packed_matrix_new(&h->output, hp->output, p, err);
}

void head_clear(head *h)
{
    packed_matrix_free(&h->output);
}

typedef struct {
    const hparams *hp;
    const batch *b;
    float *hidden;
} embed_loop;

static void embed_item(void *arg, size_t first, size_t end, int thread)
{
    const embed_loop *l = arg;
    const gguf_tensor *t = l->hp->token_embd;
    size_t row = quant_row_bytes(t->type, t->ne[0]);

    (void)thread;
    for (size_t i = first; i < end; i++)
        quant_dequant(t->type, t->data + (size_t)l->b->token[i] * row, l->hidden + i * l->hp->n_embd,
                      l->hp->n_embd);
}

void head_embed(const head *h, workspace *ws, const batch *b, float *hidden)
{
    for_tokens(ws, b->n_tokens, embed_item, &(embed_loop){h->hp, b, hidden});
}

size_t head_logits_stride(const hparams *hp)
{
    return padded(hp->n_vocab);
}

typedef struct {
    workspace *ws;
    const float *hidden;
    const int32_t *rows;
    unsigned kinds;
} final_norm_loop;

static void final_norm_item(void *arg, size_t first, size_t end, int thread)
{
    const final_norm_loop *l = arg;
    const hparams *hp = l->ws->hp;

    (void)thread;
    for (size_t i = first; i < end; i++) {
        float *normed = act_f32(&l->ws->x, i);
        l->ws->e.k->rms_norm(normed, l->hidden + (size_t)l->rows[i] * hp->n_embd,
                             (const float *)(const void *)hp->output_norm->data, hp->n_embd, hp->norm_eps);
        quantize_row(&l->ws->e, &l->ws->x, i, normed, l->kinds);
    }
}

void head_logits(const head *h, workspace *ws, const float *hidden, const int32_t *rows, size_t n_rows,
                 float *logits)
{
    size_t stride = head_logits_stride(h->hp);
    const product out = {&h->output.m, &ws->x, logits, stride};

    for_tokens(ws, n_rows, final_norm_item,
               &(final_norm_loop){ws, hidden, rows, products_acts(&ws->e, &out, 1)});
    products_run(&ws->e, &out, 1, n_rows);
    for (size_t i = 0; h->hp->output_bias && i < n_rows; i++)
        ws->e.k->add(logits + i * stride, (const float *)(const void *)h->hp->output_bias->data,
                     h->hp->n_vocab);
}
