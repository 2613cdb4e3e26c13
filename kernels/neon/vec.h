/* The vector words of kernels/vec/ in NEON: 4 lanes. What each means: kernels/vec/words.h. */
#ifndef PRIMA_KERNELS_NEON_VEC_H
#define PRIMA_KERNELS_NEON_VEC_H
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t vf;
enum { VW = 4, TILE_ROWS = 6, TILE_VECS = 4 };
#define ISA(name) name##_neon

/* clang-format off */
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf a) { vst1q_f32(p, a); }
static inline float v_lane0(vf a) { return vgetq_lane_f32(a, 0); }
static inline vf v_set1(float x) { return vdupq_n_f32(x); }
static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
static inline vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf v_abs(vf a) { return vabsq_f32(a); }
static inline vf v_hmax_rows(const vf a[VW])
{
    return vpmaxq_f32(vpmaxq_f32(a[0], a[1]), vpmaxq_f32(a[2], a[3]));
}
static inline vf v_select_ge(vf x, vf y, vf a, vf b) { return vbslq_f32(vcgeq_f32(x, y), a, b); }
static inline vf v_first(vf a, int n, vf fill)
{
    static const int32_t lane[4] = {0, 1, 2, 3};
    return vbslq_f32(vcgtq_s32(vdupq_n_s32(n), vld1q_s32(lane)), a, fill);
}
static inline vf v_2_to(vf t)
{
    int32x4_t k = vshlq_n_s32(vreinterpretq_s32_f32(t), 23);
    return vreinterpretq_f32_s32(vaddq_s32(k, vreinterpretq_s32_f32(v_set1(1.0f))));
}

static inline vf v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void v_store_f16(uint16_t *p, vf a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }
static inline vf v_load_i8(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    int16x8_t w = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
}
static inline void v_store_i8(int8_t *p, vf a)
{
    int16x4_t w = vmovn_s32(vcvtnq_s32_f32(a));
    int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(w, w))), 0);
    memcpy(p, &four, 4);
}

/* Pairs of neighbours: (0 1)(2 3)... */
static inline vf v_dup_even(vf a) { return vtrn1q_f32(a, a); }
static inline vf v_dup_odd(vf a) { return vtrn2q_f32(a, a); }
static inline vf v_swap_pairs(vf a) { return vrev64q_f32(a); }
static inline vf v_sub_even_add_odd(vf a, vf b)
{
    static const uint32_t sign[4] = {0x80000000u, 0, 0x80000000u, 0};
    return vaddq_f32(a, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(b), vld1q_u32(sign))));
}
static inline void v_load_pairs(const float *p, vf *even, vf *odd)
{
    float32x4x2_t v = vld2q_f32(p);
    *even = v.val[0];
    *odd = v.val[1];
}
/* clang-format on */

#endif
