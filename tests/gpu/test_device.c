/* What kernels/cuda/device.cuh gives, against plain arithmetic: on the GPU this is a test of that header, on
 * the emulated one of tests/gpu/emulate. Inputs have another value in every place, so that no two places can
 * be taken for each other. */
#include "kernels/cuda/shared.h"
#include "tests/gpu/device_kernels.h"
#include "tests/gpu/harness.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

TestSuite(device, .timeout = 120);

enum { M = 16, N = 8, WARP = 32 };

/* --- tensor cores ----------------------------------------------------------------------------------------
 */
static void check_mma_s8(int half, bool extreme)
{
    const int n_k = half ? 16 : 32;
    int8_t a[M * 32], b[32 * N];
    int32_t d[M * N], expected[M * N];

    for (int i = 0; i < M * 32; i++) a[i] = extreme ? -128 : (int8_t)random_bits();
    for (int i = 0; i < 32 * N; i++) b[i] = extreme ? (i % 3 ? -128 : 127) : (int8_t)random_bits();
    for (int i = 0; i < M * N; i++) expected[i] = d[i] = 1000000 * i;
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            for (int k = 0; k < n_k; k++) expected[i * N + j] += a[i * n_k + k] * b[k * N + j];
        }
    }
    void *vd = vram_from(d, sizeof d);
    run(launch_try_mma_s8(vd, vram_from(a, sizeof a), vram_from(b, sizeof b), half, test_stream()));
    vram_read(d, vd, sizeof d);
    cr_assert_arr_eq(d, expected, sizeof d, "half %d", half);
}

Test(device, products_of_bytes)
{
    need_gpu();
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 10; i++) check_mma_s8(half, i == 0);
    }
}

/* Small integers: every sum is exact, whatever its order. */
static uint16_t integer(int value, bool is_bf16)
{
    float f = (float)value;
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    if (is_bf16) return (uint16_t)(u >> 16);
    if (!value) return 0;
    return (uint16_t)((u >> 16 & 0x8000) | (((u >> 23 & 0xff) - 112) << 10) | (u >> 13 & 0x3ff));
}

Test(device, products_of_halves)
{
    int a[M * 16], b[16 * N];
    uint16_t ha[M * 16], hb[16 * N];
    float d[M * N], expected[M * N];

    need_gpu();
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
        for (int i = 0; i < M * 16; i++) ha[i] = integer(a[i] = i - 128, is_bf16);
        for (int i = 0; i < 16 * N; i++) hb[i] = integer(b[i] = 100 - i, is_bf16);
        for (int i = 0; i < M * N; i++) {
            d[i] = (float)(10000 * i);
            int sum = 10000 * i;
            for (int k = 0; k < 16; k++) sum += a[i / N * 16 + k] * b[k * N + i % N];
            expected[i] = (float)sum;
        }
        void *vd = vram_from(d, sizeof d);
        run(launch_try_mma_float(vd, vram_from(ha, sizeof ha), vram_from(hb, sizeof hb), is_bf16,
                                 test_stream()));
        vram_read(d, vd, sizeof d);
        expect_same_bits(d, expected, M * N, is_bf16 ? "bf16" : "f16");
    }
}

/* Against sums in f64. A GPU cuts off what lies below the largest term's last bits (some 2^-23 of it, for
 * each of 16 additions), ours rounds 16 times: 2^-19 of the sum of absolute values covers both. */
Test(device, products_of_halves_are_exact_and_sums_are_f32)
{
    uint16_t a[M * 16], b[16 * N];
    float d[M * N], fa[M * 16], fb[16 * N], *all = malloc(65536 * sizeof *all);

    need_gpu();
    float *v_all = vram_new(65536 * sizeof *v_all);
    run(launch_try_halves(v_all, test_stream()));
    vram_read(all, v_all, 65536 * sizeof *all);
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < M * 16; i++) {
            a[i] = (uint16_t)((random_bits() & 0x83ff) | (random_below(29) + (round == 0 ? 0 : 1)) << 10);
            fa[i] = all[a[i]];
        }
        for (int i = 0; i < 16 * N; i++) {
            b[i] = (uint16_t)((random_bits() & 0x83ff) | random_below(16) << 10);
            fb[i] = all[b[i]];
        }
        random_floats(d, M * N, 1);
        void *vd = vram_from(d, sizeof d);
        run(launch_try_mma_float(vd, vram_from(a, sizeof a), vram_from(b, sizeof b), 0, test_stream()));
        float got[M * N];
        vram_read(got, vd, sizeof got);
        for (int i = 0; i < M * N; i++) {
            double sum = (double)d[i], size = fabs(sum);
            for (int k = 0; k < 16; k++) {
                double x = (double)fa[i / N * 16 + k] * (double)fb[k * N + i % N];
                sum += x;
                size += fabs(x);
            }
            cr_assert(fabs((double)got[i] - sum) <= 0x1p-19 * size, "%d: %.9g instead of %.9g", i,
                      (double)got[i], sum);
        }
    }
    free(all);
}

/* --- warps -------------------------------------------------------------------------------------------------
 */
/* in[xor], in[from], in[down] of a lane */
static void sources(int from[3 * WARP], int step)
{
    for (int i = 0; i < WARP; i++) {
        from[i] = i ^ step;
        from[WARP + i] = step;
        from[2 * WARP + i] = i + step < WARP ? i + step : i;
    }
}

Test(device, warp_functions)
{
    int from[3 * WARP];
    int32_t i32[WARP], got32[3 * WARP];
    float f32[WARP], got_f32[3 * WARP];
    uint64_t u64[WARP], got64[3 * WARP];

    need_gpu();
    for (int i = 0; i < WARP; i++) {
        i32[i] = 3 * i - 40;
        f32[i] = 0.5f + (float)i;
        u64[i] = 0x100000001u * (uint64_t)(i + 7);
    }
    void *v_i32 = vram_from(i32, sizeof i32), *v_f32 = vram_from(f32, sizeof f32),
         *v_u64 = vram_from(u64, sizeof u64);
    void *v_got32 = vram_new(sizeof got32), *v_got64 = vram_new(sizeof got64);
    for (int step = 0; step < WARP; step++) {
        sources(from, step);
        run(launch_try_warp_int(v_got32, v_i32, step, test_stream()));
        vram_read(got32, v_got32, sizeof got32);
        run(launch_try_warp_float(v_got32, v_f32, step, test_stream()));
        vram_read(got_f32, v_got32, sizeof got_f32);
        run(launch_try_warp_word(v_got64, v_u64, step, test_stream()));
        vram_read(got64, v_got64, sizeof got64);
        for (int i = 0; i < 3 * WARP; i++) {
            cr_assert_eq(got32[i], i32[from[i]], "int, step %d, %d", step, i);
            cr_assert_eq(got_f32[i], f32[from[i]], "float, step %d, %d", step, i);
            cr_assert_eq(got64[i], u64[from[i]], "word, step %d, %d", step, i);
        }
    }
}

/* --- numbers
 * ------------------------------------------------------------------------------------------------ */
/* Sign, exponent and fraction of binary16, from its definition. */
static double half_value(unsigned h)
{
    int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    double x = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);

    return h & 0x8000 ? -x : x;
}

Test(device, halves_to_floats)
{
    enum { ALL = 65536 };
    float *all = malloc(ALL * sizeof *all);

    need_gpu();
    void *v = vram_new(ALL * sizeof *all);
    run(launch_try_halves(v, test_stream()));
    vram_read(all, v, ALL * sizeof *all);
    for (unsigned h = 0; h < ALL; h++) {
        double x = half_value(h);
        cr_assert(isnan(x) ? isnan(all[h]) : (double)all[h] == x && !signbit(all[h]) == !(h & 0x8000),
                  "%04x is %g, not %g", h, (double)all[h], x);
    }
    free(all);
}

/* The nearest of all values with `cut` bits of fraction fewer than f32, found among neighbours by trying. */
static uint16_t nearest_half(float x)
{
    uint16_t best = 0;
    double distance = INFINITY;
    unsigned low = 0, high = 0x7c00; /* by size: half_value rises with its bits; 0x7c00 stands for 65536 */
    double size = fabs((double)x);

    if (isnan(x)) return 0x7fff;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (half_value(middle) <= size) low = middle;
        else high = middle;
    }
    for (unsigned h = low; h <= high; h++) {
        double d = fabs((h == 0x7c00 ? 65536.0 : half_value(h)) - size);
        if (isinf(x)) d = h == 0x7c00 ? 0 : INFINITY;
        if (d < distance || (d == distance && !(h & 1))) best = (uint16_t)h, distance = d;
    }
    return (uint16_t)(best | (signbit(x) ? 0x8000 : 0));
}

Test(device, floats_to_halves)
{
    enum { COUNT = 60000 };
    float *x = malloc(COUNT * sizeof *x);
    uint16_t *f16 = malloc(COUNT * sizeof *f16), *bf16 = malloc(COUNT * sizeof *bf16);
    uint32_t u;

    need_gpu();
    for (int i = 0; i < COUNT; i++) {
        u = random_bits();
        if (i % 2) u = (u & 0x807fffff) | (100 + random_below(45)) << 23; /* in the range of f16 */
        if (i % 4 == 1) u &= 0xffffe000;                                  /* exact */
        if (i % 4 == 3) u = (u & 0xfffff000) | (u & 1) << 12;             /* half way */
        memcpy(&x[i], &u, sizeof u);
    }
    const float special[] = {0,          -0.0f,      65504,     65519.996f,   65520,        65536,
                             -65520,     INFINITY,   -INFINITY, NAN,          0x1p-24f,     0x1p-25f,
                             0x1.8p-25f, 0x1.8p-24f, 0x1p-26f,  0x1.ffcp-15f, 0x1.ffep-15f, 0x1p-14f};
    memcpy(x, special, sizeof special);
    void *v16 = vram_new(COUNT * 2), *vb = vram_new(COUNT * 2);
    run(launch_try_to_halves(v16, vb, vram_from(x, COUNT * sizeof *x), COUNT, test_stream()));
    vram_read(f16, v16, COUNT * 2);
    vram_read(bf16, vb, COUNT * 2);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(f16[i], nearest_half(x[i]), "%.9g gives f16 %04x, not %04x", (double)x[i], f16[i],
                     nearest_half(x[i]));
        memcpy(&u, &x[i], sizeof u);
        uint32_t down = u & 0xffff0000, middle = down | 0x8000;
        uint32_t even = u > middle || (u == middle && (u >> 16 & 1)) ? down + 0x10000 : down;
        if (isnan(x[i])) cr_assert_gt(bf16[i] & 0x7fff, 0x7f80);
        else cr_assert_eq(bf16[i], even >> 16, "%.9g gives bf16 %04x", (double)x[i], bf16[i]);
    }
    free(x), free(f16), free(bf16);
}

Test(device, floats_to_integers)
{
    const float x[] = {0,    0.5f, 1.5f,  2.5f, -0.5f, -1.5f,    -2.5f,     0.49999997f, 126.5f,
                       -127, 1e9f, -1e9f, 3e9f, -3e9f, INFINITY, -INFINITY, 8388609};
    const int32_t expected[] = {0,         0,         2,         2,         0,          -2,
                                -2,        0,         126,       -127,      1000000000, -1000000000,
                                INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, 8388609};
    enum { COUNT = sizeof x / sizeof *x };
    int32_t got[COUNT];

    need_gpu();
    void *v = vram_new(sizeof got);
    run(launch_try_int(v, vram_from(x, sizeof x), COUNT, test_stream()));
    vram_read(got, v, sizeof got);
    for (int i = 0; i < COUNT; i++) cr_expect_eq(got[i], expected[i], "%g gives %d", (double)x[i], got[i]);
}

/* Two halves by a double in between, which has bits enough for both steps to be right. */
static uint32_t two(uint32_t a, uint32_t b, bool product)
{
    uint32_t out = 0;

    for (int i = 0; i < 2; i++) {
        double x = half_value(a >> 16 * i & 0xffff), y = half_value(b >> 16 * i & 0xffff);
        double z = product ? x * y : x - y;
        out |= (uint32_t)nearest_half((float)z) << 16 * i; /* f32 holds products, and differences to 2^-24 */
    }
    return out;
}

static bool same_halves(uint32_t a, uint32_t b)
{
    for (int i = 0; i < 2; i++) {
        uint32_t x = a >> 16 * i & 0xffff, y = b >> 16 * i & 0xffff;
        if (x != y && !((x & 0x7fff) > 0x7c00 && (y & 0x7fff) > 0x7c00)) return false;
    }
    return true;
}

Test(device, words)
{
    enum { COUNT = 4096 };
    uint32_t *in = malloc(3 * COUNT * sizeof *in), *out = malloc(5 * COUNT * sizeof *out);

    need_gpu();
    random_bytes(in, 3 * COUNT * sizeof *in);
    for (int i = 0; i < COUNT / 2; i++) in[6 * i + i % 2] &= 0xbbffbbff; /* not too large for products */
    void *v = vram_new(5 * COUNT * sizeof *out);
    run(launch_try_words(v, vram_from(in, 3 * COUNT * sizeof *in), COUNT, test_stream()));
    vram_read(out, v, 5 * COUNT * sizeof *out);
    for (int i = 0; i < COUNT; i++) {
        const uint32_t a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2], *o = out + 5 * i;
        float low, high;
        memcpy(&low, &a, 4);
        memcpy(&high, &b, 4);
        uint32_t halves = nearest_half(low) | (uint32_t)nearest_half(high) << 16, picked = 0, dot = c;
        for (int k = 0; k < 4; k++) {
            uint32_t n = c >> 4 * k & 7;
            picked |= ((n < 4 ? a : b) >> 8 * (n % 4) & 255) << 8 * k;
            dot += (uint32_t)((int8_t)(a >> 8 * k) * (int8_t)(b >> 8 * k));
        }
        cr_assert(same_halves(o[0], halves), "float_halves %g %g: %08x", (double)low, (double)high, o[0]);
        cr_assert(same_halves(o[1], two(a, b, false)), "%08x - %08x: %08x", a, b, o[1]);
        cr_assert(same_halves(o[2], two(a, b, true)), "%08x * %08x: %08x", a, b, o[2]);
        cr_assert_eq(o[3], picked, "bytes_pick %08x %08x %08x: %08x", a, b, c, o[3]);
        cr_assert_eq(o[4], dot, "dot4_s8 %08x %08x %d: %d", a, b, (int)c, (int)o[4]);
    }
    free(in), free(out);
}

/* --- memory and launches
 * ------------------------------------------------------------------------------------ */
/* The last size needs the attribute for shared memory above 48 KiB. */
Test(device, asynchronous_copies)
{
    const int sizes[] = {8, 256, 1000, 4096, 15 * 1024};

    need_gpu();
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int n = sizes[s];
        const size_t bytes = (size_t)n * 4;
        uint32_t *in = malloc(bytes), *out = malloc(bytes + 16);
        random_bytes(in, bytes);
        void *v = vram_new(bytes + 16);
        run(launch_try_copies(v, vram_from(in, bytes), n, test_stream()));
        vram_read(out, v, bytes + 16);
        for (int i = 0; i < n; i++) cr_assert_eq(out[i], in[n - 1 - i], "n %d, %d", n, i);
        for (int i = 0; i < 4; i++) cr_assert_eq(out[n + i], 0, "n %d, word %d", n, i);
        free(in), free(out);
    }
}

Test(device, too_much_shared_memory_is_refused)
{
    need_gpu();
    void *v = vram_new(16);
    cudaError_t e = launch_try_copies(v, v, 300 << 8, test_stream());
    cr_assert_neq(e, cudaSuccess);
    cr_assert_not_null(cuda_refusal(e));
    cr_assert_eq(cudaGetLastError(), cudaSuccess, "it was launched");
}

Test(device, indices_of_three_dimensions)
{
    enum { COUNT = 5 * 3 * 2 * 7 * 5 * 3 };
    int32_t got[COUNT];

    need_gpu();
    void *v = vram_new(sizeof got);
    vram_fill(v, 0, sizeof got);
    run(launch_try_index(v, test_stream()));
    vram_read(got, v, sizeof got);
    for (int i = 0; i < COUNT; i++) cr_assert_eq(got[i], i);
}

static void must(cudaError_t e)
{
    cr_assert_eq(e, cudaSuccess, "%s", cudaGetErrorName(e));
}

/* Capturing runs nothing; a graph keeps the values of then, and reads memory when it runs. */
Test(device, graphs)
{
    enum { COUNT = 4 };
    int32_t *host, got[COUNT];
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    need_gpu();
    must(cudaMallocHost((void **)&host, sizeof got));
    int32_t *v = vram_new(sizeof got);
    vram_fill(v, 0, sizeof got);
    must(cudaStreamBeginCapture(test_stream(), cudaStreamCaptureModeThreadLocal));
    must(cudaMemcpyAsync(v, host, sizeof got, cudaMemcpyHostToDevice, test_stream()));
    for (int i = 0; i < COUNT; i++) must(launch_try_add(v, i, 10 * i, test_stream()));
    must(cudaStreamEndCapture(test_stream(), &graph));
    must(cudaGraphInstantiate(&exec, graph, 0));
    must(cudaGraphDestroy(graph));
    vram_read(got, v, sizeof got);
    for (int i = 0; i < COUNT; i++) cr_assert_eq(got[i], 0, "ran while it was captured");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) host[i] = 100 * round + i;
        must(cudaGraphLaunch(exec, test_stream()));
        must(launch_try_add(v, 0, 1000, test_stream()));
        vram_read(got, v, sizeof got);
        for (int i = 0; i < COUNT; i++) cr_assert_eq(got[i], 100 * round + 11 * i + (i ? 0 : 1000));
    }
    must(cudaGraphExecDestroy(exec));
    must(cudaFreeHost(host));
}

Test(device, events_measure_time)
{
    cudaEvent_t from, to;
    float ms = -1;

    need_gpu();
    int32_t *v = vram_new(16);
    must(cudaEventCreate(&from));
    must(cudaEventCreate(&to));
    must(cudaEventRecord(from, test_stream()));
    run(launch_try_add(v, 0, 1, test_stream()));
    must(cudaEventRecord(to, test_stream()));
    must(cudaEventSynchronize(to));
    must(cudaEventElapsedTime(&ms, from, to));
    cr_assert(ms >= 0 && ms < 60000, "%g ms", (double)ms);
    must(cudaEventDestroy(from));
    must(cudaEventDestroy(to));
}
