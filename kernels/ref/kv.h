/* Where things stand in a page of the KV cache (layout: kernels/kernels.h). */
#ifndef PRIMA_KERNELS_REF_KV_H
#define PRIMA_KERNELS_REF_KV_H
#include "kernels/kernels.h"

/* K or V value i of the token in `slot`, as f32. */
float kv_key(kv_type t, const void *page, size_t slot, size_t i, size_t head_size);
float kv_value(kv_type t, const void *page, size_t slot, size_t i, size_t head_size);

#endif
