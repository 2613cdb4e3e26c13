/* Activations to 8 bits (rule and blocks: kernels/kernels.h), the portable version.
 *
 * All instruction sets give the same bits: maximum, division, product and rounding to nearest even are exact
 * or correctly rounded wherever they run, and nothing is summed but integers. */
#include "kernels/ref/q8.h"
#include "kernels/ref/ref.h"
#include <math.h>
#include <string.h>

float q8_block(int8_t *q, size_t q_step, const float *x, size_t n)
{
    uint32_t max_bits = 0;
    float amax, inverse;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        if (bits > max_bits) max_bits = bits;
    }
    memcpy(&amax, &max_bits, sizeof amax);
    if (!(amax >= ACT_TINY && isfinite(amax))) {
        for (size_t i = 0; i < n; i++) q[i * q_step] = 0;
        return amax < ACT_TINY ? 0.0f : NAN;
    }
    inverse = 127.0f / amax;
    for (size_t i = 0; i < n; i++) {
        float v = rintf(x[i] * inverse);
        q[i * q_step] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return amax / 127.0f;
}

void quantize_f32_ref(void *dst, const float *x, size_t n)
{
    memcpy(dst, x, n * sizeof *x);
}

void quantize_q8_256_ref(void *dst, const float *x, size_t n)
{
    act_q8_256 *out = dst;

    for (size_t b = 0; b < n / 256; b++) {
        out[b].d = q8_block(out[b].q, 1, x + 256 * b, 256);
        for (size_t j = 0; j < 16; j++) {
            int sum = 0;
            for (size_t i = 0; i < 16; i++) sum += out[b].q[16 * j + i];
            out[b].sum16[j] = (int16_t)sum;
        }
        for (size_t j = 0; j < 8; j++)
            out[b].sum32[j] = (int16_t)(out[b].sum16[2 * j] + out[b].sum16[2 * j + 1]);
        memset(out[b].pad, 0, sizeof out[b].pad);
    }
}

void quantize_q8_32_ref(void *dst, const float *x, size_t n)
{
    act_q8_32 *out = dst;

    for (size_t b = 0; b < n / 32; b++) {
        out[b].d = q8_block(out[b].q, 1, x + 32 * b, 32);
        out[b].sum = 0;
        for (size_t i = 0; i < 32; i++) out[b].sum += out[b].q[i];
    }
}
