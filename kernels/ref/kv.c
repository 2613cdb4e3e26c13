/* Pages of the KV cache: sizes, storing a token, reading a value back.
 *
 * A page is a K half and a V half of the same size; in Q8_0 each half is int8 values, then f32 scales. K runs
 * [dimension][token], V [token][dimension]. */
#include "kernels/ref/kv.h"
#include "kernels/ref/q8.h"
#include "kernels/ref/ref.h"
#include <string.h>

static size_t half_bytes(kv_type t, size_t head_size)
{
    size_t values = KV_PAGE * head_size;

    if (t == KV_Q8_0) return values + values / 32 * sizeof(float);
    return values * (t == KV_F16 ? sizeof(uint16_t) : sizeof(float));
}

size_t kv_page_bytes(kv_type t, size_t head_size)
{
    return 2 * half_bytes(t, head_size);
}

/* Value number `at` of a half; scale number `scale_at` belongs to it. */
static float load(kv_type t, const uint8_t *half, size_t at, size_t scale_at, size_t head_size)
{
    if (t == KV_Q8_0) {
        const float *scales = (const float *)(half + KV_PAGE * head_size);
        return (float)((const int8_t *)half)[at] * scales[scale_at];
    }
    return t == KV_F16 ? quant_f16_to_f32(((const uint16_t *)half)[at]) : ((const float *)half)[at];
}

float kv_key(kv_type t, const void *page, size_t slot, size_t i, size_t head_size)
{
    return load(t, page, i * KV_PAGE + slot, i / 32 * KV_PAGE + slot, head_size);
}

float kv_value(kv_type t, const void *page, size_t slot, size_t i, size_t head_size)
{
    const uint8_t *half = (const uint8_t *)page + half_bytes(t, head_size);
    return load(t, half, slot * head_size + i, slot * (head_size / 32) + i / 32, head_size);
}

/* x[i] to value at[i * step] of a half. */
static void store_plain(kv_type t, void *half, size_t first, size_t step, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (t == KV_F16) ((uint16_t *)half)[first + i * step] = quant_f32_to_f16(x[i]);
        else ((float *)half)[first + i * step] = x[i];
    }
}

void kv_put_ref(kv_type t, void *page, size_t slot, const float *k, const float *v, size_t head_size)
{
    uint8_t *k_half = page, *v_half = k_half + half_bytes(t, head_size);
    float *k_scales = (float *)(k_half + KV_PAGE * head_size),
          *v_scales = (float *)(v_half + KV_PAGE * head_size);

    if (t != KV_Q8_0) {
        store_plain(t, k_half, slot, KV_PAGE, k, head_size);
        store_plain(t, v_half, slot * head_size, 1, v, head_size);
        return;
    }
    for (size_t b = 0; b < head_size / 32; b++) {
        int8_t *kq = (int8_t *)k_half + b * 32 * KV_PAGE + slot,
               *vq = (int8_t *)v_half + slot * head_size + b * 32;
        k_scales[b * KV_PAGE + slot] = q8_block(kq, KV_PAGE, k + 32 * b, 32);
        v_scales[slot * (head_size / 32) + b] = q8_block(vq, 1, v + 32 * b, 32);
    }
}
