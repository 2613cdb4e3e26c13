/* One block of floats to 8 bits: shared by activations and the KV cache. */
#ifndef PRIMA_KERNELS_REF_Q8_H
#define PRIMA_KERNELS_REF_Q8_H
#include <stddef.h>
#include <stdint.h>

/* q[i * q_step] = round(x[i] * 127/amax) for i < n; returns the scale amax/127. ACT_TINY, NaN and infinity as
 * kernels.h says. */
float q8_block(int8_t *q, size_t q_step, const float *x, size_t n);

#endif
