/* Streamed pieces against the file they come from: in the expected order, in any other, by several threads,
 * and when the file fails. */
#include "src/model/stream.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 3 << 20, MAX_PIECES = 64 };

typedef struct {
    char path[64];
    uint8_t *bytes;
    size_t first[8];
    stream_piece piece[MAX_PIECES];
    stream_options o;
    stream *s;
} rig;

static uint32_t random_next(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    return *x ^= *x << 5;
}

static void rig_file(rig *r)
{
    uint32_t seed = 77;
    int fd;

    strcpy(r->path, "build/stream-XXXXXX");
    fd = mkstemp(r->path);
    cr_assert_geq(fd, 0);
    r->bytes = malloc(FILE_BYTES);
    for (size_t i = 0; i < FILE_BYTES; i++) r->bytes[i] = (uint8_t)random_next(&seed);
    cr_assert_eq(write(fd, r->bytes, FILE_BYTES), FILE_BYTES);
    close(fd);
}

/* Windows with these numbers of pieces, of odd sizes at odd places, rising. */
static void rig_open(rig *r, stream_kind kind, size_t n_slots, const size_t *n, size_t n_windows)
{
    uint32_t seed = 5;
    uint64_t at = 12345;
    size_t k = 0;
    pr_err err;

    rig_file(r);
    for (size_t i = 0; i < n_windows; i++) {
        for (size_t j = 0; j < n[i]; j++, k++) {
            size_t bytes = 1 + random_next(&seed) % 40000;
            r->piece[k] = (stream_piece){at, bytes};
            at += bytes + random_next(&seed) % 5000;
        }
        r->first[i + 1] = k;
    }
    cr_assert_lt(at, FILE_BYTES);
    r->o = (stream_options){
        .kind = kind, .n_windows = n_windows, .first = r->first, .piece = r->piece, .n_slots = n_slots};
    cr_assert_eq(stream_new(&r->s, r->path, &r->o, &err), PR_OK, "%s", err.msg);
}

static void rig_close(rig *r)
{
    stream_free(r->s);
    unlink(r->path);
    free(r->bytes);
}

static void pass(rig *r, size_t window)
{
    size_t n = r->first[window + 1] - r->first[window];

    stream_begin(r->s, window);
    for (size_t i = 0; i < n; i++) {
        const stream_piece *p = &r->piece[r->first[window] + i];
        const uint8_t *x = stream_wait(r->s, i);
        cr_assert_not_null(x);
        cr_assert_eq(memcmp(x, r->bytes + p->at, p->n), 0, "window %zu piece %zu", window, i);
        stream_done(r->s, i);
    }
    stream_end(r->s, window);
    cr_assert_eq(stream_failed(r->s, NULL), PR_OK);
}

static const stream_kind kinds[] = {STREAM_READ, STREAM_MAP};

Test(stream, the_expected_order, .timeout = 60)
{
    for (size_t k = 0; k < 2; k++) {
        for (size_t slots = 2; slots <= 9; slots++) {
            rig r = {0};
            rig_open(&r, kinds[k], slots, (size_t[]){3, 0, 5, 1}, 4);
            for (int lap = 0; lap < 6; lap++) {
                for (size_t w = 0; w < 4; w++) pass(&r, w);
            }
            stream_counts c = stream_about(r.s);
            cr_assert_eq(c.wasted_bytes, 0, "nothing is read for nothing");
            rig_close(&r);
        }
    }
}

/* Each window twice in a row, as with two micro-batches on their way: learned after the first lap. */
Test(stream, windows_used_several_times_in_a_row, .timeout = 60)
{
    rig r = {0};
    uint64_t wasted = 0;

    rig_open(&r, STREAM_READ, 4, (size_t[]){3, 2, 4}, 3);
    for (int lap = 0; lap < 8; lap++) {
        for (size_t w = 0; w < 3; w++) {
            pass(&r, w);
            pass(&r, w);
        }
        if (lap == 1) wasted = stream_about(r.s).wasted_bytes;
    }
    cr_assert_eq(stream_about(r.s).wasted_bytes, wasted, "after two laps the order is known");
    rig_close(&r);
}

Test(stream, any_order_is_right, .timeout = 60)
{
    for (size_t k = 0; k < 2; k++) {
        uint32_t seed = 9;
        rig r = {0};
        rig_open(&r, kinds[k], 3, (size_t[]){3, 0, 5, 1, 2}, 5);
        for (int i = 0; i < 200; i++) pass(&r, random_next(&seed) % 5);
        rig_close(&r);
    }
}

typedef struct {
    rig *r;
    size_t window, first, step;
    bool wrong;
} part;

static void *use_part(void *arg)
{
    part *x = arg;
    size_t n = x->r->first[x->window + 1] - x->r->first[x->window];

    for (size_t i = x->first; i < n; i += x->step) {
        const stream_piece *p = &x->r->piece[x->r->first[x->window] + i];
        const uint8_t *b = stream_wait(x->r->s, i);
        if (!b || memcmp(b, x->r->bytes + p->at, p->n)) x->wrong = true;
        stream_done(x->r->s, i);
    }
    return NULL;
}

Test(stream, pieces_are_used_by_several_threads, .timeout = 60)
{
    rig r = {0};

    rig_open(&r, STREAM_READ, 2, (size_t[]){13, 7},
             2); /* a place is used by another thread than the time before */
    for (int lap = 0; lap < 40; lap++) {
        pthread_t t[3];
        part x[3];
        stream_begin(r.s, (size_t)lap % 2);
        for (size_t i = 0; i < 3; i++) {
            x[i] = (part){&r, (size_t)lap % 2, i, 3, false};
            cr_assert_eq(pthread_create(&t[i], NULL, use_part, &x[i]), 0);
        }
        for (size_t i = 0; i < 3; i++) {
            pthread_join(t[i], NULL);
            cr_assert_not(x[i].wrong);
        }
        stream_end(r.s, (size_t)lap % 2);
    }
    rig_close(&r);
}

Test(stream, a_file_that_has_become_shorter_ends_it, .timeout = 60)
{
    rig r = {0};
    pr_err err;
    const uint8_t *x;

    rig_file(&r);
    r.first[1] = 1;
    r.piece[0] = (stream_piece){FILE_BYTES - 10000, 10000};
    r.o = (stream_options){.n_windows = 1, .first = r.first, .piece = r.piece, .n_slots = 2};
    cr_assert_eq(truncate(r.path, FILE_BYTES - 6000), 0);
    cr_assert_eq(stream_new(&r.s, r.path, &r.o, &err), PR_OK, "%s", err.msg);
    for (int i = 0; i < 3; i++) {
        stream_begin(r.s, 0);
        x = stream_wait(r.s, 0);
        cr_assert_null(x);
        stream_end(r.s, 0);
        cr_assert_eq(stream_failed(r.s, &err), PR_EINTEGRITY, "%s", err.msg);
        cr_assert_not_null(strstr(err.msg, r.path));
    }
    rig_close(&r);
}

Test(stream, nothing_to_stream_and_no_file)
{
    size_t first[2] = {0};
    stream_options o = {.n_windows = 1, .first = first, .n_slots = 2};
    stream *s;
    pr_err err;

    cr_assert_eq(stream_new(&s, "no such file", &o, &err), PR_OK);
    stream_begin(s, 0);
    stream_end(s, 0);
    stream_free(s);
    first[1] = 1;
    o.piece = &(stream_piece){0, 10};
    cr_assert_eq(stream_new(&s, "no such file", &o, &err), PR_ERESOURCE);
    cr_assert_not_null(strstr(err.msg, "no such file"));
}
