/* Rings in one process: every device is a thread with its own engine, links are real sockets on loopback.
 * Rule 3: the logits of every token are the same bits as those of one device alone, for any number of
 * devices and rounds, micro-batches on their way, chunks of prompts and slots. */
#include "net/link.h"
#include "src/base/clock.h"
#include "src/run/pipeline_ring.h"
#include "src/run/schedule.h"
#include "tests/common/channel_pair.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 8, MAX_ROUNDS = 8, CTX = 256, N_REQUESTS = 6, N_NEW = 12 };

/* --- a ring --------------------------------------------------------------------------------------------- */
typedef struct {
    uint32_t devices, rounds;
    size_t depth, max_prefill, slots;
    enum { EVEN, LAST_EMPTY, HEAD_EMPTY } layout;
    frame_elem elem;
} setting;

typedef struct {
    layer_range window[MAX_ROUNDS];
    engine *e;
    stage *s;
    mailbox *in;
    parcels *free_in;
    channel *from, *to;
    link_in *link_in;
    link_out *link_out;
    pthread_t thread;
    pr_err end;
} device;

typedef struct {
    setting set;
    model m;
    wire_limits limits;
    device d[MAX_DEVICES];
    parcels *out;
    pipeline *pipe;
} rig;

static void must(int rc, const pr_err *err)
{
    cr_assert_eq(rc, PR_OK, "%s", err->msg);
}

/* Window j of n over the layers, nearly equal; some are empty when there are more windows than layers. */
static layer_range share(uint32_t n_layers, uint32_t j, uint32_t n, bool last_empty)
{
    uint32_t up = last_empty ? n - 1 : 0;
    return (layer_range){(j * n_layers + up) / n, ((j + 1) * n_layers + up) / n};
}

static void lay_out(rig *r)
{
    const setting *s = &r->set;
    uint32_t skip = s->layout == HEAD_EMPTY, n = s->devices - skip;

    for (uint32_t i = 0; i < s->devices; i++) {
        for (uint32_t k = 0; k < s->rounds; k++) {
            layer_range *w = &r->d[i].window[k];
            *w = (layer_range){0, 0};
            if (i >= skip)
                *w = share(r->m.hp.n_layers, k * n + i - skip, n * s->rounds, s->layout == LAST_EMPTY);
        }
    }
}

static void *serve(void *arg)
{
    device *d = arg;
    stage_serve(d->s, &d->end);
    if (d->end.code == PR_EINTERRUPTED) return NULL;
    channel_shutdown(d->to); /* the ring breaks at once, and the head says so */
    channel_shutdown(d->from);
    return NULL;
}

static void start_device(rig *r, uint32_t i)
{
    device *d = &r->d[i];
    const setting *s = &r->set;
    frame_limits fl = {.types = FRAME_BIT(FRAME_PASS) | FRAME_BIT(FRAME_WALK)};
    engine_options eo = {.n_threads = 1,
                         .n_pages = s->slots * (CTX / KV_PAGE),
                         .max_tokens = 128,
                         .max_out = i ? 0 : s->slots,
                         .window = d->window,
                         .n_windows = s->rounds,
                         .is_worker = i > 0};
    stage_options so = {.window = d->window,
                        .n_rounds = s->rounds,
                        .n_layers = r->m.hp.n_layers,
                        .rank = (uint16_t)i,
                        .previous = (uint16_t)((i + s->devices - 1) % s->devices),
                        .n_ranks = (uint16_t)s->devices,
                        .limits = r->limits,
                        .merge_tokens = 128};
    pr_err err = {0};
    char name[32];

    must(engine_new(&d->e, &r->m, &eo, &err), &err);
    so.e = d->e;
    must(stage_new(&d->s, &so, &err), &err);
    must(mailbox_new(&d->in, &err), &err);
    fl.max_payload_bytes = (uint32_t)wire_max_bytes(&r->limits);
    must(parcels_new(&d->free_in, 4, fl.max_payload_bytes, &err), &err);
    snprintf(name, sizeof name, "device %u", i);
    must(link_in_start(&d->link_in, d->from, name, &fl, d->free_in, d->in, &err), &err);
    must(link_out_start(&d->link_out, d->to, name, d->in, &err), &err);
    stage_join(d->s, 77, d->in, d->link_out);
    if (i) cr_assert_eq(pthread_create(&d->thread, NULL, serve, d), 0);
}

static int no_remake(void *arg, const pr_err *why, ring_links *links, pr_err *err)
{
    (void)arg;
    (void)links;
    return pr_fail(err, PR_EPEER, "the ring broke: %s", why->msg);
}

static int no_tick(void *arg, pr_err *err)
{
    (void)arg;
    (void)err;
    return PR_OK;
}

static void walk(rig *r)
{
    pr_err err = {0};
    parcel *x = parcels_take(r->out);

    stage_walk(r->d[0].s, x, 0);
    must(mailbox_take(r->d[0].in, sock_deadline(5), &x, &err), &err);
    cr_assert_not_null(x, "the token did not come back");
    must(stage_walk_check(r->d[0].s, x, &err), &err);
    parcel_free(x);
}

static void rig_open(rig *r, const char *path, setting s)
{
    static const ring_owner owner = {NULL, no_remake, no_tick, no_tick};
    pr_err err = {0};
    ring_links links = {.depth = s.depth, .max_tokens = 64, .max_prefill = s.max_prefill};

    *r = (rig){.set = s};
    must(model_open(&r->m, path, &err), &err);
    r->limits = (wire_limits){.n_embd = r->m.hp.n_embd,
                              .max_tokens = 64,
                              .max_runs = 64,
                              .max_out = (uint32_t)s.slots,
                              .n_pages = (uint32_t)(s.slots * (CTX / KV_PAGE)),
                              .ctx = CTX,
                              .elem = s.elem};
    lay_out(r);
    for (uint32_t i = 0; i < s.devices; i++)
        must(channel_pair(&r->d[i].to, &r->d[(i + 1) % s.devices].from, false, &err), &err);
    for (uint32_t i = 0; i < s.devices; i++) start_device(r, i);
    must(parcels_new(&r->out, s.depth, wire_max_bytes(&r->limits), &err), &err);
    walk(r);
    links.e = r->d[0].e;
    links.s = r->d[0].s;
    links.in = r->d[0].in;
    links.out = r->out;
    links.limits = &r->limits;
    must(pipeline_ring(&r->pipe, &links, &owner, &err), &err);
}

static void rig_close(rig *r)
{
    static const pr_err stop = {PR_EINTERRUPTED, "stop"};

    for (uint32_t i = 0; i < r->set.devices; i++) mailbox_break(r->d[i].in, &stop);
    for (uint32_t i = 0; i < r->set.devices; i++) {
        channel_shutdown(r->d[i].to);
        channel_shutdown(r->d[i].from);
        parcels_break(r->d[i].free_in);
    }
    for (uint32_t i = 0; i < r->set.devices; i++) {
        device *d = &r->d[i];
        if (i) pthread_join(d->thread, NULL);
        link_in_stop(d->link_in);
        link_out_stop(d->link_out);
        mailbox_delete(d->in);
    }
    for (uint32_t i = 0; i < r->set.devices; i++) {
        device *d = &r->d[i];
        channel_close(d->to);
        channel_close(d->from);
        parcels_delete(d->free_in);
        stage_free(d->s);
        engine_free(d->e);
        if (i) cr_assert_eq(d->end.code, PR_EINTERRUPTED, "device %u: %s", i, d->end.msg);
    }
    r->pipe->ops->free(r->pipe);
    parcels_delete(r->out);
    model_close(&r->m);
}

/* --- a job ------------------------------------------------------------------------------------------------
 */
/* Tokens of each request, and the bits of every row of logits on the way. */
typedef struct {
    int32_t id[N_REQUESTS][CTX];
    size_t n[N_REQUESTS];
    float *logits; /* [N_REQUESTS][N_NEW][n_vocab] */
    size_t n_vocab;
} answers;

static sequence *new_sequence(const model *m, size_t i)
{
    request r = {
        .max_tokens = N_NEW, .sampling = sample_defaults, .id = strdup("x"), .ignore_eos = true, .line = i};
    size_t n = 3 + i * 29 % 120; /* some shorter than a page, some of several chunks; two begin alike */

    for (size_t t = 0; t < n; t++)
        token_list_push(&r.tokens, 3 + (int32_t)((t * 37 + (i / 2) * 11) % (vocab_size(m->vocab) - 3)));
    sequence *s = sequence_new(&r, m->vocab, 0);
    cr_assert_not_null(s);
    return s;
}

static int32_t largest(const float *v, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) best = v[i] > v[best] ? i : best;
    return (int32_t)best;
}

static void take(answers *a, schedule *s, const micro_batch *mb)
{
    for (size_t i = 0; i < mb->b.n_out; i++) {
        sequence *seq = mb->out[i];
        size_t q = seq->req.line, k = sequence_n_completion(seq);
        const float *row = mb->logits + i * mb->logits_stride;
        memcpy(a->logits + (q * N_NEW + k) * a->n_vocab, row, a->n_vocab * sizeof *row);
        token_list_push(&seq->tokens, largest(row, a->n_vocab));
        if (k + 1 < N_NEW) continue;
        a->n[q] = seq->tokens.n;
        memcpy(a->id[q], seq->tokens.id, seq->tokens.n * sizeof *a->id[q]);
        schedule_remove(s, seq);
        sequence_free(seq);
    }
}

static answers *do_job(const model *m, pipeline *p, size_t slots)
{
    schedule *s = schedule_new(
        &(schedule_options){slots, p->depth, p->max_tokens, p->max_prefill, slots * (CTX / KV_PAGE)});
    answers *a = calloc(1, sizeof *a);
    size_t next = 0;
    micro_batch *mb;
    pr_err err = {0};

    a->n_vocab = vocab_size(m->vocab);
    a->logits = calloc(N_REQUESTS * N_NEW * a->n_vocab, sizeof *a->logits);
    for (;;) {
        pipe_event event;
        while (next < N_REQUESTS && schedule_has_room(s, CTX)) {
            sequence *seq = new_sequence(m, next++);
            must(schedule_admit(s, seq, &err), &err);
        }
        while ((mb = schedule_next(s))) must(p->ops->submit(p, mb, &err), &err);
        if (!schedule_in_flight(s)) break;
        must(p->ops->next(p, &event, &mb, &err), &err);
        if (event != PIPE_DONE) continue;
        take(a, s, mb);
        schedule_done(s, mb);
    }
    cr_assert_eq(next, N_REQUESTS);
    schedule_free(s);
    return a;
}

static void answers_free(answers *a)
{
    free(a->logits);
    free(a);
}

static answers *alone(const char *path)
{
    model m;
    engine *e;
    pipeline *p;
    pr_err err = {0};
    engine_options eo = {.n_threads = 1, .n_pages = CTX / KV_PAGE, .max_tokens = 128, .max_out = 1};

    must(model_open(&m, path, &err), &err);
    must(engine_new(&e, &m, &eo, &err), &err);
    must(pipeline_local(&p, e, 128, NULL, clock_ns(), &err), &err);
    answers *a = do_job(&m, p, 1);
    p->ops->free(p);
    engine_free(e);
    model_close(&m);
    return a;
}

static void same_bits(const answers *a, const answers *b, const setting *s)
{
    for (size_t q = 0; q < N_REQUESTS; q++)
        for (size_t k = 0; k < N_NEW; k++) {
            size_t at = (q * N_NEW + k) * a->n_vocab;
            cr_assert(memcmp(a->logits + at, b->logits + at, a->n_vocab * sizeof *a->logits) == 0,
                      "%u devices, %u rounds, %zu on their way, chunks of %zu, %zu slots, layout %d: request "
                      "%zu, token %zu differs",
                      s->devices, s->rounds, s->depth, s->max_prefill, s->slots, s->layout, q, k);
        }
}

static void try_settings(const char *path)
{
    static const setting sets[] = {
        {2, 1, 1, 64, 1, EVEN, FRAME_F32},       {2, 1, 3, 16, 4, EVEN, FRAME_F32},
        {3, 2, 4, 64, 6, EVEN, FRAME_F32},       {4, 3, 5, 7, 3, EVEN, FRAME_F32},
        {6, 5, 8, 33, 6, EVEN, FRAME_F32},       {1, 3, 2, 64, 4, EVEN, FRAME_F32},
        {3, 3, 4, 16, 4, LAST_EMPTY, FRAME_F32}, {2, 2, 3, 64, 6, HEAD_EMPTY, FRAME_F32},
        {3, 1, 3, 64, 2, HEAD_EMPTY, FRAME_F32},
    };
    answers *want = alone(path);

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        rig r;
        rig_open(&r, path, sets[i]);
        answers *got = do_job(&r.m, r.pipe, sets[i].slots);
        rig_close(&r);
        same_bits(want, got, &sets[i]);
        answers_free(got);
    }
    answers_free(want);
}

Test(ring, demo_model_gives_the_same_bits, .timeout = 60)
{
    try_settings("datasets/demo/demo.gguf");
}

Test(ring, stories260k_gives_the_same_bits, .timeout = 60)
{
    try_settings(test_data("models/stories260K.gguf"));
}
