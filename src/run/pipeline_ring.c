/* The head's pipeline; see pipeline_ring.h. Micro-batches come back in the order in which they went out:
 * every link keeps the order, and every device computes in the order of arrival. */
#include "src/run/pipeline_ring.h"
#include "src/base/clock.h"
#include <stdlib.h>

#define TICK_NS 1000000000ull
enum { MAX_FRUITLESS = 20 }; /* remakes in a row between which no micro-batch came back */

typedef struct {
    pipeline base; /* first: the caller's pointer is ours */
    ring_links l;
    ring_owner owner;
    micro_batch **on_way; /* [depth] a ring buffer: the oldest at `first` */
    size_t first, n;
    int32_t *row;           /* 0, 1, 2, ... */
    uint64_t waiting_since; /* 0: not waiting */
    int fruitless;
} ring_pipe;

static int submit(pipeline *p, micro_batch *mb, pr_err *err)
{
    ring_pipe *r = (ring_pipe *)p;
    parcel *x = parcels_take(r->l.out);

    if (!x) return pr_fail(err, PR_EINTERNAL, "ring: no parcel for a micro-batch");
    mb->start_ns = clock_ns();
    engine_embed(r->l.e, &mb->b, stage_hidden(r->l.s));
    stage_note_work(r->l.s, SPAN_EMBED, mb->id, mb->b.n_tokens, mb->start_ns);
    int rc = stage_begin(r->l.s, mb->id, &mb->b, x, err);
    if (!rc) r->on_way[(r->first + r->n++) % p->depth] = mb;
    return rc;
}

/* Logits of the micro-batch that has come back. */
static int finish(ring_pipe *r, parcel *x, micro_batch **done, pr_err *err)
{
    micro_batch *mb = r->n ? r->on_way[r->first] : NULL;
    const wire_limits *l = r->l.limits;
    size_t n_out = mb ? mb->b.n_out : 0;
    int rc = PR_OK;

    if (!mb || x->f.batch != mb->id || x->f.rows != n_out ||
        (n_out && (x->f.cols != l->n_embd || x->f.elem != l->elem)))
        rc =
            pr_fail(err, PR_EPEER, "micro-batch %llu with %u rows has come back, expected %llu with %zu",
                    (unsigned long long)x->f.batch, x->f.rows, mb ? (unsigned long long)mb->id : 0ull, n_out);
    if (!rc && n_out) {
        float *hidden = stage_hidden(r->l.s);
        uint64_t start = clock_ns();
        wire_unpack(hidden, x->payload, n_out * l->n_embd, l->elem);
        rc = engine_project(r->l.e, hidden, r->row, n_out, err);
        stage_note_work(r->l.s, SPAN_LOGITS, mb->id, n_out, start);
    }
    parcel_free(x);
    if (rc) return rc;
    mb->logits = engine_logits(r->l.e, 0);
    mb->logits_stride = engine_logits_stride(r->l.e);
    mb->end_ns = clock_ns();
    r->first = (r->first + 1) % r->base.depth;
    r->n--;
    r->fruitless = 0;
    *done = mb;
    return PR_OK;
}

/* One frame, or a second without one. */
static int advance(ring_pipe *r, pipe_event *event, micro_batch **done, pr_err *err)
{
    uint64_t start = clock_ns();
    parcel *x;
    int rc = mailbox_take(r->l.in, start + TICK_NS, &x, err);

    if (!r->waiting_since) r->waiting_since = start;
    *event = PIPE_WAKE;
    if (rc || !x) return rc;
    stage_note_arrival(r->l.s, &x->f, r->waiting_since);
    r->waiting_since = 0;
    if (x->f.layer < stage_n_layers(r->l.s)) return stage_pass(r->l.s, x, err);
    *event = PIPE_DONE;
    return finish(r, x, done, err);
}

static int set_links(ring_pipe *r, pr_err *err)
{
    pipeline *p = &r->base;

    p->depth = r->l.depth;
    p->max_tokens = r->l.max_tokens;
    p->max_prefill = r->l.max_prefill;
    p->weights_bytes = r->l.weights_bytes;
    free(r->on_way);
    free(r->row);
    r->on_way = calloc(p->depth, sizeof(micro_batch *));
    r->row = calloc(r->l.limits->max_out, sizeof *r->row);
    r->first = r->n = 0;
    r->waiting_since = 0;
    if (!r->on_way || !r->row) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (uint32_t i = 0; i < r->l.limits->max_out; i++) r->row[i] = (int32_t)i;
    return PR_OK;
}

static int remake(ring_pipe *r, pipe_event *event, pr_err *err)
{
    pr_err why = *err;
    size_t depth = r->base.depth;
    int rc;

    if (++r->fruitless > MAX_FRUITLESS)
        return pr_fail(err, PR_EPEER, "the ring has broken %d times and computed nothing in between: %s",
                       r->fruitless, why.msg);
    rc = r->owner.remake(r->owner.arg, &why, &r->l, err);
    r->l.depth = depth; /* the schedule has been made for it */
    *event = PIPE_RESET;
    return rc ? rc : set_links(r, err);
}

static int next(pipeline *p, pipe_event *event, micro_batch **done, pr_err *err)
{
    ring_pipe *r = (ring_pipe *)p;
    int rc = r->owner.tick(r->owner.arg, err);

    if (!rc) rc = advance(r, event, done, err);
    return rc == PR_EPEER ? remake(r, event, err) : rc;
}

static int report(pipeline *p, pr_err *err)
{
    ring_pipe *r = (ring_pipe *)p;
    return r->owner.report(r->owner.arg, err);
}

static void free_ring(pipeline *p)
{
    ring_pipe *r = (ring_pipe *)p;

    free(r->on_way);
    free(r->row);
    free(r);
}

int pipeline_ring(pipeline **out, const ring_links *links, const ring_owner *owner, pr_err *err)
{
    static const pipeline_ops ops = {submit, next, report, free_ring};
    ring_pipe *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    r->base.ops = &ops;
    r->l = *links;
    r->owner = *owner;
    rc = set_links(r, err);
    if (rc) free_ring(&r->base);
    else *out = &r->base;
    return rc;
}
