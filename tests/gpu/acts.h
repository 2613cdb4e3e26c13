/* Inputs of products in VRAM and read back, and what the CPU makes of the same values. */
#ifndef PRIMA_TESTS_GPU_ACTS_H
#define PRIMA_TESTS_GPU_ACTS_H
#include "kernels/gpu_layout.h"
#include "kernels/gpu_pack.h"
#include "kernels/ref/ref.h"
#include "tests/gpu/harness.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KINDS_Q8 = 1 << GPU_ACT_Q8_256 | 1 << GPU_ACT_Q8_32,
    KINDS_HALF = 1 << GPU_ACT_F16 | 1 << GPU_ACT_BF16,
    KINDS_F32 = 1 << GPU_ACT_F32
};

typedef struct {
    gpu_acts gpu, host; /* host is filled by acts_read */
    void *vram, *copy;
    size_t bytes, n_tokens;
} test_acts;

/* The kinds out of `kinds` that rows of n_cols values can have. */
static inline unsigned kinds_for(size_t n_cols, unsigned kinds)
{
    if (n_cols % 256) kinds &= ~(1u << GPU_ACT_Q8_256);
    return n_cols % 32 ? kinds & ~(1u << GPU_ACT_Q8_32) : kinds;
}

static inline test_acts acts_new(size_t n_cols, size_t n_tokens, unsigned kinds)
{
    test_acts a = {.bytes = gpu_acts_bytes(n_cols, n_tokens, kinds), .n_tokens = n_tokens};

    a.vram = vram_new(a.bytes);
    a.copy = malloc(a.bytes);
    cr_assert_not_null(a.copy);
    gpu_acts_place(&a.gpu, a.vram, n_cols, n_tokens, kinds);
    gpu_acts_place(&a.host, a.copy, n_cols, n_tokens, kinds);
    return a;
}

static inline void acts_free(test_acts *a)
{
    free(a->copy);
}

static inline void acts_read(test_acts *a)
{
    vram_read(a->copy, a->vram, a->bytes);
}

static inline void expect_scale(float got, float expected, size_t token, size_t block)
{
    cr_assert(memcmp(&got, &expected, sizeof got) == 0 || (isnan(got) && isnan(expected)),
              "token %zu block %zu: scale %a for %a", token, block, (double)got, (double)expected);
}

/* Exactly the CPU's blocks of x [n_cols]. */
static inline void expect_q8_256(const gpu_acts *a, size_t t, const float *x)
{
    size_t n = a->n_cols / 256;
    act_q8_256 *b = malloc(n * sizeof *b);

    quantize_q8_256_ref(b, x, a->n_cols);
    for (size_t i = 0; i < n; i++) {
        expect_scale(a->d[0][t * n + i], b[i].d, t, i);
        for (size_t k = 0; k < 256; k++)
            cr_assert_eq(a->q[0][t * a->n_cols + gpu_act_place(256 * i + k, 256)], b[i].q[k],
                         "q8_256: token %zu value %zu: %d for %d", t, 256 * i + k,
                         a->q[0][t * a->n_cols + gpu_act_place(256 * i + k, 256)], b[i].q[k]);
        cr_assert_arr_eq(a->sum[0] + (t * n + i) * 16, b[i].sum16, sizeof b[i].sum16, "token %zu block %zu",
                         t, i);
    }
    free(b);
}
static inline void expect_q8_32(const gpu_acts *a, size_t t, const float *x)
{
    size_t n = a->n_cols / 32;
    act_q8_32 *b = malloc(n * sizeof *b);

    quantize_q8_32_ref(b, x, a->n_cols);
    for (size_t i = 0; i < n; i++) {
        expect_scale(a->d[1][t * n + i], b[i].d, t, i);
        for (size_t k = 0; k < 32; k++)
            cr_assert_eq(a->q[1][t * a->n_cols + gpu_act_place(32 * i + k, 32)], b[i].q[k],
                         "q8_32: token %zu value %zu", t, 32 * i + k);
        cr_assert_eq(a->sum[1][t * n + i], b[i].sum, "token %zu block %zu", t, i);
    }
    free(b);
}

static inline double half_value(bool bf16, uint16_t h)
{
    return bf16 ? (double)quant_bf16_to_f32(h) : (double)quant_f16_to_f32(h);
}

/* scale * (hi + lo) is x, as gpu_layout.h says; zeros behind the end. */
static inline void expect_halves(const gpu_acts *a, bool bf16, size_t t, const float *x)
{
    const uint16_t *hi = a->hi[bf16] + t * a->stride, *lo = a->lo[bf16] + t * a->stride;
    float scale = a->scale[bf16][t], largest = 0;
    bool finite = true;
    int exponent;

    for (size_t i = 0; i < a->n_cols; i++) {
        finite = finite && isfinite(x[i]);
        largest = fmaxf(largest, fabsf(x[i]));
    }
    for (size_t i = a->n_cols; i < a->stride; i++) cr_assert(hi[i] == 0 && lo[i] == 0, "padding %zu", i);
    if (!finite) {
        cr_assert(isnan(scale), "token %zu: scale %a", t, (double)scale);
        return;
    }
    cr_assert(scale > 0 && frexpf(scale, &exponent) == 0.5f, "token %zu: scale %a", t, (double)scale);
    cr_assert(largest < 0x1p15f * scale, "token %zu: %a, scale %a", t, (double)largest, (double)scale);
    for (size_t i = 0; i < a->n_cols; i++) {
        double h = half_value(bf16, hi[i]), got = scale * (h + half_value(bf16, lo[i]));
        double bound = bf16 ? 0x1p-17 * fabs((double)x[i]) + 0x1p-148 * (double)largest
                            : 0x1p-23 * fabs((double)x[i]) + 0x1p-39 * (double)largest;
        /* behind that: half a step of the smallest numbers, where the scale cannot be smaller */
        cr_assert(fabs(got - (double)x[i]) <= bound + 0x1p-150, "token %zu value %zu: %a for %a", t, i, got,
                  (double)x[i]);
    }
}

/* All kinds that were asked for, of row t, which is x [n_cols]. */
static inline void expect_row(const test_acts *a, size_t t, const float *x)
{
    const gpu_acts *h = &a->host;

    if (h->q[0]) expect_q8_256(h, t, x);
    if (h->q[1]) expect_q8_32(h, t, x);
    if (h->hi[0]) expect_halves(h, false, t, x);
    if (h->hi[1]) expect_halves(h, true, t, x);
    if (h->f32) {
        expect_same_bits(h->f32 + t * h->stride, x, h->n_cols, "f32");
        for (size_t i = h->n_cols; i < h->stride; i++) cr_assert_eq(h->f32[t * h->stride + i], 0);
    }
}

#endif
