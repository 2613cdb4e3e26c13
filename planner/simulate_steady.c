/* Whether the ring stands as it stood a pass ago: then all passes to come are as long, and need not be
 * played. Compared when every micro-batch has made a pass: what is counted must be equal; times, as they are
 * from now, and bytes must be near, for they are sums in another order. */
#include "planner/simulate_impl.h"
#include <math.h>

static const double NEAR = 1e-9; /* of the time until now, of a piece */

static uint64_t mix(uint64_t sum, uint64_t v)
{
    return (sum ^ v) * 0x100000001b3u; /* FNV-1a, by words */
}

static uint64_t counts_of(const sim *s, const node *n)
{
    uint64_t sum = mix(0xcbf29ce484222325u, n->state);

    sum = mix(mix(mix(mix(sum, n->round), n->slot), n->batch), n->step);
    sum = mix(mix(sum, n->ready), n->credit_used);
    sum = mix(sum, n->pass * s->n_batches - s->n_done); /* how many passes it is ahead */
    for (uint32_t i = 0; i < n->on_link; i++) sum = mix(sum, 1 + n->link_batch[i]);
    for (uint32_t j = 0; j < s->n_batches; j++) sum = mix(sum, n->inbox[j]);
    return sum;
}

static sim_mark mark_of(const sim *s, const node *n)
{
    const double *clock = &s->clock[(size_t)(n - s->node) * N_CLOCKS];
    sim_mark m = {.counts = counts_of(s, n), .free_bytes = n->free_bytes, .left_bytes = n->left_bytes};

    for (int i = 0; i < N_CLOCKS; i++) m.clock_ms[i] = isinf(clock[i]) ? -1 : clock[i] - s->now;
    return m;
}

static bool same(const sim *s, const sim_mark *a, const sim_mark *b)
{
    double ms = NEAR * s->now, bytes = NEAR * s->piece_bytes;
    bool near = fabs(a->free_bytes - b->free_bytes) <= bytes && fabs(a->left_bytes - b->left_bytes) <= bytes;

    for (int i = 0; i < N_CLOCKS; i++) near = near && fabs(a->clock_ms[i] - b->clock_ms[i]) <= ms;
    return near && a->counts == b->counts;
}

static uint64_t places_of(const sim *s)
{
    uint64_t sum = 0;

    for (uint32_t j = 0; j < s->n_batches; j++) {
        const micro_batch *b = &s->batch[j];
        sum = mix(mix(mix(mix(sum, b->round), b->is_back), (uint64_t)b->sender), (uint64_t)b->to);
    }
    return sum;
}

bool steady_since_last(sim *s)
{
    uint64_t places = places_of(s);
    bool all = places == s->places_at_mark && s->n_done > s->n_batches;

    for (size_t i = 0; i < s->n_nodes; i++) {
        node *n = &s->node[i];
        totals now;
        take_totals(s, n, &now); /* the disk is accounted for with it */
        sim_mark m = mark_of(s, n);
        all = all && same(s, &m, &n->mark);
        n->mark = m;
        n->at_last = n->at_mark;
        n->at_mark = now;
    }
    s->last_ms = s->mark_ms;
    s->mark_ms = s->now;
    s->places_at_mark = places;
    return all;
}
