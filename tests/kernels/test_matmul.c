/* Products and the rounding of their inputs.
 *
 * The chain of trust: dequantisation equals ggml's vectors (test_quant). matmul_f32_ref equals a plain loop
 * over dequantised rows here. matmul_q8_ref equals exact arithmetic where sums are whole, and matmul_f32_ref
 * within the error of 8-bit inputs elsewhere. Every instruction set equals matmul_q8_ref bit for bit, for any
 * number of tokens, any range of groups, any block that a file can hold. */
#include "kernels/kernels.h"
#include "kernels/unpack8.h"
#include "tests/kernels/isas.h"
#include "tests/kernels/product.h"
#include <criterion/parameterized.h>
#include <math.h>

enum { T_MAX = 64 };
static const uint32_t POISON = 0x7fa55a5a; /* a NaN that no kernel makes */

/* --- one product and all its buffers ---------------------------------------------------------- */

/* Inputs at the ends of their range: all +127, all -127, alternating, and signs at random; scales 1 or wild.
 */
static void extreme_inputs(struct product *p, uint64_t seed)
{
    uint64_t state = seed;
    act_kind act = act_for_type(p->type);

    for (size_t t = 0; t < T_MAX; t++) {
        float largest = t % 5 == 4 ? 0x1p60f : 127.0f;
        for (size_t i = 0; i < p->n_cols; i++) {
            bool negative = t % 4 == 0 ? false : t % 4 == 1 ? true : t % 4 == 2 ? i & 1 : rnd(&state) & 1;
            p->x_f32[t * p->n_cols + i] = negative ? -largest : largest;
        }
        kernel_table ref;
        kernels_init(&ref, 0);
        ref.quantize[act](p->x + t * p->x_stride, p->x_f32 + t * p->n_cols, p->n_cols);
    }
}

/* A poisoned output of T_MAX rows. */
static float *new_out(const struct product *p)
{
    float *out = test_alloc(T_MAX * p->stride * sizeof *out);
    for (size_t i = 0; i < T_MAX * p->stride; i++) memcpy(out + i, &POISON, 4);
    return out;
}

static bool is_poison(const float *f)
{
    return memcmp(f, &POISON, 4) == 0;
}

/* Rows [first, end) x n_tokens are what `want` has, bit for bit (any NaN is as good as another); the rest
 * untouched, but for the padding rows of the last group, which may hold zeros. */
static void check_same(const struct product *p, const float *got, const float *want, size_t n_tokens,
                       size_t row_first, size_t row_end, const char *what)
{
    size_t padded = p->stride - GUARD;

    for (size_t t = 0; t < T_MAX; t++) {
        for (size_t row = 0; row < p->stride; row++) {
            const float *g = got + t * p->stride + row, *w = want + t * p->stride + row;

            if (t < n_tokens && row >= row_first && row < row_end && row < p->n_rows) {
                cr_assert((isnan(*w) && isnan(*g) && !is_poison(g)) || memcmp(g, w, 4) == 0,
                          "%s %s: row %zu of %zu, cols %zu, token %zu of %zu: %a, expected %a",
                          quant_info(p->type)->name, what, row, p->n_rows, p->n_cols, t, n_tokens, (double)*g,
                          (double)*w);
            } else {
                bool may_be_zero = t < n_tokens && row >= p->n_rows && row < padded && row < row_end;
                cr_assert(is_poison(g) || (may_be_zero && *g == 0),
                          "%s %s: row %zu, token %zu was written (%a)", quant_info(p->type)->name, what, row,
                          t, (double)*g);
            }
        }
    }
}

/* --- every instruction set against the definition --------------------------------------------- */

/* fn equals matmul_q8_ref for any number of tokens and any split in ranges. */
static void check_kernel(matmul_fn fn, const struct product *p, const char *what)
{
    static const size_t token_counts[] = {1, 2, 3, 7, 8, T_MAX};
    size_t groups = pack_groups(p->n_rows);
    float *want = new_out(p);

    multiply(matmul_q8_ref, p, p->x, p->x_stride, T_MAX, want, 0, groups);
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
        size_t n = token_counts[i];
        float *whole = new_out(p), *parts = new_out(p), *first = new_out(p);

        multiply(fn, p, p->x, p->x_stride, n, whole, 0, groups);
        check_same(p, whole, want, n, 0, p->stride - GUARD, what);
        for (size_t g = groups; g-- > 0;) {
            multiply(fn, p, p->x, p->x_stride, n, parts, g, g + 1);
            check_same(p, parts, want, n, g * PACK_ROWS, p->stride - GUARD, what);
        }
        multiply(fn, p, p->x, p->x_stride, n, first, 0, 0);
        check_same(p, first, want, n, 0, 0, what);
        multiply(fn, p, p->x, p->x_stride, n, first, 0, 1);
        check_same(p, first, want, n, 0, PACK_ROWS, what);
        multiply(fn, p, p->x, p->x_stride, n, first, groups, groups);
        check_same(p, first, want, n, 0, PACK_ROWS, what);
        free(whole);
        free(parts);
        free(first);
    }
    free(want);
}

/* The widths that a type is tried with; 0 ends. */
static const size_t *widths(uint32_t type)
{
    static const size_t of_256[] = {256, 512, 1280, 0}, of_32[] = {32, 96, 256, 1280, 0},
                        of_1[] = {1, 7, 33, 172, 256, 0};
    unsigned n = quant_info(type)->block_values;
    return n == 256 ? of_256 : n == 32 ? of_32 : of_1;
}

static void check_all_shapes(matmul_fn fn, uint32_t type)
{
    static const size_t row_counts[] = {16, 5, 37};
    static const char *const kinds[BLOCKS_KINDS] = {"random", "extreme", "zero scale", "wild scale",
                                                    "unit scale"};

    for (int kind = 0; kind < BLOCKS_KINDS; kind++) {
        for (size_t r = 0; r < 3; r++) {
            for (const size_t *cols = widths(type); *cols; cols++) {
                struct product p;

                product_init(&p, type, kind, row_counts[r], *cols, T_MAX, 1 + r);
                check_kernel(fn, &p, kinds[kind]);
                if (kind == BLOCKS_EXTREME) {
                    extreme_inputs(&p, 5);
                    check_kernel(fn, &p, "extreme weights and inputs");
                }
                product_clear(&p);
            }
        }
    }
}

struct matmul_case {
    int isa;
    uint32_t type;
};

static struct criterion_test_params every_isa_and_type(void)
{
    static struct matmul_case cases[ISA_AND_WAY_COUNT * Q_TYPE_COUNT];
    size_t n = 0;

    for (int isa = ISA_REF + 1; isa < ISA_AND_WAY_COUNT; isa++) {
        for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
            if (quant_info(type)) cases[n++] = (struct matmul_case){isa, type};
        }
    }
    return cr_make_param_array(struct matmul_case, cases, n);
}

ParameterizedTestParameters(matmul, isa_equals_definition)
{
    return every_isa_and_type();
}
ParameterizedTest(struct matmul_case *c, matmul, isa_equals_definition, .timeout = 120)
{
    kernel_table k;

    isa_table(&k, c->isa);
    cr_assert_eq(k.matmul_act[c->type], act_for_type(c->type));
    cr_assert_not_null(k.matmul_path[c->type]);
    if (k.matmul[c->type] == matmul_q8_ref) {
        cr_skip_test("%s: no kernel of its own in %s", quant_info(c->type)->name, isa_names[c->isa]);
    }
    check_all_shapes(k.matmul[c->type], c->type);
}

static struct criterion_test_params every_type(void)
{
    static uint32_t types[Q_TYPE_COUNT];
    size_t n = 0;

    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (quant_info(type)) types[n++] = type;
    }
    return cr_make_param_array(uint32_t, types, n);
}

/* --- tiles of 8-bit integers ---------------------------------------------------------------------- */

/* A tile means what quant_dequant says, value by value: d sc q and dm m fit 24 bits each, so both sides round
 * once. And the info of the type is true: scales really cover sub_values, q stays within its range and
 * reaches both ends. */
static void check_tile(uint32_t type, const unpack8_tile *tile, const uint8_t *rows, int *q_min, int *q_max)
{
    const unpack8_type *info = unpack8_info(type);
    size_t bytes = quant_info(type)->block_bytes;

    for (size_t r = 0; r < PACK_ROWS; r++) {
        float want[256];

        quant_dequant(type, rows + r * bytes, want, info->n_values);
        for (size_t k = 0; k < info->n_values; k++) {
            int q = tile->q[k / 4][r][k % 4], j = (int)k / 16, first = j - j % (info->sub_values / 16);
            bool has_scales = info->n_values == 256;
            float value = tile->d[r] * (float)(has_scales ? tile->sc[j][r] : 1) * (float)q;

            if (info->has_min) value += tile->dm[r] * (float)(has_scales ? tile->m[j][r] : 1);
            cr_assert_eq(value, want[k], "%s row %zu value %zu", quant_info(type)->name, r, k);
            if (has_scales) cr_assert_eq(tile->sc[j][r], tile->sc[first][r]);
            if (has_scales && info->has_min) cr_assert_eq(tile->m[j][r], tile->m[first][r]);
            *q_min = q < *q_min ? q : *q_min;
            *q_max = q > *q_max ? q : *q_max;
        }
    }
}

ParameterizedTestParameters(matmul, tile_means_the_block)
{
    return every_type();
}
ParameterizedTest(uint32_t *type, matmul, tile_means_the_block)
{
    static const int kinds[] = {BLOCKS_RANDOM, BLOCKS_EXTREME, BLOCKS_ZERO_SCALE, BLOCKS_UNIT_SCALE};
    const unpack8_type *info = unpack8_info(*type);
    uint64_t state = *type;
    int q_min = 0, q_max = 0;
    uint8_t rows[PACK_ROWS * 256], *pack;

    if (!info) {
        cr_assert_eq(act_for_type(*type), ACT_F32);
        return;
    }
    pack = test_alloc(sizeof rows + 1);
    cr_assert_eq(info->n_values, quant_info(*type)->block_values);
    for (int i = 0; i < 400; i++) {
        unpack8_tile tile;
        uint8_t *at = pack + i % 2; /* any alignment */

        make_blocks(*type, kinds[i % 4], &state, rows, PACK_ROWS);
        pack_rows(*type, at, rows, PACK_ROWS, info->n_values, 0, 1);
        info->unpack(&tile, at);
        check_tile(*type, &tile, rows, &q_min, &q_max);
    }
    cr_assert(q_min == info->q_min && q_max == info->q_max, "%s: q %d..%d", quant_info(*type)->name, q_min,
              q_max);
    free(pack);
}

/* --- the definition itself ---------------------------------------------------------------------- */

ParameterizedTestParameters(matmul, definition_does_not_see_batch_or_range)
{
    return every_type();
}
ParameterizedTest(uint32_t *type, matmul, definition_does_not_see_batch_or_range, .timeout = 60)
{
    struct product p;

    product_init(&p, *type, BLOCKS_RANDOM, 37, *widths(*type) * 2, T_MAX, 3);
    check_kernel(matmul_q8_ref, &p, "portable");
    product_clear(&p);
}

/* Inputs that are whole numbers with scale 1. */
static void whole_inputs(struct product *p, uint64_t seed)
{
    uint64_t state = seed;

    for (size_t t = 0; t < T_MAX; t++) {
        float *x = p->x_f32 + t * p->n_cols;
        act_q8_256 *b256 = (act_q8_256 *)(p->x + t * p->x_stride);
        act_q8_32 *b32 = (act_q8_32 *)b256;

        for (size_t i = 0; i < p->n_cols; i++) x[i] = (float)((int)(rnd(&state) % 7) - 3);
        if (act_for_type(p->type) == ACT_F32) memcpy(p->x + t * p->x_stride, x, p->n_cols * sizeof *x);
        for (size_t i = 0; act_for_type(p->type) == ACT_Q8_256 && i < p->n_cols; i++) {
            if (i % 256 == 0) memset(b256 + i / 256, 0, sizeof *b256);
            b256[i / 256].d = 1;
            b256[i / 256].q[i % 256] = (int8_t)x[i];
            b256[i / 256].sum16[i % 256 / 16] = (int16_t)(b256[i / 256].sum16[i % 256 / 16] + (int)x[i]);
            b256[i / 256].sum32[i % 256 / 32] = (int16_t)(b256[i / 256].sum32[i % 256 / 32] + (int)x[i]);
        }
        for (size_t i = 0; act_for_type(p->type) == ACT_Q8_32 && i < p->n_cols; i++) {
            if (i % 32 == 0) b32[i / 32] = (act_q8_32){.d = 1};
            b32[i / 32].q[i % 32] = (int8_t)x[i];
            b32[i / 32].sum += (int)x[i];
        }
    }
}

/* Row `row` of the file layout as floats, without the pack. */
static float *floats_of_row(const struct product *p, size_t row)
{
    float *w = malloc(p->n_cols * sizeof *w);
    quant_dequant(p->type, p->rows + row * quant_row_bytes(p->type, p->n_cols), w, p->n_cols);
    return w;
}

/* With d = 1, dmin = 1/2 and whole inputs every term is a multiple of 1/8 (IQ1, IQ2: d/8), so sums below 2^21
 * have at most 24 bits and f32 is exact in any order. */
ParameterizedTestParameters(matmul, definition_is_exact_on_whole_numbers)
{
    return every_type();
}
ParameterizedTest(uint32_t *type, matmul, definition_is_exact_on_whole_numbers, .timeout = 60)
{
    struct product p;

    product_init(&p, *type, BLOCKS_UNIT_SCALE, 21, *widths(*type) * 2, T_MAX, 4);
    whole_inputs(&p, 9);
    float *out = new_out(&p);
    multiply(matmul_q8_ref, &p, p.x, p.x_stride, T_MAX, out, 0, 2);
    for (size_t row = 0; row < p.n_rows; row++) {
        float *w = floats_of_row(&p, row);
        for (size_t t = 0; t < T_MAX; t++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < p.n_cols; i++) {
                sum += (double)w[i] * p.x_f32[t * p.n_cols + i];
                size += fabs((double)w[i] * p.x_f32[t * p.n_cols + i]);
            }
            cr_assert_lt(size, 0x1p21, "the data is too large for an exact sum");
            cr_assert_eq(out[t * p.stride + row], sum, "%s row %zu token %zu", quant_info(*type)->name, row,
                         t);
        }
        free(w);
    }
    free(out);
    product_clear(&p);
}

/* What rounding may do to one sum of the 8-bit product, against exact inputs and weights:
 *   - an input is off by at most half of its block's scale d_x (and 3 x 2^-24 of 127 d_x from forming x *
 * 127/amax, amax/127 and d_x q): sum |w| d_x / 2 (1 + 2^-15);
 *   - terms d q x and dm m sum x: three roundings each (d d_x, (float)S, the final sum's share), plus one
 * rounding of the running sum per fmaf: (n_fma + 4) 2^-24 of the sum of all magnitudes;
 *   - f16 and f32 weights: n_cols roundings of the running sum. */
static double error_bound(const struct product *p, size_t row, size_t t, const float *w)
{
    const unpack8_type *info = unpack8_info(p->type);
    const float *x = p->x_f32 + t * p->n_cols;
    double size = 0, input = 0;

    if (!info) {
        for (size_t i = 0; i < p->n_cols; i++) size += fabs((double)w[i] * x[i]);
        return size * (double)(p->n_cols + 1) * 0x1p-24;
    }
    size_t n = info->n_values, block_bytes = 16 * (size_t)quant_info(p->type)->block_bytes;
    const uint8_t *group = p->pack + row / 16 * 16 * quant_row_bytes(p->type, p->n_cols);
    for (size_t b = 0; b < p->n_cols / n; b++) {
        unpack8_tile tile;
        float amax = 0;

        info->unpack(&tile, group + b * block_bytes);
        for (size_t i = b * n; i < b * n + n; i++) amax = fmaxf(amax, fabsf(x[i]));
        for (size_t i = 0; i < n; i++) {
            double value = tile.d[row % 16] * (n == 256 ? tile.sc[i / 16][row % 16] : 1) *
                           tile.q[i / 4][row % 16][i % 4];
            double min = info->has_min ? tile.dm[row % 16] * (n == 256 ? tile.m[i / 16][row % 16] : 1) : 0;
            double top = fabs((double)x[b * n + i]) + amax / 127 / 2; /* of the rounded input */
            size += (fabs(value) + fabs(min)) * top;
            input += fabs((double)w[b * n + i]) * (double)amax / 127 / 2 * (1 + 0x1p-15);
        }
    }
    return input + size * (double)(2 * p->n_cols / n + 4) * 0x1p-24;
}

ParameterizedTestParameters(matmul, definition_is_near_the_floats)
{
    return every_type();
}
ParameterizedTest(uint32_t *type, matmul, definition_is_near_the_floats, .timeout = 60)
{
    kernel_table ref;
    struct product p;
    double worst = 0;

    kernels_init(&ref, 0);
    cr_assert_eq(ref.matmul_act[*type], ACT_F32);
    product_init(&p, *type, BLOCKS_RANDOM, 37, *widths(*type) * 5, T_MAX, 6);
    float *exact = new_out(&p), *got = new_out(&p);
    multiply(ref.matmul[*type], &p, p.x_f32, p.n_cols * sizeof(float), T_MAX, exact, 0, 3);
    multiply(matmul_q8_ref, &p, p.x, p.x_stride, T_MAX, got, 0, 3);
    for (size_t row = 0; row < p.n_rows; row++) {
        float *w = floats_of_row(&p, row);
        for (size_t t = 0; t < T_MAX; t++) {
            double off = fabs((double)got[t * p.stride + row] - exact[t * p.stride + row]);
            double bound = error_bound(&p, row, t, w) + fabs((double)exact[t * p.stride + row]) * 0x1p-24;

            cr_assert_leq(off, bound, "%s row %zu token %zu: %g for %g, bound %g", quant_info(*type)->name,
                          row, t, (double)got[t * p.stride + row], (double)exact[t * p.stride + row], bound);
            worst = fmax(worst, off / bound);
        }
        free(w);
    }
    cr_log_info("%s: largest error is %.3f of the bound", quant_info(*type)->name, worst);
    free(exact);
    free(got);
    product_clear(&p);
}

/* --- the reference with floats ---------------------------------------------------------------- */

ParameterizedTestParameters(matmul, reference_is_a_plain_loop)
{
    return every_type();
}
ParameterizedTest(uint32_t *type, matmul, reference_is_a_plain_loop, .timeout = 60)
{
    static const size_t row_counts[] = {16, 5, 37}, token_counts[] = {1, 2, 3, 7, 8, T_MAX};
    kernel_table ref;

    kernels_init(&ref, 0);
    for (size_t r = 0; r < 3; r++) {
        for (const size_t *cols = widths(*type); *cols; cols++) {
            struct product p;
            product_init(&p, *type, BLOCKS_RANDOM, row_counts[r], *cols, T_MAX, 2);
            float *want = new_out(&p);
            size_t groups = pack_groups(p.n_rows), x_stride = p.n_cols * sizeof(float);

            for (size_t row = 0; row < p.n_rows; row++) {
                float *w = floats_of_row(&p, row);
                for (size_t t = 0; t < T_MAX; t++) {
                    double sum = 0;
                    for (size_t i = 0; i < p.n_cols; i++) sum += (double)w[i] * p.x_f32[t * p.n_cols + i];
                    want[t * p.stride + row] = (float)sum;
                }
                free(w);
            }
            for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
                float *whole = new_out(&p), *part = new_out(&p);
                multiply(ref.matmul[*type], &p, p.x_f32, x_stride, token_counts[i], whole, 0, groups);
                check_same(&p, whole, want, token_counts[i], 0, p.n_rows, "ref");
                multiply(ref.matmul[*type], &p, p.x_f32, x_stride, token_counts[i], part, groups - 1, groups);
                check_same(&p, part, want, token_counts[i], (groups - 1) * PACK_ROWS, p.n_rows,
                           "ref, last group");
                free(whole);
                free(part);
            }
            free(want);
            product_clear(&p);
        }
    }
}

/* --- rounding of inputs ----------------------------------------------------------------------- */

/* The rule of kernels.h, in long double and with a rounding of its own. */
static int round_even(long double v)
{
    long double low = floorl(v), rest = v - low;
    int i = (int)low;
    return rest > 0.5L || (rest == 0.5L && (i & 1)) ? i + 1 : i;
}

static void expected_block(const float *x, size_t n, int8_t *q, float *d)
{
    float amax = 0;
    bool finite = true;

    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        amax = fmaxf(amax, fabsf(x[i]));
    }
    memset(q, 0, n);
    *d = finite ? 0 : NAN;
    if (!finite || amax < ACT_TINY) return;
    float inverse =
        (float)(127.0 /
                (double)amax); /* a quotient of floats rounded twice is rounded right (53 >= 2 x 24 + 2) */
    *d = (float)((double)amax / 127.0);
    for (size_t i = 0; i < n; i++) {
        float v = (float)((double)x[i] * inverse);
        int r = round_even(v);
        q[i] = (int8_t)(r > 127 ? 127 : r < -127 ? -127 : r);
    }
}

/* Rows of 256 with everything that may go wrong. */
static void make_input(float *x, size_t n, int kind, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = rnd_float(state);
        if (kind == 1) x[i] = 0;
        if (kind == 2) x[i] = i % 32 ? (float)((int)(rnd(state) % 255) - 127) / 2 : 127; /* scale 1: ties */
        if (kind == 3) x[i] *= 0x1p-115f;                                                /* below ACT_TINY */
        if (kind == 4) x[i] *= ACT_TINY * (i % 3 ? 1 : 2);                               /* around it */
        if (kind == 5) x[i] *= 3e38f;
        if (kind == 6) x[i] *= i / 32 % 2 ? 1e-30f : 1e30f;
        if (kind == 7) x[i] = i % 2 ? -0.0f : 0.0f;
    }
    if (kind == 8) x[n / 2] = NAN;
    if (kind == 9) x[n - 1] = -INFINITY;
    if (kind == 10) x[0] = ACT_TINY;
}

static void check_quantize(const kernel_table *k, size_t n, int kind)
{
    uint64_t state = n * 100 + (unsigned)kind;
    float *x = test_alloc((n + 1) * sizeof *x),
          *in = x + (kind & 1); /* kernels may not ask for aligned inputs */
    act_q8_256 *b256 = test_alloc(act_row_bytes(ACT_Q8_256, n) + 64);
    act_q8_32 *b32 = test_alloc(act_row_bytes(ACT_Q8_32, n) + 64);
    int8_t q[256];
    float d;

    make_input(in, n, kind, &state);
    memset(b32, 0xee, act_row_bytes(ACT_Q8_32, n));
    k->quantize[ACT_Q8_32](b32, in, n);
    for (size_t b = 0; b < n / 32; b++) {
        int sum = 0;
        expected_block(in + 32 * b, 32, q, &d);
        for (int i = 0; i < 32; i++) sum += q[i];
        cr_assert_arr_eq(b32[b].q, q, 32, "Q8_32 kind %d block %zu", kind, b);
        cr_assert((isnan(d) && isnan(b32[b].d)) || b32[b].d == d, "Q8_32 kind %d: d %a, expected %a", kind,
                  (double)b32[b].d, (double)d);
        cr_assert_eq(b32[b].sum, sum);
    }
    memset(b256, 0xee, act_row_bytes(ACT_Q8_256, n));
    if (n % 256 == 0) k->quantize[ACT_Q8_256](b256, in, n);
    for (size_t b = 0; b < n / 256; b++) {
        expected_block(in + 256 * b, 256, q, &d);
        cr_assert_arr_eq(b256[b].q, q, 256, "Q8_256 kind %d block %zu", kind, b);
        cr_assert((isnan(d) && isnan(b256[b].d)) || b256[b].d == d, "Q8_256 kind %d: d %a, expected %a", kind,
                  (double)b256[b].d, (double)d);
        for (int j = 0; j < 16; j++) {
            int sum = 0;
            for (int i = 0; i < 16; i++) sum += q[16 * j + i];
            cr_assert_eq(b256[b].sum16[j], sum);
        }
        for (int j = 0; j < 8; j++)
            cr_assert_eq(b256[b].sum32[j], b256[b].sum16[2 * j] + b256[b].sum16[2 * j + 1]);
        for (int j = 0; j < 3; j++) cr_assert_eq(b256[b].pad[j], 0);
    }
    k->quantize[ACT_F32](b32, in, n / 32 * 8);
    cr_assert_arr_eq(b32, in, n / 32 * 32);
    free(x);
    free(b256);
    free(b32);
}

static void check_quantize_all(const kernel_table *k)
{
    static const size_t lengths[] = {32, 64, 96, 256, 512, 1280};

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int kind = 0; kind <= 10; kind++) check_quantize(k, lengths[i], kind);
    }
}

Test(quantize, reference_follows_the_rule)
{
    kernel_table ref;
    kernels_init(&ref, 0);
    check_quantize_all(&ref);
}

static int isas[] = {ISA_AVX2, ISA_AVX512, ISA_NEON};

ParameterizedTestParameters(quantize, isa_follows_the_rule)
{
    return cr_make_param_array(int, isas, sizeof isas / sizeof *isas);
}
ParameterizedTest(int *isa, quantize, isa_follows_the_rule)
{
    kernel_table ref, k;

    kernels_init(&ref, 0);
    isa_table(&k, *isa);
    if (k.quantize[ACT_Q8_256] == ref.quantize[ACT_Q8_256] &&
        k.quantize[ACT_Q8_32] == ref.quantize[ACT_Q8_32]) {
        cr_skip_test("no quantisers of its own in %s", isa_names[*isa]);
    }
    check_quantize_all(&k);
}

/* --- the table -------------------------------------------------------------------------------- */

Test(table, names_of_instruction_sets)
{
    unsigned mask;

    const unsigned here = cpu_features(), vnni = here & CPU_AVXVNNI, i8mm = here & CPU_I8MM,
                   amx = here & CPU_AMX;

    cr_assert(cpu_isa_mask("ref", &mask) && mask == 0);
    cr_assert(cpu_isa_mask("avx2", &mask) && mask == (CPU_AVX2 | vnni));
    cr_assert(cpu_isa_mask("avx512", &mask) && mask == (CPU_AVX2 | CPU_AVX512 | vnni | amx));
    cr_assert(cpu_isa_mask("neon", &mask) && mask == (CPU_NEON | i8mm));
    cr_assert(cpu_isa_mask(NULL, &mask) && (mask & cpu_features()) == cpu_features());
    cr_assert_not(cpu_isa_mask("sse", &mask));
    cr_assert_not(cpu_isa_mask("", &mask));
}

/* Whatever the features: nothing is missing, and unknown types have nothing. */
Test(table, is_complete)
{
    unsigned here = cpu_features(), sets[] = {0,
                                              here & CPU_AVX2,
                                              here & (CPU_AVX2 | CPU_AVXVNNI),
                                              here & (CPU_AVX2 | CPU_AVX512),
                                              here & CPU_NEON,
                                              here};

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        kernel_table k;
        kernels_init(&k, sets[i]);
        for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
            cr_assert_eq(!!k.matmul[type], !!quant_info(type));
            cr_assert_eq(!!k.matmul_path[type], !!quant_info(type));
            if (quant_info(type)) cr_assert_eq(k.matmul_act[type], sets[i] ? act_for_type(type) : ACT_F32);
        }
        for (int kind = 0; kind < ACT_COUNT; kind++) cr_assert_not_null(k.quantize[kind]);
        cr_assert(k.isa && k.rms_norm && k.rope && k.silu_mul && k.add && k.kv_put && k.attention);
    }
    cr_assert_eq(act_row_bytes(ACT_Q8_256, 512), 11 * 64);
    cr_assert_eq(act_row_bytes(ACT_Q8_32, 32), 64);
    cr_assert_eq(act_row_bytes(ACT_F32, 17), 3 * 64);
}
