/* RMS norm, rotary embedding, SiLU gate, residual add, one text for all instruction sets (words.h), and the
 * table entries of all that kernels/vec/ has. All are bound by memory or by their small size. */
#ifndef PRIMA_KERNELS_VEC_OPS_H
#define PRIMA_KERNELS_VEC_OPS_H
#include "kernels/kernels.h"
#include "kernels/vec/kv.h"
#include "kernels/vec/words.h"
#include <math.h>
#include <string.h>

/* Element i belongs to partial sum i % 16, whatever the width of a register. */
static float sum_of_squares(const float *x, size_t n)
{
    vf acc[16 / VW];
    float part[16];
    size_t i = 0;

    for (size_t v = 0; v < 16 / VW; v++) acc[v] = v_set1(0.0f);
    for (; i + 16 <= n; i += 16) {
        for (size_t v = 0; v < 16 / VW; v++) {
            vf y = v_load(x + i + v * VW);
            acc[v] = v_fma(y, y, acc[v]);
        }
    }
    for (size_t v = 0; v < 16 / VW; v++) v_store(part + v * VW, acc[v]);
    for (size_t j = 0; i + j < n; j++) part[j] = fmaf(x[i + j], x[i + j], part[j]);
    return sum_of_16(part);
}

static void ISA(rms_norm)(float *out, const float *x, const float *w, size_t n, float eps)
{
    vf scale = v_set1(1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps));

    for (size_t i = 0; i < n; i += VW) {
        v_store_n(out + i, v_mul(v_mul(v_load_n(x + i, n - i), scale), v_load_n(w + i, n - i)), n - i);
    }
}

/* Pairs (i, i + half): a register of angles serves all heads. */
static void rope_halves(float *x, size_t n_heads, size_t head_size, size_t half, const float *cs)
{
    for (size_t i = 0; i < half; i += VW) {
        size_t n = half - i < VW ? half - i : VW;
        float pairs[2 * VW] = {0}, *p = x + i;
        vf c, s;

        memcpy(pairs, cs + 2 * i, 2 * n * sizeof *cs);
        v_load_pairs(pairs, &c, &s);
        for (size_t h = 0; h < n_heads; h++, p += head_size) {
            vf a = v_load_n(p, n), b = v_load_n(p + half, n);
            v_store_n(p, v_sub(v_mul(a, c), v_mul(b, s)), n);
            v_store_n(p + half, v_add(v_mul(b, c), v_mul(a, s)), n);
        }
    }
}

/* Pairs (2i, 2i + 1). */
static void rope_neighbours(float *x, size_t n_heads, size_t head_size, size_t n_rot, const float *cs)
{
    for (size_t i = 0; i < n_rot; i += VW) {
        size_t n = n_rot - i;
        vf angle = v_load_n(cs + i, n), c = v_dup_even(angle), s = v_dup_odd(angle);
        float *p = x + i;

        for (size_t h = 0; h < n_heads; h++, p += head_size) {
            vf a = v_load_n(p, n);
            v_store_n(p, v_sub_even_add_odd(v_mul(a, c), v_mul(v_swap_pairs(a), s)), n);
        }
    }
}

static void ISA(rope)(float *x, size_t n_heads, size_t head_size, size_t n_rot, const float *cs, bool neox)
{
    if (neox) rope_halves(x, n_heads, head_size, n_rot / 2, cs);
    else rope_neighbours(x, n_heads, head_size, n_rot / 2 * 2, cs);
}

/* x / (1 + e^-x), by e^-|x| so that nothing overflows: x * (x >= 0 ? 1 : e) / (1 + e). */
static inline vf silu(vf x)
{
    const vf one = v_set1(1.0f), zero = v_set1(0.0f);
    vf e = v_exp(v_sub(zero, v_abs(x)));
    return v_mul(x, v_div(v_select_ge(x, zero, one, e), v_add(one, e)));
}

static void ISA(silu_mul)(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += VW) {
        v_store_n(gate + i, v_mul(silu(v_load_n(gate + i, n - i)), v_load_n(up + i, n - i)), n - i);
    }
}

static void ISA(add)(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i += VW) {
        v_store_n(x + i, v_add(v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
    }
}

static void add_vec_ops(kernel_table *k)
{
    k->rms_norm = ISA(rms_norm);
    k->rope = ISA(rope);
    k->silu_mul = ISA(silu_mul);
    k->add = ISA(add);
    k->kv_put = ISA(kv_put);
    k->attention = ISA(attention);
}

#endif
