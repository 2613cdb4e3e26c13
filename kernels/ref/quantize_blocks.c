/* Floats to blocks, plain rounding to nearest: for synthetic models and tests, not for best quality.
 *
 * Scales are rounded to what the file stores first, and values are then rounded against the stored scales. */
#include "kernels/ref/blocks.h"
#include <math.h>

static void store_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Stores d as f16 and returns what was stored. */
static float store_f16(uint8_t *p, float d)
{
    store_u16(p, quant_f32_to_f16(d));
    return load_f16(p);
}

/* x / scale rounded to a whole number within low..high; 0 when the scale is 0. */
static int level(float x, float scale, int low, int high)
{
    float v = scale != 0 ? rintf(x / scale) : 0;
    return v >= (float)high ? high : v > (float)low ? (int)v : low;
}

/* The value of largest magnitude, with its sign. */
static float largest(const float *x, int n)
{
    float best = 0;
    for (int i = 0; i < n; i++) best = fabsf(x[i]) > fabsf(best) ? x[i] : best;
    return best;
}

void quantize_f32(const float *src, uint8_t *dst, size_t n_blocks)
{
    memcpy(dst, src, n_blocks * sizeof *src);
}

void quantize_f16(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) store_u16(dst + 2 * i, quant_f32_to_f16(src[i]));
}

void quantize_bf16(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) {
        uint32_t u;
        memcpy(&u, src + i, sizeof u);
        if ((u & 0x7fffffff) > 0x7f800000) u |= 0x400000; /* NaN stays NaN */
        else u += 0x7fff + (u >> 16 & 1);
        store_u16(dst + 2 * i, (uint16_t)(u >> 16));
    }
}

void quantize_q8_0(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 32, dst += 34) {
        float d = store_f16(dst, fabsf(largest(src, 32)) / 127);
        for (int k = 0; k < 32; k++) dst[2 + k] = (uint8_t)level(src[k], d, -127, 127);
    }
}

void quantize_q4_0(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 32, dst += 18) {
        float d = store_f16(dst, largest(src, 32) / -8); /* the largest becomes -8, which has no opposite */
        for (int k = 0; k < 16; k++) {
            int low = level(src[k], d, -8, 7) + 8, high = level(src[k + 16], d, -8, 7) + 8;
            dst[2 + k] = (uint8_t)(low | high << 4);
        }
    }
}

/* Scale and min (as a positive number to subtract) of 32 values on 0..15. */
static void range_of(const float *x, float *scale, float *min)
{
    float lowest = 0, highest = 0;

    for (int k = 0; k < 32; k++) {
        lowest = fminf(lowest, x[k]);
        highest = fmaxf(highest, x[k]);
    }
    *scale = (highest - lowest) / 15;
    *min = -lowest;
}

/* The inverse of q4_k_scale and q4_k_min. */
static void store_q4_k_scales(uint8_t *s, const int *sc, const int *m)
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(sc[j] | sc[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((sc[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

void quantize_q4_k(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 256, dst += 144) {
        float scale[8], min[8], d, dmin;
        int sc[8], m[8];

        for (int j = 0; j < 8; j++) range_of(src + 32 * j, scale + j, min + j);
        d = store_f16(dst, largest(scale, 8) / 63);
        dmin = store_f16(dst + 2, largest(min, 8) / 63);
        for (int j = 0; j < 8; j++) {
            sc[j] = level(scale[j], d, 0, 63);
            m[j] = level(min[j], dmin, 0, 63);
        }
        store_q4_k_scales(dst + 4, sc, m);
        for (int i = 0; i < 128; i++) {
            int j = i / 32 * 2;
            const float *x = src + 32 * j + i % 32;
            int low = level(x[0] + dmin * (float)m[j], d * (float)sc[j], 0, 15);
            int high = level(x[32] + dmin * (float)m[j + 1], d * (float)sc[j + 1], 0, 15);
            dst[16 + i] = (uint8_t)(low | high << 4);
        }
    }
}

void quantize_q6_k(const float *src, uint8_t *dst, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, src += 256, dst += 210) {
        float scale[16], d;

        for (int j = 0; j < 16; j++) scale[j] = largest(src + 16 * j, 16) / -32;
        d = store_f16(dst + 208, largest(scale, 16) / -128);
        memset(dst, 0, 192);
        for (int j = 0; j < 16; j++) dst[192 + j] = (uint8_t)level(scale[j], d, -128, 127);
        for (int k = 0; k < 256; k++) {
            int q = level(src[k], d * (int8_t)dst[192 + k / 16], -32, 31) + 32;
            dst[k / 128 * 64 + k % 64] |= (uint8_t)((q & 15) << k % 128 / 64 * 4);
            dst[128 + k / 128 * 32 + k % 32] |= (uint8_t)((q >> 4) << k % 128 / 32 * 2);
        }
    }
}
