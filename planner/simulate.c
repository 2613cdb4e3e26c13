/* The event-by-event simulator.
 *
 * Each device has one compute resource, one disk and one link. Micro-batches walk the ring: k windows on
 * every device that has layers, then the output projection at the head, then the next pass. A device serves
 * frames in a fixed order (round by round, micro-batch by micro-batch), which is also the order in which
 * links deliver them. A link holds two frames that the next device has not yet taken; a device with a third
 * one waits.
 *
 * Layers are cut into equal pieces (options.pieces; 1 = whole layers). Of the CPU pieces as many as fit
 * beside the buffer are resident, the rest is streamed: the disk reads without pause, in the order of use,
 * while the buffer has room, at theta of its rate while the device computes. A piece is computed when all of
 * it is there, and its place is free when it has been computed. All pieces are equally large, so the order of
 * reading needs no names: a count of pieces that are ready is enough.
 *
 * What moves is kept in three clocks a device (compute, disk, link) in a heap; a clock that is changed moves
 * in the heap, so there are no stale events.
 *
 * Where it differs from problem.c, and why. The formula is a lower bound: in test_simulate.c no plan is more
 * than 5 % faster than it, and of 200 random ones (155 stream) so many agree within 5 %:
 *      a layer in       32 pieces   4 pieces   1 piece
 *      spread              198         190       131
 *      streamed last       189         181       130          (throughput, spread: 198 and 124)
 * Of 200 best plans of dp.c fewer agree: 179 spread in 32 pieces, 180 in 8, 67 in whole layers (60 streamed
 * last): the solver goes where the formula is too kind. The reasons:
 *  - Whole layers. The formula streams any number of bytes; here pieces are whole, and a buffer holds
 *    at least two (one where RAM has no place for two): more is read, and a piece that is half there
 *    does not help.
 *  - Uneven windows. The formula waits for the mean window; with k that does not divide the layers
 *    some windows need more than the buffer held for them. With more rounds than a device has CPU
 *    layers this is the largest error: its layers come in as many windows, not in k. And two devices
 *    near their disk bounds do not wait at the same time: their buffers fill and the disks rest.
 *  - Own compute. The formula hides theta of all of a device's compute. With streamed layers last the
 *    buffer is full when a window begins, and while GPU and resident layers are computed the disk has
 *    no place to read to: only the streamed layers' own compute hides something. It matters where the
 *    formula has a stall: k = 1 (26 of 49 agree; 49 of 49 when spread), and S limited by RAM. Taking
 *    resident and streamed pieces in turn (options.spread) costs nothing and mends it.
 *  - Many micro-batches. A device serves the same round of all of them in a row, so the disk cannot
 *    even out a round with more streamed layers by one with fewer, as it does for one micro-batch.
 *  - A head without layers still sends embeddings to the first device and gets the last hidden state:
 *    one hop more than the formula counts (two when one other device does everything).
 *  - The head's disk has theta also during the output projection. */
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

/* --- trace ------------------------------------------------------------------------------------------- */
static void trace_span(sim *s, const node *n, clock_kind lane, const char *what, double from_ms)
{
    if (!s->o->trace || s->now <= from_ms) return;
    fprintf(s->o->trace, "%s\n{\"ph\":\"X\",\"name\":\"%s\",\"pid\":%zu,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
            s->trace_comma ? "," : "", what, (size_t)(n - s->node), (int)lane, from_ms * 1e3,
            (s->now - from_ms) * 1e3);
    s->trace_comma = true;
}

static void trace_begin(sim *s)
{
    static const char *const lane[N_CLOCKS] = {"compute", "disk", "link"};

    if (!s->o->trace) return;
    fprintf(s->o->trace, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (int l = 0; l < N_CLOCKS; l++) {
            fprintf(s->o->trace,
                    "%s\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%zu,\"tid\":%d,"
                    "\"args\":{\"name\":\"device %zu %s\"}}",
                    s->trace_comma ? "," : "", i, l, i, lane[l]);
            s->trace_comma = true;
        }
    }
}

static int trace_end(const sim *s, pr_err *err)
{
    if (!s->o->trace) return PR_OK;
    fprintf(s->o->trace, "\n]}\n");
    if (fflush(s->o->trace) || ferror(s->o->trace))
        return pr_fail_errno(err, PR_ERESOURCE, "simulate: cannot write the trace");
    return PR_OK;
}

/* --- disk -------------------------------------------------------------------------------------------- */
static void run_job(sim *s, node *n);

static void disk_take(sim *s, node *n, double bytes)
{
    n->sum.read_bytes += bytes;
    n->free_bytes -= bytes;
    n->left_bytes -= bytes;
    if (n->left_bytes > 1e-9 * s->piece_bytes) return; /* sums of shares of a piece: rounding */
    n->left_bytes = s->piece_bytes;
    n->ready++;
}

/* Account for what was read at the old rate; go on at the one that fits the compute's state. */
static void disk_update(sim *s, node *n)
{
    if (!n->streams) return;
    if (n->rate > 0) disk_take(s, n, fmin(n->planned_bytes, (s->now - n->read_since) * n->rate));
    n->rate = n->d->disk_bytes_per_ms * (n->state == BUSY ? n->d->theta : 1);
    n->planned_bytes = fmin(n->left_bytes, n->free_bytes);
    if (n->planned_bytes <= 0) n->rate = 0;
    n->read_since = s->now;
    set_clock(s, n, DISK, n->rate > 0 ? s->now + n->planned_bytes / n->rate : INFINITY);

    if (n->rate > 0 && isnan(n->read_started)) n->read_started = s->now;
    if (n->rate <= 0 && !isnan(n->read_started)) {
        trace_span(s, n, DISK, "read", n->read_started);
        n->read_started = NAN;
    }
}

static void on_disk(sim *s, node *n)
{
    disk_take(s, n, n->planned_bytes);
    n->rate = 0;
    disk_update(s, n);
    if (n->state == DISK_WAIT && n->ready) run_job(s, n);
}

/* --- compute ----------------------------------------------------------------------------------------- */
static void become(sim *s, node *n, compute_state state)
{
    static const char *const name[N_STATES] = {"idle", "compute", "wait for disk", "wait for link"};

    if (n->state != IDLE) trace_span(s, n, COMPUTE, name[n->state], n->since);
    n->sum.state_ms[n->state] += s->now - n->since;
    n->since = s->now;
    n->state = state;
    disk_update(s, n);
}

/* A job is a row of steps: 0 the output projection, 1 the GPU layers and resident pieces before the first
 * streamed one, then by turns a streamed piece and the resident pieces after it. */
enum { STEP_OUTPUT, STEP_FIRST, STEP_PIECE };

static bool is_piece(uint32_t step)
{
    return step >= STEP_PIECE && step % 2 == 0;
}

/* Resident pieces that stand before streamed piece i of the window. */
static uint32_t resident_before(const sim *s, const sim_window *w, uint32_t i)
{
    if (!s->o->spread || w->streamed == 0) return w->resident;
    return (uint32_t)((uint64_t)(i + 1) * w->resident / w->streamed);
}

static double step_ms(const sim *s, const node *n, const sim_window *w, uint32_t step)
{
    uint32_t i = step / 2;

    if (step == STEP_OUTPUT) return n->d->out_ms;
    if (step == STEP_FIRST) return w->gpu_ms + resident_before(s, w, 0) * n->piece_ms;
    if (is_piece(step)) return n->piece_ms;
    if (i == w->streamed) return 0;
    return (resident_before(s, w, i) - resident_before(s, w, i - 1)) * n->piece_ms;
}

static uint32_t n_steps(const node *n, const sim_window *w)
{
    return n->active ? STEP_PIECE + 2 * w->streamed : STEP_FIRST;
}

static void try_start(sim *s, node *n);
static void hand_on(sim *s, node *n);

/* Go on with the job of n until something must be waited for. */
static void run_job(sim *s, node *n)
{
    const micro_batch *b = &s->batch[n->batch];
    const sim_window *w = &n->window[b->round];

    for (; n->step < n_steps(n, w); n->step++) {
        double ms = step_ms(s, n, w, n->step);
        if (n->step == STEP_OUTPUT ? !b->wants_output : !is_piece(n->step) && ms <= 0) continue;
        if (is_piece(n->step) && n->ready == 0) {
            if (n->state != DISK_WAIT) become(s, n, DISK_WAIT);
            if (n->ready == 0) return; /* becoming accounts for the disk: a piece may have come just now */
        }
        if (is_piece(n->step)) n->ready--;
        become(s, n, BUSY);
        set_clock(s, n, COMPUTE, s->now + ms);
        return;
    }
    hand_on(s, n);
}

static void take_totals(const sim *s, const node *n, totals *t)
{
    *t = n->sum;
    t->state_ms[n->state] += s->now - n->since;
    t->read_bytes += n->rate * (s->now - n->read_since);
}

static void pass_finished(sim *s, micro_batch *b)
{
    b->wants_output = false;
    if (s->n_done++ == 0) s->first_ms = s->now;
    if (s->n_done != s->n_warm) return;
    s->warm_ms = s->now;
    for (size_t i = 0; i < s->n_nodes; i++) take_totals(s, &s->node[i], &s->node[i].at_warm);
}

static void on_compute(sim *s, node *n)
{
    set_clock(s, n, COMPUTE, INFINITY);
    if (n->step == STEP_OUTPUT) pass_finished(s, &s->batch[n->batch]);
    if (is_piece(n->step)) n->free_bytes += s->piece_bytes;
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
    b->wants_output = true;
    return 0;
}

static void link_send(sim *s, node *n, uint32_t batch)
{
    s->batch[batch].sender = (int)(n - s->node);
    n->credit_used++;
    n->link_batch[n->on_link++] = batch;
    if (n->on_link == 1) set_clock(s, n, LINK, s->now + n->d->hop_ms);
}

static void on_link(sim *s, node *n)
{
    uint32_t batch = n->link_batch[0];
    node *to = &s->node[s->batch[batch].to];
    double started = s->now - n->d->hop_ms;

    trace_span(s, n, LINK, "send", started);
    n->sum.send_ms += n->d->hop_ms;
    n->link_batch[0] = n->link_batch[1];
    n->on_link--;
    set_clock(s, n, LINK, n->on_link ? s->now + n->d->hop_ms : INFINITY);
    to->inbox[batch] = true;
    try_start(s, to);
}

/* The job of n is done: its micro-batch goes to the next device, at once or when the link has room. */
static void hand_on(sim *s, node *n)
{
    micro_batch *b = &s->batch[n->batch];

    b->to = destination(s, b, n);
    n->visit++;
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

/* Take the next frame in order if it is there. */
static void try_start(sim *s, node *n)
{
    uint32_t next = (uint32_t)(n->visit % s->n_batches);
    int sender = s->batch[next].sender;

    if (n->state != IDLE || !n->inbox[next]) return;
    n->inbox[next] = false;
    n->batch = next;
    n->step = STEP_OUTPUT;
    run_job(s, n);
    if (sender != NOBODY) give_credit(s, sender);
}

/* --- running ----------------------------------------------------------------------------------------- */
static int play(sim *s, pr_err *err)
{
    static void (*const handler[N_CLOCKS])(sim *, node *) = {on_compute, on_disk, on_link};

    for (size_t i = 0; i < s->n_nodes; i++) disk_update(s, &s->node[i]);
    for (uint32_t j = 0; j < s->n_batches; j++) {
        s->batch[j].sender = NOBODY;
        s->node[0].inbox[j] = true;
    }
    try_start(s, &s->node[0]);
    while (s->n_done < s->n_total) {
        size_t id = s->heap[0];
        if (isinf(s->clock[id]))
            return pr_fail(err, PR_EINTERNAL, "simulate: the ring stands still after %.3f ms", s->now);
        s->now = s->clock[id];
        handler[id % N_CLOCKS](s, &s->node[id / N_CLOCKS]);
    }
    return PR_OK;
}

static void report(const sim *s, sim_result *r)
{
    double n = (double)(s->n_total - s->n_warm);

    *r = (sim_result){.pass_ms = (s->now - s->warm_ms) / n,
                      .first_ms = s->first_ms,
                      .in_flight = s->n_batches,
                      .n_devices = s->n_nodes};
    for (size_t i = 0; i < s->n_nodes; i++) {
        const totals *from = &s->node[i].at_warm;
        sim_device *d = &r->device[i];
        totals to;
        take_totals(s, &s->node[i], &to);
        d->busy_ms = (to.state_ms[BUSY] - from->state_ms[BUSY]) / n;
        d->disk_wait_ms = (to.state_ms[DISK_WAIT] - from->state_ms[DISK_WAIT]) / n;
        d->send_wait_ms = (to.state_ms[SEND_WAIT] - from->state_ms[SEND_WAIT]) / n;
        d->idle_ms = (to.state_ms[IDLE] - from->state_ms[IDLE]) / n;
        d->send_ms = (to.send_ms - from->send_ms) / n;
        d->read_bytes = (to.read_bytes - from->read_bytes) / n;
        if (d->read_bytes > 0) d->disk_busy_ms = d->read_bytes / s->node[i].d->disk_bytes_per_ms;
    }
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
