/* Products of quantised weights on a GPU: the very bits of matmul_q8_ref, whatever the number of tokens, the
 * shape, the neighbours in the batch. Both sides start from the same rows of a file; inputs are rounded by
 * the reference and put in the GPU's order here. */
#include "kernels/cuda/cuda_impl.h"
#include "kernels/gpu_layout.h"
#include "kernels/gpu_matmul.h"
#include "kernels/gpu_pack.h"
#include "kernels/unpack8.h"
#include "tests/gpu/harness.h"
#include "tests/kernels/blocks.h"
#include <criterion/parameterized.h>
#include <math.h>

TestSuite(matmul, .timeout = 120);

enum {
    GUARD = 16,
    BLOCKS_HOSTILE = BLOCKS_KINDS /* any bits as scales: NaN, infinities, subnormal numbers */
};

static uint32_t types[Q_TYPE_COUNT];

static struct criterion_test_params quantised_types(void)
{
    size_t n = 0;
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (unpack8_info(type)) types[n++] = type;
    }
    return cr_make_param_array(uint32_t, types, n);
}

/* --- weights and inputs on both sides ---------------------------------------------------------------------
 */

typedef struct {
    uint32_t type;
    size_t n_rows, n_cols, stride;
    uint8_t *pack; /* of the CPU */
    void *gpu_pack;
} weights;

static uint16_t hostile_f16(void)
{
    static const uint16_t wild[] = {0x7e00, 0x7c00, 0xfc00, 0x0001, 0x8001, 0x03ff, 0x8000, 0x7bff, 0xfbff};
    return random_below(4) ? (uint16_t)(random_bits() % 0x7c00) : wild[random_below(9)];
}

/* One row in eight is hostile: most others shall be numbers. */
static void make_hostile(uint32_t type, uint8_t *block)
{
    int d, dmin;

    scale_offsets(type, &d, &dmin);
    if (d >= 0) put_u16(block + d, hostile_f16());
    if (dmin >= 0) put_u16(block + dmin, hostile_f16());
    if (type == Q_IQ1_M) {
        unsigned h = hostile_f16();
        for (int i = 0; i < 4; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
    }
}

static weights new_weights(uint32_t type, int kind, size_t n_rows, size_t n_cols)
{
    const quant_type *t = quant_info(type);
    weights w = {.type = type, .n_rows = n_rows, .n_cols = n_cols};
    size_t row_bytes = quant_row_bytes(type, n_cols), n_blocks = n_cols / t->block_values;
    uint8_t *rows = test_alloc(n_rows * row_bytes), *gpu = test_alloc(gpu_pack_bytes(type, n_rows, n_cols));
    uint64_t state = random_bits();

    w.stride = gpu_pack_groups(n_rows) * GPU_PACK_ROWS + GUARD;
    make_blocks(type, kind == BLOCKS_HOSTILE ? BLOCKS_RANDOM : kind, &state, rows, n_rows * n_blocks);
    for (size_t row = 0; kind == BLOCKS_HOSTILE && row < n_rows; row++) {
        for (size_t b = 0; row % 8 == 5 && b < n_blocks; b++)
            make_hostile(type, rows + row * row_bytes + b * t->block_bytes);
    }
    w.pack = test_alloc(pack_bytes(type, n_rows, n_cols));
    pack_rows(type, w.pack, rows, n_rows, n_cols, 0, pack_groups(n_rows));
    memset(gpu, 0xff, gpu_pack_bytes(type, n_rows, n_cols));
    gpu_pack_rows(type, gpu, rows, n_rows, n_cols, 0, gpu_pack_groups(n_rows));
    w.gpu_pack = vram_from(gpu, gpu_pack_bytes(type, n_rows, n_cols));
    free(rows);
    free(gpu);
    return w;
}

static void weights_clear(weights *w)
{
    free(w->pack);
}

typedef struct {
    act_kind kind;
    size_t n_cols, n_tokens, stride; /* stride: of `rows`, bytes */
    uint8_t *rows;                   /* as kernels.h has them */
    gpu_acts acts;
} inputs;

/* The planes of one token in host memory. */
static void planes_of(const inputs *x, size_t token, int8_t *q, float *d, int16_t *sum)
{
    const uint8_t *row = x->rows + token * x->stride;
    size_t block = x->kind == ACT_Q8_256 ? 256 : 32;

    for (size_t k = 0; k < x->n_cols; k++) {
        size_t b = k / block, i = k % block;
        if (block == 256) {
            const act_q8_256 *a = (const act_q8_256 *)row + b;
            q[gpu_act_place(k, 256)] = a->q[i];
            d[b] = a->d;
            sum[k / 16] = a->sum16[i / 16];
        } else {
            const act_q8_32 *a = (const act_q8_32 *)row + b;
            q[gpu_act_place(k, 32)] = a->q[i];
            d[b] = a->d;
            sum[b] = (int16_t)a->sum;
        }
    }
}

/* Exactly n_tokens of them lie in VRAM: reading behind them is an error there. */
static void put_inputs(inputs *x, size_t n_tokens)
{
    size_t block = x->kind == ACT_Q8_256 ? 256 : 32, sub = block == 256 ? 16 : 32;
    unsigned kind = x->kind == ACT_Q8_256 ? GPU_ACT_Q8_256 : GPU_ACT_Q8_32;
    size_t n_q = x->n_cols, n_d = x->n_cols / block, n_sum = x->n_cols / sub;
    int8_t *q = test_alloc(n_tokens * n_q);
    float *d = test_alloc(n_tokens * n_d * sizeof *d);
    int16_t *sum = test_alloc(n_tokens * n_sum * sizeof *sum);

    for (size_t t = 0; t < n_tokens; t++) planes_of(x, t, q + t * n_q, d + t * n_d, sum + t * n_sum);
    memset(&x->acts, 0, sizeof x->acts);
    x->acts.n_cols = x->n_cols;
    x->acts.kinds = 1u << kind;
    x->acts.q[kind] = vram_from(q, n_tokens * n_q);
    x->acts.d[kind] = vram_from(d, n_tokens * n_d * sizeof *d);
    x->acts.sum[kind] = vram_from(sum, n_tokens * n_sum * sizeof *sum);
    free(q);
    free(d);
    free(sum);
}

/* Random tokens; some all +127 or -127 or alternating, some huge, some tiny, one with an infinity. */
static inputs new_inputs(uint32_t type, size_t n_cols, size_t n_tokens)
{
    inputs x = {.kind = act_for_type(type), .n_cols = n_cols, .n_tokens = n_tokens};
    float *f = test_alloc(n_cols * sizeof *f);
    kernel_table ref;

    kernels_init(&ref, 0);
    x.stride = act_row_bytes(x.kind, n_cols);
    x.rows = test_alloc(n_tokens * x.stride);
    for (size_t t = 0; t < n_tokens; t++) {
        random_floats(f, n_cols, t % 5 == 3 ? 0x1p60f : t % 7 == 4 ? 0x1p-120f : 1);
        for (size_t k = 0; t % 6 == 1 && k < n_cols; k++) f[k] = t % 4 == 1 || k % 2 ? 5.0f : -5.0f;
        if (t % 11 == 6) f[n_cols / 2] = INFINITY;
        ref.quantize[x.kind](x.rows + t * x.stride, f, n_cols);
    }
    put_inputs(&x, n_tokens);
    free(f);
    return x;
}

static void inputs_clear(inputs *x)
{
    free(x->rows);
}

/* --- the reference, and one launch ------------------------------------------------------------------------
 */

static float *expected_of(const weights *w, const inputs *x, size_t n_tokens)
{
    float *out = test_alloc(n_tokens * w->stride * sizeof *out);
    void *scratch = test_alloc(MATMUL_SCRATCH(n_tokens));
    matmul_args a = {.type = w->type,
                     .pack = w->pack,
                     .n_rows = w->n_rows,
                     .n_cols = w->n_cols,
                     .x = x->rows,
                     .x_stride = x->stride,
                     .n_tokens = n_tokens,
                     .out = out,
                     .out_stride = w->stride};

    matmul_q8_ref(&a, 0, pack_groups(w->n_rows), scratch);
    free(scratch);
    return out;
}

/* Rows are those of `want`, bit for bit (any NaN is as good as another); what is behind them is as it was, or
 * zero up to 16. */
static void check_out(const weights *w, const float *got, const float *want, size_t n_tokens,
                      const char *what)
{
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t row = 0; row < w->stride; row++) {
            const float *g = got + t * w->stride + row;
            uint32_t bits;

            memcpy(&bits, g, sizeof bits);
            if (row >= w->n_rows) {
                cr_assert(bits == UINT32_MAX || (row < w->stride - GUARD && bits == 0),
                          "%s %s: row %zu of %zu, token %zu was written: %a", quant_info(w->type)->name, what,
                          row, w->n_rows, t, (double)*g);
                continue;
            }
            cr_assert(bits != UINT32_MAX, "%s %s: row %zu of %zu, token %zu of %zu was not written",
                      quant_info(w->type)->name, what, row, w->n_rows, t, n_tokens);
            cr_assert((isnan(*g) && isnan(want[t * w->stride + row])) ||
                          memcmp(g, want + t * w->stride + row, sizeof *g) == 0,
                      "%s %s: row %zu of %zu, cols %zu, token %zu of %zu: %a, expected %a",
                      quant_info(w->type)->name, what, row, w->n_rows, w->n_cols, t, n_tokens, (double)*g,
                      (double)want[t * w->stride + row]);
        }
    }
}

/* n products of one input in one call; want[i] as expected_of has it. */
static void check_launch(const weights *w, size_t n, const inputs *x, size_t n_tokens, float *const *want,
                         const char *what)
{
    gpu_product p[GPU_PRODUCTS];
    size_t scratch = 0;

    for (size_t i = 0; i < n; i++) {
        size_t bytes = n_tokens * w[i].stride * sizeof(float);
        size_t needs = gpu_matmul_scratch(w[i].type, w[i].n_rows, w[i].n_cols);
        p[i] = (gpu_product){.type = w[i].type,
                             .pack = w[i].gpu_pack,
                             .n_rows = w[i].n_rows,
                             .n_cols = w[i].n_cols,
                             .out = vram_new(bytes),
                             .out_stride = w[i].stride};
        scratch = needs > scratch ? needs : scratch;
    }
    run(launch_matmul(p, n, &x->acts, n_tokens, scratch ? vram_new(scratch) : NULL, test_stream()));
    for (size_t i = 0; i < n; i++) {
        size_t bytes = n_tokens * w[i].stride * sizeof(float);
        float *got = test_alloc(bytes);

        vram_read(got, p[i].out, bytes);
        check_out(&w[i], got, want[i], n_tokens, what);
        free(got);
    }
}

/* One product, of new inputs. */
static void check_new_inputs(const weights *w, size_t n_tokens, const char *what)
{
    inputs x = new_inputs(w->type, w->n_cols, n_tokens);
    float *want = expected_of(w, &x, n_tokens);

    check_launch(w, 1, &x, n_tokens, &want, what);
    free(want);
    inputs_clear(&x);
}

/* Columns of n blocks of 256 values, or of 7 n + 4 (no multiple of 8) of 32. */
static size_t cols_of(uint32_t type, size_t n)
{
    return quant_info(type)->block_values == 256 ? n * 256 : (7 * n + 4) * 32;
}

/* --- tests ------------------------------------------------------------------------------------------------
 */

ParameterizedTestParameters(matmul, any_number_of_tokens)
{
    return quantised_types();
}
ParameterizedTest(uint32_t *type, matmul, any_number_of_tokens)
{
    static const size_t token_counts[] = {1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 64, 65, 129};

    need_gpu();
    random_seed(*type);
    weights w = new_weights(*type, BLOCKS_HOSTILE, 17, cols_of(*type, 2));
    inputs x = new_inputs(*type, w.n_cols, 129);
    float *want = expected_of(&w, &x, 129);
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
        put_inputs(&x, token_counts[i]);
        check_launch(&w, 1, &x, token_counts[i], &want, "tokens");
    }
    free(want);
    inputs_clear(&x);
    weights_clear(&w);
}

ParameterizedTestParameters(matmul, any_blocks)
{
    return quantised_types();
}
ParameterizedTest(uint32_t *type, matmul, any_blocks)
{
    static const char *const kinds[] = {"random",     "extreme",    "zero scale",
                                        "wild scale", "unit scale", "hostile"};
    static const size_t token_counts[] = {3, 10, 36};

    need_gpu();
    random_seed(*type);
    for (int kind = 0; kind <= BLOCKS_HOSTILE; kind++) {
        weights w = new_weights(*type, kind, 16, cols_of(*type, 1));
        for (size_t i = 0; i < 3; i++) check_new_inputs(&w, token_counts[i], kinds[kind]);
        weights_clear(&w);
    }
}

ParameterizedTestParameters(matmul, any_shape)
{
    return quantised_types();
}
ParameterizedTest(uint32_t *type, matmul, any_shape)
{
    static const struct {
        size_t n_rows, n_blocks;
    } shapes[] = {{1, 1}, {15, 3}, {48, 1}, {130, 1}, {5, 19}};

    need_gpu();
    random_seed(*type);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t n_cols =
            shapes[i].n_blocks == 1 ? quant_info(*type)->block_values : cols_of(*type, shapes[i].n_blocks);
        weights w = new_weights(*type, BLOCKS_RANDOM, shapes[i].n_rows, n_cols);
        check_new_inputs(&w, 2, "shape");
        check_new_inputs(&w, 9, "shape");
        check_new_inputs(&w, 34, "shape");
        weights_clear(&w);
    }
}

/* Several products in a launch, of which some have tiles that end early; and of several types. */
static void check_fused(const uint32_t type[3], size_t n_tokens)
{
    static const size_t n_rows[] = {140, 33, 7};
    weights w[3];
    float *want[3];

    random_seed(n_tokens);
    inputs x = new_inputs(type[0], 256, n_tokens);
    for (size_t i = 0; i < 3; i++) {
        w[i] = new_weights(type[i], BLOCKS_RANDOM, n_rows[i], 256);
        want[i] = expected_of(&w[i], &x, n_tokens);
    }
    check_launch(w, 2, &x, n_tokens, want, "two products");
    check_launch(w, 3, &x, n_tokens, want, "three products");
    for (size_t i = 0; i < 3; i++) {
        free(want[i]);
        weights_clear(&w[i]);
    }
    inputs_clear(&x);
}

Test(matmul, several_products_at_once)
{
    static const uint32_t all[][3] = {{Q_Q4_K, Q_Q4_K, Q_Q4_K},
                                      {Q_Q4_K, Q_Q4_K, Q_Q6_K},
                                      {Q_IQ3_S, Q_IQ2_XS, Q_Q5_K},
                                      {Q_Q8_0, Q_Q8_0, Q_Q5_1}};

    need_gpu();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        check_fused(all[i], 1);
        check_fused(all[i], i == 1 ? 70 : 35);
        check_fused(all[i], 20);
    }
}

/* A token's bits do not depend on its neighbours in the batch, nor on its place there. */
ParameterizedTestParameters(matmul, neighbours_do_not_matter)
{
    static const uint32_t some[] = {Q_Q4_K, Q_Q6_K, Q_Q8_0, Q_Q4_1, Q_IQ2_XXS};
    return cr_make_param_array(uint32_t, (void *)some, sizeof some / sizeof *some);
}
ParameterizedTest(uint32_t *type, matmul, neighbours_do_not_matter)
{
    static const size_t token_counts[] = {1, 5, 8, 12, 27, 40, 66};

    need_gpu();
    random_seed(*type + 100);
    weights w = new_weights(*type, BLOCKS_RANDOM, 20, cols_of(*type, 2));
    inputs one = new_inputs(*type, w.n_cols, 1);
    float *want = expected_of(&w, &one, 1);
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
        size_t n = token_counts[i], place = random_below((uint32_t)n);
        inputs x = new_inputs(*type, w.n_cols, n);
        float *all;

        memcpy(x.rows + place * x.stride, one.rows, x.stride);
        put_inputs(&x, n);
        all = expected_of(&w, &x, n);
        cr_assert_arr_eq(all + place * w.stride, want, w.n_rows * sizeof *want);
        check_launch(&w, 1, &x, n, &all, "neighbours");
        free(all);
        inputs_clear(&x);
    }
    free(want);
    inputs_clear(&one);
    weights_clear(&w);
}

/* Many groups of rows. */
Test(matmul, many_rows)
{
    static const uint32_t some[] = {Q_Q4_K, Q_IQ4_XS, Q_Q4_0};

    need_gpu();
    random_seed(7);
    for (size_t i = 0; i < 3; i++) {
        weights w = new_weights(some[i], BLOCKS_RANDOM, 1003, 256);
        check_new_inputs(&w, 1, "many rows");
        check_new_inputs(&w, 9, "many rows");
        weights_clear(&w);
    }
}

/* Rows so long that not all groups are unpacked at a time (kernels/gpu_matmul.h): the second piece has one.
 */
Test(matmul, unpacked_in_pieces)
{
    const size_t n_cols = 357 * 256;

    need_gpu();
    random_seed(8);
    cr_assert_eq(gpu_matmul_piece_groups(130, n_cols), 8);
    weights w = new_weights(Q_IQ1_S, BLOCKS_RANDOM, 130, n_cols);
    check_new_inputs(&w, 1, "pieces");
    weights_clear(&w);
}
