/* The words in which kernels/vec/ is written, and exp. Operations and attention are one text for all
 * instruction sets: each folder's vec.h gives the words below for its registers, and its ops.c and
 * attention.c include the text. No word rounds differently anywhere and every sum has an order that does not
 * depend on the width, so AVX2, AVX-512 and NEON give the same bits.
 *
 *   vf, VW           a register of VW floats; VW divides 16
 *   TILE_ROWS, TILE_VECS   of the register tile in attention.h: as many accumulators as there is room for
 *   ISA(name)        the name of a function in this folder
 *   v_load v_store v_set1 v_add v_sub v_mul v_div v_abs
 *   v_fma(a, b, c)   a * b + c, rounded once        v_fnma   c - a * b
 *   v_lane0(a)       lane 0
 *   v_max(a, b)      a > b ? a : b, so a NaN in b stays
 *   v_hmax_rows(a)   of VW registers: lane r is the largest lane of a[r] (any number where one is NaN)
 *   v_select_ge(x, y, a, b)   x >= y ? a : b (NaN: b)
 *   v_first(a, n, fill)       lanes 0..n-1 of a, the others of fill; any n
 *   v_2_to(t)                 2^k where t = 1.5 * 2^23 + k and -127 < k < 128
 *   v_load_f16 v_store_f16 v_load_i8 v_store_i8   VW values; stores round to nearest even
 *   v_dup_even v_dup_odd v_swap_pairs             of neighbouring lanes (0 1)(2 3)...
 *   v_sub_even_add_odd(a, b)  a - b in even lanes, a + b in odd ones
 *   v_load_pairs(p, &e, &o)   2 VW floats: those at even and those at odd places */
#ifndef PRIMA_KERNELS_VEC_WORDS_H
#define PRIMA_KERNELS_VEC_WORDS_H
#include "kernels/kernels.h"
#include <string.h>

/* The folder's attention.c gives this to its ops.c. */
void ISA(attention)(const attn_args *a, void *scratch);

/* e^x for x <= 88, within 1.01 ulp; 0 from -86 down; NaN of NaN.
 *
 * x = k ln 2 + f with |f| <= ln 2 / 2, ln 2 in two parts of which the first has so few bits that k times it
 * is exact; e^f = 1 + f + f^2 p(f), p of degree 4 with smallest largest relative error (3.1e-9, Remez).
 * Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
static inline vf v_exp(vf x)
{
    const vf low = v_set1(-86.0f), magic = v_set1(12582912.0f);
    vf y = v_max(low, x);
    vf t = v_fma(y, v_set1(0x1.715476p+0f), magic);
    vf k = v_sub(t, magic);
    vf f = v_fnma(k, v_set1(0x1.7f7d1cp-20f), v_fnma(k, v_set1(0x1.62e4p-1f), y));
    vf p = v_fma(v_set1(0x1.6a23d0p-10f), f, v_set1(0x1.123a20p-7f));
    p = v_fma(p, f, v_set1(0x1.5558f2p-5f));
    p = v_fma(p, f, v_set1(0x1.555492p-3f));
    p = v_fma(p, f, v_set1(0x1.fffffcp-2f));
    p = v_add(v_fma(p, v_mul(f, f), f), v_set1(1.0f));
    return v_select_ge(low, x, v_set1(0.0f), v_mul(p, v_2_to(t)));
}

/* Up to VW floats: the other lanes are 0 and are not stored. Tails go through these and not through plain C,
 * because compilers fuse a product and a sum of plain C where they should not (gcc 12 does in a * c - b * s,
 * b * c + a * s, with -ffp-contract=off). */
static inline vf v_load_n(const float *p, size_t n)
{
    float lanes[VW] = {0};

    if (n >= VW) return v_load(p);
    memcpy(lanes, p, n * sizeof *p);
    return v_load(lanes);
}

static inline void v_store_n(float *p, vf a, size_t n)
{
    float lanes[VW];

    if (n >= VW) {
        v_store(p, a);
        return;
    }
    v_store(lanes, a);
    memcpy(p, lanes, n * sizeof *p);
}

/* Sum of 16 floats in the one order that all sums of lanes have. */
static inline float sum_of_16(const float *a)
{
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = a[i] + a[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

#endif
