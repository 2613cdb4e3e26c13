/* Windows, head and buffers of one device put together; see engine.h. */
#include "src/run/engine.h"
#include "kernels/cuda/device.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/base/units.h"
#include "src/model/gguf_holes.h"
#include "src/model/pieces.h"
#include "src/run/engine_gpu.h"
#include "src/run/relief.h"
#include <stdio.h>
#include <stdlib.h>

struct engine {
    const model *m;
    kernel_table k;
    pool *pool;
    workspace *ws;
    window *win;          /* [n_windows]; those without layers are all zero */
    residency *residency; /* NULL: everything is resident */
    relief *relief;       /* of the residency */
    gpu_set *gpus;        /* NULL: none */
    uint64_t n_batches;   /* of engine_forward */
    uint32_t n_windows;
    head head;
    float *hidden, *logits;
    float *own_hidden; /* NULL: hidden is a GPU's pinned memory */
    engine_facts facts;
};

/* The layers of a window that are on the CPU. */
static layer_range cpu_range(const model *m, const engine_options *o, uint32_t i)
{
    layer_range r = engine_range(m, o, i);

    r.first += engine_gpu_layers(o, i);
    return r;
}

/* What the CPU has to do here. */
static workspace_size work_of(const model *m, const engine_options *o)
{
    workspace_size s = {.max_tokens = o->max_tokens, .max_out = o->output_on_gpu ? 0 : o->max_out};

    for (uint32_t i = 0; i < engine_windows(o); i++) {
        layer_range r = cpu_range(m, o, i);
        s.has_layers = s.has_layers || r.first < r.end;
    }
    return s;
}

static uint32_t streamed_of(const engine_options *o, uint32_t i)
{
    return o->streamed ? o->streamed[i] : 0;
}

/* --- what does not fit -----------------------------------------------------------------------------------
 */
/* The engine's windows as residency.h wants them. */
typedef struct {
    residency_options o;
    uint32_t *first, *end;
} parts;

static void parts_clear(parts *p)
{
    free(p->first);
    free(p->end);
}

static int parts_init(parts *p, const model *m, const engine_options *o, pr_err *err)
{
    uint32_t n = engine_windows(o);

    *p = (parts){.first = calloc(n, sizeof *p->first), .end = calloc(n, sizeof *p->end)};
    if (!p->first || !p->end) {
        parts_clear(p);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        layer_range r = cpu_range(m, o, i);
        p->first[i] = r.first;
        p->end[i] = r.end;
    }
    p->o = (residency_options){n,         p->first, p->end,     o->streamed, o->buffer_pieces,
                               o->stream, o->disk,  o->pack_dir};
    return PR_OK;
}

static residency_bytes need_parts(const model *m, const engine_options *o)
{
    residency_bytes n = {0};
    parts p;

    if (!o->streamed || parts_init(&p, m, o, NULL)) return n;
    residency_need(&n, &m->hp, &p.o, NULL);
    parts_clear(&p);
    return n;
}

/* Output projection and final norm. An embedding of its own stays in the file: a token reads a row of it. */
static uint64_t head_weights_bytes(const hparams *hp)
{
    uint64_t all = hparams_output_bytes(hp);

    return hp->output == hp->token_embd ? all : all - hp->token_embd->n_bytes;
}

engine_memory engine_need(const model *m, const engine_options *o)
{
    const hparams *hp = &m->hp;
    int n_threads = o->n_threads ? o->n_threads : pool_default_threads();
    residency_bytes cut = need_parts(m, o);
    workspace_size work = work_of(m, o);
    engine_memory n = {.weights = cut.weights,
                       .buffers = workspace_need_bytes(hp, n_threads, &work) + cut.buffer,
                       .streamed = cut.streamed};

    for (uint32_t i = 0; i < engine_windows(o); i++) {
        layer_range r = cpu_range(m, o, i);
        if (!streamed_of(o, i)) n.weights += weights_need_bytes(hp, r.first, r.end);
        n.kv += (uint64_t)kv_page_need_bytes(hp, o->kv, r.end - r.first) * o->n_pages;
    }
    if (gpu_set_need(&n.gpu, m, o, NULL)) n.gpu = (gpu_memory){0};
    n.buffers += n.gpu.host;
    if (!o->is_worker) {
        if (!o->output_on_gpu) n.weights += head_weights_bytes(hp);
        n.buffers += o->max_out * head_logits_stride(hp) * sizeof(float);
        if (!n.gpu.host) n.buffers += o->max_tokens * hp->n_embd * sizeof(float);
    }
    /* GPUs are loaded before there are weights and a KV cache here, in memory that is given back. */
    if (n.gpu.loading > n.weights + n.kv) n.buffers += n.gpu.loading - n.weights - n.kv;
    n.total = n.weights + n.kv + n.buffers;
    return n;
}

/* Streamed pieces of all windows: x of n, spread by their layers. */
static void spread(const model *m, const engine_options *o, uint32_t *streamed, uint64_t x, uint64_t n)
{
    uint64_t before = 0;

    for (uint32_t i = 0; i < engine_windows(o); i++) {
        layer_range r = cpu_range(m, o, i);
        uint64_t after = before + (uint64_t)(r.end - r.first) * LAYER_PIECES;
        streamed[i] = (uint32_t)(after * x / n - before * x / n);
        before = after;
    }
}

static bool fits(const model *m, const engine_options *o, uint64_t budget)
{
    return engine_need(m, o).total <= budget;
}

int engine_fit(const model *m, engine_options *o, uint32_t *streamed, uint64_t budget, pr_err *err)
{
    uint64_t n = 0, low = 0, high;

    o->streamed = streamed;
    if (fits(m, o, budget)) return PR_OK;
    for (uint32_t i = 0; i < engine_windows(o); i++) {
        layer_range r = cpu_range(m, o, i);
        n += (uint64_t)(r.end - r.first) * LAYER_PIECES;
        low += streamed[i];
    }
    high = n;
    while (low < high) {
        uint64_t x = (low + high) / 2;
        spread(m, o, streamed, x, n);
        if (fits(m, o, budget)) high = x;
        else low = x + 1;
    }
    if (n) spread(m, o, streamed, high, n);
    while (o->buffer_pieces > 2 && !fits(m, o, budget)) o->buffer_pieces--;
    if (fits(m, o, budget)) return PR_OK;
    engine_memory need = engine_need(m, o);
    char t[5][UNITS_TEXT_BYTES];
    return pr_fail(err, PR_ERESOURCE,
                   "%s of memory are too little even when all layers are read from disk: KV cache %s, "
                   "buffers %s, other weights %s (%s missing): lower --slots or --ctx, or give more",
                   units_text(t[0], budget), units_text(t[1], need.kv), units_text(t[2], need.buffers),
                   units_text(t[3], need.weights), units_text(t[4], need.total - budget));
}

/* What is about to be taken must be there: a run does not run out of memory half-way. */
static int check_memory(const model *m, const engine_options *o, pr_err *err)
{
    engine_memory n = engine_need(m, o);
    uint64_t have = mem_available_bytes();
    char t[5][UNITS_TEXT_BYTES];

    if (!have || n.total <= have) return PR_OK;
    return pr_fail(err, PR_ERESOURCE,
                   "not enough memory: weights %s + KV cache %s + buffers %s, but only %s are available "
                   "(%s missing): lower --slots or --ctx, or take a smaller model or quantisation",
                   units_text(t[0], n.weights), units_text(t[1], n.kv), units_text(t[2], n.buffers),
                   units_text(t[3], have), units_text(t[4], n.total - have));
}

static int make_residency(engine *e, const engine_options *o, pr_err *err)
{
    bool any = false;
    parts p;
    int rc;

    for (uint32_t i = 0; i < engine_windows(o); i++) any = any || streamed_of(o, i);
    if (!any) return PR_OK;
    if ((rc = parts_init(&p, e->m, o, err))) return rc;
    rc = residency_new(&e->residency, e->m, &p.o, e->pool, o->stop, err);
    parts_clear(&p);
    if (rc) return rc;
    return relief_new(&e->relief, e->residency,
                      &(relief_options){.resident_bytes = need_parts(e->m, o).weights}, err);
}

static int make_weights(weights **out, engine *e, const engine_options *o, uint32_t i, pr_err *err)
{
    layer_range r = cpu_range(e->m, o, i);
    char label[48];

    if (streamed_of(o, i)) {
        *out = residency_take_weights(e->residency, i);
        return PR_OK;
    }
    snprintf(label, sizeof label, "packing layers %u..%u", r.first, r.end);
    return weights_new(out, &e->m->hp, r.first, r.end, e->pool, label, err);
}

static int make_window(engine *e, const engine_options *o, uint32_t i, pr_err *err)
{
    layer_range r = cpu_range(e->m, o, i);
    window *win = &e->win[i];
    weights *w;
    int rc;

    if (r.first < r.end) {
        if ((rc = make_weights(&w, e, o, i, err)) ||
            (rc = window_init(win, &e->m->hp, r.first, r.end, o->kv, o->n_pages, w, err)))
            return rc;
        e->facts.weights_bytes += weights_bytes(win->w);
        e->facts.kv_bytes += win->kv.region.n;
        e->facts.pages = weights_pages(win->w);
    }
    win->part = gpu_set_parts(e->gpus, i, &win->n_parts);
    return PR_OK;
}

/* The GPUs first: what they read of the file need not stay for the others. */
static int make_gpus(engine *e, const engine_options *o, pr_err *err)
{
    gpu_info info;
    int rc = gpu_set_new(&e->gpus, e->m, o, e->pool, err);

    if (rc) return rc;
    e->facts.gpu = gpu_set_taken(e->gpus);
    for (uint32_t i = 0; i < engine_windows(o); i++) e->facts.gpu_layers += engine_gpu_layers(o, i);
    if (!gpu_describe(&info, o->n_gpu_parts ? o->gpu_part[0].gpu : o->output_gpu, NULL))
        snprintf(e->facts.gpu_name, sizeof e->facts.gpu_name, "%s", info.name);
    return PR_OK;
}

static int make_windows(engine *e, const engine_options *o, pr_err *err)
{
    uint32_t n = engine_windows(o);
    int rc = engine_uses_gpu(o) ? make_gpus(e, o, err) : PR_OK;

    if (rc || (rc = make_residency(e, o, err))) return rc;
    e->win = calloc(n, sizeof *e->win);
    if (!e->win) return pr_fail(err, PR_ERESOURCE, "out of memory");
    e->n_windows = n;
    for (uint32_t i = 0; i < n && !rc; i++) rc = make_window(e, o, i, err);
    return rc;
}

/* What only the head has. */
static int make_head(engine *e, const engine_options *o, pr_err *err)
{
    const hparams *hp = &e->m->hp;
    int rc = head_init(&e->head, hp, !o->output_on_gpu, e->pool, err);

    if (rc) return rc;
    e->hidden = gpu_set_hidden(e->gpus);
    if (!e->hidden) e->hidden = e->own_hidden = mem_alloc_aligned(o->max_tokens * hp->n_embd * sizeof(float));
    e->logits = mem_alloc_aligned(o->max_out * head_logits_stride(hp) * sizeof(float));
    if (!e->hidden || !e->logits) return pr_fail(err, PR_ERESOURCE, "out of memory for logits");
    e->facts.weights_bytes += e->head.output.region.n;
    return PR_OK;
}

static int choose_kernels(kernel_table *k, const char *isa, pr_err *err)
{
    unsigned mask;

    if (!cpu_isa_mask(isa, &mask))
        return pr_fail(err, PR_EUSAGE, "--isa %s: expected ref, avx2, avx512 or neon", isa);
    if (isa && (mask & cpu_features()) != mask)
        return pr_fail(err, PR_EUSAGE, "--isa %s: this CPU does not have it", isa);
    kernels_init(k, mask & cpu_features());
    return PR_OK;
}

int engine_isa(const char *name, const char **isa, pr_err *err)
{
    kernel_table k;
    int rc = choose_kernels(&k, name, err);

    if (!rc) *isa = k.isa;
    return rc;
}

/* What is about to be loaded must be in the file: a hole reads as zeros. */
static int check_tensors(const model *m, const engine_options *o, pr_err *err)
{
    gguf_holes *h;
    int rc = gguf_holes_open(&h, m->g, err);

    if (rc) return rc;
    for (uint32_t i = 0; i < engine_windows(o) && !rc; i++) {
        layer_range r = engine_range(m, o, i);
        rc = gguf_holes_need(h, r.first, r.end, !o->is_worker, err);
    }
    gguf_holes_close(h);
    return rc;
}

int engine_check(const model *m, const engine_options *o, const char **isa, pr_err *err)
{
    const char *runs;
    int rc = engine_isa(o->isa, &runs, err);

    if (rc || (rc = gpu_set_check(m, o, err)) || (rc = check_memory(m, o, err)) ||
        (rc = check_tensors(m, o, err)))
        return rc;
    if (isa) *isa = runs;
    return PR_OK;
}

int engine_new(engine **out, const model *m, const engine_options *o, pr_err *err)
{
    uint64_t start = clock_ns();
    int n_threads = o->n_threads ? o->n_threads : pool_default_threads(), rc;
    workspace_size work = work_of(m, o);
    engine *e;

    if ((rc = engine_check(m, o, NULL, err))) return rc;
    if (!(e = calloc(1, sizeof *e))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    e->m = m;
    e->facts.pages = "none";
    if ((rc = choose_kernels(&e->k, o->isa, err)) || (rc = pool_new(&e->pool, n_threads, err)) ||
        (rc = workspace_new(&e->ws, &m->hp, &e->k, e->pool, &work, err)) || (rc = make_windows(e, o, err)) ||
        (!o->is_worker && (rc = make_head(e, o, err)))) {
        engine_free(e);
        return rc;
    }
    e->facts.buffer_bytes = engine_need(m, o).buffers;
    e->facts.streamed_bytes = engine_need(m, o).streamed;
    e->facts.isa = e->k.isa;
    e->facts.n_threads = n_threads;
    e->facts.load_s = clock_ms_since(start) / 1e3;
    *out = e;
    return PR_OK;
}

void engine_free(engine *e)
{
    if (!e) return;
    for (uint32_t i = 0; i < e->n_windows; i++) window_clear(&e->win[i]);
    free(e->win);
    gpu_set_free(e->gpus);
    relief_free(e->relief);
    residency_free(e->residency);
    head_clear(&e->head);
    workspace_free(e->ws);
    mem_free_aligned(e->own_hidden);
    mem_free_aligned(e->logits);
    pool_free(e->pool);
    free(e);
}

void engine_embed(engine *e, const batch *b, float *hidden)
{
    head_embed(&e->head, e->ws, b, hidden);
}

int engine_window(engine *e, size_t i, const batch *b, float *hidden, pr_err *err)
{
    int rc = e->relief ? relief_look(e->relief, err) : PR_OK;

    return rc ? rc : window_forward(&e->win[i], e->ws, b, hidden, err);
}

int engine_project(engine *e, const float *hidden, const int32_t *rows, size_t n_rows, pr_err *err)
{
    gpu_place *g = gpu_set_output(e->gpus);

    if (!n_rows) return PR_OK;
    if (g) return gpu_project(g, hidden, rows, n_rows, e->logits, head_logits_stride(&e->m->hp), err);
    head_logits(&e->head, e->ws, hidden, rows, n_rows, e->logits);
    return PR_OK;
}

int engine_forward(engine *e, const batch *b, pr_err *err)
{
    batch same = *b; /* for all windows */
    int rc = PR_OK;

    same.number = ++e->n_batches;
    engine_embed(e, b, e->hidden);
    for (uint32_t i = 0; !rc && i < e->n_windows; i++) rc = engine_window(e, i, &same, e->hidden, err);
    return rc ? rc : engine_project(e, e->hidden, b->out, b->n_out, err);
}

const float *engine_logits(const engine *e, size_t i)
{
    return e->logits + i * head_logits_stride(&e->m->hp);
}

size_t engine_logits_stride(const engine *e)
{
    return head_logits_stride(&e->m->hp);
}

double engine_gpu_busy_ms(const engine *e)
{
    return gpu_set_busy_ms(e->gpus);
}

bool engine_is_lost(const engine *e)
{
    return gpu_set_is_lost(e->gpus);
}

residency *engine_residency(const engine *e)
{
    return e->residency;
}

engine_facts engine_about(const engine *e)
{
    return e->facts;
}
