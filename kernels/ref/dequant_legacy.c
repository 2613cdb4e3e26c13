/* Floats and the blocks of 32 values to floats.
 *
 *   Q4_0  d, qs[16]           d * (q - 8)     values k and k + 16 in the halves of byte k
 *   Q4_1  d, m, qs[16]        d * q + m
 *   Q5_0  d, qh[4], qs[16]    d * (q - 16)    bit k of qh is the fifth bit of value k
 *   Q5_1  d, m, qh[4], qs[16] d * q + m
 *   Q8_0  d, qs[32]           d * q */
#include "kernels/ref/blocks.h"

void dequant_f32(const uint8_t *src, float *dst, size_t n_blocks)
{
    memcpy(dst, src, n_blocks * sizeof *dst);
}

void dequant_f16(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) dst[i] = load_f16(src + 2 * i);
}

void dequant_bf16(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) dst[i] = quant_bf16_to_f32(load_u16(src + 2 * i));
}

static int nibble(const uint8_t *qs, int k)
{
    return qs[k % 16] >> 4 * (k / 16) & 15;
}

static int fifth(const uint8_t *qh, int k)
{
    return (int)(load_u32(qh) >> k & 1) * 16;
}

void dequant_q4_0(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 18, dst += 32) {
        float d = load_f16(src);
        for (int k = 0; k < 32; k++) dst[k] = d * (nibble(src + 2, k) - 8);
    }
}

void dequant_q4_1(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 20, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        for (int k = 0; k < 32; k++) dst[k] = d * nibble(src + 4, k) + m;
    }
}

void dequant_q5_0(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 22, dst += 32) {
        float d = load_f16(src);
        for (int k = 0; k < 32; k++) dst[k] = d * (nibble(src + 6, k) + fifth(src + 2, k) - 16);
    }
}

void dequant_q5_1(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 24, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        for (int k = 0; k < 32; k++) dst[k] = d * (nibble(src + 8, k) + fifth(src + 4, k)) + m;
    }
}

void dequant_q8_0(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 34, dst += 32) {
        float d = load_f16(src);
        for (int k = 0; k < 32; k++) dst[k] = d * (int8_t)src[2 + k];
    }
}
