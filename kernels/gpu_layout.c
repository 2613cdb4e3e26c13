/* Where the inputs of products stand in VRAM: one array after the other, each at a multiple of 256 bytes, in
 * the order of the kinds. One walk over the arrays serves both questions, how much and where. */
#include "kernels/gpu_layout.h"
#include <string.h>

enum { ALIGN = 256 };

gpu_act_kind gpu_act_for_type(uint32_t type)
{
    if (type == Q_F16) return GPU_ACT_F16;
    if (type == Q_BF16) return GPU_ACT_BF16;
    switch (act_for_type(type)) {
    case ACT_Q8_256: return GPU_ACT_Q8_256;
    case ACT_Q8_32: return GPU_ACT_Q8_32;
    default: return GPU_ACT_F32;
    }
}

/* The next `bytes` of the memory that begins at `at`; with at == NULL only counted. */
static void *take(void *at, size_t *used, size_t bytes)
{
    void *p = at ? (uint8_t *)at + *used : NULL;

    *used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static size_t place(gpu_acts *a, void *at, size_t n_cols, size_t max_tokens, unsigned kinds)
{
    static const size_t block[2] = {256, 32}, sub_block[2] = {16, 32};
    size_t used = 0, float_values;

    memset(a, 0, sizeof *a);
    a->n_cols = n_cols;
    a->stride = gpu_act_stride(n_cols);
    a->kinds = kinds;
    float_values = max_tokens * a->stride;
    for (int i = 0; i < 2; i++) {
        if (!(kinds & 1u << (GPU_ACT_Q8_256 + i))) continue;
        a->q[i] = take(at, &used, max_tokens * n_cols);
        a->d[i] = take(at, &used, max_tokens * (n_cols / block[i]) * sizeof(float));
        a->sum[i] = take(at, &used, max_tokens * (n_cols / sub_block[i]) * sizeof(int16_t));
    }
    for (int i = 0; i < 2; i++) {
        if (!(kinds & 1u << (GPU_ACT_F16 + i))) continue;
        a->hi[i] = take(at, &used, float_values * sizeof(uint16_t));
        a->lo[i] = take(at, &used, float_values * sizeof(uint16_t));
        a->scale[i] = take(at, &used, max_tokens * sizeof(float));
    }
    if (kinds & 1u << GPU_ACT_F32) a->f32 = take(at, &used, float_values * sizeof(float));
    return used;
}

size_t gpu_acts_bytes(size_t n_cols, size_t max_tokens, unsigned kinds)
{
    gpu_acts unused;

    return place(&unused, NULL, n_cols, max_tokens, kinds);
}

void gpu_acts_place(gpu_acts *a, void *at, size_t n_cols, size_t max_tokens, unsigned kinds)
{
    place(a, at, n_cols, max_tokens, kinds);
}
