/* Weights that are read in every pass: the same bits as from memory, for any split into windows, any share
 * that is streamed, any buffer, way of reading and number of threads; while resident pieces are given back
 * and taken again; and what happens when the disk fails. */
#include "src/model/pieces.h"
#include "src/run/engine.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 48, CHUNK = 20, MAX_WINDOWS = 8 };

static char dir[] = "build/streaming-XXXXXX";
static model m;
static pr_err err;

static void begin(void)
{
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(model_open(&m, "datasets/demo/demo.gguf", &err), PR_OK, "%s", err.msg);
}

static void end(void)
{
    char command[128];

    model_close(&m);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(streaming, .init = begin, .fini = end, .timeout = 120);

typedef struct {
    uint32_t windows, streamed[MAX_WINDOWS], buffer;
    stream_kind kind;
    int threads;
} setting;

static engine_options options_of(const setting *s)
{
    return (engine_options){.n_threads = s->threads,
                            .kv = KV_F16,
                            .n_pages = 4,
                            .max_tokens = CHUNK,
                            .max_out = 1,
                            .n_windows = s->windows,
                            .streamed = s->streamed,
                            .buffer_pieces = s->buffer,
                            .stream = s->kind,
                            .pack_dir = dir};
}

/* Logits after a prompt in chunks and some tokens one by one; between passes `each` is called (may be NULL).
 */
static int compute(engine *e, float *logits, void (*each)(engine *e, size_t pass))
{
    int32_t pages[4] = {2, 0, 3, 1}, id[TOKENS];
    size_t at = 0;

    for (int i = 0; i < TOKENS; i++) id[i] = 3 + i * 37 % 200;
    for (size_t pass = 0; at < TOKENS; pass++) {
        size_t n = pass < 2 ? CHUNK : 1;
        int32_t last = (int32_t)n - 1;
        batch_run run = {.n = n, .pos = at, .pages = pages};
        batch b = {.n_tokens = n, .token = id + at, .n_runs = 1, .run = &run, .n_out = 1, .out = &last};
        int rc = engine_forward(e, &b, &err);
        if (rc) return rc;
        if (each) each(e, pass);
        at += n;
    }
    memcpy(logits, engine_logits(e, 0), vocab_size(m.vocab) * sizeof *logits);
    return PR_OK;
}

static float *resident_logits(void)
{
    float *x = malloc(vocab_size(m.vocab) * sizeof *x);
    setting s = {.windows = 1, .threads = 1};
    engine_options o = options_of(&s);
    engine *e;

    o.streamed = NULL;
    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(compute(e, x, NULL), PR_OK);
    engine_free(e);
    return x;
}

static void check(const setting *s, const float *expected, void (*each)(engine *e, size_t pass))
{
    size_t n = vocab_size(m.vocab);
    float *got = malloc(n * sizeof *got);
    engine_options o = options_of(s);
    engine *e;

    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(compute(e, got, each), PR_OK, "%s", err.msg);
    cr_assert_eq(memcmp(got, expected, n * sizeof *got), 0, "%u windows, %u.. streamed, buffer %u, kind %d",
                 s->windows, s->streamed[0], s->buffer, (int)s->kind);
    engine_free(e);
    free(got);
}

Test(streaming, gives_the_same_bits)
{
    float *expected = resident_logits();
    uint32_t all = m.hp.n_layers * LAYER_PIECES;

    for (uint32_t windows = 1; windows <= 3; windows++) {
        uint32_t most = all / windows / LAYER_PIECES * LAYER_PIECES;
        for (uint32_t x = 1; x <= most; x += x < 4 ? 1 : 13) {
            for (uint32_t buffer = 2; buffer <= 6; buffer += 2) {
                setting s = {windows,
                             {x, x / 2, most - x},
                             buffer,
                             x % 3 == 2 ? STREAM_MAP : STREAM_READ,
                             1 + (int)x % 3};
                check(&s, expected, NULL);
            }
        }
    }
    free(expected);
}

/* Twice back, twice again, and more than there is. */
static void give_and_take(engine *e, size_t pass)
{
    static const int64_t wanted[] = {100000, 300000, -50000, 1 << 30, -(1 << 30), 20000};
    residency *r = engine_residency(e);
    residency_counts was = residency_about(r), is;
    int64_t changed;

    if (pass >= sizeof wanted / sizeof *wanted) return;
    cr_assert_eq(residency_adjust(r, wanted[pass], &changed, &err), PR_OK, "%s", err.msg);
    is = residency_about(r);
    cr_assert(wanted[pass] > 0 ? changed > 0 : changed < 0);
    cr_assert_eq((int64_t)(is.pass_bytes - was.pass_bytes), changed);
    cr_assert_eq((int64_t)(is.given_bytes - was.given_bytes), changed);
    if (wanted[pass] == -(1 << 30)) cr_assert_eq(is.given_bytes, 0, "all is taken again");
}

Test(streaming, pieces_are_given_back_and_taken_again)
{
    float *expected = resident_logits();

    for (int kind = STREAM_READ; kind <= STREAM_MAP; kind++) {
        setting s = {2, {5, 9}, 3, (stream_kind)kind, 2};
        check(&s, expected, give_and_take);
    }
    free(expected);
}

/* What engine_need says is what is taken, to the byte but for pages. */
Test(streaming, needs_what_it_says)
{
    for (uint32_t x = 0; x <= 64; x += 16) {
        setting s = {1, {x}, 3, STREAM_READ, 1};
        engine_options o = options_of(&s);
        engine_memory need = engine_need(&m, &o);
        engine *e;
        cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
        engine_facts f = engine_about(e);
        cr_assert_eq(f.streamed_bytes, need.streamed);
        cr_assert_leq(f.weights_bytes, need.weights + (4 << 20), "regions are whole pages of 2 MiB at most");
        if (x == 64) cr_assert_gt(need.streamed, hparams_layer_bytes(&m.hp, 0, m.hp.n_layers) * 9 / 10);
        engine_free(e);
    }
}

/* As little is streamed as the budget allows: one piece less does not fit. */
Test(streaming, fits_a_budget)
{
    uint32_t none[3] = {0}, x[3] = {0};
    setting s = {3, {0}, 3, STREAM_READ, 1};
    engine_options o = options_of(&s);
    uint64_t least, most, budget;
    uint32_t total;

    o.streamed = none;
    most = engine_need(&m, &o).total;
    for (int i = 0; i < 3; i++)
        x[i] = (uint32_t)(m.hp.n_layers * (uint32_t)(i + 1) / 3 - m.hp.n_layers * (uint32_t)i / 3) *
               LAYER_PIECES;
    o.streamed = x;
    least = engine_need(&m, &o).total;
    cr_assert_lt(least, most);
    for (int step = 0; step <= 10; step++) {
        budget = least + (most - least) * (uint64_t)step / 10;
        memset(x, 0, sizeof x);
        cr_assert_eq(engine_fit(&m, &o, x, budget, &err), PR_OK, "%s", err.msg);
        cr_assert_leq(engine_need(&m, &o).total, budget);
        total = x[0] + x[1] + x[2];
        cr_assert(step == 10 ? total == 0 : total > 0);
    }
    memset(x, 0, sizeof x);
    cr_assert_eq(engine_fit(&m, &o, x, least - 100000, &err), PR_ERESOURCE);
    cr_assert_not_null(strstr(err.msg, "missing"));
}

/* A buffer that leaves no room although every piece is streamed becomes smaller, not below two pieces. */
Test(streaming, gives_up_buffer_where_nothing_else_is_left)
{
    uint32_t all = m.hp.n_layers * LAYER_PIECES, x = all;
    setting s = {1, {0}, 2, STREAM_READ, 1};
    engine_options o = options_of(&s);
    uint64_t least;

    o.streamed = &x;
    least = engine_need(&m, &o).total;
    o.buffer_pieces = 12;
    cr_assert_eq(engine_fit(&m, &o, &x, least, &err), PR_OK, "%s", err.msg);
    cr_assert(x == all && o.buffer_pieces == 2);
    o.buffer_pieces = 12;
    cr_assert_eq(engine_fit(&m, &o, &x, least + 100000, &err), PR_OK, "%s", err.msg);
    cr_assert(o.buffer_pieces > 2 && o.buffer_pieces < 12 && engine_need(&m, &o).total <= least + 100000);
}

/* The pack is cut off while it is used: a named failure, not a wrong answer. */
static void find_pack(char *path, size_t n)
{
    char command[160];
    FILE *f;

    snprintf(command, sizeof command, "find %s -name layers.pack", dir);
    f = popen(command, "r");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(path, (int)n, f));
    path[strcspn(path, "\n")] = 0;
    pclose(f);
}

/* Giving back makes the stream anew, and the pack is gone: that pass and all later ones fail by name. */
Test(streaming, a_stream_that_cannot_be_made_again)
{
    float *got = malloc(vocab_size(m.vocab) * sizeof *got);
    setting s = {1, {20}, 3, STREAM_READ, 2};
    engine_options o = options_of(&s);
    char path[256];
    int64_t changed;
    engine *e;

    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    find_pack(path, sizeof path);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(residency_adjust(engine_residency(e), 100000, &changed, &err), PR_ERESOURCE);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(compute(e, got, NULL), PR_ERESOURCE);
        cr_assert_not_null(strstr(err.msg, "layers.pack"), "%s", err.msg);
    }
    engine_free(e);
    free(got);
}

static void cut_off(engine *e, size_t pass)
{
    char path[256];

    (void)e;
    if (pass != 3) return;
    find_pack(path, sizeof path);
    cr_assert_eq(truncate(path, 8192), 0);
}

Test(streaming, a_pack_that_is_cut_off_ends_the_run)
{
    float *got = malloc(vocab_size(m.vocab) * sizeof *got);
    setting s = {1, {40}, 3, STREAM_READ, 2};
    engine_options o = options_of(&s);
    engine *e;
    int rc;

    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    rc = compute(e, got, cut_off);
    cr_assert(rc == PR_EINTEGRITY || rc == PR_ERESOURCE, "%d", rc);
    cr_assert_not_null(strstr(err.msg, "layers.pack"), "%s", err.msg);
    engine_free(e);
    /* The next start builds again what is torn. */
    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    float *expected = resident_logits();
    cr_assert_eq(compute(e, got, NULL), PR_OK, "%s", err.msg);
    cr_assert_eq(memcmp(got, expected, vocab_size(m.vocab) * sizeof *got), 0);
    engine_free(e);
    free(expected);
    free(got);
}
