/* launch_act, launch_silu and launch_bias: 8-bit kinds are the CPU's to the bit, halves keep what
 * gpu_layout.h promises, and a row's bytes do not depend on the rows beside it. */
#include "kernels/cuda/cuda_impl.h"
#include "tests/gpu/acts.h"

TestSuite(act, .timeout = 120);

/* Rows of random numbers of many sizes; every fifth row has what quantisers trip over. */
static void wild_rows(float *x, size_t n, size_t stride, size_t n_tokens)
{
    static const float odd[] = {0.0f,  -0.0f,   0x1p-149f, -0x1p-126f, 0x1p-111f, 0x1p-110f, 1e-30f,
                                1e30f, 3.4e38f, -3.4e38f,  0.5f,       127.0f,    -63.5f,    1.0f};
    enum { N_ODD = sizeof odd / sizeof *odd };

    for (size_t i = 0; i < n_tokens * stride; i++) x[i] = random_float();
    for (size_t t = 0; t < n_tokens; t++) {
        float *row = x + t * stride;
        for (size_t i = 0; i < n; i++) {
            if (t % 5 == 1) row[i] = ldexpf(row[i], (int)random_below(60) - 30);
            if (t % 5 == 2) row[i] = odd[random_below(i / 32 % 3 == 0 ? N_ODD : i / 32 % 3 == 1 ? 6 : 5)];
            if (t == 5) row[i] = odd[random_below(5)];                          /* all below ACT_TINY */
            if (t % 5 == 3) row[i] = (float)((int)random_below(509) - 254) / 2; /* halves: round to even */
            if (t % 5 == 4 && i % 37 == t) row[i] = random_below(2) ? INFINITY : -NAN;
        }
        if (t % 5 == 3) row[n / 2] = 127;
    }
}

/* `shift` floats off the alignment, in rows stride apart. */
static void check_act(size_t n, size_t stride, size_t shift, size_t n_tokens, unsigned kinds)
{
    size_t floats = shift + stride * n_tokens;
    float *x = malloc(floats * sizeof *x), *vram;
    test_acts a = acts_new(n, n_tokens, kinds_for(n, kinds));

    wild_rows(x + shift, n, stride, n_tokens);
    vram = vram_from(x, floats * sizeof *x);
    run(launch_act(&a.gpu, vram + shift, stride, n_tokens, test_stream()));
    acts_read(&a);
    for (size_t t = 0; t < n_tokens; t++) expect_row(&a, t, x + shift + t * stride);
    acts_free(&a);
    free(x);
}

Test(act, rows_become_what_the_cpu_makes_of_them)
{
    static const size_t cols[] = {256, 512, 2304, 32, 288};

    need_gpu();
    for (int i = 0; i < 5; i++) {
        check_act(cols[i], cols[i], 0, 10, KINDS_Q8);
        check_act(cols[i], cols[i] + 4, 0, 5, KINDS_Q8 | KINDS_HALF | KINDS_F32);
        check_act(cols[i], cols[i] + 3, 1, 5, KINDS_Q8 | KINDS_F32);
    }
}

Test(act, rows_of_any_length_become_floats_and_halves)
{
    static const size_t cols[] = {1, 7, 8, 31, 33, 100, 255, 300};

    need_gpu();
    for (int i = 0; i < 8; i++) {
        check_act(cols[i], cols[i], 0, 5, KINDS_HALF | KINDS_F32);
        check_act(cols[i], (cols[i] + 3) / 4 * 4, 0, 5, KINDS_HALF);
    }
    check_act(8200 + 1024, 8200 + 1024, 0, 2, KINDS_HALF); /* more than 32 warps take at once */
}

/* Bytes of row t in an array of T rows. */
static void same_row(const void *many, size_t t, const void *one, size_t row_bytes, const char *what)
{
    if (!row_bytes) return;
    cr_assert_arr_eq((const uint8_t *)many + t * row_bytes, one, row_bytes, "%s of row %zu", what, t);
}
static void check_same_acts(const gpu_acts *many, size_t t, const gpu_acts *one)
{
    size_t n = many->n_cols;

    same_row(many->q[0], t, one->q[0], n, "q8_256");
    same_row(many->d[0], t, one->d[0], n / 256 * 4, "d of q8_256");
    same_row(many->q[1], t, one->q[1], n, "q8_32");
    same_row(many->hi[0], t, one->hi[0], many->stride * 2, "f16");
    same_row(many->lo[1], t, one->lo[1], many->stride * 2, "bf16");
    same_row(many->f32, t, one->f32, many->stride * 4, "f32");
}

Test(act, a_row_does_not_depend_on_its_neighbours)
{
    enum { N = 512, T = 70, KINDS = KINDS_Q8 | KINDS_HALF | KINDS_F32 };
    static const size_t rows[] = {0, 1, 33, 69};
    float *x, *gate;
    test_acts all, one;

    need_gpu();
    x = malloc(2 * T * N * sizeof *x);
    all = acts_new(N, T, KINDS);
    one = acts_new(N, 1, KINDS);
    random_floats(x, 2 * T * N, 3);
    gate = vram_from(x, 2 * T * N * sizeof *x);
    run(launch_silu(&all.gpu, gate, gate + T * N, N, T, test_stream()));
    acts_read(&all);
    for (int i = 0; i < 4; i++) {
        const float *row = gate + rows[i] * N;
        run(launch_silu(&one.gpu, row, row + T * N, N, 1, test_stream()));
        acts_read(&one);
        check_same_acts(&all.host, rows[i], &one.host);
    }
    acts_free(&all);
    acts_free(&one);
    free(x);
}

/* silu(gate) * up in f32 within 8 roundings of double's (expf: 2 ulp, quotient, two products, and the sum
 * below 1 + e); the other kinds are those of just these floats. */
static void check_silu(size_t n, size_t stride, unsigned kinds)
{
    enum { T = 3 };
    size_t floats = T * stride;
    float *gate = malloc(floats * sizeof *gate), *up = malloc(floats * sizeof *up);
    float *expected = malloc(n * sizeof *expected);
    test_acts a = acts_new(n, T, kinds_for(n, kinds | KINDS_F32));

    random_floats(gate, floats, 20);
    random_floats(up, floats, 2);
    gate[0] = 0, gate[n - 1] = -200, gate[n / 2] = 200;
    run(launch_silu(&a.gpu, vram_from(gate, floats * sizeof *gate), vram_from(up, floats * sizeof *up),
                    stride, T, test_stream()));
    acts_read(&a);
    for (size_t t = 0; t < T; t++) {
        for (size_t i = 0; i < n; i++) {
            double g = gate[t * stride + i];
            expected[i] = (float)(g / (1 + exp(-g)) * up[t * stride + i]);
        }
        expect_close(a.host.f32 + t * a.host.stride, expected, n, 8 * 0x1p-24f, 1e-37f, "silu");
        expect_row(&a, t, a.host.f32 + t * a.host.stride);
    }
    acts_free(&a);
    free(gate);
    free(up);
    free(expected);
}

Test(act, silu_of_gate_times_up)
{
    need_gpu();
    check_silu(512, 512, KINDS_Q8);
    check_silu(2304, 2304, KINDS_Q8 | KINDS_HALF);
    check_silu(96, 100, KINDS_Q8);
    check_silu(45, 45, KINDS_HALF);
}

Test(act, bias_is_added_to_logits)
{
    enum { T = 3, N = 777, STRIDE = 784 };
    static float x[T * STRIDE], bias[N];
    float *vram;

    need_gpu();
    random_floats(x, T * STRIDE, 1);
    random_floats(bias, N, 1);
    vram = vram_from(x, sizeof x);
    run(launch_bias(vram, vram_from(bias, sizeof bias), N, STRIDE, T, test_stream()));
    for (size_t t = 0; t < T; t++) {
        for (size_t i = 0; i < N; i++) x[t * STRIDE + i] += bias[i];
    }
    static float got[T * STRIDE];
    vram_read(got, vram, sizeof got);
    expect_same_bits(got, x, T * STRIDE, "logits");
}
