/* The steps that products for few and for many tokens have in common: sums of whole numbers over 64 values,
 * and those of the mins of a block. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_STEPS_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_STEPS_CUH
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/matmul_types.cuh"

/* M of a fragment: mins as 8-bit A of 16 k; as B the inputs' sums of 16 values, which have at most 12 bits
 * with sign, four of them in a lane: first their low 4 bits, then the high 8. */
static __device__ __forceinline__ void mins_product(int32_t m[4], const uint32_t mins[2], uint2 sums)
{
    int32_t h[4] = {0, 0, 0, 0};

#pragma unroll
    for (int i = 0; i < 4; i++) m[i] = 0;
    mma_s8_half(m, mins, bytes_pick(sums.x & 0x000f000fu, sums.y & 0x000f000fu, 0x6420));
    mma_s8_half(h, mins, bytes_pick(sums.x >> 4, sums.y >> 4, 0x6420));
#pragma unroll
    for (int i = 0; i < 4; i++) m[i] += h[i] * 16;
}

/* S of 64 values: s += scale * (digits x inputs); sc: the scales of the chunk as bytes, of rows g, g + 8. */
template <class W>
static __device__ __forceinline__ void chunk_product(int32_t s[4], const uint32_t a[2][4], const uint4 &b,
                                                     const uint32_t sc[2])
{
#pragma unroll
    for (int step = 0; step < 2; step++) {
        uint32_t words[2] = {word_of(b, 2 * step), word_of(b, 2 * step + 1)};
        if constexpr (W::SUB == 32) {
            int32_t p[4] = {0, 0, 0, 0};
            mma_s8(p, a[step], words);
#pragma unroll
            for (int i = 0; i < 4; i++) s[i] += signed_byte(sc[i / 2], step) * p[i];
        } else {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int32_t p[4] = {0, 0, 0, 0};
                mma_s8_half(p, a[step] + 2 * half, words[half]);
#pragma unroll
                for (int i = 0; i < 4; i++) s[i] += signed_byte(sc[i / 2], 2 * step + half) * p[i];
            }
        }
    }
}

/* The scales of chunk `chunk` out of those of a row: 4 bytes of 16 values each, or 2 of 32. */
template <class W> static __device__ __forceinline__ uint32_t chunk_scales(const uint4 &sc, int chunk)
{
    if constexpr (W::SUB == 32) return word_of(sc, chunk / 2) >> chunk % 2 * 16;
    else return word_of(sc, chunk);
}

#endif
