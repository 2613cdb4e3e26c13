/* Spans on their way from a device to the trace file: the buffer that keeps the newest, the message, the
 * other machine's clock, and the file as a JSON parser that is not ours reads it. A run that is traced:
 * tests/cmd/test_ring_report.c. */
#include "src/base/clock.h"
#include "src/run/trace.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static pr_err err;

static span numbered(uint64_t i)
{
    return (span){.kind = SPAN_WAIT, .start_ns = 1000 * i, .end_ns = 1000 * i + 500, .batch = i};
}

static void add_numbered(span_log *l, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++) span_log_add(l, &(span){.batch = i});
}

/* --- the buffer ------------------------------------------------------------------------------------------
 */
Test(spans, buffer_that_is_full_drops_the_oldest_and_says_how_many)
{
    span_log l;
    span out[16];
    uint64_t dropped;

    cr_assert_eq(span_log_init(&l, 8, &err), PR_OK);
    add_numbered(&l, 0, 20);
    cr_assert_eq(span_log_take(&l, out, 5, &dropped), 5u);
    cr_expect_eq(dropped, 12u);
    for (size_t i = 0; i < 5; i++) cr_expect_eq(out[i].batch, 12 + i);

    add_numbered(&l, 20, 4); /* 17, 18, 19 are there still; places are taken round the end */
    cr_assert_eq(span_log_take(&l, out, 16, &dropped), 7u);
    cr_expect_eq(dropped, 0u, "counted once only");
    for (size_t i = 0; i < 7; i++) cr_expect_eq(out[i].batch, 17 + i);
    cr_expect_eq(span_log_take(&l, out, 16, &dropped), 0u);
    span_log_clear(&l);
}

/* --- the message -----------------------------------------------------------------------------------------
 */
static json_t *over_the_wire(json_t *m)
{
    cr_assert_not_null(m);
    char *line = json_line(m);
    json_t *read = json_parse(line, strlen(line), &err);

    cr_assert_not_null(read, "%s", err.msg);
    free(line);
    json_decref(m);
    return read;
}

Test(spans, message_arrives_as_it_was_sent)
{
    static span sent[SPANS_MAX], got[SPANS_MAX];
    uint64_t dropped;
    size_t n;

    for (size_t i = 0; i < SPANS_MAX; i++) {
        sent[i] = (span){.kind = (span_kind)(i % SPAN_KINDS),
                         .start_ns = (uint64_t)1 << 61,
                         .end_ns = ((uint64_t)1 << 61) + 77 * i,
                         .batch = 3 * i,
                         .more = (uint64_t)1 << i % SPAN_MORE_BITS,
                         .tokens = UINT32_MAX,
                         .round = (uint32_t)i,
                         .first = (uint32_t)i + 1,
                         .end = (uint32_t)i + 9};
    }
    json_t *m = over_the_wire(spans_to_json(sent, SPANS_MAX, 123456789012));
    cr_assert_eq(spans_from_json(m, got, &n, &dropped, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(n, (size_t)SPANS_MAX);
    cr_expect_eq(dropped, 123456789012u);
    for (size_t i = 0; i < n; i++) {
        cr_expect_eq(got[i].kind, sent[i].kind);
        cr_expect_eq(got[i].start_ns, sent[i].start_ns);
        cr_expect_eq(got[i].end_ns, sent[i].end_ns);
        cr_expect_eq(got[i].batch, sent[i].batch);
        cr_expect_eq(got[i].more, sent[i].more);
        cr_expect_eq(got[i].tokens, sent[i].tokens);
        cr_expect_eq(got[i].round, sent[i].round);
        cr_expect_eq(got[i].first, sent[i].first);
        cr_expect_eq(got[i].end, sent[i].end);
    }
    json_decref(m);
}

Test(spans, messages_that_are_none)
{
    static const char *const bad[] = {
        "{}",
        "{\"dropped\":0}",
        "{\"spans\":[]}",
        "{\"dropped\":-1,\"spans\":[]}",
        "{\"dropped\":0,\"spans\":{}}",
        "{\"dropped\":0,\"spans\":[7]}",
        "{\"dropped\":0,\"spans\":[[]]}",
        "{\"dropped\":0,\"spans\":[[0,1,1,1,0,1,0,0]]}",
        "{\"dropped\":0,\"spans\":[[0,1,1,1,0,1,0,0,1,1]]}",
        "{\"dropped\":0,\"spans\":[[6,1,1,1,0,1,0,0,1]]}",
        "{\"dropped\":0,\"spans\":[[-1,1,1,1,0,1,0,0,1]]}",
        "{\"dropped\":0,\"spans\":[[0,1.5,1,1,0,1,0,0,1]]}",
        "{\"dropped\":0,\"spans\":[[0,9223372036854775807,1,1,0,1,0,0,1]]}",
        "{\"dropped\":0,\"spans\":[[0,1,1,9223372036854775807,0,1,0,0,1]]}",
        "{\"dropped\":0,\"spans\":[[0,1,1,1,0,4294967296,0,0,1]]}",
    };
    static span got[SPANS_MAX], many[SPANS_MAX + 1];
    uint64_t dropped;
    size_t n;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *m = json_parse(bad[i], strlen(bad[i]), &err);
        cr_assert_not_null(m, "%s: %s", bad[i], err.msg);
        cr_expect_eq(spans_from_json(m, got, &n, &dropped, &err), PR_EPEER, "%s", bad[i]);
        json_decref(m);
    }
    json_t *m = spans_to_json(many, SPANS_MAX + 1, 0);
    cr_expect_eq(spans_from_json(m, got, &n, &dropped, &err), PR_EPEER, "too many");
    json_decref(m);
}

/* --- clocks ------------------------------------------------------------------------------------------------
 */
Test(clocks, nothing_is_known_without_a_ping)
{
    static const clocks none;
    cr_expect_eq(clocks_at(&none, 5).error_ns, UINT64_MAX);
}

/* A clock that is ahead and runs 60 ppm too fast, and ways of random length there and back, as unequal as can
 * be: the guess is never further off than it says. */
Test(clocks, guess_is_as_exact_as_it_says)
{
    static clocks c;
    const double rate = 1 + 60e-6;
    const uint64_t ahead = 123456789;
    uint64_t now = 1000000000;
    unsigned seed = 7;

    for (int i = 0; i < 2000; i++) {
        uint64_t there = (uint64_t)rand_r(&seed) % 2000000, back = (uint64_t)rand_r(&seed) % 2000000;
        if (i % 5 == 0) there = back = 20000; /* a quick one now and then */
        uint64_t sent = now, answered = sent + there;
        clocks_add(&c, sent, (uint64_t)((double)answered * rate) + ahead, answered + back);
        now = answered + back + (uint64_t)rand_r(&seed) % 300000000;
        clock_guess g = clocks_at(&c, now);
        double off = (double)now * (rate - 1) + (double)ahead - (double)g.offset_ns;
        cr_assert_leq(fabs(off), (double)g.error_ns + 2, "ping %d: off by %.0f ns, said %llu", i, off,
                      (unsigned long long)g.error_ns);
        if (i > 20) cr_assert_lt(g.error_ns, 400000u, "ping %d", i);
    }
}

/* --- the file ----------------------------------------------------------------------------------------------
 */
static trace *t;
static uint64_t later; /* than the opening of the file */
static const clock_guess ours = {0, 0};

static void open_trace(void)
{
    test_dir_new();
    cr_assert_eq(trace_open(&t, in_dir("t.json"), &err), PR_OK, "%s", err.msg);
    later = clock_ns() + 1000000;
}
TestSuite(trace, .init = open_trace, .fini = test_dir_remove, .timeout = 30);

static json_t *read_trace(void)
{
    json_error_t e;

    cr_assert_eq(trace_close(t, &err), PR_OK, "%s", err.msg);
    json_t *all = json_load_file(in_dir("t.json"), 0, &e);
    cr_assert_not_null(all, "line %d: %s", e.line, e.text);
    cr_assert(json_is_array(all));
    return all;
}

/* Event i of this phase and name (NULL: any); NULL: there are not so many. */
static const json_t *find(const json_t *all, const char *phase, const char *name, size_t i)
{
    size_t at;
    const json_t *e;

    json_array_foreach(all, at, e)
    {
        if (strcmp(json_string_value(json_object_get(e, "ph")), phase) ||
            (name && strcmp(json_string_value(json_object_get(e, "name")), name)))
            continue;
        if (!i--) return e;
    }
    return NULL;
}

static double number(const json_t *e, const char *key)
{
    const json_t *v = json_object_get(e, key);
    cr_assert(json_is_number(v), "%s", key);
    return json_number_value(v);
}

/* When the trace began, in nanoseconds of our clock: of a span that began at `ns` of it. */
static double started_ns(const json_t *e, uint64_t ns)
{
    return (double)ns - 1e3 * number(e, "ts");
}

Test(trace, spans_have_a_process_a_lane_and_what_they_were)
{
    const span s[] = {
        {.kind = SPAN_WINDOW, later, later + 5000, 7, 1 | 1 << 3, 12, 2, 8, 12},
        {.kind = SPAN_SEND, later + 5000, later + 6250, 7, 0, 12, 2, 0, 0},
        {.kind = SPAN_WAIT, later + 7000, later + 8000, 9, 0, 3, 0, 0, 0},
        {.kind = SPAN_READ, later + 1000, later + 9000, 0, 1 << 20, 0, 0, 0, 0},
    };
    trace_device(t, "the \"head\"\n");
    trace_add(t, "laptop", s, 4, 0, ours);
    json_t *all = read_trace();
    const json_t *head = find(all, "M", "process_name", 0), *laptop = find(all, "M", "process_name", 1);
    const json_t *window = find(all, "X", NULL, 0), *send = find(all, "X", NULL, 1),
                 *wait = find(all, "X", NULL, 2), *reading = find(all, "X", NULL, 3);

    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(head, "args"), "name")),
                     "the \"head\"\n");
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(laptop, "args"), "name")), "laptop");
    cr_expect_neq(number(head, "pid"), number(laptop, "pid"));
    cr_expect_eq(number(window, "pid"), number(laptop, "pid"));
    cr_expect_str_eq(json_string_value(json_object_get(window, "name")), "layers 8-11");
    cr_expect_str_eq(json_string_value(json_object_get(window, "cat")), "compute");
    cr_expect_str_eq(json_string_value(json_object_get(send, "cat")), "send");
    cr_expect_str_eq(json_string_value(json_object_get(wait, "cat")), "wait");
    cr_expect_str_eq(json_string_value(json_object_get(reading, "cat")), "read");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(reading, "args"), "bytes")), 1 << 20);
    cr_expect_float_eq(number(reading, "dur"), 8.0, 1e-9, "reading goes on under computing");
    cr_expect_float_eq(number(window, "dur"), 5.0, 1e-9);
    cr_expect_float_eq(number(send, "dur"), 1.25, 1e-9);
    cr_expect_float_eq(number(send, "ts") - number(window, "ts"), 5.0, 1e-3);
    cr_expect_neq(number(window, "tid"), number(send, "tid"));
    cr_expect_neq(number(wait, "tid"), number(send, "tid"));

    const json_t *args = json_object_get(window, "args"), *ids = json_object_get(args, "micro_batches");
    cr_expect_eq(number(args, "tokens"), 12);
    cr_expect_eq(number(args, "round"), 2);
    cr_assert_eq(json_array_size(ids), 3u);
    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(json_integer_value(json_array_get(ids, i)), ((int[]){7, 8, 11})[i]);
    cr_expect_null(find(all, "X", NULL, 4));
    json_decref(all);
}

Test(trace, clocks_are_corrected_and_what_is_known_of_them_is_said)
{
    const span s = {.kind = SPAN_WAIT, later, later + 1000, 1, 0, 0, 0, 0, 0};
    const span late = {.kind = SPAN_WAIT, later + 5000000, later + 5001000, 1, 0, 0, 0, 0, 0};

    trace_add(t, "head", &s, 1, 0, ours);
    trace_add(t, "ahead", &late, 1, 0, (clock_guess){5000000, 40000});
    json_t *all = read_trace();
    const json_t *said = find(all, "i", "clock", 1), *args = json_object_get(said, "args");

    cr_expect_float_eq(number(find(all, "X", NULL, 0), "ts"), number(find(all, "X", NULL, 1), "ts"), 1e-3,
                       "the same moment");
    cr_assert_not_null(said);
    cr_expect_float_eq(number(args, "offset_us"), 5000, 1e-9);
    cr_expect_geq(number(args, "error_us"), 40.0);
    cr_expect_leq(number(args, "error_us"), 50.0);
    json_decref(all);
}

/* Waiting has a lane of its own, and is done by who computes: it is "in" nothing that was computed, either.
 */
Test(trace, better_guess_moves_no_span_into_the_one_before_it)
{
    static const span_kind kind[] = {SPAN_WINDOW, SPAN_WAIT};
    static const char *const name[] = {"windows", "waits"};

    for (size_t i = 0; i < 2; i++) {
        const span one = {.kind = SPAN_WINDOW, later, later + 10000, 1, 0, 1, 0, 0, 1},
                   two = {.kind = kind[i], later + 10000, later + 90000, 2, 0, 1, 0, 0, 1};
        trace_add(t, name[i], &one, 1, 0, (clock_guess){0, 50000});
        trace_add(t, name[i], &two, 1, 0, (clock_guess){4000, 20000}); /* 4 us back */
    }
    json_t *all = read_trace();
    for (size_t i = 0; i < 2; i++) {
        const json_t *a = find(all, "X", NULL, 2 * i), *b = find(all, "X", NULL, 2 * i + 1);
        cr_expect_float_eq(number(b, "ts"), number(a, "ts") + number(a, "dur"), 1e-3, "%s", name[i]);
        cr_expect_float_eq(number(b, "dur"), 76.0, 1e-3, "its end is where the better guess says");
        cr_expect_float_eq(started_ns(a, later), started_ns(b, later + 10000), 1e3);
    }
    json_decref(all);
}

Test(trace, what_is_lost_is_counted)
{
    span s[3] = {numbered(1), numbered(2), numbered(3)};

    trace_add(t, "d", s, 3, 17, ours);
    trace_add(t, "e", s, 3, 2, (clock_guess){0, UINT64_MAX}); /* nobody knows when that was */
    trace_add(t, "e", s, 3, 0, ours);
    json_t *all = read_trace();
    const json_t *first = find(all, "i", "spans lost", 0), *second = find(all, "i", "spans lost", 1);

    cr_assert(first && second);
    cr_expect_eq(number(json_object_get(first, "args"), "count"), 17);
    cr_expect_eq(number(json_object_get(second, "args"), "count"), 5);
    cr_expect_not_null(find(all, "X", NULL, 5));
    cr_expect_null(find(all, "X", NULL, 6));
    json_decref(all);
}

/* Of a run that was killed the array has no end; both viewers add it, and so does this. */
Test(trace, what_was_added_is_in_the_file_at_once)
{
    span s[2] = {numbered(1), numbered(2)};

    trace_add(t, "d", s, 2, 0, ours);
    char *text = read_file(in_dir("t.json")), *whole = malloc(strlen(text) + 2);
    sprintf(whole, "%s]", text);
    json_t *all = json_parse(whole, strlen(whole), &err);
    cr_assert_not_null(all, "%s", err.msg);
    cr_expect_not_null(find(all, "X", NULL, 1));
    json_decref(all);
    free(text);
    free(whole);
    trace_close(t, NULL);
}

Test(trace, file_that_cannot_be_written)
{
    trace *other;

    trace_close(t, NULL);
    cr_expect_eq(trace_open(&other, in_dir("no/such/folder.json"), &err), PR_ERESOURCE);
    cr_expect(strstr(err.msg, "folder.json"), "%s", err.msg);
    cr_assert_eq(trace_open(&t, "/dev/full", &err), PR_OK);
    span s = numbered(1);
    trace_add(t, "d", &s, 1, 0, ours); /* logged; the run goes on */
    trace_add(t, "d", &s, 1, 0, ours);
    cr_expect_eq(trace_close(t, &err), PR_ERESOURCE);
}
