/* Whole layers and logits on a GPU: against the CPU within tolerances, and the same bits whatever the batch,
 * the chunks of a prompt, the windows, and whether a step was a graph. */
#include "kernels/cuda/device.h"
#include "src/model/forward.h"
#include "src/model/gpu_layers.h"
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include "tests/gpu/harness.h"
#include "tests/gpu/random_model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 8, MAX_PARTS = 4, MAX_TOKENS = 96, N_PAGES = 72, MAX_OUT = 8, N_SEQ = 4 };

static void make_dir(void)
{
    test_dir_new();
}
TestSuite(layers, .init = make_dir, .fini = test_dir_remove, .timeout = 500);

/* --- a model, its first layers on GPUs ------------------------------------------------------------------ */
/* How it is spread: layers of each place (0: no more), of which each is called `calls` times; the rest on the
 * CPU. */
typedef struct {
    uint32_t layers[MAX_PARTS];
    uint32_t calls; /* 0: 1 */
    bool output;
    kv_type kv;
} spread;

typedef struct {
    gguf *g;
    hparams hp;
    kernel_table k;
    pool *pool;
    workspace *ws;
    window win;
    head head;
    gpu_place *place[MAX_PARTS], *output;
    gpu_part part[MAX_PARTS * MAX_LAYERS];
    int32_t pages[N_SEQ][N_PAGES / N_SEQ];
    uint64_t n_batches;
} rig;

static void must_be_ok(int rc, const pr_err *err)
{
    cr_assert_eq(rc, PR_OK, "%s", err->msg);
}

static gpu_layers_options place_options(const spread *s, const uint32_t *layer, size_t n, bool output)
{
    return (gpu_layers_options){.layer = layer,
                                .n_layers = n,
                                .output = output,
                                .kv = s->kv,
                                .n_pages = N_PAGES,
                                .max_tokens = MAX_TOKENS,
                                .max_runs = N_SEQ,
                                .max_positions = N_PAGES / N_SEQ * KV_PAGE,
                                .max_out = MAX_OUT};
}

/* The parts of a place, cut in `calls`. */
static void add_parts(rig *r, gpu_place *g, uint32_t n, uint32_t calls)
{
    for (uint32_t c = 0; c < calls; c++) {
        uint32_t first = n * c / calls, end = n * (c + 1) / calls;
        if (first < end) r->part[r->win.n_parts++] = (gpu_part){g, first, end - first};
    }
}

static void open_places(rig *r, const spread *s)
{
    uint32_t next = 0, layer[MAX_LAYERS];
    size_t n_parts = 0;
    pr_err err = {0};

    for (int i = 0; i < MAX_PARTS && s->layers[i]; i++) {
        gpu_layers_options o = place_options(s, layer, s->layers[i], s->output && i == 0);
        for (uint32_t l = 0; l < s->layers[i]; l++) layer[l] = next + l;
        must_be_ok(gpu_layers_open(&r->place[i], &r->hp, &o, r->pool, &err), &err);
        if (o.output) r->output = r->place[i];
        next += s->layers[i];
        n_parts++;
    }
    weights *w;
    must_be_ok(weights_new(&w, &r->hp, next, r->hp.n_layers, r->pool, "test", &err), &err);
    must_be_ok(window_init(&r->win, &r->hp, next, r->hp.n_layers, s->kv, N_PAGES, w, &err), &err);
    r->win.part = r->part;
    for (size_t i = 0; i < n_parts; i++) add_parts(r, r->place[i], s->layers[i], s->calls ? s->calls : 1);
}

static rig *open_rig(const char *path, spread s)
{
    rig *r = calloc(1, sizeof *r);
    workspace_size work = {.max_tokens = MAX_TOKENS, .max_out = MAX_OUT};
    uint32_t on_gpus = 0;
    pr_err err = {0};

    cr_assert_not_null(r);
    must_be_ok(gguf_open(&r->g, path, &err), &err);
    must_be_ok(hparams_read(&r->hp, r->g, &err), &err);
    kernels_init(&r->k, cpu_features());
    must_be_ok(pool_new(&r->pool, 2, &err), &err);
    for (int i = 0; i < MAX_PARTS; i++) on_gpus += s.layers[i];
    work.has_layers = on_gpus < r->hp.n_layers;
    must_be_ok(workspace_new(&r->ws, &r->hp, &r->k, r->pool, &work, &err), &err);
    must_be_ok(head_init(&r->head, &r->hp, true, r->pool, &err), &err);
    open_places(r, &s);
    /* A page table that is neither ascending nor dense. */
    for (int i = 0; i < N_PAGES; i++) r->pages[i % N_SEQ][i / N_SEQ] = (i * 5 + 3) % N_PAGES;
    return r;
}

static void close_rig(rig *r)
{
    for (int i = 0; i < MAX_PARTS; i++) gpu_close(r->place[i]);
    window_clear(&r->win);
    head_clear(&r->head);
    workspace_free(r->ws);
    pool_free(r->pool);
    hparams_clear(&r->hp);
    gguf_close(r->g);
    free(r);
}

static size_t n_embd(const rig *r)
{
    return r->hp.n_embd;
}

/* The embedding of any position of any sequence. */
static void make_hidden(const rig *r, float *x, size_t seq, size_t pos)
{
    uint64_t state = seq * 1000003 + pos;

    for (size_t i = 0; i < n_embd(r); i++) {
        state = (state + i + 1) * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) / 0x1p23f - 1.0f;
    }
}

/* Tokens [pos, pos + n) of a sequence as a run at `first`. */
static batch_run run_of(const rig *r, float *hidden, size_t first, size_t seq, size_t pos, size_t n)
{
    for (size_t t = 0; t < n; t++) make_hidden(r, hidden + (first + t) * n_embd(r), seq, pos + t);
    return (batch_run){first, n, pos, r->pages[seq]};
}

static int forward(rig *r, const batch_run *run_list, size_t n_runs, float *hidden, pr_err *err)
{
    batch b = {.n_runs = n_runs, .run = run_list, .number = ++r->n_batches};

    for (size_t i = 0; i < n_runs; i++) b.n_tokens += run_list[i].n;
    return window_forward(&r->win, r->ws, &b, hidden, err);
}

/* out: hidden states of tokens [0, end) of a sequence, of which those from `at` on are computed, in chunks.
 */
static void feed_part(rig *r, float *out, size_t seq, size_t at, size_t end, size_t chunk)
{
    pr_err err = {0};

    for (; at < end; at += chunk) {
        float *hidden = out + at * n_embd(r);
        batch_run one = run_of(r, hidden, 0, seq, at, end - at < chunk ? end - at : chunk);
        must_be_ok(forward(r, &one, 1, hidden, &err), &err);
    }
}

static void feed(rig *r, float *out, size_t seq, size_t n, size_t chunk)
{
    feed_part(r, out, seq, 0, n, chunk);
}

static float *floats(size_t n)
{
    float *x = calloc(n, sizeof *x);
    cr_assert_not_null(x);
    return x;
}

/* Root of the mean square of differences, beside that of the values. */
static double nrmse(const float *got, const float *expected, size_t n)
{
    double wrong = 0, all = 0;

    for (size_t i = 0; i < n; i++) {
        cr_assert(isfinite(got[i]), "value %zu is %g", i, (double)got[i]);
        wrong += pow((double)got[i] - (double)expected[i], 2);
        all += pow((double)expected[i], 2);
    }
    return sqrt(wrong / all);
}

/* --- the models -------------------------------------------------------------------------------------------
 */
/* limit: 8-bit products are the same bits, but what is quantised before them comes from norms and attention
 * that differ in the last bits: now and then a value is rounded the other way, by one of 127 steps. Float
 * products: attention's halves, 2^-11 of a probability. */
static const struct {
    random_model shape;
    kv_type kv;
    double limit;
} models[] = {
    {{"llama", 4, 64, 4, 2, 16, 96, 40, {Q_Q8_0, Q_Q4_0, Q_Q8_0}}, KV_F16, 0.02},
    {{"qwen3", 3, 256, 8, 2, 32, 256, 33, {Q_Q4_K, Q_Q6_K, Q_F16}}, KV_Q8_0, 0.02},
    {{"qwen2", 3, 40, 3, 3, 24, 72, 50, {Q_F32, Q_F16, Q_BF16}}, KV_F16, 0.005},
};
enum { N_MODELS = sizeof models / sizeof *models };

static const char *write_model(size_t i)
{
    random_model_write(&models[i].shape, 77 + i, in_dir("model.gguf"));
    return in_dir("model.gguf");
}

/* --- against the CPU --------------------------------------------------------------------------------------
 */
static void project(rig *r, const float *hidden, const int32_t *rows, size_t n, float *logits)
{
    size_t stride = head_logits_stride(&r->hp);
    pr_err err = {0};

    if (r->output) must_be_ok(gpu_project(r->output, hidden, rows, n, logits, stride, &err), &err);
    else head_logits(&r->head, r->ws, hidden, rows, n, logits);
}

Test(layers, near_the_cpu)
{
    need_gpu();
    for (size_t i = 0; i < N_MODELS; i++) {
        enum { N = 75 };
        const char *path = write_model(i);
        uint32_t all = models[i].shape.layers;
        static const int32_t rows[] = {N - 1, 3, 40};
        rig *cpu = open_rig(path, (spread){.kv = models[i].kv}),
            *gpu = open_rig(path, (spread){.layers = {all}, .output = true, .kv = models[i].kv}),
            *some = open_rig(path, (spread){.layers = {1, all - 2}, .kv = models[i].kv});
        size_t n = N * n_embd(cpu), stride = head_logits_stride(&cpu->hp), n_vocab = cpu->hp.n_vocab;
        float *x = floats(n), *y = floats(n), *z = floats(n), *lx = floats(3 * stride),
              *ly = floats(3 * stride);

        feed(cpu, x, 0, N, 32);
        feed(gpu, y, 0, N, 32);
        feed(some, z, 0, N, 32);
        cr_expect_leq(nrmse(y, x, n), models[i].limit, "model %zu: %g", i, nrmse(y, x, n));
        cr_expect_leq(nrmse(z, x, n), models[i].limit, "model %zu, partly: %g", i, nrmse(z, x, n));
        project(cpu, x, rows, 3, lx);
        project(gpu, x, rows, 3, ly);
        for (size_t k = 0; k < 3; k++)
            cr_expect_leq(nrmse(ly + k * stride, lx + k * stride, n_vocab), models[i].limit,
                          "model %zu, logits", i);
        cr_assert_gt(gpu_busy_ms(gpu->place[0]), 0);
        close_rig(cpu);
        close_rig(gpu);
        close_rig(some);
        free(x), free(y), free(z), free(lx), free(ly);
    }
}

/* --- the same bits
 * ------------------------------------------------------------------------------------------ */
Test(layers, chunks_do_not_matter)
{
    need_gpu();
    for (size_t i = 0; i < N_MODELS; i++) {
        enum { N = 90 };
        static const size_t chunk[] = {1, 17, 33};
        const char *path = write_model(i);
        spread s = {.layers = {models[i].shape.layers}, .kv = models[i].kv};
        rig *r = open_rig(path, s);
        size_t n = N * n_embd(r);
        float *x = floats(n), *y = floats(n);

        feed(r, x, 0, N, N);
        close_rig(r);
        for (size_t c = 0; c < sizeof chunk / sizeof *chunk; c++) {
            r = open_rig(path, s);
            feed(r, y, 0, N, chunk[c]);
            expect_same_bits(y, x, n, "chunks");
            close_rig(r);
        }
        free(x), free(y);
    }
}

/* Beyond spans of attention (256 keys), where decoding is cut along the context and takes another graph. */
Test(layers, long_contexts)
{
    static const size_t decoded[][2] = {{250, 262}, {507, 516}};
    enum { N = 516 };
    const char *path = write_model(0);
    spread s = {.layers = {1}, .kv = KV_F16};
    rig *r, *q;
    float *x, *y;
    size_t at = 0, d;

    need_gpu();
    r = open_rig(path, s);
    q = open_rig(path, s);
    d = n_embd(r);
    x = floats(N * d);
    y = floats(N * d);
    feed(r, x, 0, N, MAX_TOKENS);
    for (size_t i = 0; i < 2; i++) {
        feed_part(q, y, 0, at, decoded[i][0], 80);
        feed_part(q, y, 0, decoded[i][0], decoded[i][1], 1);
        at = decoded[i][1];
    }
    expect_same_bits(y, x, N * d, "decoded behind a prompt");
    close_rig(r);
    close_rig(q);
    free(x), free(y);
}

/* A sequence with a long context decodes between prompts: the same bits as alone. */
Test(layers, long_contexts_beside_prompts)
{
    enum { LONG = 540, MORE = 27 };

    need_gpu();
    for (size_t i = 0; i < 2; i++) { /* F16, Q8_0 */
        const char *path = write_model(i);
        spread s = {.layers = {1}, .kv = models[i].kv};
        rig *alone = open_rig(path, s), *together = open_rig(path, s);
        size_t d = n_embd(alone);
        float *x = floats(LONG * d), *z = floats(MORE * d), *y = floats(LONG * d);

        feed(alone, x, 0, LONG, MAX_TOKENS);
        feed(alone, z, 1, MORE, MORE);
        feed(together, y, 0, LONG - 3, MAX_TOKENS);
        for (size_t step = 0; step < 3; step++) {
            batch_run runs[] = {run_of(together, y, 0, 1, 9 * step, 9),
                                run_of(together, y, 9, 0, LONG - 3 + step, 1),
                                run_of(together, y, 10, 2, 5 * step, 5)};
            cr_assert_eq(forward(together, runs, 3, y, NULL), PR_OK);
            expect_same_bits(y, z + 9 * step * d, 9 * d, "a prompt");
            expect_same_bits(y + 9 * d, x + (LONG - 3 + step) * d, d, "decoded");
        }
        close_rig(alone);
        close_rig(together);
        free(x), free(y), free(z);
    }
}

/* Three sequences together, prompts and decoding mixed, against each alone. */
Test(layers, neighbours_do_not_matter)
{
    need_gpu();
    for (size_t i = 0; i < N_MODELS; i++) {
        enum { N = 30 };
        const char *path = write_model(i);
        spread s = {.layers = {models[i].shape.layers}, .kv = models[i].kv};
        rig *alone = open_rig(path, s), *together = open_rig(path, s);
        size_t d = n_embd(alone);
        float *x[3], *y = floats(MAX_TOKENS * d);

        for (size_t k = 0; k < 3; k++) {
            x[k] = floats(N * d);
            feed(alone, x[k], k, N, 8);
        }
        /* seq 0 decodes from its 20th token while 1 and 2 are at other places */
        feed(together, y, 0, 20, 20);
        feed(together, y, 1, 7, 7);
        for (size_t step = 0; step < 3; step++) {
            batch_run runs[] = {run_of(together, y, 0, 0, 20 + step, 1),
                                run_of(together, y, 1, 1, 7 + 5 * step, 5),
                                run_of(together, y, 6, 2, 9 * step, 9)};
            cr_assert_eq(forward(together, runs, 3, y, NULL), PR_OK);
            expect_same_bits(y, x[0] + (20 + step) * d, d, "one token");
            expect_same_bits(y + d, x[1] + (7 + 5 * step) * d, 5 * d, "five tokens");
            expect_same_bits(y + 6 * d, x[2] + 9 * step * d, 9 * d, "nine tokens");
        }
        for (size_t step = 23; step < 27; step++) { /* all decode: graphs */
            batch_run runs[] = {run_of(together, y, 0, 0, step, 1), run_of(together, y, 1, 1, step - 1, 1),
                                run_of(together, y, 2, 2, step + 3, 1)};
            cr_assert_eq(forward(together, runs, 3, y, NULL), PR_OK);
            expect_same_bits(y, x[0] + step * d, d, "first of three");
            expect_same_bits(y + d, x[1] + (step - 1) * d, d, "second of three");
            feed_part(together, y, 0, step, step + 1, 1); /* the same token again, alone */
            expect_same_bits(y + step * d, x[0] + step * d, d, "between steps of three");
        }
        close_rig(alone);
        close_rig(together);
        free(x[0]), free(x[1]), free(x[2]), free(y);
    }
}

Test(layers, windows_do_not_matter)
{
    static const spread ways[] = {{.layers = {4}},
                                  {.layers = {4}, .calls = 2},
                                  {.layers = {4}, .calls = 4},
                                  {.layers = {1, 3}},
                                  {.layers = {2, 1, 1}, .output = true}};
    enum { N = 40 };
    const char *path = write_model(0);
    float *first = NULL, *x;

    need_gpu();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        rig *r = open_rig(path, ways[i]);
        size_t n = N * n_embd(r);
        x = floats(n);
        feed(r, x, 1, N - 4, 19);
        feed_part(r, x, 1, N - 4, N, 1);
        if (first) {
            expect_same_bits(x, first, n, "windows");
            free(x);
        } else first = x;
        close_rig(r);
    }
    free(first);
}

/* The same step again and again: launched, captured, replayed. Then for other contexts with the same graph.
 */
Test(layers, graphs_do_what_launches_do)
{
    enum { N = 60 };
    const char *path = write_model(1);
    spread s = {.layers = {3}, .kv = KV_Q8_0};
    rig *r, *q;
    float *x, *y, *again;
    size_t d;

    need_gpu();
    r = open_rig(path, s);
    d = n_embd(r);
    x = floats(N * d);
    y = floats(N * d);
    again = floats(d);
    feed(r, x, 0, N, N);
    feed(r, y, 0, 10, 10);
    for (int k = 0; k < 4; k++) {
        batch_run one = run_of(r, again, 0, 0, 10, 1);
        cr_assert_eq(forward(r, &one, 1, again, NULL), PR_OK);
        expect_same_bits(again, x + 10 * d, d, "again");
    }
    q = open_rig(path, s);
    feed(q, y, 0, 10, 10);
    feed_part(q, y, 0, 10, N, 1);
    expect_same_bits(y, x, N * d, "replayed");
    close_rig(r);
    close_rig(q);
    free(x), free(y), free(again);
}

#ifdef PRIMA_EMULATED_GPU
/* --- what goes wrong
 * ------------------------------------------------------------------------------------------ */
Test(layers, takes_what_gpu_need_says)
{
    const char *path = write_model(0);
    gpu_memory taken;
    rig *r;

    need_gpu();
    r = open_rig(path, (spread){.layers = {4}, .output = true});
    float *x = floats(80 * n_embd(r)), *logits = floats(MAX_OUT * head_logits_stride(&r->hp));
    int32_t row = 79;
    feed(r, x, 0, 70, 64);
    feed(r, x, 0, 80, 1);
    project(r, x, &row, 1, logits);
    taken = gpu_taken(r->place[0]);
    cr_assert_eq(emulate_vram_peak(0), taken.total);
    cr_assert_eq(emulate_pinned_peak(), taken.host + taken.loading);
    cr_assert_leq(taken.loading, taken.weights); /* two of the largest matrix: there are four layers */
    close_rig(r);
    free(x), free(logits);
}

Test(layers, too_little_memory_is_said_in_bytes)
{
    const char *path = write_model(0);
    uint32_t layer[] = {0, 1};
    spread s = {0};
    gpu_layers_options o = place_options(&s, layer, 2, false);
    rig *r;
    gpu_memory need;
    gpu_place *g = NULL;
    pr_err err = {0};
    char text[32];

    need_gpu();
    r = open_rig(path, s);
    must_be_ok(gpu_layers_need(&need, &r->hp, &o, &err), &err);
    snprintf(text, sizeof text, "%llu", (unsigned long long)need.total - 1);
    setenv("PRIMA_EMULATE_VRAM", text, 1);
    cr_assert_eq(gpu_layers_open(&g, &r->hp, &o, r->pool, &err), PR_ERESOURCE);
    cr_assert_not_null(strstr(err.msg, "missing"), "%s", err.msg);
    snprintf(text, sizeof text, "%llu", (unsigned long long)need.total);
    setenv("PRIMA_EMULATE_VRAM", text, 1);
    must_be_ok(gpu_layers_open(&g, &r->hp, &o, r->pool, &err), &err);
    gpu_close(g);
    close_rig(r);
}

/* Without a graph the same bits, and it goes on. */
Test(layers, a_failed_capture_is_no_failure)
{
    static const char *const calls[] = {"cudaStreamBeginCapture:1", "cudaStreamEndCapture:1",
                                        "cudaGraphInstantiateWithFlags:1"};
    enum { N = 20 };
    const char *path = write_model(0);
    spread s = {.layers = {4}};

    need_gpu();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        rig *r = open_rig(path, s), *q = open_rig(path, s);
        size_t d = n_embd(r);
        float *x = floats(N * d), *y = floats(N * d);
        feed(r, x, 0, N, N);
        setenv("PRIMA_EMULATE_FAIL", calls[i], 1);
        feed(q, y, 0, N, 1);
        unsetenv("PRIMA_EMULATE_FAIL");
        expect_same_bits(y, x, N * d, calls[i]);
        close_rig(r);
        close_rig(q);
        free(x), free(y);
    }
}

/* Every call of the runtime fails once: an error that names the GPU, or nothing; never a crash or wrong bits.
 */
Test(layers, every_call_may_fail)
{
    const char *path = write_model(0);
    uint32_t layer[] = {0};
    spread s = {0};
    gpu_layers_options o = place_options(&s, layer, 1, true);
    rig *r;
    float *x, *right = NULL;
    size_t n_failed = 0, n_forward = 0, n_well = 0;

    need_gpu();
    r = open_rig(path, s);
    x = floats(3 * n_embd(r));
    /* Behind the last call none fails; before, some may whose failure changes nothing. */
    for (int n = 0; n_well < 30; n++) {
        gpu_place *g = NULL;
        pr_err err = {0};
        float cs[3 * 16];
        gpu_run one = {0, 3, 0, r->pages[0]};
        gpu_batch b = {.n_tokens = 3, .n_runs = 1, .run = &one, .rope = cs};
        char text[32];
        int rc;

        for (size_t i = 0; i < 3 * 16; i++) cs[i] = i % 2 ? 0 : 1;
        for (size_t t = 0; t < 3; t++) make_hidden(r, x + t * n_embd(r), 0, t);
        snprintf(text, sizeof text, "any:%d", n);
        if (n) setenv("PRIMA_EMULATE_FAIL", text, 1);
        rc = gpu_layers_open(&g, &r->hp, &o, r->pool, &err);
        if (!rc) {
            rc = gpu_forward(g, 0, 1, &b, x, &err);
            if (rc) cr_expect_eq(gpu_forward(g, 0, 1, &b, x, NULL), PR_ERESOURCE, "call %d", n);
            n_forward += rc != PR_OK;
        }
        unsetenv("PRIMA_EMULATE_FAIL");
        gpu_close(g);
        n_well = rc ? 0 : n_well + 1;
        if (rc) {
            cr_expect_eq(rc, PR_ERESOURCE, "call %d: %s", n, err.msg);
            cr_expect(strstr(err.msg, "GPU"), "call %d: %s", n, err.msg);
            n_failed++;
        } else if (!right) {
            right = floats(3 * n_embd(r));
            memcpy(right, x, 3 * n_embd(r) * sizeof *x);
        } else expect_same_bits(x, right, 3 * n_embd(r), text);
        cr_assert_lt(n, 2000);
    }
    cr_expect(n_failed > 30 && n_forward > 10, "%zu, %zu", n_failed, n_forward);
    close_rig(r);
    free(x), free(right);
}
#endif
