/* Micro-batches that go round and round: through a pipeline, or through one device's windows alone. Which
 * tokens they hold does not matter for the time they take. */
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/bench_ring.h"
#include <stdlib.h>
#include <string.h>

enum { PAGES = RING_BENCH_CTX / KV_PAGE, EMPTY_POS = 32 };

typedef struct {
    micro_batch mb; /* first: a pipeline's pointer is ours */
    int32_t token[RING_BENCH_CHUNK], out[RING_BENCH_MOST];
    batch_run run[RING_BENCH_MOST];
    size_t left; /* times to go */
} lot;

struct ring_lots {
    size_t n_embd;
    lot lot[RING_BENCH_DEPTH];
    int32_t pages[RING_BENCH_PAGES];
    float *hidden, *incoming; /* [RING_BENCH_CHUNK][n_embd]: of ring_lots_alone */
};

int ring_lots_new(ring_lots **out, const hparams *hp, pr_err *err)
{
    size_t n = (size_t)RING_BENCH_CHUNK * hp->n_embd;
    ring_lots *l = calloc(1, sizeof *l);

    if (l) {
        l->hidden = mem_alloc_aligned(n * sizeof *l->hidden);
        l->incoming = mem_alloc_aligned(n * sizeof *l->incoming);
    }
    if (!l || !l->hidden || !l->incoming) {
        ring_lots_free(l);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    l->n_embd = hp->n_embd;
    for (size_t i = 0; i < n; i++) l->incoming[i] = (float)(i * 7919 % 2001) / 1000 - 1;
    for (size_t i = 0; i < RING_BENCH_PAGES; i++) l->pages[i] = (int32_t)i;
    for (size_t i = 0; i < RING_BENCH_DEPTH; i++)
        for (size_t t = 0; t < RING_BENCH_CHUNK; t++)
            l->lot[i].token[t] = (int32_t)((t * 7919 + 3) % hp->n_vocab);
    *out = l;
    return PR_OK;
}

void ring_lots_free(ring_lots *l)
{
    if (!l) return;
    mem_free_aligned(l->hidden);
    mem_free_aligned(l->incoming);
    free(l);
}

/* --- making them ------------------------------------------------------------------------------------------
 */
/* Sequences [first, end), one token each. */
static void make_decoding(ring_lots *l, lot *x, size_t first, size_t end, size_t times)
{
    size_t n = end - first;

    for (size_t i = 0; i < n; i++) {
        x->run[i] =
            (batch_run){.first = i, .n = 1, .pos = EMPTY_POS, .pages = l->pages + (first + i) * PAGES};
        x->out[i] = (int32_t)i;
    }
    x->mb = (micro_batch){.b = {n, x->token, n, x->run, n, x->out}};
    x->left = times;
}

/* All that decode together; returns their number. */
static size_t make_all(ring_lots *l, const ring_load *load, size_t in_flight, size_t times)
{
    size_t n = in_flight < load->sequences ? in_flight : load->sequences;

    for (size_t i = 0; i < n; i++)
        make_decoding(l, &l->lot[i], i * load->sequences / n, (i + 1) * load->sequences / n, times);
    return n;
}

static void next_position(lot *x)
{
    for (size_t i = 0; i < x->mb.b.n_runs; i++) x->run[i].pos++;
}

/* The chunk that begins at pos; returns its tokens. */
static size_t make_chunk(ring_lots *l, lot *x, size_t pos, size_t n_prompt, size_t most)
{
    size_t n = n_prompt - pos < most ? n_prompt - pos : most;

    x->run[0] = (batch_run){.n = n, .pos = pos, .pages = l->pages};
    x->out[0] = (int32_t)n - 1;
    x->mb = (micro_batch){.b = {n, x->token, 1, x->run, pos + n == n_prompt, x->out}, .n_prefill = n};
    return n;
}

const batch *ring_lots_batch(ring_lots *l, size_t n)
{
    make_decoding(l, &l->lot[0], 0, n, 1);
    return &l->lot[0].mb.b;
}

/* --- through a pipeline -----------------------------------------------------------------------------------
 */
static int submit(pipeline *p, lot *x, uint64_t *id, pr_err *err)
{
    x->mb.id = ++*id;
    return p->ops->submit(p, &x->mb, err);
}

static int await(pipeline *p, lot **done, pr_err *err)
{
    pipe_event event = PIPE_WAKE;
    micro_batch *mb;
    int rc = PR_OK;

    while (!rc && event != PIPE_DONE) rc = p->ops->next(p, &event, &mb, err);
    if (!rc) *done = (lot *)mb;
    return rc;
}

static int decode(ring_lots *l, pipeline *p, const ring_load *load, size_t times, double *tps, pr_err *err)
{
    size_t n_lots = make_all(l, load, p->depth, times + 1), n_tokens = 0;
    uint64_t id = 0, start = 0;
    int rc = PR_OK;

    for (size_t i = 0; i < n_lots && !rc; i++) rc = submit(p, &l->lot[i], &id, err);
    for (size_t i = 0; i < n_lots * (times + 1) && !rc; i++) {
        lot *x;
        if ((rc = await(p, &x, err))) break;
        if (i >= n_lots) n_tokens += x->mb.b.n_tokens;
        if (i + 1 == n_lots) start = clock_ns();
        next_position(x);
        if (--x->left) rc = submit(p, x, &id, err);
    }
    *tps = (double)n_tokens / clock_ms_since(start) * 1e3;
    return rc;
}

static int prompt(ring_lots *l, pipeline *p, const ring_load *load, double *tps, pr_err *err)
{
    size_t at = 0, n_done = 0, n_sent = 0;
    uint64_t id = 0, start = clock_ns();
    int rc = PR_OK;

    while (!rc && n_done < load->n) {
        lot *x;
        while (!rc && at < load->n && n_sent < p->depth) {
            x = &l->lot[id % RING_BENCH_DEPTH];
            at += make_chunk(l, x, at, load->n, p->max_prefill);
            n_sent++;
            rc = submit(p, x, &id, err);
        }
        if (rc || (rc = await(p, &x, err))) break;
        n_done += x->mb.b.n_tokens;
        n_sent--;
    }
    *tps = (double)load->n / clock_ms_since(start) * 1e3;
    return rc;
}

int ring_lots_run(ring_lots *l, pipeline *p, const ring_load *load, double *tps, pr_err *err)
{
    int rc = decode(l, p, load, 1, tps, err);

    if (rc) return rc;
    return load->prompt ? prompt(l, p, load, tps, err) : decode(l, p, load, load->n, tps, err);
}

int ring_lots_token(ring_lots *l, pipeline *p, size_t i, double *ms, pr_err *err)
{
    uint64_t start = clock_ns(), id = i;
    lot *x = &l->lot[0];
    int rc;

    make_decoding(l, x, 0, 1, 1);
    x->run[0].pos += i;
    if ((rc = submit(p, x, &id, err)) || (rc = await(p, &x, err))) return rc;
    *ms = clock_ms_since(start);
    return PR_OK;
}

/* --- through one device's windows
 * ---------------------------------------------------------------------------
 */
typedef struct {
    engine *e;
    bool is_head;
    size_t n_windows;
} device_alone;

static int pass(ring_lots *l, const device_alone *d, const batch *b, pr_err *err)
{
    int rc = PR_OK;

    if (d->is_head) engine_embed(d->e, b, l->hidden);
    else memcpy(l->hidden, l->incoming, b->n_tokens * l->n_embd * sizeof *l->hidden);
    for (size_t i = 0; i < d->n_windows && !rc; i++) rc = engine_window(d->e, i, b, l->hidden, err);
    if (!rc && d->is_head) rc = engine_project(d->e, l->hidden, b->out, b->n_out, err);
    return rc;
}

int ring_lots_alone(ring_lots *l, engine *e, bool is_head, size_t n_windows, const ring_load *load,
                    pr_err *err)
{
    const device_alone d = {e, is_head, n_windows};
    size_t n_lots = load->prompt ? 0 : make_all(l, load, load->in_flight, load->n);
    int rc = PR_OK;

    for (size_t i = 0; i < n_lots * load->n && !rc; i++) {
        lot *x = &l->lot[i % n_lots];
        rc = pass(l, &d, &x->mb.b, err);
        next_position(x);
    }
    for (size_t at = 0; load->prompt && at < load->n && !rc;) {
        at += make_chunk(l, &l->lot[0], at, load->n, load->chunk);
        rc = pass(l, &d, &l->lot[0].mb.b, err);
    }
    return rc;
}
