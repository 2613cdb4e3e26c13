/* Blocks of the K-quants (256 values) to floats. k is the value's number.
 *
 *   Q2_K  scales[16], qs[64], d, dmin              2 bits; scale and min of 16 values: 4 bits each
 *   Q3_K  hmask[32], qs[64], scales[12], d         3 bits; scale of 16: 6 bits, - 32
 *   Q4_K  d, dmin, scales[12], qs[128]             4 bits; scale and min of 32: 6 bits each
 *   Q5_K  d, dmin, scales[12], qh[32], qs[128]     5 bits; as Q4_K
 *   Q6_K  ql[128], qh[64], scales[16], d           6 bits, - 32; scale of 16: int8
 *
 * Values that share a byte are 32 apart (ql of Q6_K: 64). */
#include "kernels/ref/blocks.h"

/* 2-bit digit k of 64 bytes. */
static int two_bits(const uint8_t *qs, int k)
{
    return qs[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
}

/* 4-bit digit k of 128 bytes. */
static int four_bits(const uint8_t *qs, int k)
{
    return qs[k / 64 * 32 + k % 32] >> k % 64 / 32 * 4 & 15;
}

/* Bit k of 32 bytes. */
static int one_bit(const uint8_t *qh, int k)
{
    return qh[k % 32] >> k / 32 & 1;
}

void dequant_q2_k(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 84, dst += 256) {
        float d = load_f16(src + 80), dmin = load_f16(src + 82);
        for (int k = 0; k < 256; k++) {
            int s = src[k / 16];
            dst[k] = d * (s & 15) * two_bits(src + 16, k) - dmin * (s >> 4);
        }
    }
}

void dequant_q3_k(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 110, dst += 256) {
        float d = load_f16(src + 108);
        for (int j = 0; j < 16; j++) {
            float scale = d * (q3_k_scale(src + 96, j) - 32);
            for (int k = 16 * j; k < 16 * j + 16; k++) {
                dst[k] = scale * (two_bits(src + 32, k) + 4 * one_bit(src, k) - 4);
            }
        }
    }
}

void dequant_q4_k(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 144, dst += 256) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        for (int j = 0; j < 8; j++) {
            float scale = d * q4_k_scale(src + 4, j), min = dmin * q4_k_min(src + 4, j);
            for (int k = 32 * j; k < 32 * j + 32; k++) dst[k] = scale * four_bits(src + 16, k) - min;
        }
    }
}

void dequant_q5_k(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 176, dst += 256) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        for (int j = 0; j < 8; j++) {
            float scale = d * q4_k_scale(src + 4, j), min = dmin * q4_k_min(src + 4, j);
            for (int k = 32 * j; k < 32 * j + 32; k++) {
                dst[k] = scale * (four_bits(src + 48, k) + 16 * one_bit(src + 16, k)) - min;
            }
        }
    }
}

void dequant_q6_k(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 210, dst += 256) {
        float d = load_f16(src + 208);
        for (int k = 0; k < 256; k++) {
            int low = src[k / 128 * 64 + k % 64] >> k % 128 / 64 * 4 & 15;
            int q = low + 16 * two_bits(src + 128, k) - 32;
            dst[k] = d * (int8_t)src[192 + k / 16] * q;
        }
    }
}
