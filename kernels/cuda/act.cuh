/* Rows of f32 to the inputs of products: what norm.cu, act.cu and silu.cu share.
 *
 * A warp holds 256 values of a row, eight in each lane:
 *
 *   lane        0        1        2        3     ...    31
 *   values    0..7     8..15    16..23   24..31  ...  248..255
 *             [--- 16: sum ---]                             [------- 32: block of Q8_32 -------] = 4 lanes
 *             [-------------------- 256: block of Q8_256, scale over 5 shuffles ------------------------]
 *
 * so that a block never leaves its warp: 2 loads of 16 bytes a lane, 2 words of int8 stored. Values behind
 * the end of a row are zeros. */
#ifndef PRIMA_KERNELS_CUDA_ACT_CUH
#define PRIMA_KERNELS_CUDA_ACT_CUH
#include "kernels/cuda/device.cuh"

enum { ROW_BLOCK = 256, LANE_VALUES = 8, MAX_WARPS = 32 };
enum { ACT_HALVES = 1u << GPU_ACT_F16 | 1u << GPU_ACT_BF16 }; /* these need the whole row's largest value */

/* Whether rows `stride` floats apart from p on can be read 16 bytes at a time. */
static inline bool rows_are_wide(const float *p, size_t stride)
{
    return (uintptr_t)p % 16 == 0 && stride % 4 == 0;
}

static __device__ __forceinline__ void load8(float v[8], const float *row, size_t i, size_t n, bool wide)
{
    if (wide && i + 8 <= n) {
        const float4 a = *(const float4 *)(row + i), b = *(const float4 *)(row + i + 4);
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = i + j < n ? row[i + j] : 0;
    }
}
static __device__ __forceinline__ void store8(float *row, const float v[8], size_t i, size_t n, bool wide)
{
    if (wide && i + 8 <= n) {
        *(float4 *)(row + i) = make_float4(v[0], v[1], v[2], v[3]);
        *(float4 *)(row + i + 4) = make_float4(v[4], v[5], v[6], v[7]);
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (i + j < n) row[i + j] = v[j];
    }
}

/* The largest magnitude, as bits: a NaN is larger than infinity, infinity than all numbers. */
static __device__ __forceinline__ uint32_t largest8(const float v[8])
{
    uint32_t m = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) m = max(m, float_bits(v[j]) & 0x7fffffffu);
    return m;
}
template <int from, int to> static __device__ __forceinline__ uint32_t warp_max(uint32_t m)
{
#pragma unroll
    for (int mask = from; mask < to; mask *= 2) m = max(m, warp_xor(m, mask));
    return m;
}

/* --- eight bits: the rule of kernels.h ------------------------------------------------------------- */
typedef struct {
    float d, inverse;
    bool zeros;
} q8_scale;
static __device__ __forceinline__ q8_scale q8_scale_of(uint32_t max_bits)
{
    const float amax = bits_float(max_bits);
    q8_scale s = {0, 0, true};

    if (max_bits >= 0x7f800000u) s.d = bits_float(0x7fc00000u);
    else if (amax >= ACT_TINY) s = {amax / 127.0f, 127.0f / amax, false};
    return s;
}
static __device__ __forceinline__ int q8_of(float x, q8_scale s)
{
    return s.zeros ? 0 : max(-127, min(127, __float2int_rn(x * s.inverse)));
}
static __device__ __forceinline__ uint32_t pack_bytes4(const int q[4])
{
    return (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | (uint32_t)q[3] << 24;
}

/* Values k .. k+7 of a row, k a multiple of 8, to its q: two words at gpu_act_place, for which SPAN is 64
 * or 32. Returns their sum. */
template <int SPAN>
static __device__ __forceinline__ int store_q8(int8_t *row, size_t k, const float v[8], q8_scale s,
                                               bool inside)
{
    const int word = (int)(k % SPAN) / 4;
    int q[8], sum = 0;

#pragma unroll
    for (int j = 0; j < 8; j++) sum += q[j] = q8_of(v[j], s);
    if (inside) {
        uint32_t *to = (uint32_t *)(row + k / SPAN * SPAN);
        to[word % 4 * (SPAN / 16) + word / 4] = pack_bytes4(q);
        to[(word + 1) % 4 * (SPAN / 16) + word / 4] = pack_bytes4(q + 4);
    }
    return sum;
}
static __device__ void store_q8_256(const gpu_acts &to, size_t t, size_t i, const float v[8],
                                    uint32_t max_bits)
{
    const q8_scale s = q8_scale_of(max_bits);
    const bool inside = i < to.n_cols;
    const size_t at = t * to.n_cols + i;
    int sum = store_q8<64>(to.q[0] + t * to.n_cols, i, v, s, inside);

    sum += warp_xor(sum, 1);
    if (inside && lane_id() % 2 == 0) to.sum[0][at / 16] = (int16_t)sum;
    if (inside && lane_id() == 0) to.d[0][at / 256] = s.d;
}
static __device__ void store_q8_32(const gpu_acts &to, size_t t, size_t i, const float v[8],
                                   uint32_t max_bits)
{
    const q8_scale s = q8_scale_of(max_bits);
    const bool inside = i < to.n_cols;
    const size_t at = t * to.n_cols + i;
    int sum = store_q8<32>(to.q[1] + t * to.n_cols, i, v, s, inside);

    sum += warp_xor(sum, 1);
    sum += warp_xor(sum, 2);
    if (!inside || lane_id() % 4) return;
    to.sum[1][at / 32] = (int16_t)sum;
    to.d[1][at / 32] = s.d;
}

/* --- halves: x = scale * (hi + lo) ------------------------------------------------------------------ */
/* 2^e so that the row's largest is below 2^15 * 2^e, and its inverse. NaN for a row with a NaN or an
 * infinity: products are multiplied by it at the end. */
static __device__ __forceinline__ float half_scale(uint32_t row_max, float *inverse)
{
    const uint32_t e = max(1, (int)(row_max >> 23) - 14);

    *inverse = bits_float((254 - e) << 23);
    return bits_float(row_max >= 0x7f800000u ? 0x7fc00000u : e << 23);
}
template <bool bf16>
static __device__ void store_halves(uint16_t *hi_to, uint16_t *lo_to, const float v[8], float inverse)
{
    uint32_t hi[4], lo[4];

#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float x = v[2 * j] * inverse, y = v[2 * j + 1] * inverse;
        if (bf16) {
            const uint16_t a = float_bf16(x), b = float_bf16(y);
            hi[j] = pack_halves(a, b);
            lo[j] = pack_halves(float_bf16(x - bf16_float(a)), float_bf16(y - bf16_float(b)));
        } else {
            const uint16_t a = float_f16(x), b = float_f16(y);
            hi[j] = pack_halves(a, b);
            lo[j] = pack_halves(float_f16(x - f16_float(a)), float_f16(y - f16_float(b)));
        }
    }
    *(uint4 *)hi_to = make_uint4(hi[0], hi[1], hi[2], hi[3]);
    *(uint4 *)lo_to = make_uint4(lo[0], lo[1], lo[2], lo[3]);
}

/* --- all kinds -------------------------------------------------------------------------------------- */
/* 256 values of row t from value `first` on, in the lanes of a warp. row_max is used by F16 and BF16. */
static __device__ __forceinline__ void store_acts(const gpu_acts &to, size_t t, size_t first,
                                                  const float v[8], uint32_t row_max)
{
    const size_t i = first + LANE_VALUES * lane_id(), at = t * to.stride + i;

    if (to.kinds & (1u << GPU_ACT_Q8_256 | 1u << GPU_ACT_Q8_32)) {
        const uint32_t max32 = warp_max<1, 4>(largest8(v));
        if (to.kinds & 1u << GPU_ACT_Q8_32) store_q8_32(to, t, i, v, max32);
        if (to.kinds & 1u << GPU_ACT_Q8_256) store_q8_256(to, t, i, v, warp_max<4, WARP>(max32));
    }
    if (to.kinds & ACT_HALVES) {
        float inverse;
        const float scale = half_scale(row_max, &inverse);

        if (to.kinds & 1u << GPU_ACT_F16) {
            if (i == 0) to.scale[0][t] = scale;
            if (i < to.stride) store_halves<false>(to.hi[0] + at, to.lo[0] + at, v, inverse);
        }
        if (to.kinds & 1u << GPU_ACT_BF16) {
            if (i == 0) to.scale[1][t] = scale;
            if (i < to.stride) store_halves<true>(to.hi[1] + at, to.lo[1] + at, v, inverse);
        }
    }
    if (to.kinds & 1u << GPU_ACT_F32) store8(to.f32 + t * to.stride, v, i, to.stride, true);
}

/* --- over the warps of a block ------------------------------------------------------------------------ */
/* In every thread. part: one place for each of at most 32 warps, used by this call alone. */
static __device__ __forceinline__ uint32_t block_max(uint32_t m, uint32_t *part)
{
    const int lane = lane_id(), n_warps = (int)blockDim.x / WARP;

    m = warp_max<1, WARP>(m);
    if (lane == 0) part[threadIdx.x / WARP] = m;
    block_sync();
    return warp_max<1, WARP>(lane < n_warps ? part[lane] : 0);
}
static __device__ __forceinline__ float warp_sum(float s)
{
#pragma unroll
    for (int mask = 1; mask < WARP; mask *= 2) s += warp_xor(s, mask);
    return s;
}
static __device__ __forceinline__ float block_sum(float s, float *part)
{
    const int lane = lane_id(), n_warps = (int)blockDim.x / WARP;

    s = warp_sum(s);
    if (lane == 0) part[threadIdx.x / WARP] = s;
    block_sync();
    return warp_sum(lane < n_warps ? part[lane] : 0);
}

static inline size_t row_blocks(size_t n_cols)
{
    return (n_cols + ROW_BLOCK - 1) / ROW_BLOCK;
}
/* Warps of a thread block that takes a whole row. */
static inline unsigned row_warps(size_t n_cols)
{
    const size_t n = row_blocks(n_cols);
    return n < MAX_WARPS ? (unsigned)n : (unsigned)MAX_WARPS;
}

/* --- element by element: act.cu, silu.cu ---------------------------------------------------------------- */
/* Block (t, part): rows are cut in parts of PART_WARPS warps, one block of 256 each. Where the whole row's
 * largest value is asked for, one thread block takes the row and goes over it twice: the second time it
 * comes from the L1 cache. From: load(v, t, i) gives values i .. i+7 of row t, zeros behind the end. */
enum { PART_WARPS = 8 };

template <class From>
static __global__ void __launch_bounds__(MAX_WARPS *WARP) row_to_acts(From from, gpu_acts to)
{
    __shared__ uint32_t part[MAX_WARPS];
    const size_t t = blockIdx.x, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    const size_t n = to.stride, step = gridDim.y * n_warps * ROW_BLOCK;
    const size_t begin = (blockIdx.y * n_warps + warp) * ROW_BLOCK;
    uint32_t row_max = 0;
    float v[8];

    if (to.kinds & ACT_HALVES) {
        for (size_t i = begin; i < n; i += step) {
            from.load(v, t, i + LANE_VALUES * lane_id());
            row_max = max(row_max, largest8(v));
        }
        row_max = block_max(row_max, part);
    }
    for (size_t i = begin; i < n; i += step) {
        from.load(v, t, i + LANE_VALUES * lane_id());
        store_acts(to, t, i, v, row_max);
    }
}

template <class From>
static cudaError_t launch_rows_to_acts(From from, const gpu_acts *to, size_t n_tokens, cudaStream_t stream)
{
    const bool whole = to->kinds & ACT_HALVES;
    const unsigned n_warps = whole ? row_warps(to->n_cols) : (unsigned)PART_WARPS;
    const size_t n_parts = whole ? 1 : (row_blocks(to->n_cols) + PART_WARPS - 1) / PART_WARPS;

    return launch(row_to_acts<From>, dim3((unsigned)n_tokens, (unsigned)n_parts), dim3(n_warps * WARP), 0,
                  stream, from, *to);
}

#endif
