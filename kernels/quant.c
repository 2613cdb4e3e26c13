/* The table of types, f16 arithmetic on bits, and the way from a type number to its functions.
 *
 * Block sizes as in the GGUF specification and ggml's headers (MIT). The meaning of the blocks is in
 * ref/dequant_*.c, the way back in ref/quantize_blocks.c. */
#include "kernels/quant.h"
#include "kernels/ref/blocks.h"

static const struct {
    quant_type info;
    dequant_fn dequant;
    quantize_blocks_fn quantize; /* NULL: prima does not write this type */
} types[Q_TYPE_COUNT] = {
    [Q_F32] = {{"F32", 1, 4}, dequant_f32, quantize_f32},
    [Q_F16] = {{"F16", 1, 2}, dequant_f16, quantize_f16},
    [Q_BF16] = {{"BF16", 1, 2}, dequant_bf16, quantize_bf16},
    [Q_Q4_0] = {{"Q4_0", 32, 18}, dequant_q4_0, quantize_q4_0},
    [Q_Q4_1] = {{"Q4_1", 32, 20}, dequant_q4_1, NULL},
    [Q_Q5_0] = {{"Q5_0", 32, 22}, dequant_q5_0, NULL},
    [Q_Q5_1] = {{"Q5_1", 32, 24}, dequant_q5_1, NULL},
    [Q_Q8_0] = {{"Q8_0", 32, 34}, dequant_q8_0, quantize_q8_0},
    [Q_Q2_K] = {{"Q2_K", 256, 84}, dequant_q2_k, NULL},
    [Q_Q3_K] = {{"Q3_K", 256, 110}, dequant_q3_k, NULL},
    [Q_Q4_K] = {{"Q4_K", 256, 144}, dequant_q4_k, quantize_q4_k},
    [Q_Q5_K] = {{"Q5_K", 256, 176}, dequant_q5_k, NULL},
    [Q_Q6_K] = {{"Q6_K", 256, 210}, dequant_q6_k, quantize_q6_k},
    [Q_IQ2_XXS] = {{"IQ2_XXS", 256, 66}, dequant_iq2_xxs, NULL},
    [Q_IQ2_XS] = {{"IQ2_XS", 256, 74}, dequant_iq2_xs, NULL},
    [Q_IQ2_S] = {{"IQ2_S", 256, 82}, dequant_iq2_s, NULL},
    [Q_IQ3_XXS] = {{"IQ3_XXS", 256, 98}, dequant_iq3_xxs, NULL},
    [Q_IQ3_S] = {{"IQ3_S", 256, 110}, dequant_iq3_s, NULL},
    [Q_IQ1_S] = {{"IQ1_S", 256, 50}, dequant_iq1_s, NULL},
    [Q_IQ1_M] = {{"IQ1_M", 256, 56}, dequant_iq1_m, NULL},
    [Q_IQ4_NL] = {{"IQ4_NL", 32, 18}, dequant_iq4_nl, NULL},
    [Q_IQ4_XS] = {{"IQ4_XS", 256, 136}, dequant_iq4_xs, NULL},
};

const quant_type *quant_info(uint32_t type)
{
    return type < Q_TYPE_COUNT && types[type].info.name ? &types[type].info : NULL;
}

size_t quant_row_bytes(uint32_t type, uint64_t n)
{
    const quant_type *t = quant_info(type);
    size_t bytes;

    if (!t || n % t->block_values) return 0;
    return __builtin_mul_overflow(n / t->block_values, t->block_bytes, &bytes) ? 0 : bytes;
}

void quant_dequant(uint32_t type, const void *src, float *dst, size_t n)
{
    types[type].dequant(src, dst, n / types[type].info.block_values);
}

bool quant_quantize(uint32_t type, const float *src, void *dst, size_t n)
{
    if (!quant_info(type) || !types[type].quantize) return false;
    types[type].quantize(src, dst, n / types[type].info.block_values);
    return true;
}

float quant_f16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;

    if (exponent == 31) { /* infinity; NaN becomes quiet, as in hardware */
        v.u = 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000 : 0);
    } else if (exponent == 0) {
        v.f = (float)mantissa * 0x1p-24f; /* zero and subnormals */
    } else {
        v.u = (exponent + 112) << 23 | mantissa << 13;
    }
    v.u |= sign;
    return v.f;
}

uint16_t quant_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    uint32_t sign = v.u >> 16 & 0x8000, x = v.u & 0x7fffffff, h;

    if (x > 0x7f800000) { /* NaN: quiet, upper payload bits kept */
        h = 0x7e00 | (x >> 13 & 0x3ff);
    } else if (x >= 0x477ff000) { /* 65520 and more rounds to infinity */
        h = 0x7c00;
    } else if (x < 0x38800000) { /* below 2^-14: adding 0.5 rounds to steps of 2^-24 */
        v.u = x;
        v.f += 0.5f;
        h = v.u - 0x3f000000;
    } else {
        h = (x + 0xfff + (x >> 13 & 1) - 0x38000000) >> 13;
    }
    return (uint16_t)(sign | h);
}
