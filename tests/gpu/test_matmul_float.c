/* Products of F16, BF16 and F32 weights against sums in double; and a token's result is the same bits in
 * every batch, whichever kernel takes it. */
#include "kernels/cuda/cuda_impl.h"
#include "tests/gpu/acts.h"

TestSuite(matmul_float, .timeout = 300);

static const uint32_t types[] = {Q_F16, Q_BF16, Q_F32};

typedef struct {
    uint32_t type;
    size_t n_rows, n_cols;
    float *w; /* values of the weights, [n_rows][n_cols] */
    void *pack;
} matrix;

static matrix new_matrix(uint32_t type, size_t n_rows, size_t n_cols)
{
    matrix m = {type, n_rows, n_cols, malloc(n_rows * n_cols * sizeof *m.w), NULL};
    size_t file_bytes = n_rows * quant_row_bytes(type, n_cols), bytes = gpu_pack_bytes(type, n_rows, n_cols);
    void *file = malloc(file_bytes), *pack = malloc(bytes);

    cr_assert(m.w && file && pack);
    random_floats(m.w, n_rows * n_cols, 2);
    quant_quantize(type, m.w, file, n_rows * n_cols);
    quant_dequant(type, file, m.w, n_rows * n_cols);
    gpu_pack_rows(type, pack, file, n_rows, n_cols, 0, gpu_pack_groups(n_rows));
    m.pack = vram_from(pack, bytes);
    free(file);
    free(pack);
    return m;
}

static size_t padded(size_t n_rows)
{
    return (n_rows + 15) / 16 * 16;
}

/* x [n_tokens][n_cols] in the kind of the type. */
static gpu_acts inputs(uint32_t type, const float *x, size_t n_cols, size_t n_tokens)
{
    test_acts a = acts_new(n_cols, n_tokens, 1u << gpu_act_for_type(type));

    run(launch_act(&a.gpu, vram_from(x, n_tokens * n_cols * sizeof *x), n_cols, n_tokens, test_stream()));
    acts_free(&a);
    return a.gpu;
}

/* out [n_tokens][stride], poisoned before. */
static float *product(const matrix *m, const float *x, size_t n_tokens, size_t stride)
{
    float *out = malloc(n_tokens * stride * sizeof *out), *vram = vram_new(n_tokens * stride * sizeof *out);
    gpu_acts acts = inputs(m->type, x, m->n_cols, n_tokens);
    gpu_product p = {m->type, m->pack, m->n_rows, m->n_cols, vram, stride};

    run(launch_matmul(&p, 1, &acts, n_tokens, NULL, test_stream()));
    vram_read(out, vram, n_tokens * stride * sizeof *out);
    return out;
}

/* Error of a sum of n products in f32, of which each tensor core step may cut off instead of rounding; and of
 * the inputs. */
static double tolerance(uint32_t type, size_t n_cols)
{
    double steps = (double)(n_cols / 8 / 16 + 1) * 4 + 16;
    return steps * 0x1p-23 + (type == Q_BF16 ? 0x1p-17 : type == Q_F16 ? 0x1p-22 : 0);
}

static void expect_product(const matrix *m, const float *x, const float *out, size_t n_tokens, size_t stride)
{
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < m->n_rows; r++) {
            const float *w = m->w + r * m->n_cols, *v = x + t * m->n_cols;
            double sum = 0, size = 0, got = (double)out[t * stride + r];

            for (size_t k = 0; k < m->n_cols; k++) {
                sum += (double)w[k] * v[k];
                size += fabs((double)w[k] * v[k]);
            }
            cr_assert(isnan(sum)   ? isnan(got)
                      : isinf(sum) ? got == sum
                                   : fabs(got - sum) <= tolerance(m->type, m->n_cols) * size,
                      "type %u, %zu x %zu, token %zu of %zu, row %zu: %a for %a", m->type, m->n_rows,
                      m->n_cols, t, n_tokens, r, got, sum);
        }
        for (size_t r = padded(m->n_rows); r < stride; r++) {
            uint32_t bits;
            memcpy(&bits, out + t * stride + r, sizeof bits);
            cr_assert_eq(bits, UINT32_MAX, "wrote behind the rows: token %zu row %zu", t, r);
        }
    }
}

static void check(uint32_t type, size_t n_rows, size_t n_cols, size_t n_tokens)
{
    matrix m = new_matrix(type, n_rows, n_cols);
    float *x = malloc(n_tokens * n_cols * sizeof *x), *out;

    random_floats(x, n_tokens * n_cols, 1);
    out = product(&m, x, n_tokens, padded(n_rows) + 16);
    expect_product(&m, x, out, n_tokens, padded(n_rows) + 16);
    free(out);
    free(x);
    free(m.w);
}

Test(matmul_float, odd_shapes)
{
    static const size_t cols[] = {1, 8, 31, 32, 33, 100, 300, 1056};
    static const size_t tokens[] = {1, 3, 8, 9, 16, 20, 32, 33};

    need_gpu();
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < 8; i++) {
            check(types[t], 17 + 16 * (size_t)i, cols[i], tokens[i]);
            check(types[t], 1 + 15 * (size_t)(i % 2), cols[i], tokens[7 - i]);
        }
    }
}

/* Every batch that another kernel, or another place in it, takes. */
Test(matmul_float, same_bits_in_every_batch)
{
    enum { ROWS = 40, COLS = 544, T = 70 };
    static const size_t tokens[] = {70, 64, 33, 32, 17, 16, 9, 8, 2, 1};
    float *x = malloc(T * COLS * sizeof *x);

    need_gpu();
    random_floats(x, T * COLS, 1);
    for (int i = 0; i < 3; i++) {
        matrix m = new_matrix(types[i], ROWS, COLS);
        float *all = product(&m, x, T, padded(ROWS));

        expect_product(&m, x, all, T, padded(ROWS));
        for (int j = 1; j < 10; j++) {
            for (size_t first = 0; first < 2; first++) { /* from the beginning, and up to the end */
                size_t skip = first ? T - tokens[j] : 0;
                float *some = product(&m, x + skip * COLS, tokens[j], padded(ROWS));

                for (size_t t = 0; t < tokens[j]; t++)
                    expect_same_bits(some + t * padded(ROWS), all + (skip + t) * padded(ROWS), ROWS, "token");
                free(some);
            }
        }
        free(all);
        free(m.w);
    }
    free(x);
}

/* The tiles that are only taken where there are enough of them: 128 x 128 and 128 x 64; some rows and tokens
 * against double, and one token each against the kernel for one token. */
static void check_tile(uint32_t type, size_t n_rows, size_t n_cols, size_t n_tokens)
{
    matrix m = new_matrix(type, n_rows, n_cols);
    float *x = malloc(n_tokens * n_cols * sizeof *x), *out, *one;
    size_t stride = padded(n_rows);

    random_floats(x, n_tokens * n_cols, 1);
    out = product(&m, x, n_tokens, stride);
    for (size_t t = 0; t < n_tokens; t += n_tokens / 3) {
        expect_product(&m, x + t * n_cols, out + t * stride, 1, stride);
        one = product(&m, x + t * n_cols, 1, stride);
        expect_same_bits(one, out + t * stride, n_rows, "token");
        free(one);
    }
    one = product(&m, x + (n_tokens - 1) * n_cols, 1, stride);
    expect_same_bits(one, out + (n_tokens - 1) * stride, n_rows, "last token");
    free(one);
    free(out);
    free(x);
    free(m.w);
}

Test(matmul_float, large_tiles)
{
    need_gpu();
    check_tile(Q_F16, 128 * 127 + 3, 64, 70);
    check_tile(Q_F16, 128 * 127 + 3, 32, 50);
    check_tile(Q_BF16, 128 * 3 + 7, 33, 128 * 31 + 5);
}

/* Up to three products of one input in a launch: each as if it were alone. */
Test(matmul_float, several_products)
{
    enum { COLS = 160, T = 40 };
    static const size_t rows[3] = {100, 17, 64};
    float *x = malloc(T * COLS * sizeof *x);

    need_gpu();
    random_floats(x, T * COLS, 1);
    for (int i = 0; i < 3; i++) {
        for (size_t n_tokens = 1; n_tokens <= T; n_tokens += 13) {
            gpu_product p[3];
            matrix m[3];
            gpu_acts acts = inputs(types[i], x, COLS, n_tokens);

            for (int j = 0; j < 3; j++) {
                m[j] = new_matrix(types[i], rows[j], COLS);
                p[j] = (gpu_product){types[i], m[j].pack, rows[j], COLS, NULL, padded(rows[j]) + 4};
                p[j].out = vram_new(n_tokens * p[j].out_stride * sizeof(float));
            }
            run(launch_matmul(p, 3, &acts, n_tokens, NULL, test_stream()));
            for (int j = 0; j < 3; j++) {
                float *out = malloc(n_tokens * p[j].out_stride * sizeof *out);

                vram_read(out, p[j].out, n_tokens * p[j].out_stride * sizeof *out);
                expect_product(&m[j], x, out, n_tokens, p[j].out_stride);
                free(out);
                free(m[j].w);
            }
        }
    }
    free(x);
}

/* Inputs far beyond f16, and tokens that are no numbers, which stay alone. */
Test(matmul_float, wild_inputs)
{
    enum { ROWS = 20, COLS = 96, T = 40 };
    float x[T][COLS];

    need_gpu();
    random_floats(x[0], T * COLS, 1);
    for (int k = 0; k < COLS; k++) {
        x[1][k] *= 1e30f;
        x[3][k] *= 1e-30f;
        x[6][k] = 0;
    }
    x[4][50] = NAN;
    x[39][95] = INFINITY;
    for (int i = 0; i < 3; i++) {
        matrix m = new_matrix(types[i], ROWS, COLS);

        for (size_t n_tokens = 5; n_tokens <= T; n_tokens += 35) {
            float *out = product(&m, x[0], n_tokens, padded(ROWS));

            if (n_tokens == T) {
                if (types[i] != Q_F32) x[39][95] = NAN; /* an infinity comes out as NaN */
            }
            expect_product(&m, x[0], out, n_tokens, padded(ROWS));
            x[39][95] = INFINITY;
            free(out);
        }
        free(m.w);
    }
}
