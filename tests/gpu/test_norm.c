/* launch_norm: hidden += branch + bias to the bit; the norm against double; the kinds of input from the very
 * floats of the norm; gathered rows; nothing of a row depends on others. */
#include "kernels/cuda/cuda_impl.h"
#include "tests/gpu/acts.h"

TestSuite(norm, .timeout = 120);

#define EPS 1e-5f
enum { T = 4 };

typedef struct {
    size_t n, branch_stride;
    bool has_branch, has_bias;
    unsigned kinds; /* 0: no norm */
} norm_case;

static float *floats(size_t n, float scale)
{
    float *x = malloc(n * sizeof *x);

    cr_assert_not_null(x);
    random_floats(x, n, scale);
    return x;
}

/* A sum of squares has at most n / 256 / 32 * 8 + 10 roundings in a row here, and half of that in the root;
 * with the products 6 more. */
static void expect_norm(const test_acts *a, size_t t, const float *hidden, const float *weight, size_t n)
{
    float *expected = malloc(n * sizeof *expected);

    rms_norm_ref(expected, hidden, weight, n, EPS);
    expect_close(a->host.f32 + t * a->host.stride, expected, n, 24 * 0x1p-24f, 1e-37f, "norm");
    expect_row(a, t, a->host.f32 + t * a->host.stride);
    free(expected);
}

static void check_norm(norm_case c)
{
    float *hidden = floats(T * c.n, 3), *branch = floats(T * c.branch_stride, 1), *bias = floats(c.n, 1);
    float *weight = floats(c.n, 2), *got = malloc(T * c.n * sizeof *got);
    test_acts a = acts_new(c.n, T, c.kinds ? kinds_for(c.n, c.kinds) | KINDS_F32 : 0);
    gpu_norm_args args = {.hidden = vram_from(hidden, T * c.n * sizeof *hidden),
                          .branch =
                              c.has_branch ? vram_from(branch, T * c.branch_stride * sizeof *branch) : NULL,
                          .branch_bias = c.has_bias ? vram_from(bias, c.n * sizeof *bias) : NULL,
                          .branch_stride = c.branch_stride,
                          .weight = vram_from(weight, c.n * sizeof *weight),
                          .n_embd = c.n,
                          .n_tokens = T,
                          .eps = EPS};

    run(launch_norm(&args, c.kinds ? &a.gpu : NULL, test_stream()));
    vram_read(got, args.hidden, T * c.n * sizeof *got);
    for (size_t i = 0; i < T * c.n; i++) {
        if (c.has_branch) hidden[i] += branch[i / c.n * c.branch_stride + i % c.n];
        if (c.has_bias) hidden[i] += bias[i % c.n];
    }
    expect_same_bits(got, hidden, T * c.n, "hidden");
    acts_read(&a);
    for (size_t t = 0; c.kinds && t < T; t++) expect_norm(&a, t, hidden + t * c.n, weight, c.n);
    acts_free(&a);
    free(hidden);
    free(branch);
    free(bias);
    free(weight);
    free(got);
}

Test(norm, residual_and_norm)
{
    static const size_t lengths[] = {256, 2048, 2304, 96, 300, 33, 1, 8192, 8448};

    need_gpu();
    for (int i = 0; i < 9; i++) {
        size_t n = lengths[i];
        check_norm((norm_case){n, n, true, true, KINDS_Q8 | KINDS_HALF});
        check_norm((norm_case){n, n + 16, true, false, KINDS_Q8});
        check_norm((norm_case){n, n + 3, true, true, KINDS_Q8});
        check_norm((norm_case){n, n, false, false, KINDS_HALF});
        check_norm((norm_case){n, n, false, true, KINDS_Q8});
        check_norm((norm_case){n, n, true, true, 0});
    }
}

/* Rows of any magnitude, and those that are no numbers: they are NaN and alone in it. */
Test(norm, wild_rows)
{
    enum { N = 512 };
    float hidden[T][N], weight[N], expected[N];
    gpu_norm_args args = {.n_embd = N, .n_tokens = T, .eps = EPS};
    test_acts a;

    need_gpu();
    a = acts_new(N, T, KINDS_Q8 | KINDS_HALF | KINDS_F32);
    random_floats(hidden[0], T * N, 1);
    random_floats(weight, N, 1);
    for (int i = 0; i < N; i++) {
        hidden[0][i] *= 1e-12f;
        hidden[1][i] *= 1e15f;
        hidden[3][i] = 0;
    }
    hidden[2][7] = NAN;
    args.hidden = vram_from(hidden, sizeof hidden);
    args.weight = vram_from(weight, sizeof weight);
    run(launch_norm(&args, &a.gpu, test_stream()));
    acts_read(&a);
    for (size_t t = 0; t < T; t++) {
        rms_norm_ref(expected, hidden[t], weight, N, EPS);
        expect_close(a.host.f32 + t * N, expected, N, 24 * 0x1p-24f, 1e-37f, "wild norm");
        expect_row(&a, t, a.host.f32 + t * N);
    }
    acts_free(&a);
}

/* Chosen rows: those bytes that the row has among all, and hidden is left alone, though a branch is given. */
Test(norm, gathered_rows)
{
    enum { N = 768, ROWS = 40, CHOSEN = 3 };
    static const int32_t rows[CHOSEN] = {39, 0, 17};
    float *hidden = floats(ROWS * N, 2), *weight = floats(N, 1), *got = malloc(ROWS * N * sizeof *got);
    gpu_norm_args args = {.n_embd = N, .n_tokens = ROWS, .eps = EPS, .branch_stride = N};
    test_acts all, some;

    need_gpu();
    all = acts_new(N, ROWS, KINDS_Q8 | KINDS_F32);
    some = acts_new(N, CHOSEN, KINDS_Q8 | KINDS_F32);
    args.hidden = vram_from(hidden, ROWS * N * sizeof *hidden);
    args.weight = vram_from(weight, N * sizeof *weight);
    run(launch_norm(&args, &all.gpu, test_stream()));
    args.rows = vram_from(rows, sizeof rows);
    args.n_tokens = CHOSEN;
    args.branch = args.hidden;
    args.branch_bias = args.weight;
    run(launch_norm(&args, &some.gpu, test_stream()));
    acts_read(&all);
    acts_read(&some);
    vram_read(got, args.hidden, ROWS * N * sizeof *got);
    expect_same_bits(got, hidden, ROWS * N, "hidden");
    for (size_t i = 0; i < CHOSEN; i++) {
        size_t t = (size_t)rows[i];
        expect_same_bits(some.host.f32 + i * N, all.host.f32 + t * N, N, "row");
        cr_assert_arr_eq(some.host.q[0] + i * N, all.host.q[0] + t * N, N);
        expect_norm(&some, i, hidden + t * N, weight, N);
    }
    acts_free(&all);
    acts_free(&some);
    free(hidden);
    free(weight);
    free(got);
}
