/* What layers on a GPU take: nothing overlaps, the sum is right, and what cannot be done is refused by name.
 */
#include "kernels/gpu_map.h"
#include "kernels/gpu_pack.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { D = 96, H = 6, K = 2, S = 16, F = 160, V = 301, LAYERS = 3, MAX_PARTS = 128 };

static gpu_matrix matrix(uint32_t type, size_t rows, size_t cols)
{
    return (gpu_matrix){type, rows, cols, NULL};
}

/* A small model of mixed types; vectors need only be there. */
typedef struct {
    gpu_layer layer[LAYERS];
    gpu_output output;
    gpu_options o;
} example;

static const float some[1];

static example make_example(void)
{
    example e = {.output = {.norm = some, .bias = some, .matrix = matrix(Q_Q8_0, V, D)}};

    for (size_t i = 0; i < LAYERS; i++)
        e.layer[i] = (gpu_layer){.attn_norm = some,
                                 .ffn_norm = some,
                                 .q_bias = i == 1 ? some : NULL,
                                 .q = matrix(Q_Q4_0, H * S, D),
                                 .k = matrix(Q_Q4_0, K * S, D),
                                 .v = matrix(i ? Q_F16 : Q_Q4_0, K * S, D),
                                 .o = matrix(Q_Q8_0, D, H * S),
                                 .gate = matrix(Q_Q4_0, F, D),
                                 .up = matrix(Q_Q4_0, F, D),
                                 .down = matrix(Q_F32, D, F)};
    e.o = (gpu_options){.shape = {.n_layers = LAYERS,
                                  .n_embd = D,
                                  .n_heads = H,
                                  .n_kv_heads = K,
                                  .head_size = S,
                                  .n_ff = F,
                                  .n_rot = S,
                                  .n_vocab = V},
                        .n_pages = 11,
                        .max_tokens = 37,
                        .max_runs = 5,
                        .max_positions = 700,
                        .max_out = 5};
    return e;
}

/* The pointers in an example are to itself. */
static int need(gpu_memory *out, example *e, pr_err *err)
{
    e->o.layer = e->layer;
    e->o.output = e->o.max_out ? &e->output : NULL;
    return gpu_need(out, &e->o, err);
}

typedef struct {
    uint64_t at, bytes;
} part;

static int by_place(const void *a, const void *b)
{
    const part *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static uint64_t floats(size_t rows, size_t width)
{
    return (uint64_t)rows * width * sizeof(float);
}

/* Counted here from the model alone. */
static size_t list_parts(part *p, const gpu_map *m, const example *e)
{
    size_t n = 0, T = e->o.max_tokens;

    for (size_t i = 0; i < LAYERS; i++) {
        const gpu_layer_map *l = &m->layer[i];
        p[n++] = (part){l->vector[GPU_ATTN_NORM], floats(1, D)};
        p[n++] = (part){l->vector[GPU_FFN_NORM], floats(1, D)};
        if (i == 1) p[n++] = (part){l->vector[GPU_Q_BIAS], floats(1, H * S)};
        else cr_assert_eq(l->vector[GPU_Q_BIAS], GPU_NOWHERE);
        cr_assert_eq(l->vector[GPU_K_NORM], GPU_NOWHERE);
        for (int x = 0; x < GPU_MATRICES; x++) {
            const gpu_matrix *w = gpu_layer_matrix(&e->layer[i], (gpu_matrix_name)x);
            p[n++] = (part){l->matrix[x], gpu_pack_bytes(w->type, w->n_rows, w->n_cols)};
        }
        p[n++] = (part){l->kv, 11 * K * gpu_kv_page_bytes(KV_F16, S)};
    }
    p[n++] = (part){m->output_norm, floats(1, D)};
    p[n++] = (part){m->output_bias, floats(1, V)};
    p[n++] = (part){m->output_matrix, gpu_pack_bytes(Q_Q8_0, V, D)};
    p[n++] = (part){m->step, m->step_bytes};
    p[n++] = (part){m->x, gpu_acts_bytes(D, T, 1u << GPU_ACT_Q8_32 | 1u << GPU_ACT_F16)};
    p[n++] = (part){m->heads, gpu_acts_bytes(H * S, T, 1u << GPU_ACT_Q8_32)};
    p[n++] = (part){m->ff, gpu_acts_bytes(F, T, 1u << GPU_ACT_F32)};
    p[n++] = (part){m->logits, floats(5, 304)};
    p[n++] = (part){m->branch, floats(T, D)};
    p[n++] = (part){m->partial, gpu_attention_scratch(5, H, S, 3)};
    return n;
}

static void expect_disjoint(part *p, size_t n, uint64_t total)
{
    qsort(p, n, sizeof *p, by_place);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(p[i].at % 256, 0);
        cr_assert_leq(p[i].at + p[i].bytes, i + 1 < n ? p[i + 1].at : total, "part %zu", i);
    }
}

Test(gpu_need, nothing_overlaps)
{
    example e = make_example();
    gpu_map m;
    gpu_memory bytes;
    part p[MAX_PARTS];
    size_t n, T = e.o.max_tokens;

    cr_assert_eq(need(&bytes, &e, NULL), PR_OK);
    cr_assert_eq(gpu_map_init(&m, &e.o, NULL), PR_OK);
    n = list_parts(p, &m, &e);
    p[n] = (part){m.q, floats(T, H * S)};
    p[n + 1] = (part){m.k, floats(T, K * S)};
    p[n + 2] = (part){m.v, floats(T, K * S)};
    p[n + 3] = (part){m.attn, floats(T, H * S)};
    expect_disjoint(p, n + 4, bytes.total);
    n = list_parts(p, &m, &e);
    p[n] = (part){m.gate, floats(T, F)};
    p[n + 1] = (part){m.up, floats(T, F)};
    expect_disjoint(p, n + 2, bytes.total);
    cr_assert_eq(memcmp(&m.bytes, &bytes, sizeof bytes), 0);
    gpu_map_clear(&m);
}

/* Of a layer's matrix or of the output's. */
static size_t largest_pack(const example *e)
{
    size_t most = gpu_pack_bytes(Q_Q8_0, V, D);

    for (size_t i = 0; i < LAYERS; i++) {
        for (int x = 0; x < GPU_MATRICES; x++) {
            const gpu_matrix *w = gpu_layer_matrix(&e->layer[i], (gpu_matrix_name)x);
            size_t bytes = gpu_pack_bytes(w->type, w->n_rows, w->n_cols);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

/* Weights and KV by hand, padded to 256; what is there only for decoding or the output goes with it. */
Test(gpu_need, sums)
{
    example e = make_example();
    gpu_memory all, some_less;
    uint64_t weights = 0, kv = LAYERS * (uint64_t)(11 * K * (32 * S * 2 * 2));

    cr_assert_eq(need(&all, &e, NULL), PR_OK);
    for (size_t i = 0; i < LAYERS; i++) {
        for (int x = 0; x < GPU_MATRICES; x++) {
            const gpu_matrix *w = gpu_layer_matrix(&e.layer[i], (gpu_matrix_name)x);
            weights += gpu_pack_bytes(w->type, w->n_rows, w->n_cols);
        }
        weights += (2u + (i == 1)) * 512; /* 384 bytes each */
    }
    weights += 512 + 1280 + gpu_pack_bytes(Q_Q8_0, V, D);
    cr_assert_eq(all.weights, weights);
    cr_assert_eq(all.kv, kv);
    cr_assert_eq(all.total, all.weights + all.kv + all.buffers);
    cr_assert_gt(all.host, floats(37, D) + floats(5, V));
    cr_assert_eq(all.loading, 2 * largest_pack(&e)); /* less than 16 MiB */
    e.o.max_out = 0;
    cr_assert_eq(need(&some_less, &e, NULL), PR_OK);
    cr_assert_eq(all.weights - some_less.weights, 512 + 1280 + gpu_pack_bytes(Q_Q8_0, V, D));
    cr_assert_lt(some_less.buffers, all.buffers);
}

/* A GPU that has the output projection and nothing else. */
Test(gpu_need, output_alone)
{
    example e = make_example();
    gpu_memory m;

    e.o.shape.n_layers = 0;
    cr_assert_eq(need(&m, &e, NULL), PR_OK);
    cr_assert_eq(m.weights, 512 + 1280 + gpu_pack_bytes(Q_Q8_0, V, D));
    cr_assert_eq(m.kv, 0);
}

static void f32_kv(example *e)
{
    e->o.kv = KV_F32;
}
static void odd_heads(example *e)
{
    e->o.shape.head_size = 20;
}
static void no_heads(example *e)
{
    e->o.shape.head_size = 0;
}
static void large_heads(example *e)
{
    e->o.shape.head_size = 264;
}
static void q8_heads(example *e)
{
    e->o.kv = KV_Q8_0;
}
static void many_heads(example *e)
{
    e->o.shape.n_heads = 130;
}
static void uneven_heads(example *e)
{
    e->o.shape.n_heads = 7;
}
static void no_kv_heads(example *e)
{
    e->o.shape.n_kv_heads = 0;
}
static void odd_rot(example *e)
{
    e->o.shape.n_rot = 15;
}
static void wide_rot(example *e)
{
    e->o.shape.n_rot = 18;
}
static void wide(example *e)
{
    e->o.shape.n_embd = GPU_MAX_EMBD + 32;
}
static void many_tokens(example *e)
{
    e->o.max_tokens = 4097;
}
static void no_tokens(example *e)
{
    e->o.max_tokens = 0;
}
static void unknown_type(example *e)
{
    e->layer[2].up.type = 4;
}
static void part_of_a_block(example *e)
{
    e->layer[1].q = matrix(Q_Q4_K, H * S, D);
}
static void unknown_output(example *e)
{
    e->output.matrix.type = Q_TYPE_COUNT;
}

static const struct {
    void (*damage)(example *e);
    const char *says;
} refused[] = {{f32_kv, "--kv-type f16"},
               {odd_heads, "heads of 20 values"},
               {no_heads, "heads of 0 values"},
               {large_heads, "heads of 264 values"},
               {q8_heads, "multiple of 32, this model has 16"},
               {many_heads, "130 query heads on 2"},
               {uneven_heads, "7 query heads on 2"},
               {no_kv_heads, "6 query heads on 0"},
               {odd_rot, "15 rotated values"},
               {wide_rot, "18 rotated values"},
               {wide, "embeddings of"},
               {many_tokens, "lower --micro-batch"},
               {no_tokens, "expected 1 to 4096"},
               {unknown_type, "(unknown)"},
               {part_of_a_block, "Q4_K in rows of 96"},
               {unknown_output, "(unknown)"}};

Test(gpu_need, what_no_gpu_can_do_is_refused)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        example e = make_example();
        gpu_memory m;
        pr_err err = {0};

        refused[i].damage(&e);
        cr_assert_eq(need(&m, &e, &err), PR_EUSAGE, "%zu", i);
        cr_assert_not_null(strstr(err.msg, refused[i].says), "%zu: %s", i, err.msg);
    }
}
