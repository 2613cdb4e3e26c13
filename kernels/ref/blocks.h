/* One function per type, from blocks to floats and back; chosen by the table in kernels/quant.c.
 * Blocks are in file layout, any alignment. */
#ifndef PRIMA_KERNELS_BLOCKS_H
#define PRIMA_KERNELS_BLOCKS_H
#include "kernels/quant.h"
#include <string.h>

typedef void (*dequant_fn)(const uint8_t *src, float *dst, size_t n_blocks);
typedef void (*quantize_blocks_fn)(const float *src, uint8_t *dst, size_t n_blocks);

void dequant_f32(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_f16(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_bf16(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q4_0(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q4_1(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q5_0(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q5_1(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q8_0(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q2_k(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q3_k(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q4_k(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q5_k(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_q6_k(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq2_xxs(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq2_xs(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq2_s(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq3_xxs(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq3_s(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq1_s(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq1_m(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq4_nl(const uint8_t *src, float *dst, size_t n_blocks);
void dequant_iq4_xs(const uint8_t *src, float *dst, size_t n_blocks);

void quantize_f32(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_f16(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_bf16(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_q8_0(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_q4_0(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_q4_k(const float *src, uint8_t *dst, size_t n_blocks);
void quantize_q6_k(const float *src, uint8_t *dst, size_t n_blocks);

/* Little-endian loads from any alignment. */
static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t load_u32(const uint8_t *p)
{
    return load_u16(p) | (uint32_t)load_u16(p + 2) << 16;
}
static inline float load_f16(const uint8_t *p)
{
    return quant_f16_to_f32(load_u16(p));
}

/* The 6-bit scales that K-quants pack in 12 bytes. Q4_K and Q5_K: 8 scales and 8 mins. The first four of each
 * stand in the low six bits of bytes 0..3 and 4..7; the others have four bits in bytes 8..11 and two at the
 * top of 0..7. */
static inline int q4_k_scale(const uint8_t *s, int j)
{
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
}

static inline int q4_k_min(const uint8_t *s, int j)
{
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

/* Q3_K: 16 scales, four bits each in bytes 0..7 (halves 8 apart), two bits each in bytes 8..11; 32 is to be
 * subtracted. */
static inline int q3_k_scale(const uint8_t *s, int j)
{
    return (s[j % 8] >> 4 * (j / 8) & 15) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
}

#endif
