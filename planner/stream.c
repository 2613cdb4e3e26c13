/* Waiting for a disk, window by window (problem.h has the formula), and a table of what was found. A device's
 * windows differ by one layer and by one streamed piece, so there are four kinds of them, but for those that
 * take over what the windows before could not stream. */
#include "planner/stream.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static uint32_t windows_of(const stream *s)
{
    return s->rounds < s->cpu_layers ? s->rounds : s->cpu_layers;
}

uint32_t stream_reads(const stream *s, uint32_t buffer)
{
    return s->pieces * s->cpu_layers - s->room + buffer;
}

uint32_t stream_largest_buffer(const stream *s)
{
    return windows_of(s) == 1 ? STREAM_LEAST_BUFFER : s->room;
}

/* --- the stall ---------------------------------------------------------------------------------------- */

/* What a window of `pieces` waits for its disk when the buffer is full as it begins: the disk goes on when
 * the first streamed piece is computed, and must be done when the last one, which is the last of the window,
 * is to be computed. */
static double window_stall(const stream *s, uint32_t pieces, uint32_t streamed, uint32_t buffer)
{
    uint32_t first = (pieces + streamed - 1) / streamed; /* pieces up to the first streamed one */
    double exposed =
        (streamed - buffer) * s->read_ms - (first < pieces ? pieces - first - 1 : 0) * s->hide_ms;

    return exposed > 0 ? exposed : 0;
}

/* floor((r+1) c / k) - floor(r c / k), one r after the other. */
typedef struct {
    uint32_t each, rest, of, carry;
} shares;

static shares share_out(uint32_t total, uint32_t of)
{
    return (shares){total / of, total % of, of, 0};
}

static uint32_t next_share(shares *s)
{
    s->carry += s->rest;
    if (s->carry < s->of) return s->each;
    s->carry -= s->of;
    return s->each + 1;
}

/* `any`: only whether there is one. */
static double stall(const stream *s, uint32_t buffer, bool any)
{
    uint32_t windows = windows_of(s), streamed = stream_reads(s, buffer), late = 0;
    shares layers = share_out(s->cpu_layers, windows), wanted = share_out(streamed, windows);
    double sum = 0, known[2][2] = {{-1, -1}, {-1, -1}}; /* a layer more or not, a piece more or not */

    if (streamed <= windows * buffer && wanted.each + 1 <= s->pieces * layers.each) return 0;
    for (uint32_t w = 0; w < windows; w++) {
        uint32_t l = next_share(&layers), y = next_share(&wanted), n = l * s->pieces, x = late + y;
        double *seen = late || x > n ? NULL : &known[l > layers.each][y > wanted.each];
        late = x > n ? x - n : 0;
        x -= late;
        if (x <= buffer) continue;
        if (seen && *seen < 0) *seen = window_stall(s, n, x, buffer);
        sum += seen ? *seen : window_stall(s, n, x, buffer);
        if (any && sum > 0) break;
    }
    return sum;
}

double stream_stall_ms(const stream *s, uint32_t buffer)
{
    return stall(s, buffer, false);
}

/* Every smaller buffer stalls: where no window does, all pieces that do not find a place in the buffers are
 * read while all others are computed, but for the first two of each window (with one piece a layer: none). */
static uint32_t least_useful(const stream *s)
{
    uint32_t windows = windows_of(s), first = s->pieces > 1 ? 2 * windows : 0;
    double hidden = (s->pieces * s->cpu_layers - first) * s->hide_ms / s->read_ms, least;

    if (windows == 1) return STREAM_LEAST_BUFFER;
    least = (stream_reads(s, 0) - hidden) / (windows - 1) * (1 - 1e-9);
    return least > STREAM_LEAST_BUFFER ? (uint32_t)fmin(least, s->room) : STREAM_LEAST_BUFFER;
}

static stream_choice choose(const stream *s)
{
    uint32_t low = least_useful(s), high = stream_largest_buffer(s), step = 1;

    while (low + step < high && stall(s, low + step - 1, true) > 0) { /* mostly it is near */
        low += step;
        step *= 2;
    }
    if (low + step < high) high = low + step - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (stall(s, middle, true) <= 0) high = middle;
        else low = middle + 1;
    }
    return (stream_choice){low, stall(s, low, false)};
}

/* --- what was found ----------------------------------------------------------------------------------- */

/* A question has one place, where the last one that belongs there stays. Those that differ in layers only are
 * neighbours, for they are asked in that order. */
enum { MEMO_BITS = 16, MEMO_SIZE = 1 << MEMO_BITS };
typedef struct {
    stream asked; /* pieces 0: nothing yet */
    stream_choice found;
} memo_entry;
struct stream_memo {
    memo_entry entry[MEMO_SIZE];
};

stream_memo *stream_memo_new(void)
{
    return calloc(1, sizeof(stream_memo));
}

void stream_memo_free(stream_memo *m)
{
    free(m);
}

static uint64_t mix(uint64_t sum, uint64_t v)
{
    sum = (sum ^ v) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio: spreads neighbours */
    return sum ^ sum >> 32;
}

static size_t place_of(const stream *s)
{
    uint64_t read, hide, sum;

    memcpy(&read, &s->read_ms, sizeof read);
    memcpy(&hide, &s->hide_ms, sizeof hide);
    sum = mix(mix((uint64_t)s->rounds << 32 | s->pieces, read), hide);
    return (size_t)(sum + s->cpu_layers + 128 * s->room) % MEMO_SIZE;
}

static bool same(const stream *a, const stream *b)
{
    return a->pieces == b->pieces && a->cpu_layers == b->cpu_layers && a->rounds == b->rounds &&
           a->room == b->room && a->read_ms == b->read_ms && a->hide_ms == b->hide_ms;
}

stream_choice stream_choose(stream_memo *m, const stream *s)
{
    memo_entry *e;

    if (!m) return choose(s);
    e = &m->entry[place_of(s)];
    if (!same(&e->asked, s)) *e = (memo_entry){*s, choose(s)};
    return e->found;
}
