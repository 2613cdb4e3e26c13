/* The event-by-event simulator.
 *
 * Each device has one compute resource, one disk and one link. Micro-batches walk the ring: k windows on
 * every device that has layers, then the output projection at the head, then the next pass. A device serves
 * frames in a fixed order (round by round, micro-batch by micro-batch), which is also the order in which
 * links deliver them. A link holds two frames that the next device has not yet taken; a device with a third
 * one waits.
 *
 * In a window a device has its GPU layers first, then its CPU pieces, resident and streamed ones in turn. The
 * disk reads without pause, in the order of use, while the buffer has room, at theta of its rate while the
 * device computes. A piece is computed when all of it is there, and its place is free when it has been
 * computed. Every micro-batch and every chunk reads for itself. All pieces are equally large, so the order of
 * reading needs no names: a count of pieces that are ready is enough. What a device does in a window concerns
 * nobody else before its end, so it is played at once (simulate_window.c), and only its end is an event.
 *
 * A prompt goes first, alone, in chunks, each of which takes the place of a micro-batch: of those in the ring
 * at a time a device serves one round, then the next round. Only after the last chunk is there an output
 * projection, and then decode begins.
 *
 * What moves is kept in two clocks a device (compute, link) in a heap; a clock that is changed moves in the
 * heap, so there are no stale events. A pass that ends as it began ends the play (simulate_steady.c). The
 * disk of a device that does not compute is accounted for when its next job begins.
 *
 * Where it differs from problem.c, and why. The formula is a lower bound; test_simulate.c prints how many of
 * 200 random plans (195) and of 200 best plans of dp.c (189) agree within 5 %, and why the others do not. The
 * solver goes where the formula is too kind.
 *  - Uneven windows: all of these 16. With k that does not divide a device's layers its windows differ by
 *    a layer; with more rounds than CPU layers they come at uneven intervals. Before a late window a full
 *    buffer lets the disk rest that has too little time for an early one; the formula has disks work all
 *    the time. With every layer cut into k, which makes all windows equal, all agree.
 *  - Two limits that nearly bind, the sum and a disk or two disks, are met at different times: the 5 of
 *    200 best plans that differ with four micro-batches in flight.
 *  - The head's disk has theta also during the output projection.
 *  - Without pieces (problem.pieces 0) the formula hides reading under all of a device's compute, here
 *    only under that between the use of a window's first streamed piece and the need of its last.
 *  - Prompts (ttft.c): of 200 random plans 187 agree, the others take longer here. Only so many chunks are
 *    in the ring as devices and two, too few to hide slow links over many rounds; and a device waits for
 *    its disk in one chunk although it has time in another. A last, shorter chunk takes less. */
#include "planner/simulate_impl.h"
#include <math.h>

/* --- the heap: all clocks, the earliest first; equal times in the order of devices ------------------ */
static bool earlier(const sim *s, size_t a, size_t b)
{
    if (s->clock[a] != s->clock[b]) return s->clock[a] < s->clock[b];
    return a < b;
}

static void put(sim *s, size_t at, size_t id)
{
    s->heap[at] = id;
    s->place[id] = at;
}

static void set_clock(sim *s, const node *n, clock_kind kind, double at)
{
    size_t id = (size_t)(n - s->node) * N_CLOCKS + kind, i = s->place[id];
    size_t n_ids = s->n_nodes * N_CLOCKS;

    s->clock[id] = at;
    for (; i > 0 && earlier(s, id, s->heap[(i - 1) / 2]); i = (i - 1) / 2) put(s, i, s->heap[(i - 1) / 2]);
    for (size_t child; (child = 2 * i + 1) < n_ids; i = child) {
        if (child + 1 < n_ids && earlier(s, s->heap[child + 1], s->heap[child])) child++;
        if (!earlier(s, s->heap[child], id)) break;
        put(s, i, s->heap[child]);
    }
    put(s, i, id);
}

/* --- compute ----------------------------------------------------------------------------------------- */
static double took(const node *n, double now, compute_state state)
{
    return n->state == state ? now - n->since : 0;
}

/* From one state to another; a job's own times are known when it began. */
static void become(sim *s, node *n, compute_state state)
{
    if (n->state == SEND_WAIT) trace_span(s, n, LANE_COMPUTE, "wait for link", n->since, s->now);
    n->sum.idle_ms += took(n, s->now, IDLE);
    n->sum.send_wait_ms += took(n, s->now, SEND_WAIT);
    if (n->state == BUSY) {
        n->sum.busy_ms += n->busy_ms;
        n->sum.disk_wait_ms += n->wait_ms;
        set_clock(s, n, COMPUTE, INFINITY);
    }
    n->since = s->now;
    n->state = state;
}

/* What takes decode_ms for a micro-batch takes this for batch b: a chunk of a prompt has its own figure, of
 * which a last, shorter chunk takes its share, but never less than a decode pass. */
static double batch_ms(const sim *s, const micro_batch *b, double prefill_ms, double decode_ms)
{
    uint32_t first = b->chunk * s->p->prefill_tokens, tokens;

    if (!s->prefill) return decode_ms;
    tokens = s->o->prompt_tokens - first;
    if (tokens >= s->p->prefill_tokens) return prefill_ms;
    return fmax(prefill_ms * tokens / s->p->prefill_tokens, decode_ms);
}

static bool is_spent(const sim *s, const micro_batch *b)
{
    return s->prefill && b->chunk >= s->n_chunks;
}

static bool wants_output(const sim *s, const micro_batch *b)
{
    return b->is_back && (!s->prefill || b->chunk + 1 == s->n_chunks);
}

static void hand_on(sim *s, node *n);
static void try_start(sim *s, node *n);

static double play_output(sim *s, node *n)
{
    double until = s->now + n->d->out_ms;

    n->busy_ms = n->d->out_ms;
    n->wait_ms = 0;
    disk_advance(s, n, until, n->d->theta);
    trace_span(s, n, LANE_COMPUTE, busy_name(s), s->now, until);
    return until;
}

static double play_window(sim *s, node *n, const micro_batch *b)
{
    const sim_window *w = &n->window[b->round];
    double piece_ms = batch_ms(s, b, n->d->prefill_cpu_ms, n->d->cpu_ms) / s->pieces, gpu_ms = 0;

    if (w->gpu_layers) gpu_ms = w->gpu_layers * batch_ms(s, b, n->d->prefill_gpu_ms, n->d->gpu_ms);
    return window_play(s, n, w, gpu_ms, piece_ms);
}

/* Go on with the job of n; its steps end at times that depend on nobody else. */
static void run_job(sim *s, node *n)
{
    const micro_batch *b = &s->batch[n->batch];

    for (; n->step < JOB_DONE; n->step++) {
        bool wanted = n->step == JOB_OUTPUT ? wants_output(s, b) : n->active && !is_spent(s, b);
        if (!wanted) continue;
        become(s, n, BUSY);
        disk_advance(s, n, s->now, 1);
        n->read_before = n->read_bytes;
        n->until = n->step == JOB_OUTPUT ? play_output(s, n) : play_window(s, n, b);
        set_clock(s, n, COMPUTE, n->until);
        return;
    }
    hand_on(s, n);
}

void take_totals(sim *s, node *n, totals *t)
{
    double length = n->until - n->since, share = length > 0 ? (s->now - n->since) / length : 1;

    *t = n->sum;
    t->idle_ms += took(n, s->now, IDLE);
    t->send_wait_ms += took(n, s->now, SEND_WAIT);
    if (n->state == BUSY) {
        t->busy_ms += share * n->busy_ms;
        t->disk_wait_ms += share * n->wait_ms;
        t->read_bytes = n->read_before + share * (n->read_bytes - n->read_before);
    } else {
        disk_advance(s, n, s->now, 1);
        t->read_bytes = n->read_bytes;
    }
}

/* The head has the hidden state after the last round: the place takes the next pass or chunk. */
static void next_pass(const sim *s, micro_batch *b)
{
    b->is_back = false;
    if (s->prefill) b->chunk += s->n_batches;
}

/* What is left to play is like the last pass; report() adds it. */
static void end_here(sim *s)
{
    s->n_left = s->n_total - s->n_done;
    if (s->n_done >= s->n_warm) return;
    s->n_warm = s->n_done - s->n_batches;
    s->warm_ms = s->last_ms;
    for (size_t i = 0; i < s->n_nodes; i++) s->node[i].at_warm = s->node[i].at_last;
}

static void output_made(sim *s)
{
    if (s->prefill) {
        s->ttft_ms = s->now;
        return;
    }
    if (s->n_done++ == 0) s->first_ms = s->now - s->decode_began_ms;
    if (s->n_done == s->n_warm) {
        s->warm_ms = s->now;
        for (size_t i = 0; i < s->n_nodes; i++) take_totals(s, &s->node[i], &s->node[i].at_warm);
    }
    if (!s->o->trace && s->n_done % s->n_batches == 0 && steady_since_last(s)) end_here(s);
}

static void on_compute(sim *s, node *n)
{
    micro_batch *b = &s->batch[n->batch];

    if (n->step == JOB_OUTPUT) {
        output_made(s);
        if (s->n_done + s->n_left == s->n_total) return; /* the end: what it would go on with is nobody's */
        next_pass(s, b);
    }
    n->step++;
    run_job(s, n);
}

/* --- links ------------------------------------------------------------------------------------------- */
/* Where the micro-batch goes from device n; steps its round. */
static int destination(const sim *s, micro_batch *b, const node *n)
{
    if (!n->active) return s->first;
    if (n - s->node != s->last) return n->next;
    if (++b->round < s->rounds) return s->first;
    b->round = 0;
    b->is_back = true;
    return 0;
}

/* What goes back to the head is one token's hidden state a sequence, also of a chunk. */
static double hop_ms(const sim *s, const node *n, uint32_t batch)
{
    const micro_batch *b = &s->batch[batch];

    return b->is_back ? n->d->hop_ms : batch_ms(s, b, n->d->prefill_hop_ms, n->d->hop_ms);
}

static void link_send(sim *s, node *n, uint32_t batch)
{
    s->batch[batch].sender = (int)(n - s->node);
    n->credit_used++;
    n->link_batch[n->on_link++] = batch;
    if (n->on_link == 1) set_clock(s, n, LINK, s->now + hop_ms(s, n, batch));
}

static void on_link(sim *s, node *n)
{
    uint32_t batch = n->link_batch[0];
    node *to = &s->node[s->batch[batch].to];
    double took_ms = hop_ms(s, n, batch);

    trace_span(s, n, LANE_LINK, "send", s->now - took_ms, s->now);
    n->sum.send_ms += took_ms;
    n->link_batch[0] = n->link_batch[1];
    n->on_link--;
    set_clock(s, n, LINK, n->on_link ? s->now + hop_ms(s, n, n->link_batch[0]) : INFINITY);
    to->inbox[batch] = true;
    try_start(s, to);
}

static void begin_decode(sim *s);

/* The job of n is done: its micro-batch goes to the next device, at once or when the link has room. */
static void hand_on(sim *s, node *n)
{
    micro_batch *b = &s->batch[n->batch];

    if (is_spent(s, b)) {
        become(s, n, IDLE);
        if (b->chunk == s->n_chunks - 1 + s->n_batches) begin_decode(s); /* it was the last one */
        else try_start(s, n);
        return;
    }
    b->to = destination(s, b, n);
    if (b->to == n - s->node) {
        b->sender = NOBODY;
        n->inbox[n->batch] = true;
    } else if (n->credit_used < LINK_FRAMES) {
        link_send(s, n, n->batch);
    } else {
        become(s, n, SEND_WAIT);
        return;
    }
    become(s, n, IDLE);
    try_start(s, n);
}

static void give_credit(sim *s, int sender)
{
    node *n = &s->node[sender];

    n->credit_used--;
    if (n->state != SEND_WAIT) return;
    link_send(s, n, n->batch);
    become(s, n, IDLE);
    try_start(s, n);
}

/* --- whose frame is next: by passes, rounds, places -------------------------------------------------- */
static uint32_t chunks_in(const sim *s, uint64_t pass)
{
    uint64_t before = pass * s->n_batches;

    if (before >= s->n_chunks) return 0;
    return s->n_chunks - before < s->n_batches ? (uint32_t)(s->n_chunks - before) : s->n_batches;
}

/* How many frames n serves in the round it is at. In its first one the head also takes back those of the pass
 * before. */
static uint32_t n_slots(const sim *s, const node *n)
{
    if (!s->prefill) return s->n_batches;
    return chunks_in(s, n == s->node && n->round == 0 && n->pass > 0 ? n->pass - 1 : n->pass);
}

static void step_slot(const sim *s, node *n)
{
    if (++n->slot < n_slots(s, n)) return;
    n->slot = 0;
    if (n->active && ++n->round < s->rounds) return;
    n->round = 0;
    n->pass++;
}

/* Take the next frame in order if it is there. */
static void try_start(sim *s, node *n)
{
    micro_batch *b = &s->batch[n->slot];
    int sender = b->sender;

    if (n->state != IDLE || !n->inbox[n->slot]) return;
    n->inbox[n->slot] = false;
    n->batch = n->slot;
    n->step = JOB_OUTPUT;
    step_slot(s, n);
    if (b->is_back && !wants_output(s, b)) next_pass(s, b);
    run_job(s, n);
    if (sender != NOBODY) give_credit(s, sender);
}

/* --- running ----------------------------------------------------------------------------------------- */
/* In an idle ring the disks have read until the buffers were full. */
static void fill_buffers(sim *s)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        node *n = &s->node[i];
        n->ready = (uint32_t)(n->free_bytes / s->piece_bytes + 1e-9);
        n->free_bytes = fmax(0, n->free_bytes - n->ready * s->piece_bytes);
    }
}

/* All micro-batches, or the places of the chunks, stand at the head. */
static void begin(sim *s, uint32_t n_batches)
{
    s->n_batches = n_batches;
    for (size_t i = 0; i < s->n_nodes; i++) {
        node *n = &s->node[i];
        n->pass = 0;
        n->round = n->slot = 0;
    }
    for (uint32_t j = 0; j < n_batches; j++) {
        s->batch[j] = (micro_batch){.chunk = j, .sender = NOBODY};
        s->node[0].inbox[j] = true;
    }
    try_start(s, &s->node[0]);
}

static void begin_decode(sim *s)
{
    s->prefill = false;
    s->decode_began_ms = s->now;
    begin(s, s->batches_in_flight);
}

static int play(sim *s, pr_err *err)
{
    static void (*const handler[N_CLOCKS])(sim *, node *) = {on_compute, on_link};

    fill_buffers(s);
    s->prefill = s->n_chunks > 0;
    if (s->prefill) begin(s, s->chunks_in_flight);
    else begin_decode(s);
    for (; s->n_done + s->n_left < s->n_total; s->n_events++) {
        size_t id = s->heap[0];
        if (isinf(s->clock[id]))
            return pr_fail(err, PR_EINTERNAL, "simulate: the ring stands still after %.3f ms", s->now);
        s->now = s->clock[id];
        handler[id % N_CLOCKS](s, &s->node[id / N_CLOCKS]);
    }
    return PR_OK;
}

/* A pass on average, of what grew from `warm` by way of `last` to `now`. */
static double per_pass(const sim *s, double warm, double last, double now)
{
    double left = (double)s->n_left / s->n_batches;
    return (now - warm + left * (now - last)) / (double)(s->n_total - s->n_warm);
}

static void report_device(sim *s, node *n, sim_device *d)
{
    const totals *warm = &n->at_warm, *last = &n->at_last;
    totals now;

    take_totals(s, n, &now);
    d->busy_ms = per_pass(s, warm->busy_ms, last->busy_ms, now.busy_ms);
    d->disk_wait_ms = per_pass(s, warm->disk_wait_ms, last->disk_wait_ms, now.disk_wait_ms);
    d->send_wait_ms = per_pass(s, warm->send_wait_ms, last->send_wait_ms, now.send_wait_ms);
    d->idle_ms = per_pass(s, warm->idle_ms, last->idle_ms, now.idle_ms);
    d->send_ms = per_pass(s, warm->send_ms, last->send_ms, now.send_ms);
    d->read_bytes = per_pass(s, warm->read_bytes, last->read_bytes, now.read_bytes);
    if (d->read_bytes > 0) d->disk_busy_ms = d->read_bytes / n->d->disk_bytes_per_ms;
}

static void report(sim *s, sim_result *r)
{
    *r = (sim_result){.pass_ms = per_pass(s, s->warm_ms, s->last_ms, s->now),
                      .first_ms = s->first_ms,
                      .ttft_ms = s->ttft_ms,
                      .in_flight = s->n_batches,
                      .n_events = s->n_events,
                      .n_devices = s->n_nodes};
    if (s->n_chunks) r->prefill_tps = s->o->prompt_tokens / s->ttft_ms * 1e3;
    for (size_t i = 0; i < s->n_nodes; i++) report_device(s, &s->node[i], &r->device[i]);
}

int simulate(const problem *p, const assignment *a, const sim_options *o, sim_result *r, pr_err *err)
{
    sim s = {0};
    int rc = sim_init(&s, p, a, o, err);

    if (!rc) {
        trace_begin(&s);
        rc = play(&s, err);
    }
    if (!rc) {
        report(&s, r);
        rc = trace_end(&s, err);
    }
    sim_clear(&s);
    return rc;
}
