/* Sizes of what attention on a GPU has in VRAM; the order within a page is gpu_kv.h's. */
#include "kernels/gpu_kv.h"
#include "kernels/gpu_layout.h"
#include <assert.h>

size_t gpu_kv_page_bytes(kv_type t, size_t head_size)
{
    size_t values = 2 * KV_PAGE * head_size;

    assert(t == KV_F16 || (t == KV_Q8_0 && head_size % 32 == 0));
    return t == KV_F16 ? values * sizeof(uint16_t) : values + values / 32 * sizeof(float);
}

/* Of each query head and span: the weighted sum of values, their largest score, the sum of weights. */
size_t gpu_attention_scratch(size_t n_tokens, size_t n_heads, size_t head_size, size_t n_spans)
{
    return n_tokens * n_heads * n_spans * (head_size + 2) * sizeof(float);
}
