/* What stands between the products of q, k, v and attention, in one kernel: biases, norms of heads, rotary
 * embedding, and the KV cache.
 *
 * A warp takes a head of a token: the query heads, then the key heads, then the value heads. The head waits
 * in shared memory, because a pair of rotated values may lie half a head apart:
 *
 *   read (+ bias) -> shared -> [norm: sum over the warp] -> [rotate pair lane, lane + 32, ...] -> q, or the
 * page
 *
 * Lane l has values l, l + 32, ... of a head, so in Q8_0 a block of 32 is one value in each lane. Order of
 * additions of the norm: a lane's values in order, fused, then a butterfly: fixed by the head size.
 *
 * Bound by latency for one token (48 heads of 128: 12 blocks): expected at 2 us. For many by memory: 4 bytes
 * read and 2 to 4 written a value; those of V are stores of 2 bytes, each in another line, which L2 puts
 * together: 2048 tokens of 1024 values are 2 M of them, expected at 20 us. */
#include "kernels/cuda/act.cuh"
#include "kernels/gpu_kv.h"

enum { ROPE_WARPS = 4, HEAD_MAX = 256, LANE_HEAD = HEAD_MAX / WARP };

/* From shared memory back to q. */
static __device__ void store_query(float *to, const float *head, size_t n)
{
    for (size_t i = lane_id(); i < n; i += WARP) to[i] = head[i];
}

/* To slot `slot` of a page (kernels/gpu_kv.h), as key or as value. */
static __device__ void store_f16(uint8_t *page, const float *head, size_t slot, size_t n, bool is_value)
{
    uint16_t *to = (uint16_t *)page;

    for (size_t i = lane_id(); i < n; i += WARP) {
        const size_t at = is_value ? gpu_kv_value_at(KV_F16, n, slot, i) : gpu_kv_key_at(KV_F16, n, slot, i);
        to[at] = float_f16(head[i]);
    }
}
static __device__ void store_q8_0(uint8_t *page, const float *head, size_t slot, size_t n, bool is_value)
{
    float *scales = (float *)(page + gpu_kv_scales(n));

    for (size_t i = lane_id(); i < n; i += WARP) {
        const q8_scale s = q8_scale_of(warp_max<1, WARP>(float_bits(head[i]) & 0x7fffffffu));
        const size_t at =
            is_value ? gpu_kv_value_at(KV_Q8_0, n, slot, i) : gpu_kv_key_at(KV_Q8_0, n, slot, i);

        ((int8_t *)page)[at] = (int8_t)q8_of(head[i], s);
        if (lane_id() == 0)
            scales[is_value ? gpu_kv_value_scale_at(n, slot, i) : gpu_kv_key_scale_at(slot, i)] = s.d;
    }
}

/* A lane's values of a head, n of the head; zeros behind the end. All loads at once. */
static __device__ __forceinline__ void load_head(float v[LANE_HEAD], const float *from, size_t n)
{
#pragma unroll
    for (int j = 0; j < LANE_HEAD; j++) {
        const size_t i = lane_id() + WARP * j;
        v[j] = i < n ? from[i] : 0;
    }
}

static __device__ __forceinline__ void norm_head(float v[LANE_HEAD], const float w[LANE_HEAD], size_t n,
                                                 float eps)
{
    float sum = 0, scale;

#pragma unroll
    for (int j = 0; j < LANE_HEAD; j++) sum = fmaf(v[j], v[j], sum);
    scale = 1.0f / sqrtf(warp_sum(sum) / (float)n + eps);
#pragma unroll
    for (int j = 0; j < LANE_HEAD; j++) v[j] = v[j] * scale * w[j];
}

/* cs: a lane's cos and sin of pairs lane, lane + 32, ... */
static __device__ __forceinline__ void rotate_head(float *head, const float2 cs[LANE_HEAD / 2], size_t n_rot,
                                                   bool neox)
{
    const size_t half = n_rot / 2;

#pragma unroll
    for (int j = 0; j < LANE_HEAD / 2; j++) {
        const size_t i = lane_id() + WARP * j;
        float *a = head + (neox ? i : 2 * i), *b = neox ? a + half : a + 1;

        if (i >= half) continue;
        const float x = *a, y = *b;
        *a = fmaf(x, cs[j].x, -(y * cs[j].y));
        *b = fmaf(x, cs[j].y, y * cs[j].x);
    }
}

static __global__ void __launch_bounds__(ROPE_WARPS *WARP) rope_heads(gpu_rope_args a, size_t page_bytes)
{
    __shared__ float shared[ROPE_WARPS][HEAD_MAX];
    const size_t t = blockIdx.y, n = a.head_size, H = a.n_heads, K = a.n_kv_heads;
    const size_t number = (size_t)blockIdx.x * ROPE_WARPS + threadIdx.x / WARP;
    const bool is_query = number < H, is_value = number >= H + K;
    const size_t h = is_query ? number : is_value ? number - H - K : number - H;
    const float *bias = is_query ? a.q_bias : is_value ? a.v_bias : a.k_bias;
    const float *weight = is_query ? a.q_norm : is_value ? NULL : a.k_norm;
    const float *from = is_query ? a.q + t * a.q_stride : (is_value ? a.v : a.k) + t * a.kv_stride;
    const size_t slot = (size_t)a.step.pos[t] % KV_PAGE, page = (size_t)a.step.page[t];
    float *const head = shared[threadIdx.x / WARP];
    float v[LANE_HEAD], b[LANE_HEAD] = {}, w[LANE_HEAD] = {};
    float2 cs[LANE_HEAD / 2] = {};

    if (number >= H + 2 * K) return; /* a whole warp */
    load_head(v, from + h * n, n);
    if (bias) load_head(b, bias + h * n, n);
    if (weight) load_head(w, weight, n);
#pragma unroll
    for (int j = 0; j < LANE_HEAD / 2; j++) {
        const size_t i = lane_id() + WARP * j;
        if (!is_value && i < a.n_rot / 2) cs[j] = *(const float2 *)(a.step.rope + t * a.n_rot + 2 * i);
    }
#pragma unroll
    for (int j = 0; j < LANE_HEAD; j++) v[j] += b[j];
    if (weight) norm_head(v, w, n, a.eps);
#pragma unroll
    for (int j = 0; j < LANE_HEAD; j++) head[lane_id() + WARP * j] = v[j];
    if (!is_value) {
        warp_sync();
        rotate_head(head, cs, a.n_rot, a.neox);
        warp_sync();
    }
    if (is_query) {
        store_query(a.q + t * a.q_stride + h * n, head, n);
    } else {
        uint8_t *to = a.kv + (page * K + h) * page_bytes;

        if (a.type == KV_F16) store_f16(to, head, slot, n, is_value);
        else store_q8_0(to, head, slot, n, is_value);
    }
}

cudaError_t launch_rope(const gpu_rope_args *a, cudaStream_t stream)
{
    const size_t n_heads = a->n_heads + 2 * a->n_kv_heads;
    const dim3 grid((unsigned)((n_heads + ROPE_WARPS - 1) / ROPE_WARPS), (unsigned)a->n_tokens);

    assert(a->head_size <= HEAD_MAX && a->n_rot <= a->head_size && a->n_rot % 2 == 0);
    assert(a->type == KV_F16 || (a->type == KV_Q8_0 && a->head_size % 32 == 0));
    return launch(rope_heads, grid, dim3(ROPE_WARPS * WARP), 0, stream, *a,
                  gpu_kv_page_bytes(a->type, a->head_size));
}
