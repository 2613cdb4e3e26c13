/* The IQ types whose values are patterns from grids: group-blocks to digits of 8 bits in the order of tensor
 * core fragments (`unpacked` of matmul_types.cuh). What the bits mean: kernels/ref/iq.c.
 *
 *   block of threads   one group-block: 16 rows x 256 values
 *   thread             row thread % 16, patterns of 8 values thread / 16 and 16 + thread / 16
 *
 *   in    [ block of row 0 | block of row 1 | .. ], at most 1760 bytes
 *   out   [ 8 fragments of 32 values, 512 bytes each | scales: 16 bytes a row | d: f32 a row ]
 *
 * Both ways through shared memory, so that device memory sees runs of 16 bytes a thread. Some 60 instructions
 * for 8 values: bound by issue, at 5 bytes written a cycle of a multiprocessor; it is the slow path of types
 * that few models use.
 *
 * The grids are those of kernels/ref/iq_grids.c, the very source compiled for the device. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/gpu_matmul.h"
#include <assert.h>

#define inline __device__ inline
#define __builtin_parity(x) (__popc(x) & 1)
#include "kernels/ref/iq_grids.h"
#undef __builtin_parity
#undef inline
#define iq1_grid     gpu_iq1_grid
#define iq2_xxs_grid gpu_iq2_xxs_grid
#define iq2_xs_grid  gpu_iq2_xs_grid
#define iq2_s_grid   gpu_iq2_s_grid
#define iq3_xxs_grid gpu_iq3_xxs_grid
#define iq3_s_grid   gpu_iq3_s_grid
#define iq4_values   gpu_iq4_values
#define const static __device__ const
#include "kernels/ref/iq_grids.c"
#undef const

enum { GRID_THREADS = 256, MOST_BYTES = 110 };

/* 8 values and their scale, of which there are 16 in a block (or 8, each for two of 16). */
struct pattern {
    uint32_t low, high;
    int32_t scale;
};

static __device__ __forceinline__ uint32_t u16_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}
static __device__ __forceinline__ uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}
static __device__ __forceinline__ int32_t scale_4_bits(const uint8_t *scales, int i)
{
    return 2 * (scales[i / 2] >> i % 2 * 4 & 15) + 1;
}
static __device__ __forceinline__ pattern iq2_pattern(uint32_t digits, uint32_t signs, int32_t scale)
{
    pattern v = {iq_negate(iq2_values(digits & 255), signs), iq_negate(iq2_values(digits >> 8), signs >> 4),
                 scale};
    return v;
}
static __device__ __forceinline__ pattern iq1_pattern(uint32_t digits, int negative_delta, int32_t scale)
{
    pattern v = {iq1_values(digits & 255, negative_delta), iq1_values(digits >> 8, negative_delta), scale};
    return v;
}

/* One struct per type: pattern p of 0..31 of a row's block, and d. */
struct grid_iq2_xxs {
    static constexpr int BYTES = 66;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t bits = u32_at(b + 2 + p / 4 * 8 + 4);
        return iq2_pattern(iq2_xxs_grid[b[2 + p / 4 * 8 + p % 4]], iq_signs8(bits >> 7 * (p % 4) & 127),
                           2 * (int32_t)(bits >> 28) + 1);
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)) * 0.125f; }
};
struct grid_iq2_xs {
    static constexpr int BYTES = 74;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t bits = u16_at(b + 2 + 2 * p);
        return iq2_pattern(iq2_xs_grid[bits & 511], iq_signs8(bits >> 9), scale_4_bits(b + 66, p / 2));
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)) * 0.125f; }
};
struct grid_iq2_s {
    static constexpr int BYTES = 82;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t high = b[66 + p / 4] >> p % 4 * 2 & 3;
        return iq2_pattern(iq2_s_grid[b[2 + p] | high << 8], b[34 + p], scale_4_bits(b + 74, p / 2));
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)) * 0.125f; }
};
struct grid_iq3_xxs {
    static constexpr int BYTES = 98;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t bits = u32_at(b + 66 + p / 4 * 4), signs = iq_signs8(bits >> 7 * (p % 4) & 127);
        pattern v = {iq_negate(iq3_xxs_values(iq3_xxs_grid[b[2 + 2 * p]]), signs),
                     iq_negate(iq3_xxs_values(iq3_xxs_grid[b[3 + 2 * p]]), signs >> 4),
                     2 * (int32_t)(bits >> 28) + 1};
        return v;
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)) * 0.25f; }
};
struct grid_iq3_s {
    static constexpr int BYTES = 110;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t high = b[66 + p / 4] >> p % 4 * 2, signs = b[74 + p];
        pattern v = {iq_negate(iq3_s_values(iq3_s_grid[b[2 + 2 * p] | (high & 1) << 8]), signs),
                     iq_negate(iq3_s_values(iq3_s_grid[b[3 + 2 * p] | (high >> 1 & 1) << 8]), signs >> 4),
                     scale_4_bits(b + 106, p / 4)};
        return v;
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)); }
};
struct grid_iq1_s {
    static constexpr int BYTES = 50;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t bits = u16_at(b + 34 + p / 4 * 2);
        return iq1_pattern(iq1_grid[b[2 + p] | (bits >> 3 * (p % 4) & 7) << 8], (int)(bits >> 15),
                           2 * (int32_t)(bits >> 12 & 7) + 1);
    }
    static __device__ __forceinline__ float d(const uint8_t *b) { return f16_float(u16_at(b)) * 0.125f; }
};
struct grid_iq1_m {
    static constexpr int BYTES = 56;
    static __device__ __forceinline__ pattern at(const uint8_t *b, int p)
    {
        uint32_t bits = b[32 + p / 2] >> p % 2 * 4, scales = u16_at(b + 48 + p / 8 * 2);
        return iq1_pattern(iq1_grid[b[p] | (bits & 7) << 8], (int)(bits >> 3 & 1),
                           2 * (int32_t)(scales >> 3 * (p / 2 % 4) & 7) + 1);
    }
    /* The four bits on top of each of four words */
    static __device__ __forceinline__ float d(const uint8_t *b)
    {
        uint32_t h = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) h |= (uint32_t)(b[49 + 2 * i] >> 4) << 4 * i;
        return f16_float((uint16_t)h) * 0.125f;
    }
};

/* Where 4 values of a row stand in the fragments, in words; k is the first of them. */
static __device__ __forceinline__ int fragment_word(int row, int k)
{
    return k / 32 * 128 + (row % 8 * 4 + k % 16 / 4) * 4 + k % 32 / 16 * 2 + row / 8;
}

template <class G>
static __global__ void __launch_bounds__(GRID_THREADS) unpack(uint8_t *to, const uint8_t *pack)
{
    __shared__ uint4 in[MOST_BYTES], out[GPU_UNPACKED_BYTES / 16];
    const uint4 *from = (const uint4 *)(pack + (size_t)blockIdx.x * (16 * G::BYTES));
    const int tid = (int)threadIdx.x, row = tid % 16;
    const uint8_t *block = (const uint8_t *)in + row * G::BYTES;
    uint32_t *digits = (uint32_t *)out;
    int8_t *scales = (int8_t *)(out + 256);

    for (int i = tid; i < G::BYTES; i += GRID_THREADS) in[i] = from[i];
    block_sync();
    for (int p = tid / 16; p < 32; p += GRID_THREADS / 16) {
        const pattern v = G::at(block, p);
        digits[fragment_word(row, 8 * p)] = v.low;
        digits[fragment_word(row, 8 * p + 4)] = v.high;
        if (p % 2 == 0) scales[16 * row + p / 2] = (int8_t)v.scale;
    }
    if (tid < 16) ((float *)(out + 272))[row] = G::d(block);
    block_sync();
    for (int i = tid; i < GPU_UNPACKED_BYTES / 16; i += GRID_THREADS)
        ((uint4 *)(to + (size_t)blockIdx.x * GPU_UNPACKED_BYTES))[i] = out[i];
}

cudaError_t unpack_grids(uint32_t type, uint8_t *to, const uint8_t *pack, size_t n_blocks,
                         cudaStream_t stream)
{
    const unsigned n = (unsigned)n_blocks;

    switch (type) {
    case Q_IQ2_XXS: return launch(unpack<grid_iq2_xxs>, n, GRID_THREADS, 0, stream, to, pack);
    case Q_IQ2_XS: return launch(unpack<grid_iq2_xs>, n, GRID_THREADS, 0, stream, to, pack);
    case Q_IQ2_S: return launch(unpack<grid_iq2_s>, n, GRID_THREADS, 0, stream, to, pack);
    case Q_IQ3_XXS: return launch(unpack<grid_iq3_xxs>, n, GRID_THREADS, 0, stream, to, pack);
    case Q_IQ3_S: return launch(unpack<grid_iq3_s>, n, GRID_THREADS, 0, stream, to, pack);
    case Q_IQ1_S: return launch(unpack<grid_iq1_s>, n, GRID_THREADS, 0, stream, to, pack);
    default: assert(type == Q_IQ1_M); return launch(unpack<grid_iq1_m>, n, GRID_THREADS, 0, stream, to, pack);
    }
}
