/* Blocks of the IQ types to floats. Every product here has at most 24 significant bits, so the order of the
 * factors does not matter. */
#include "kernels/ref/blocks.h"
#include "kernels/ref/iq.h"
#include "kernels/ref/iq_grids.h"

/* The types that iq.h decodes; block_bytes from one block to the next. */
static void dequant_grid(float (*decode)(const uint8_t *, int8_t *, int8_t *), size_t block_bytes,
                         const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += block_bytes, dst += 256) {
        int8_t q[256], sc[16];
        float d = decode(src, q, sc);

        for (int k = 0; k < 256; k++) dst[k] = d * sc[k / 16] * q[k];
    }
}

void dequant_iq2_xxs(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq2_xxs_decode, 66, src, dst, n_blocks);
}

void dequant_iq2_xs(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq2_xs_decode, 74, src, dst, n_blocks);
}

void dequant_iq2_s(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq2_s_decode, 82, src, dst, n_blocks);
}

void dequant_iq3_xxs(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq3_xxs_decode, 98, src, dst, n_blocks);
}

void dequant_iq3_s(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq3_s_decode, 110, src, dst, n_blocks);
}

void dequant_iq1_s(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq1_s_decode, 50, src, dst, n_blocks);
}

void dequant_iq1_m(const uint8_t *src, float *dst, size_t n_blocks)
{
    dequant_grid(iq1_m_decode, 56, src, dst, n_blocks);
}

/* d, 16 bytes: value k and value k + 16 in the halves of a byte. */
void dequant_iq4_nl(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 18, dst += 32) {
        float d = load_f16(src);
        for (int k = 0; k < 32; k++) dst[k] = d * iq4_values[src[2 + k % 16] >> 4 * (k / 16) & 15];
    }
}

/* d, 16 high bits of the scales, 32 low bits, then 8 times 16 bytes as in IQ4_NL. */
void dequant_iq4_xs(const uint8_t *src, float *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 136, dst += 256) {
        float d = load_f16(src);
        uint32_t high = load_u16(src + 2);

        for (int ib = 0; ib < 8; ib++) {
            int low = src[4 + ib / 2] >> 4 * (ib % 2) & 15;
            float scale = d * (low + (int)(high >> 2 * ib & 3) * 16 - 32);
            const uint8_t *qs = src + 8 + 16 * ib;

            for (int k = 0; k < 32; k++)
                dst[32 * ib + k] = scale * iq4_values[qs[k % 16] >> 4 * (k / 16) & 15];
        }
    }
}
