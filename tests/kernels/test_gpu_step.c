/* A batch as it goes to a GPU, and the table of graphs. */
#include "kernels/gpu_graph_key.h"
#include "kernels/gpu_step.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 96, MAX_RUNS = 9, MAX_PAGES = 40, MAX_SPANS = 5, N_ROT = 6 };

static const gpu_shape shape = {.n_heads = 12, .n_kv_heads = 2, .n_rot = N_ROT};

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

typedef struct {
    gpu_batch b;
    gpu_run run[MAX_RUNS];
    int32_t pages[MAX_RUNS][MAX_PAGES];
    float rope[MAX_TOKENS * N_ROT];
} random_batch;

static void make_batch(random_batch *x, uint32_t *state, bool decoding)
{
    size_t n_runs = next_random(state) % MAX_RUNS + 1, at = 0;

    for (size_t i = 0; i < n_runs; i++) {
        size_t n = decoding ? 1 : next_random(state) % (MAX_TOKENS / MAX_RUNS) + 1;
        x->run[i] = (gpu_run){at, n, next_random(state) % (MAX_PAGES * KV_PAGE - n + 1), x->pages[i]};
        for (size_t p = 0; p < MAX_PAGES; p++) x->pages[i][p] = (int32_t)(next_random(state) % 1000);
        at += n;
    }
    for (size_t i = 0; i < at * N_ROT; i++) x->rope[i] = (float)next_random(state);
    x->b = (gpu_batch){.n_tokens = at, .n_runs = n_runs, .run = x->run, .rope = x->rope};
}

static const int32_t *ints(const uint8_t *step, size_t at)
{
    return (const int32_t *)(const void *)(step + at);
}

/* Each token and run says what the batch says; rows of all tiles of a run are its rows, in order. Tiles of
 * runs of one token stand before all others. */
static void expect_step(const uint8_t *step, const gpu_step_layout *l, const random_batch *x)
{
    size_t single = 0, other = l->n_single, longest = 0, group = shape.n_heads / shape.n_kv_heads;

    for (size_t i = 0; i < x->b.n_runs; i++) {
        const gpu_run *r = &x->run[i];
        size_t rows = 0, tile = r->n == 1 ? single : other;
        if (r->n == 1 && r->pos + 1 > longest) longest = r->pos + 1;
        cr_assert_eq(ints(step, l->first)[i], (int32_t)r->first);
        for (size_t t = 0; t < r->n; t++) {
            size_t at = r->first + t, pos = r->pos + t;
            cr_assert_eq(ints(step, l->pos)[at], (int32_t)pos);
            cr_assert_eq(ints(step, l->page)[at], x->pages[i][pos / 32]);
            cr_assert_eq(ints(step, l->run)[at], (int32_t)i);
        }
        for (size_t p = 0; p <= (r->pos + r->n - 1) / 32; p++)
            cr_assert_eq(ints(step, l->pages)[i * l->page_stride + p], x->pages[i][p]);
        for (; tile < l->n_tiles && ints(step, l->tile)[4 * tile] == (int32_t)i; tile++) {
            const int32_t *t = ints(step, l->tile) + 4 * tile;
            cr_assert(t[1] == (int32_t)rows && t[2] > 0 && t[2] <= GPU_ATTN_ROWS && t[3] == (int32_t)r->pos);
            rows += (size_t)t[2];
        }
        cr_assert_eq(rows, r->n * group);
        *(r->n == 1 ? &single : &other) = tile;
    }
    cr_assert(single == l->n_single && other == l->n_tiles);
    cr_assert_eq(l->single_bucket, longest ? gpu_step_bucket(longest, MAX_SPANS) : 0);
    cr_assert_eq(l->is_decoding, single == x->b.n_runs);
    cr_assert_eq(memcmp(step + l->rope, x->rope, x->b.n_tokens * N_ROT * sizeof(float)), 0);
}

Test(gpu_step, says_what_the_batch_says)
{
    static random_batch x;
    uint32_t state = 1;
    size_t most = gpu_step_most_bytes(&shape, MAX_TOKENS, MAX_RUNS, MAX_PAGES);

    for (int i = 0; i < 2000; i++) {
        make_batch(&x, &state, i % 3 == 0);
        gpu_step_layout l = gpu_step_layout_of(&x.b, &shape, MAX_PAGES, MAX_SPANS);
        uint8_t *step = malloc(l.bytes); /* its own, so that ASan sees what is written behind it */
        cr_assert_not_null(step);
        cr_assert_leq(l.bytes, most);
        gpu_step_fill(step, &l, &x.b, &shape);
        expect_step(step, &l, &x);
        free(step);
    }
}

/* All that a graph has baked in follows from its key. */
Test(gpu_step, decoding_depends_on_tokens_and_bucket)
{
    static random_batch x;
    static gpu_step_layout known[MAX_RUNS + 1][MAX_SPANS + 1];
    uint32_t state = 7;

    for (int i = 0; i < 2000; i++) {
        make_batch(&x, &state, true);
        gpu_step_layout l = gpu_step_layout_of(&x.b, &shape, MAX_PAGES, MAX_SPANS);
        cr_assert(l.is_decoding && l.bucket <= MAX_SPANS);
        if (!known[l.n_tokens][l.bucket].bytes) known[l.n_tokens][l.bucket] = l;
        cr_assert_eq(memcmp(&l, &known[l.n_tokens][l.bucket], sizeof l), 0);
    }
}

Test(gpu_step, buckets)
{
    const size_t positions[] = {1, 256, 257, 512, 513, 1024, 1025, 1280};
    const size_t bucket[] = {1, 1, 2, 2, 4, 4, 5, 5};

    for (size_t i = 0; i < sizeof bucket / sizeof *bucket; i++)
        cr_assert_eq(gpu_step_bucket(positions[i], MAX_SPANS), bucket[i], "%zu", positions[i]);
}

/* --- the table of graphs ------------------------------------------------------------------------------ */
Test(gpu_graph_table, finds_what_it_has)
{
    gpu_graph_table t = {0};
    bool is_new;
    size_t slot[GPU_GRAPHS];

    for (size_t i = 0; i < GPU_GRAPHS; i++) {
        slot[i] = gpu_graph_slot(&t, &(gpu_graph_key){i % 2, i / 2 % 2, i / 4 % 2, i / 8}, &is_new);
        cr_assert(is_new && slot[i] < GPU_GRAPHS);
        for (size_t j = 0; j < i; j++) cr_assert_neq(slot[i], slot[j]);
    }
    for (size_t i = 0; i < GPU_GRAPHS; i++) {
        cr_assert_eq(gpu_graph_slot(&t, &(gpu_graph_key){i % 2, i / 2 % 2, i / 4 % 2, i / 8}, &is_new),
                     slot[i]);
        cr_assert_not(is_new);
    }
}

/* Against a list in the order of use. */
Test(gpu_graph_table, the_least_recently_used_goes)
{
    static gpu_graph_table t;
    size_t order[GPU_GRAPHS], n = 0;
    uint32_t state = 3;

    for (int i = 0; i < 20000; i++) {
        size_t key = next_random(&state) % (GPU_GRAPHS + 20), at = 0;
        bool is_new;
        size_t slot = gpu_graph_slot(&t, &(gpu_graph_key){.n_tokens = key}, &is_new);
        cr_assert_eq(t.key[slot].n_tokens, key);
        while (at < n && order[at] != key) at++;
        cr_assert_eq(is_new, at == n, "step %d", i);
        if (at == n && n < GPU_GRAPHS) n++;
        else if (at == n) at = 0; /* the oldest */
        memmove(order + at, order + at + 1, (n - 1 - at) * sizeof *order * (at < n - 1));
        order[n - 1] = key;
    }
}
