/* One window on one device, played to its end: compute and disk, which nobody else touches meanwhile, so that
 * no event of another device has to be looked at.
 *
 * Streamed pieces come in turn with resident ones. The disk reads in the order of use, at theta of its rate
 * while the device computes, until the buffer is full; a piece's place is free when it has been computed. */
#include "planner/simulate_impl.h"
#include <math.h>

void disk_advance(sim *s, node *n, double to_ms, double share)
{
    double from_ms = n->read_since, rate = n->d->disk_bytes_per_ms * share, bytes;

    if (!n->streams) return;
    n->read_since = to_ms;
    bytes = fmin(n->free_bytes, rate * (to_ms - from_ms));
    if (isnan(n->read_started) && bytes > 0) n->read_started = from_ms;
    n->read_bytes += bytes;
    n->free_bytes -= bytes;
    n->left_bytes -= bytes;
    while (n->left_bytes <= 1e-9 * s->piece_bytes) { /* sums of shares of a piece: rounding */
        n->left_bytes = s->piece_bytes + (n->left_bytes < -1e-9 * s->piece_bytes ? n->left_bytes : 0);
        n->ready++;
    }
    if (isnan(n->read_started) || (rate > 0 && n->free_bytes > 0)) return;
    trace_span(s, n, LANE_DISK, "read", n->read_started, rate > 0 ? from_ms + bytes / rate : from_ms);
    n->read_started = NAN;
}

/* Waits until a piece is there. Only an empty buffer is waited for, so it has a place for the rest. */
static double wait_for_piece(sim *s, node *n, double at_ms)
{
    double ready_ms = at_ms + n->left_bytes / n->d->disk_bytes_per_ms;

    disk_advance(s, n, ready_ms, 1);
    if (n->ready) return ready_ms;
    n->left_bytes = s->piece_bytes; /* by rounding */
    n->ready = 1;
    return ready_ms;
}

/* Resident pieces up to streamed piece i of a window that has n of them, x streamed: position j is streamed
 * where floor((j+1)x/n) > floor(jx/n), so they are ceil((i+1) resident / x), less those before piece i. */
typedef struct {
    uint32_t each, rest, of, carry;
} turns;

static turns turns_of(const sim_window *w)
{
    return (turns){w->resident / w->streamed, w->resident % w->streamed, w->streamed, w->streamed - 1};
}

static uint32_t next_turn(turns *t)
{
    t->carry += t->rest;
    if (t->carry < t->of) return t->each;
    t->carry -= t->of;
    return t->each + 1;
}

double window_play(sim *s, node *n, const sim_window *w, double gpu_ms, double piece_ms)
{
    double now = s->now, theta = n->d->theta, busy_from = now;

    n->busy_ms = gpu_ms + (w->resident + w->streamed) * piece_ms;
    n->wait_ms = 0;
    now += gpu_ms;
    if (w->streamed == 0) {
        now += w->resident * piece_ms;
        disk_advance(s, n, now, theta);
    } else {
        turns t = turns_of(w);
        for (uint32_t i = 0; i < w->streamed; i++) {
            now += next_turn(&t) * piece_ms;
            disk_advance(s, n, now, theta);
            if (n->ready == 0) {
                double ready_ms = wait_for_piece(s, n, now);
                if (now > busy_from) trace_span(s, n, LANE_COMPUTE, busy_name(s), busy_from, now);
                trace_span(s, n, LANE_COMPUTE, "wait for disk", now, ready_ms);
                n->wait_ms += ready_ms - now;
                busy_from = now = ready_ms;
            }
            n->ready--;
            now += piece_ms;
            disk_advance(s, n, now, theta);
            n->free_bytes += s->piece_bytes;
        }
    }
    trace_span(s, n, LANE_COMPUTE, busy_name(s), busy_from, now);
    return now;
}
