/* Norm, rotation, SiLU and addition: every instruction set, the reference too, against double arithmetic; and
 * the same bits wherever in memory the vectors lie. EPS = 2^-24 is the error of one rounding. */
#include "kernels/kernels.h"
#include "tests/kernels/blocks.h"
#include "tests/kernels/isas.h"
#include <criterion/parameterized.h>
#include <math.h>

#define EPS 0x1p-24
enum { OFFSETS = 17 }; /* positions after a multiple of 64 bytes, in floats: 0..16 */

static int isas[ISA_COUNT] = {ISA_REF, ISA_AVX2, ISA_AVX512, ISA_NEON};
static struct criterion_test_params every_isa(void)
{
    return cr_make_param_array(int, isas, ISA_COUNT);
}

static const size_t lengths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 172, 255, 256, 4096, 5120};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths, N_MAX = 5120 };

/* n random floats within +-size at `offset` floats after a multiple of 64 bytes; the 16 after them are
 * guards. */
static float *vector(float *block, size_t offset, size_t n, float size, uint64_t seed)
{
    uint64_t state = seed;
    float *v = block + offset;

    for (size_t i = 0; i < n; i++) v[i] = rnd_float(&state) * size;
    for (size_t i = n; i < n + 16; i++) v[i] = 12345;
    return v;
}

static float *new_block(void)
{
    return test_alloc((N_MAX + OFFSETS + 16) * sizeof(float));
}

static void check_guard(const float *v, size_t n)
{
    for (size_t i = n; i < n + 16; i++) cr_assert_eq(v[i], 12345, "wrote past the end of %zu", n);
}

/* --- RMS norm --------------------------------------------------------------------------------- */

/* The sum of squares is n/16 additions and 4 of a tree, each rounded, plus the squares' rounding: (n/16 + 5)
 * EPS of it; the root halves that; mean, eps, root, quotient and two products add 6. */
static void check_norm(const kernel_table *k, size_t n, float size, float eps)
{
    float *x_block = new_block(), *w_block = new_block(), *out_block = new_block(), *first = new_block();
    double bound = ((double)(n / 16 + 5) / 2 + 6) * EPS;

    for (size_t offset = 0; offset < OFFSETS; offset++) {
        float *x = vector(x_block, offset, n, size, 1), *w = vector(w_block, OFFSETS - 1 - offset, n, 2, 2);
        float *out = vector(out_block, offset * 5 % OFFSETS, n, 1, 3);
        double sum = 0;

        k->rms_norm(out, x, w, n, eps);
        check_guard(out, n);
        for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
        for (size_t i = 0; i < n; i++) {
            double want = x[i] / sqrt(sum / (double)n + (double)eps) * w[i];
            cr_assert_leq(fabs(out[i] - want), bound * fabs(want), "n %zu value %zu: %a for %a", n, i,
                          (double)out[i], want);
        }
        if (offset == 0) memcpy(first, out, n * sizeof *out);
        cr_assert_arr_eq(out, first, n * sizeof *out, "n %zu: other bits at offset %zu", n, offset);
        k->rms_norm(x, x, w, n, eps);
        cr_assert_arr_eq(x, first, n * sizeof *x, "n %zu: other bits in place", n);
    }
    free(x_block);
    free(w_block);
    free(out_block);
    free(first);
}

ParameterizedTestParameters(ops, rms_norm)
{
    return every_isa();
}
ParameterizedTest(int *isa, ops, rms_norm)
{
    kernel_table ref, k;

    kernels_init(&ref, 0);
    isa_table(&k, *isa);
    if (*isa != ISA_REF && k.rms_norm == ref.rms_norm) cr_skip_test("none in %s", isa_names[*isa]);
    for (size_t i = 0; i < N_LENGTHS; i++) {
        check_norm(&k, lengths[i], 1, 1e-5f);
        check_norm(&k, lengths[i], 1e-4f, 1e-5f); /* eps is most of the sum */
        check_norm(&k, lengths[i], 1e12f, 1e-6f);
        check_norm(&k, lengths[i], 0, 1e-6f);
    }
}

/* --- rotation --------------------------------------------------------------------------------- */

struct rope_case {
    size_t n_heads, head_size, n_rot;
};
static const struct rope_case rope_cases[] = {
    {1, 8, 8},   {5, 8, 8},   {3, 64, 64},   {2, 96, 96}, {32, 128, 128}, {4, 80, 20}, {4, 64, 32},
    {3, 128, 6}, {2, 128, 2}, {7, 100, 100}, {2, 34, 34}, {3, 256, 192},  {1, 16, 0}};

/* a c - b s: two products (or one, fused) and a sum: 2 EPS of each product's size. */
static void check_rope(const kernel_table *k, const struct rope_case *c, bool neox)
{
    size_t n = c->n_heads * c->head_size, half = c->n_rot / 2;
    float *x_block = new_block(), *cs_block = new_block(), *first = new_block(), *before = new_block();

    for (size_t offset = 0; offset < OFFSETS; offset++) {
        float *x = vector(x_block, offset, n, 3, 4),
              *cs = vector(cs_block, OFFSETS - 1 - offset, c->n_rot, 1, 5);

        memcpy(before, x, n * sizeof *x);
        k->rope(x, c->n_heads, c->head_size, c->n_rot, cs, neox);
        check_guard(x, n);
        for (size_t h = 0; h < c->n_heads; h++) {
            const float *got = x + h * c->head_size, *old = before + h * c->head_size;
            for (size_t i = 0; i < half; i++) {
                size_t ia = neox ? i : 2 * i, ib = neox ? i + half : 2 * i + 1;
                double a = old[ia], b = old[ib], co = cs[2 * i], si = cs[2 * i + 1];

                cr_assert_leq(fabs(got[ia] - (a * co - b * si)), 2 * EPS * (fabs(a * co) + fabs(b * si)));
                cr_assert_leq(fabs(got[ib] - (a * si + b * co)), 2 * EPS * (fabs(a * si) + fabs(b * co)));
            }
            cr_assert_arr_eq(got + c->n_rot, old + c->n_rot, (c->head_size - c->n_rot) * sizeof *got,
                             "dimensions after n_rot stay");
        }
        if (offset == 0) memcpy(first, x, n * sizeof *x);
        cr_assert_arr_eq(x, first, n * sizeof *x, "other bits at offset %zu", offset);
    }
    free(x_block);
    free(cs_block);
    free(first);
    free(before);
}

ParameterizedTestParameters(ops, rope)
{
    return every_isa();
}
ParameterizedTest(int *isa, ops, rope)
{
    kernel_table ref, k;

    kernels_init(&ref, 0);
    isa_table(&k, *isa);
    if (*isa != ISA_REF && k.rope == ref.rope) cr_skip_test("none in %s", isa_names[*isa]);
    for (size_t i = 0; i < sizeof rope_cases / sizeof *rope_cases; i++) {
        check_rope(&k, rope_cases + i, false);
        check_rope(&k, rope_cases + i, true);
    }
}

/* --- SiLU ------------------------------------------------------------------------------------- */

/* exp within 4 EPS, then sum, quotient and product: 8 EPS in all. Gates below -80 have true values under
 * 1e-32 of up, where an approximation may end in 0: 1e-30 of up is granted absolutely. */
static void check_silu(const kernel_table *k, size_t n, float size)
{
    float *gate_block = new_block(), *up_block = new_block(), *first = new_block(), *before = new_block();

    for (size_t offset = 0; offset < OFFSETS; offset++) {
        float *gate = vector(gate_block, offset, n, size, 6),
              *up = vector(up_block, OFFSETS - 1 - offset, n, 2, 7);

        memcpy(before, gate, n * sizeof *gate);
        k->silu_mul(gate, up, n);
        check_guard(gate, n);
        for (size_t i = 0; i < n; i++) {
            double want = before[i] / (1 + exp(-(double)before[i])) * up[i];
            cr_assert_leq(fabs(gate[i] - want), 8 * EPS * fabs(want) + 1e-30 * fabs((double)up[i]),
                          "silu(%a) * %a = %a, expected %a", (double)before[i], (double)up[i],
                          (double)gate[i], want);
        }
        if (offset == 0) memcpy(first, gate, n * sizeof *gate);
        cr_assert_arr_eq(gate, first, n * sizeof *gate, "n %zu: other bits at offset %zu", n, offset);
    }
    free(gate_block);
    free(up_block);
    free(first);
    free(before);
}

ParameterizedTestParameters(ops, silu_mul)
{
    return every_isa();
}
ParameterizedTest(int *isa, ops, silu_mul)
{
    kernel_table ref, k;

    kernels_init(&ref, 0);
    isa_table(&k, *isa);
    if (*isa != ISA_REF && k.silu_mul == ref.silu_mul) cr_skip_test("none in %s", isa_names[*isa]);
    for (size_t i = 0; i < N_LENGTHS; i++) {
        check_silu(&k, lengths[i], 1);
        check_silu(&k, lengths[i], 20);
        check_silu(&k, lengths[i], 200);
        check_silu(&k, lengths[i], 1e30f);
        check_silu(&k, lengths[i], 1e-30f);
        check_silu(&k, lengths[i], 0);
    }
}

/* A NaN is not swallowed, wherever it stands: a broken model must not look like a working one. */
ParameterizedTestParameters(ops, nan_stays_nan)
{
    return every_isa();
}
ParameterizedTest(int *isa, ops, nan_stays_nan)
{
    enum { N = 37 };
    kernel_table k;

    isa_table(&k, *isa);
    for (size_t at = 0; at < N; at++) {
        float gate[N], up[N], x[N], w[N];

        for (size_t i = 0; i < N; i++) gate[i] = up[i] = x[i] = w[i] = 1;
        gate[at] = x[at] = NAN;
        k.silu_mul(gate, up, N);
        k.rms_norm(x, x, w, N, 1e-5f);
        for (size_t i = 0; i < N; i++) {
            cr_assert_eq(!!isnan(gate[i]), i == at, "silu, NaN at %zu: value %zu", at, i);
            cr_assert(isnan(x[i]), "norm, NaN at %zu: value %zu", at, i);
        }
    }
}

/* --- addition --------------------------------------------------------------------------------- */

ParameterizedTestParameters(ops, add)
{
    return every_isa();
}
ParameterizedTest(int *isa, ops, add)
{
    float *x_block = new_block(), *y_block = new_block(), *before = new_block();
    kernel_table k;

    isa_table(&k, *isa);
    for (size_t i = 0; i < N_LENGTHS; i++) {
        for (size_t offset = 0; offset < OFFSETS; offset++) {
            size_t n = lengths[i];
            float *x = vector(x_block, offset, n, 1, 8),
                  *y = vector(y_block, OFFSETS - 1 - offset, n, 1e3f, 9);

            memcpy(before, x, n * sizeof *x);
            k.add(x, y, n);
            check_guard(x, n);
            for (size_t j = 0; j < n; j++)
                cr_assert_eq(x[j], before[j] + y[j], "one rounding, like any sum of two");
        }
    }
    free(x_block);
    free(y_block);
    free(before);
}
