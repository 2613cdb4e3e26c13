/* Windows, head and buffers of one device put together; see engine.h. */
#include "src/run/engine.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <stdlib.h>

struct engine {
    const model *m;
    kernel_table k;
    pool *pool;
    workspace *ws;
    window *win; /* [n_windows]; those without layers are all zero */
    uint32_t n_windows;
    head head;
    float *hidden, *logits;
    engine_facts facts;
};

/* Window i of n: as given, or an even share. */
static layer_range range_of(const model *m, const engine_options *o, uint32_t i)
{
    uint64_t n_layers = m->hp.n_layers, n = o->n_windows ? o->n_windows : 1;

    if (o->window) return o->window[i];
    return (layer_range){(uint32_t)(n_layers * i / n), (uint32_t)(n_layers * (i + 1) / n)};
}

engine_memory engine_need(const model *m, const engine_options *o)
{
    const hparams *hp = &m->hp;
    int n_threads = o->n_threads ? o->n_threads : pool_default_threads();
    engine_memory n = {.buffers = workspace_need_bytes(hp, n_threads, o->max_tokens, o->max_out)};

    for (uint32_t i = 0; i < (o->n_windows ? o->n_windows : 1); i++) {
        layer_range r = range_of(m, o, i);
        n.weights += weights_need_bytes(hp, r.first, r.end);
        n.kv += (uint64_t)kv_page_need_bytes(hp, o->kv, r.end - r.first) * o->n_pages;
    }
    if (!o->is_worker) {
        n.weights += hparams_output_bytes(hp);
        n.buffers += (o->max_tokens * hp->n_embd + o->max_out * head_logits_stride(hp)) * sizeof(float);
    }
    n.total = n.weights + n.kv + n.buffers;
    return n;
}

/* What is about to be taken must be there: a run does not run out of memory half-way. */
static int check_memory(const model *m, const engine_options *o, pr_err *err)
{
    engine_memory n = engine_need(m, o);
    uint64_t have = mem_available_bytes();

    if (!have || n.total <= have) return PR_OK;
    return pr_fail(err, PR_ERESOURCE,
                   "not enough memory: weights %.2f GiB + KV cache %.2f GiB + buffers %.2f GiB, but only "
                   "%.2f GiB are available "
                   "(%.2f GiB missing): lower --slots or --ctx, or take a smaller model or quantisation",
                   (double)n.weights / 0x1p30, (double)n.kv / 0x1p30, (double)n.buffers / 0x1p30,
                   (double)have / 0x1p30, (double)(n.total - have) / 0x1p30);
}

static int make_windows(engine *e, const engine_options *o, pr_err *err)
{
    uint32_t n = o->n_windows ? o->n_windows : 1;
    int rc = PR_OK;

    e->win = calloc(n, sizeof *e->win);
    if (!e->win) return pr_fail(err, PR_ERESOURCE, "out of memory");
    e->n_windows = n;
    for (uint32_t i = 0; i < n && !rc; i++) {
        layer_range r = range_of(e->m, o, i);
        if (r.first == r.end) continue;
        rc = window_init(&e->win[i], &e->m->hp, r.first, r.end, o->kv, o->n_pages, e->pool, err);
        if (rc) break;
        e->facts.weights_bytes += weights_bytes(e->win[i].w);
        e->facts.kv_bytes += e->win[i].kv.region.n;
        e->facts.pages = weights_pages(e->win[i].w);
    }
    return rc;
}

/* What only the head has. */
static int make_head(engine *e, const engine_options *o, pr_err *err)
{
    const hparams *hp = &e->m->hp;
    int rc = head_init(&e->head, hp, e->pool, err);

    if (rc) return rc;
    e->hidden = mem_alloc_aligned(o->max_tokens * hp->n_embd * sizeof(float));
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

int engine_check(const model *m, const engine_options *o, const char **isa, pr_err *err)
{
    const char *runs;
    int rc = engine_isa(o->isa, &runs, err);

    if (!rc && isa) *isa = runs;
    return rc ? rc : check_memory(m, o, err);
}

int engine_new(engine **out, const model *m, const engine_options *o, pr_err *err)
{
    uint64_t start = clock_ns();
    int n_threads = o->n_threads ? o->n_threads : pool_default_threads(), rc;
    engine *e;

    if ((rc = engine_check(m, o, NULL, err))) return rc;
    if (!(e = calloc(1, sizeof *e))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    e->m = m;
    e->facts.pages = "none";
    if ((rc = choose_kernels(&e->k, o->isa, err)) || (rc = pool_new(&e->pool, n_threads, err)) ||
        (rc = workspace_new(&e->ws, &m->hp, &e->k, e->pool, o->max_tokens, o->max_out, err)) ||
        (rc = make_windows(e, o, err)) || (!o->is_worker && (rc = make_head(e, o, err)))) {
        engine_free(e);
        return rc;
    }
    e->facts.buffer_bytes = engine_need(m, o).buffers;
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
    head_clear(&e->head);
    workspace_free(e->ws);
    mem_free_aligned(e->hidden);
    mem_free_aligned(e->logits);
    pool_free(e->pool);
    free(e);
}

void engine_embed(engine *e, const batch *b, float *hidden)
{
    head_embed(&e->head, e->ws, b, hidden);
}

void engine_window(engine *e, size_t i, const batch *b, float *hidden)
{
    if (e->win[i].first < e->win[i].end) window_forward(&e->win[i], e->ws, b, hidden);
}

void engine_project(engine *e, const float *hidden, const int32_t *rows, size_t n_rows)
{
    if (n_rows) head_logits(&e->head, e->ws, hidden, rows, n_rows, e->logits);
}

void engine_forward(engine *e, const batch *b)
{
    engine_embed(e, b, e->hidden);
    for (uint32_t i = 0; i < e->n_windows; i++) engine_window(e, i, b, e->hidden);
    engine_project(e, e->hidden, b->out, b->n_out);
}

const float *engine_logits(const engine *e, size_t i)
{
    return e->logits + i * head_logits_stride(&e->m->hp);
}

size_t engine_logits_stride(const engine *e)
{
    return head_logits_stride(&e->m->hp);
}

engine_facts engine_about(const engine *e)
{
    return e->facts;
}
