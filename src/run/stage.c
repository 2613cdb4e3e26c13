/* A device's turn; see stage.h. One thread computes; others may read the counts. */
#include "src/run/stage.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MERGED = 16 };
#define WAITED_NS 1000 /* a shorter wait was none: the frame was there */

/* Frames that are computed together. */
typedef struct {
    size_t n, n_tokens;
    parcel *x[MAX_MERGED];
    wire_batch *w[MAX_MERGED];
} group;

struct stage {
    stage_options o;
    uint64_t session;
    mailbox *in;
    link_out *next;
    float *hidden;
    batch_run *run; /* of a merged batch */
    wire_batch w[MAX_MERGED];
    pthread_mutex_t mutex; /* of counts and spans */
    stage_counts counts;
    span_log spans; /* spans.s NULL: not wanted */
};

/* The mutex is held. */
static void keep_span(stage *s, span x, uint64_t start_ns, uint64_t end_ns)
{
    if (!s->spans.s) return;
    x.start_ns = start_ns;
    x.end_ns = end_ns;
    span_log_add(&s->spans, &x);
}

static void note_read(void *arg, uint64_t start_ns, uint64_t end_ns, size_t bytes)
{
    stage *s = arg;

    pthread_mutex_lock(&s->mutex);
    keep_span(s, (span){.kind = SPAN_READ, .more = bytes}, start_ns, end_ns);
    pthread_mutex_unlock(&s->mutex);
}

int stage_new(stage **out, const stage_options *o, pr_err *err)
{
    stage *s = calloc(1, sizeof *s);
    int rc = PR_OK;

    if (!s) return pr_fail(err, PR_ERESOURCE, "out of memory");
    s->o = *o;
    s->counts.since_ns = clock_ns();
    if (o->e) s->counts.gpu_bytes = engine_about(o->e).gpu.total;
    pthread_mutex_init(&s->mutex, NULL);
    s->hidden = mem_alloc_aligned(o->merge_tokens * o->limits.n_embd * sizeof(float));
    s->run = calloc((size_t)MAX_MERGED * o->limits.max_runs, sizeof *s->run);
    if (!s->hidden || !s->run) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!rc && o->trace) rc = span_log_init(&s->spans, SPAN_LOG_CAP, err);
    if (!rc && o->trace && engine_residency(o->e)) residency_watch(engine_residency(o->e), note_read, s);
    for (size_t i = 0; i < MAX_MERGED && !rc; i++) rc = wire_batch_init(&s->w[i], &o->limits, err);
    if (rc) stage_free(s);
    else *out = s;
    return rc;
}

void stage_free(stage *s)
{
    if (!s) return;
    if (s->spans.s && engine_residency(s->o.e)) residency_watch(engine_residency(s->o.e), NULL, NULL);
    for (size_t i = 0; i < MAX_MERGED; i++) wire_batch_clear(&s->w[i]);
    mem_free_aligned(s->hidden);
    free(s->run);
    span_log_clear(&s->spans);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

void stage_join(stage *s, uint64_t session, mailbox *in, link_out *next)
{
    s->session = session;
    s->in = in;
    s->next = next;
}

float *stage_hidden(stage *s)
{
    return s->hidden;
}

stage_counts stage_about(stage *s)
{
    pthread_mutex_lock(&s->mutex);
    stage_counts c = s->counts;
    pthread_mutex_unlock(&s->mutex);
    if (engine_residency(s->o.e)) {
        residency_counts r = residency_about(engine_residency(s->o.e));
        c.disk_busy_ms = r.busy_s * 1e3;
        c.disk_bytes = r.stream.read_bytes;
    }
    return c;
}

/* --- frames ------------------------------------------------------------------------------------------ */
/* The layer that must come next when a frame of this round arrives: where the window before ended. A device
 * without layers in a round takes what comes. */
static bool is_next_layer(const stage *s, uint32_t round, uint32_t layer)
{
    const layer_range *w = &s->o.window[round];
    return layer < s->o.n_layers && (w->first == w->end || w->first == layer);
}

/* A ring that is out of step is found here, at the first frame. */
static int check(const stage *s, const frame *f, pr_err *err)
{
    if (f->session != s->session || f->rank != s->o.previous)
        return pr_fail(err, PR_EPEER, "a frame of ring %llu from rank %u, expected ring %llu and rank %u",
                       (unsigned long long)f->session, f->rank, (unsigned long long)s->session,
                       s->o.previous);
    if (f->round >= s->o.n_rounds || !is_next_layer(s, f->round, f->layer))
        return pr_fail(err, PR_EPEER, "a frame of round %u and layer %u does not follow the plan", f->round,
                       f->layer);
    return PR_OK;
}

typedef struct {
    uint32_t round, layer;
    size_t room;
} wanted;

static bool is_wanted(const void *arg, const parcel *x)
{
    const wanted *w = arg;
    return x->f.type == FRAME_PASS && x->f.round == w->round && x->f.layer == w->layer &&
           x->f.rows <= w->room;
}

static int add_parcel(stage *s, group *g, parcel *x, pr_err *err)
{
    wire_batch *w = &s->w[g->n];
    int rc = check(s, &x->f, err);

    if (!rc) rc = wire_read(w, &s->o.limits, x, err);
    g->x[g->n] = x;
    g->w[g->n++] = w;
    g->n_tokens += w->b.n_tokens;
    return rc;
}

/* --- computing --------------------------------------------------------------------------------------- */
/* Of a micro-batch that begins here (g NULL), or of those that came and are computed together. */
static span span_of_window(const stage *s, uint32_t round, const group *g, uint64_t id, const batch *b)
{
    layer_range w = s->o.window[round];
    span x = {.kind = SPAN_WINDOW,
              .batch = g ? g->x[0]->f.batch : id,
              .tokens = (uint32_t)b->n_tokens,
              .round = round,
              .first = w.first,
              .end = w.end};

    for (size_t i = 1; g && i < g->n; i++) {
        uint64_t behind = g->x[i]->f.batch - x.batch - 1;
        if (behind < SPAN_MORE_BITS) x.more |= (uint64_t)1 << behind;
    }
    return x;
}

static void note_pass(stage *s, uint32_t round, const group *g, uint64_t id, const batch *b,
                      uint64_t start_ns, double stalled_ms)
{
    uint64_t end_ns = clock_ns();

    pthread_mutex_lock(&s->mutex);
    s->counts.passes++;
    s->counts.tokens += b->n_tokens;
    for (size_t i = 0; i < b->n_runs; i++) s->counts.prefill_tokens += b->run[i].n > 1 ? b->run[i].n : 0;
    if (g && g->n > 1) s->counts.merged += g->n;
    s->counts.layer = s->o.window[round].end;
    s->counts.disk_wait_ms += stalled_ms;
    s->counts.compute_ms += (double)(end_ns - start_ns) / 1e6 - stalled_ms;
    s->counts.gpu_ms = engine_gpu_busy_ms(s->o.e);
    if (s->spans.s) keep_span(s, span_of_window(s, round, g, id, b), start_ns, end_ns);
    pthread_mutex_unlock(&s->mutex);
}

void stage_note_work(stage *s, span_kind kind, uint64_t id, size_t n_tokens, uint64_t since_ns)
{
    uint64_t now = clock_ns();

    pthread_mutex_lock(&s->mutex);
    s->counts.compute_ms += (double)(now - since_ns) / 1e6;
    s->counts.gpu_ms = engine_gpu_busy_ms(s->o.e);
    keep_span(s, (span){.kind = kind, .batch = id, .tokens = (uint32_t)n_tokens}, since_ns, now);
    pthread_mutex_unlock(&s->mutex);
}

static span span_of_frame(span_kind kind, const frame *f)
{
    return (span){.kind = kind, .batch = f->batch, .tokens = f->rows, .round = f->round};
}

void stage_note_arrival(stage *s, const frame *f, uint64_t since_ns)
{
    uint64_t now = clock_ns();

    pthread_mutex_lock(&s->mutex);
    s->counts.batch = f->batch;
    s->counts.layer = f->layer;
    s->counts.wait_ms += (double)(now - since_ns) / 1e6;
    if (now - since_ns >= WAITED_NS) keep_span(s, span_of_frame(SPAN_WAIT, f), since_ns, now);
    pthread_mutex_unlock(&s->mutex);
}

void stage_note_sent(void *arg, const frame *f, uint64_t start_ns, uint64_t end_ns)
{
    stage *s = arg;

    if (f->type != FRAME_PASS) return;
    pthread_mutex_lock(&s->mutex);
    keep_span(s, span_of_frame(SPAN_SEND, f), start_ns, end_ns);
    pthread_mutex_unlock(&s->mutex);
}

size_t stage_take_spans(stage *s, span *out, size_t max, uint64_t *dropped)
{
    size_t n = 0;

    *dropped = 0;
    pthread_mutex_lock(&s->mutex);
    if (s->spans.s) n = span_log_take(&s->spans, out, max, dropped);
    pthread_mutex_unlock(&s->mutex);
    return n;
}

uint32_t stage_n_layers(const stage *s)
{
    return s->o.n_layers;
}

static double stall_ms(const stage *s)
{
    return engine_residency(s->o.e) ? residency_about(engine_residency(s->o.e)).stream.stall_ms : 0;
}

/* g NULL: micro-batch `id` begins here. */
static int compute(stage *s, uint32_t round, const group *g, uint64_t id, const batch *b, float *hidden,
                   pr_err *err)
{
    uint64_t start = clock_ns();
    double stalled = stall_ms(s);
    int rc = engine_window(s->o.e, round, b, hidden, err);

    if (!rc) note_pass(s, round, g, id, b, start, stall_ms(s) - stalled);
    return rc;
}

/* One frame of floats is computed where it is; others side by side in s->hidden. */
static float *gather(stage *s, const group *g, batch *b)
{
    size_t at = 0;

    if (g->n == 1) {
        *b = g->w[0]->b;
        if (s->o.limits.elem == FRAME_F32) return (float *)(void *)g->x[0]->payload;
        wire_unpack(s->hidden, g->x[0]->payload, b->n_tokens * s->o.limits.n_embd, s->o.limits.elem);
        return s->hidden;
    }
    *b = (batch){.n_tokens = g->n_tokens, .run = s->run};
    for (size_t i = 0; i < g->n; i++) {
        const batch *from = &g->w[i]->b;
        for (size_t r = 0; r < from->n_runs; r++) {
            s->run[b->n_runs] = from->run[r];
            s->run[b->n_runs++].first += at;
        }
        wire_unpack(s->hidden + at * s->o.limits.n_embd, g->x[i]->payload,
                    from->n_tokens * s->o.limits.n_embd, s->o.limits.elem);
        at += from->n_tokens;
    }
    return s->hidden;
}

/* Behind the last layer only the rows whose logits are wanted travel. They are ascending, so that moving them
 * to the front overwrites none that is still needed. */
static size_t keep_wanted(const batch *b, float *hidden, size_t n_embd)
{
    for (size_t i = 0; i < b->n_out; i++)
        memmove(hidden + i * n_embd, hidden + (size_t)b->out[i] * n_embd, n_embd * sizeof *hidden);
    return b->n_out;
}

/* x, computed in `hidden`, goes to the next device. */
static void hand_on(stage *s, parcel *x, const batch *b, float *hidden, uint32_t round, uint32_t layer)
{
    const wire_limits *l = &s->o.limits;
    size_t rows = b->n_tokens;

    if (layer == s->o.n_layers) wire_write_last(x, l, rows = keep_wanted(b, hidden, l->n_embd));
    wire_pack(x->payload, hidden, rows * l->n_embd, l->elem);
    x->f.rank = s->o.rank;
    x->f.round = s->o.rank + 1 == s->o.n_ranks ? round + 1 : round;
    x->f.layer = layer;
    link_out_send(s->next, x);
}

/* Done already: a device without layers in the last round only passes it on. */
static void pass_by(stage *s, parcel *x)
{
    x->f.rank = s->o.rank;
    x->f.round += s->o.rank + 1 == s->o.n_ranks;
    link_out_send(s->next, x);
}

int stage_pass(stage *s, parcel *first, pr_err *err)
{
    uint32_t round = first->f.round, layer = first->f.layer;
    group g = {0};
    batch b;
    wanted w;
    int rc;

    if (layer == s->o.n_layers && s->o.rank > 0) {
        pass_by(s, first);
        return PR_OK;
    }
    rc = add_parcel(s, &g, first, err);
    w = (wanted){round, layer, s->o.merge_tokens - g.n_tokens};
    for (parcel *x; !rc && g.n < MAX_MERGED && (x = mailbox_take_if(s->in, is_wanted, &w));
         w.room = s->o.merge_tokens - g.n_tokens)
        rc = add_parcel(s, &g, x, err);
    float *hidden = rc ? NULL : gather(s, &g, &b);
    if (!rc && s->o.window[round].first < s->o.window[round].end) {
        rc = compute(s, round, &g, 0, &b, hidden, err);
        layer = s->o.window[round].end;
    }
    if (rc) {
        for (size_t i = 0; i < g.n; i++) parcel_free(g.x[i]);
        return rc;
    }
    for (size_t i = 0; i < g.n; i++) {
        size_t n = g.w[i]->b.n_tokens * s->o.limits.n_embd;
        hand_on(s, g.x[i], &g.w[i]->b, hidden, round, layer);
        hidden += n;
    }
    return PR_OK;
}

int stage_begin(stage *s, uint64_t id, const batch *b, parcel *x, pr_err *err)
{
    uint32_t layer = s->o.window[0].end;
    int rc = s->o.window[0].first < layer ? compute(s, 0, NULL, id, b, s->hidden, err) : PR_OK;

    if (rc) {
        parcel_free(x);
        return rc;
    }
    x->f = (frame){.type = FRAME_PASS, .session = s->session, .batch = id};
    wire_write(x, &s->o.limits, b);
    hand_on(s, x, b, s->hidden, 0, layer);
    return PR_OK;
}

/* --- the walk --------------------------------------------------------------------------------------------
 */
size_t stage_walk_bytes(size_t n_ranks, size_t n_rounds)
{
    return n_ranks * n_rounds * sizeof(walk_step);
}

static uint32_t matrix_bytes(const frame *f)
{
    return frame_matrix_bytes(f->elem, f->rows, f->cols);
}

static void begin_walk(const stage *s, parcel *x, uint32_t rows)
{
    x->f = (frame){.type = FRAME_WALK, .session = s->session};
    if (!rows) return;
    x->f.rows = rows;
    x->f.cols = s->o.limits.n_embd;
    x->f.elem = (uint16_t)s->o.limits.elem;
    memset(x->payload, 0, matrix_bytes(&x->f));
}

void stage_walk(stage *s, parcel *x, uint32_t rows)
{
    uint32_t at;

    if (s->o.rank == 0) begin_walk(s, x, rows);
    at = matrix_bytes(&x->f);
    for (uint32_t r = 0; r < s->o.n_rounds; r++) {
        walk_step step = {s->o.rank, r, s->o.window[r].first, s->o.window[r].end};
        memcpy(x->payload + at + x->f.extra, &step, sizeof step);
        x->f.extra += sizeof step;
    }
    x->f.payload_bytes = at + x->f.extra;
    x->f.rank = s->o.rank;
    link_out_send(s->next, x);
}

int stage_walk_check(const stage *s, const parcel *x, pr_err *err)
{
    const uint8_t *steps = x->payload + matrix_bytes(&x->f);
    uint32_t next = 0;

    if (x->f.extra != stage_walk_bytes(s->o.n_ranks, s->o.n_rounds))
        return pr_fail(err, PR_EMISMATCH, "the token came back with %zu windows, expected %u of %u devices",
                       x->f.extra / sizeof(walk_step), s->o.n_rounds, s->o.n_ranks);
    for (uint32_t r = 0; r < s->o.n_rounds; r++) {
        for (uint32_t rank = 0; rank < s->o.n_ranks; rank++) {
            walk_step w;
            memcpy(&w, steps + (rank * s->o.n_rounds + r) * sizeof w, sizeof w);
            if (w.rank != rank || w.round != r || w.first > w.end || (w.first < w.end && w.first != next))
                return pr_fail(
                    err, PR_EMISMATCH,
                    "rank %u in round %u: layers %u to %u of rank %u, expected to go on at layer %u", rank, r,
                    w.first, w.end, w.rank, next);
            if (w.first < w.end) next = w.end;
        }
    }
    if (next == s->o.n_layers) return PR_OK;
    return pr_fail(err, PR_EMISMATCH, "the ring has layers 0 to %u of %u", next, s->o.n_layers);
}

/* What comes in is as long as the devices before us make it: ours still fits. */
static int check_walk(const stage *s, parcel *x, pr_err *err)
{
    if (x->f.session == s->session && x->f.rank == s->o.previous &&
        matrix_bytes(&x->f) <=
            frame_matrix_bytes((uint16_t)s->o.limits.elem, s->o.limits.max_tokens, s->o.limits.n_embd) &&
        x->f.extra == stage_walk_bytes(s->o.rank, s->o.n_rounds))
        return PR_OK;
    parcel_free(x);
    return pr_fail(err, PR_EPEER, "a token that did not come the way of the plan");
}

/* --- a worker ------------------------------------------------------------------------------------------ */
int stage_serve(stage *s, pr_err *err)
{
    for (;;) {
        uint64_t start = clock_ns();
        parcel *x;
        int rc = mailbox_take(s->in, SOCK_NO_DEADLINE, &x, err);

        if (rc) return rc;
        if (!x) continue;
        if (x->f.type == FRAME_WALK) {
            if ((rc = check_walk(s, x, err))) return rc;
            stage_walk(s, x, 0);
            continue;
        }
        stage_note_arrival(s, &x->f, start);
        if ((rc = stage_pass(s, x, err))) return rc;
    }
}
