/* The reference operations: plain C, the definition of right. Contracts: the table in kernels/kernels.h. */
#ifndef PRIMA_KERNELS_REF_H
#define PRIMA_KERNELS_REF_H
#include "kernels/kernels.h"

/* Products by dequantised weights and f64 sums in order of k; x is f32 for every type. */
void matmul_f32_ref(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);

void quantize_f32_ref(void *dst, const float *x, size_t n);
void quantize_q8_256_ref(void *dst, const float *x, size_t n);
void quantize_q8_32_ref(void *dst, const float *x, size_t n);

void rms_norm_ref(float *out, const float *x, const float *w, size_t n, float eps);
void rope_ref(float *x, size_t n_heads, size_t head_size, size_t n_rot, const float *cs, bool neox);
void silu_mul_ref(float *gate, const float *up, size_t n);
void add_f32_ref(float *x, const float *y, size_t n);
void kv_put_ref(kv_type t, void *page, size_t slot, const float *k, const float *v, size_t head_size);
void attention_ref(const attn_args *a, void *scratch);

#endif
