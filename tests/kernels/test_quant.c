/* Types: sizes, f16 arithmetic, the meaning of every block against vectors of ggml, and rounding back to
 * blocks. */
#include "kernels/quant.h"
#include "kernels/ref/iq_grids.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* --- f16 -------------------------------------------------------------------------------------- */

/* What 16 bits mean, in double arithmetic (finite numbers only). */
static double f16_meaning(unsigned h)
{
    int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

Test(quant, f16_to_f32_all)
{
    for (unsigned h = 0; h < 65536; h++) {
        float f = quant_f16_to_f32((uint16_t)h);

        if ((h & 0x7c00) == 0x7c00) {
            if (h & 0x3ff) cr_assert(isnan(f) && !!signbit(f) == h >> 15, "%04x", h);
            else cr_assert(isinf(f) && !!signbit(f) == h >> 15, "%04x", h);
            continue;
        }
        cr_assert_eq((double)f, f16_meaning(h), "%04x", h);
        cr_assert_eq(!!signbit(f), h >> 15, "%04x: sign of zero", h);
    }
}

/* Every f16 comes back, and on both sides of every halfway point the nearer one is taken; halfway the even
 * one. */
Test(quant, f32_to_f16_rounds_to_nearest_even)
{
    for (unsigned h = 0; h < 0x7c00; h++) {
        double next =
            h == 0x7bff ? 65536 : f16_meaning(h + 1); /* infinity begins half a step after the largest */
        float here = (float)f16_meaning(h),
              half = (float)((here + next) / 2); /* exact: one bit more than f16 */
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);

        for (unsigned sign = 0; sign <= 1; sign++) {
            float s = sign ? -1 : 1;
            unsigned top = sign << 15;

            cr_assert_eq(quant_f32_to_f16(s * here), h | top, "%04x", h);
            cr_assert_eq(quant_f32_to_f16(s * half), even | top, "half above %04x", h);
            cr_assert_eq(quant_f32_to_f16(s * nextafterf(half, 0)), h | top, "below half above %04x", h);
            cr_assert_eq(quant_f32_to_f16(s * nextafterf(half, INFINITY)), (h + 1) | top,
                         "over half above %04x", h);
        }
    }
    cr_assert_eq(quant_f32_to_f16(INFINITY), 0x7c00);
    cr_assert_eq(quant_f32_to_f16(-INFINITY), 0xfc00);
    cr_assert_eq(quant_f32_to_f16(3e38f), 0x7c00);
    cr_assert_eq(quant_f32_to_f16(1e-45f), 0);
    for (uint32_t u = 0x7f800001; u < 0x7fffffff; u += 0x7ffff) { /* NaN stays NaN with its sign */
        cr_assert_gt(quant_f32_to_f16(float_of(u)) & 0x7fff, 0x7c00, "%08x", u);
        cr_assert_eq(quant_f32_to_f16(float_of(u | 0x80000000)) >> 15, 1);
    }
}

#ifdef __FLT16_MAX__
/* The compiler's own half type as a second opinion, on random bit patterns of every exponent. */
Test(quant, f32_to_f16_as_the_compiler)
{
    uint32_t state = 1;

    for (int i = 0; i < 4000000; i++) {
        state = state * 1664525 + 1013904223;
        float f = float_of(state ^ state >> 15);
        _Float16 half = (_Float16)f;
        uint16_t expected;

        memcpy(&expected, &half, sizeof expected);
        if (!isnan(f)) cr_assert_eq(quant_f32_to_f16(f), expected, "%a", (double)f);
    }
}
#endif

/* --- sizes ------------------------------------------------------------------------------------ */

Test(quant, row_bytes)
{
    cr_assert_eq(quant_row_bytes(Q_Q4_K, 4096), 4096 / 256 * 144);
    cr_assert_eq(quant_row_bytes(Q_Q8_0, 96), 3 * 34);
    cr_assert_eq(quant_row_bytes(Q_F32, 7), 28);
    cr_assert_eq(quant_row_bytes(Q_Q4_K, 128), 0, "half a block");
    cr_assert_eq(quant_row_bytes(Q_F32, UINT64_MAX), 0, "more than can be");
    cr_assert_eq(quant_row_bytes(4, 256), 0, "removed from ggml");
    cr_assert_eq(quant_row_bytes(Q_TYPE_COUNT, 256), 0);
    cr_assert_eq(quant_row_bytes(UINT32_MAX, 256), 0);
    cr_assert_null(quant_info(UINT32_MAX));
    cr_assert_null(quant_info(5));
}

/* FNV-1a over the patterns, 8 (iq1, iq2) or 4 (iq3) bytes each, as they stand in ggml's tables: computed from
 * ggml-common.h of llama.cpp c392e50. The vectors below cannot visit all 4608 patterns; this does. */
static uint64_t fnv(uint64_t h, uint32_t four)
{
    for (int i = 0; i < 4; i++) h = (h ^ (four >> 8 * i & 255)) * 0x100000001b3;
    return h;
}

/* iq1_values gives 8 x value + 1. */
static uint32_t iq1_plain(uint32_t digits)
{
    uint32_t v = iq1_values(digits, 0), plain = 0;
    for (int i = 0; i < 4; i++) plain |= (uint32_t)(uint8_t)(((int8_t)(v >> 8 * i) - 1) / 8) << 8 * i;
    return plain;
}

Test(quant, grids_are_those_of_ggml)
{
    const struct {
        const uint16_t *grid;
        int n, digits; /* digits of one call */
        uint32_t (*values)(uint32_t);
        uint64_t hash;
    } grids[] = {{iq1_grid, 2048, 8, iq1_plain, 0x6703ed863501ae2e},
                 {iq2_xxs_grid, 256, 8, iq2_values, 0xbb4ee025b5ac6e8e},
                 {iq2_xs_grid, 512, 8, iq2_values, 0xc9b1ee61e79909bd},
                 {iq2_s_grid, 1024, 8, iq2_values, 0x123edd38a3b62b90},
                 {iq3_xxs_grid, 256, 4, iq3_xxs_values, 0xdfa5dc83d6a155d5},
                 {iq3_s_grid, 512, 4, iq3_s_values, 0xfa37020c25b44829}};

    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        uint64_t h = 0xcbf29ce484222325;
        for (int i = 0; i < grids[g].n; i++) {
            uint32_t code = grids[g].grid[i];
            if (grids[g].digits == 8)
                h = fnv(fnv(h, grids[g].values(code & 255)), grids[g].values(code >> 8));
            else h = fnv(h, grids[g].values(code));
        }
        cr_assert_eq(h, grids[g].hash, "grid %zu", g);
    }
}

/* --- meaning of blocks ------------------------------------------------------------------------ */

static const uint32_t all_types[] = {Q_F16,     Q_BF16,   Q_Q4_0,  Q_Q4_1,    Q_Q5_0,  Q_Q5_1,   Q_Q8_0,
                                     Q_Q2_K,    Q_Q3_K,   Q_Q4_K,  Q_Q5_K,    Q_Q6_K,  Q_IQ1_S,  Q_IQ1_M,
                                     Q_IQ2_XXS, Q_IQ2_XS, Q_IQ2_S, Q_IQ3_XXS, Q_IQ3_S, Q_IQ4_NL, Q_IQ4_XS};

/* Every factor of a dequantised value fits 24 bits in our and ggml's order, but a difference d q - dmin m is
 * rounded once in both: so all bits agree. NaN may differ in payload. */
static size_t check_block(const char *name, json_t *block, uint32_t type)
{
    size_t n_bytes, n_expected;
    unsigned char *bytes = test_unhex(json_string_value(json_object_get(block, "bytes")), &n_bytes);
    unsigned char *expected =
        test_unhex(json_string_value(json_object_get(block, "expected_f32le")), &n_expected);
    const quant_type *t = quant_info(type);
    size_t n = n_bytes / t->block_bytes * t->block_values;
    float *got = malloc(n * sizeof *got);

    cr_assert_eq(n * sizeof(float), n_expected, "%s: sizes in the data", name);
    quant_dequant(type, bytes, got, n);
    for (size_t i = 0; i < n; i++) {
        float want;
        memcpy(&want, expected + 4 * i, 4);
        if (isnan(want)) cr_assert(isnan(got[i]), "%s value %zu is no NaN", name, i);
        else
            cr_assert_eq(bits_of(got[i]), bits_of(want), "%s value %zu: %a, expected %a", name, i,
                         (double)got[i], (double)want);
    }
    free(bytes);
    free(expected);
    free(got);
    return n;
}

ParameterizedTestParameters(quant, dequant_equals_ggml)
{
    return cr_make_param_array(const uint32_t, (void *)all_types, sizeof all_types / sizeof *all_types);
}

ParameterizedTest(const uint32_t *type, quant, dequant_equals_ggml)
{
    char rel[64];
    json_t *data, *blocks, *block;
    size_t i, values = 0;

    snprintf(rel, sizeof rel, "quants/%s.json", quant_info(*type)->name);
    data = test_data_json(rel);
    cr_assert_eq(json_integer_value(json_object_get(data, "type_id")), *type);
    blocks = json_object_get(data, "blocks");
    json_array_foreach(blocks, i, block) values += check_block(quant_info(*type)->name, block, *type);
    cr_assert_gt(i, 0, "%s has no blocks", rel);
    cr_log_info("%s: %zu blocks of data, %zu values equal bit for bit", quant_info(*type)->name, i, values);
    json_decref(data);
}

/* --- rounding to blocks ----------------------------------------------------------------------- */

/* Largest error of one value, as a share of the largest magnitude of its 256 (f16 scales add 2^-11 of a value
 * each): Q8_0  half of 1/127 Q4_0  a whole step of 1/8: -8..7 has no +8, so a value just below +amax loses up
 * to one step Q4_K  half a step of range/15 where range <= 2, plus the rounding of scale and min to 63
 * levels, each half of 1/63 of the largest, the scale's times 15 levels: 1/15 + 15 * (2/15)/126 + 1/126 =
 * 0.0905 Q6_K  31 of 32 levels on the positive side: up to a step of 1/32, scale rounded to 1/128 of the
 * largest: half of it times 32 levels */
static const struct {
    uint32_t type;
    double bound;
} rounded[] = {{Q_F32, 0},
               {Q_F16, 0x1p-11},
               {Q_BF16, 0x1p-8},
               {Q_Q8_0, 0.5 / 127 + 0x1p-10},
               {Q_Q4_0, 1.0 / 8 + 0x1p-10},
               {Q_Q4_K, 0.0905 + 0x1p-9},
               {Q_Q6_K, 1.0 / 32 + 32 * (1.0 / 32 / 128 / 2) + 0x1p-9}};

static void check_rounding(uint32_t type, double bound, const float *x, size_t n)
{
    unsigned char *row = malloc(quant_row_bytes(type, n));
    float *back = malloc(n * sizeof *back);

    cr_assert(quant_quantize(type, x, row, n));
    quant_dequant(type, row, back, n);
    for (size_t b = 0; b < n; b += 256) {
        float amax = 0;
        for (size_t i = b; i < b + 256; i++) amax = fmaxf(amax, fabsf(x[i]));
        for (size_t i = b; i < b + 256; i++) {
            cr_assert_leq(fabs((double)back[i] - x[i]), bound * amax,
                          "%s value %zu: %g became %g (largest %g)", quant_info(type)->name, i, (double)x[i],
                          (double)back[i], (double)amax);
        }
    }
    free(row);
    free(back);
}

Test(quantize, errors_are_bounded)
{
    enum { N = 256 * 40 };
    float *x = malloc(N * sizeof *x);
    uint32_t state = 7;

    for (int i = 0; i < N; i++) {
        int block = i / 256;
        state = state * 1664525 + 1013904223;
        x[i] = ((float)(state >> 8) / 0x1p23f - 1) * (block % 4 == 0   ? 1000.0f
                                                      : block % 4 == 1 ? 0.02f
                                                                       : 1.0f);
        if (block == 5) x[i] = 0;
        if (block == 6) x[i] = -2.5f;
        if (block == 7) x[i] = 3.5f;
        if (block == 8) x[i] = i % 256 == 100 ? 8.0f : 0;
    }
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++) {
        check_rounding(rounded[i].type, rounded[i].bound, x, N);
    }
    free(x);
}

/* Whole and half numbers that a type can hold exactly come back as they were. */
Test(quantize, what_fits_is_exact)
{
    float x[256], back[256];
    unsigned char row[1024];

    for (int i = 0; i < 256; i++) x[i] = (float)(i % 16) - 8; /* Q4_0 levels with d = 1 */
    quant_quantize(Q_Q4_0, x, row, 256);
    quant_dequant(Q_Q4_0, row, back, 256);
    cr_assert_arr_eq(x, back, sizeof x);

    for (int i = 0; i < 256; i++) x[i] = (float)(i % 32 * 8 - 127); /* Q8_0: -127 is in every block */
    quant_quantize(Q_Q8_0, x, row, 256);
    quant_dequant(Q_Q8_0, row, back, 256);
    cr_assert_arr_eq(x, back, sizeof x);

    for (int i = 0; i < 256; i++)
        x[i] = (float)(i % 16); /* Q4_K: sc 63, d 1/63 is rounded: near, not exact */
    quant_quantize(Q_Q4_K, x, row, 256);
    quant_dequant(Q_Q4_K, row, back, 256);
    for (int i = 0; i < 256; i++) cr_assert_float_eq(x[i], back[i], 15 * 0x1p-10);
}

Test(quantize, refuses_what_it_does_not_write)
{
    float x[256] = {0};
    unsigned char row[256];

    cr_assert_not(quant_quantize(Q_Q2_K, x, row, 256));
    cr_assert_not(quant_quantize(Q_IQ4_XS, x, row, 256));
    cr_assert_not(quant_quantize(4, x, row, 256));
    cr_assert_not(quant_quantize(UINT32_MAX, x, row, 256));
}
