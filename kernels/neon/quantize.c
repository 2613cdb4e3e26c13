/* Activations to 8 bits, the same bits as ref/quantize.c: largest magnitude by its bits, one quotient,
 * products rounded to nearest even. */
#include "kernels/neon/product.h"
#include <math.h>
#include <string.h>

/* n (a multiple of 16) values to q; returns their scale. */
static float to_q8(int8_t *q, const float *x, size_t n)
{
    uint32x4_t most = vdupq_n_u32(0);
    uint32_t bits;
    float amax;

    for (size_t i = 0; i < n; i += 4) {
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    }
    bits = vmaxvq_u32(most);
    memcpy(&amax, &bits, sizeof amax);
    if (!(amax >= ACT_TINY && isfinite(amax))) {
        memset(q, 0, n);
        return amax < ACT_TINY ? 0.0f : NAN;
    }
    for (size_t i = 0; i < n; i += 16) {
        int16x4_t w[4];
        for (size_t j = 0; j < 4; j++) {
            w[j] = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * j), 127.0f / amax)));
        }
        vst1q_s8(q + i,
                 vcombine_s8(vmovn_s16(vcombine_s16(w[0], w[1])), vmovn_s16(vcombine_s16(w[2], w[3]))));
    }
    return amax / 127.0f;
}

void quantize_q8_256_neon(void *dst, const float *x, size_t n)
{
    act_q8_256 *out = dst;

    for (size_t b = 0; b < n / 256; b++) {
        out[b].d = to_q8(out[b].q, x + 256 * b, 256);
        for (size_t j = 0; j < 16; j++) out[b].sum16[j] = vaddlvq_s8(vld1q_s8(out[b].q + 16 * j));
        vst1q_s16(out[b].sum32, vpaddq_s16(vld1q_s16(out[b].sum16), vld1q_s16(out[b].sum16 + 8)));
        memset(out[b].pad, 0, sizeof out[b].pad);
    }
}

void quantize_q8_32_neon(void *dst, const float *x, size_t n)
{
    act_q8_32 *out = dst;

    for (size_t b = 0; b < n / 32; b++) {
        out[b].d = to_q8(out[b].q, x + 32 * b, 32);
        out[b].sum = vaddlvq_s8(vld1q_s8(out[b].q)) + vaddlvq_s8(vld1q_s8(out[b].q + 16));
    }
}
