/* The buffer that is chosen against trying all of them; what is remembered against what is computed. */
#include "planner/stream.h"
#include "tests/planner/random_problem.h"
#include <criterion/criterion.h>

static stream draw(uint64_t *s)
{
    stream v = {.pieces = up_to(s, 3) ? 8 : 1 + up_to(s, 11),
                .cpu_layers = 1 + up_to(s, 79),
                .rounds = 1 + up_to(s, 31)};
    uint32_t n = v.pieces * v.cpu_layers;

    v.room = n > 3 ? 2 + up_to(s, n - 3) : 0; /* below n */
    v.read_ms = uniform(s, 0.1, 20);
    v.hide_ms = up_to(s, 9) ? uniform(s, 0, 20) : 0;
    return v;
}

Test(stream, the_smallest_buffer_without_a_stall, .timeout = 60)
{
    uint64_t s = 3;
    int n_stalls = 0, n_between = 0;

    for (int i = 0; i < 20000; i++) {
        stream v = draw(&s);
        if (v.room < STREAM_LEAST_BUFFER) continue;
        stream_choice c = stream_choose(NULL, &v);
        uint32_t largest = stream_largest_buffer(&v), b = STREAM_LEAST_BUFFER;

        while (b < largest && stream_stall_ms(&v, b) > 0) b++;
        cr_assert_eq(c.buffer, b, "case %d: %u pieces, not %u", i, c.buffer, b);
        cr_assert_eq(c.stall_ms, stream_stall_ms(&v, b));
        cr_assert_eq(stream_reads(&v, b), v.pieces * v.cpu_layers - v.room + b);
        n_stalls += c.stall_ms > 0;
        n_between += b > STREAM_LEAST_BUFFER && b < largest;
    }
    cr_assert(n_stalls > 1000 && n_between > 1000, "%d, %d", n_stalls, n_between);
}

/* Far more questions than there are places, some of them asked again. */
Test(stream, remembers_what_was_found)
{
    enum { AGAIN = 5000 };
    static stream asked[AGAIN];
    stream_memo *m = stream_memo_new();
    uint64_t s = 4;

    for (int i = 0; i < 200000; i++) {
        stream v = draw(&s);
        if (v.room < STREAM_LEAST_BUFFER) continue;
        if (asked[i % AGAIN].pieces && i % 3) v = asked[i % AGAIN];
        asked[i % AGAIN] = v;
        stream_choice got = stream_choose(m, &v), c = stream_choose(NULL, &v);
        cr_assert(got.buffer == c.buffer && got.stall_ms == c.stall_ms, "case %d", i);
    }
    for (uint32_t room = 2; room < 640; room++) { /* some share a place */
        const stream v = {8, 80, 4, room, 12, 9};
        stream_choice got = stream_choose(m, &v), c = stream_choose(NULL, &v);
        cr_assert(got.buffer == c.buffer && got.stall_ms == c.stall_ms, "room %u", room);
    }
    stream_memo_free(m);
    stream_memo_free(NULL);
}
