/* Where a key or a value stands in a page of the KV cache on a GPU: for the kernel that stores them, for the
 * one that reads them, and for tests; hence for C, C++ and device code.
 *
 * A page holds KV_PAGE tokens of one kv head: keys, then values, [32 * S] elements each (f16, or int8 of
 * Q8_0); then, for Q8_0, f32 scales of 32 dimensions of a token: of keys [S/32][32], of values [S/32][32].
 *
 * Elements stand in the order of tensor core fragments (kernels/cuda/device.cuh; g = lane / 4, t = lane % 4):
 * a lane finds what it needs side by side, and a warp reads 512 bytes without a gap, from device memory as
 * well as from shared memory, where that avoids conflicts. The 32 keys of a page are the columns of four mma
 * tiles j: column g of tile j is
 *
 *   key = 8 * (g / 2) + 2 * j + g % 2
 *
 * so that a lane's scores of all tiles (columns 2t, 2t + 1) are those of keys 8t .. 8t + 7: the ones which it
 * multiplies with values, of which it then needs 8 side by side.
 *
 *   keys,   f16: chunks of 32 dimensions [tile j][lane][8]: key g of the tile, dimensions 8t ..
 *                The last chunk has w = S % 32 dimensions where that is not 0: [j][lane][w / 4].
 *   keys,  int8: chunks of 32 dimensions [j / 2][lane][j % 2][8]
 *   values, f16: 8 dimensions [lane][8]: dimension g, keys 8t ..     (hence [S][32])
 *   values, int8: 16 dimensions [lane][2][8]: dimensions g and 8 + g */
#ifndef PRIMA_KERNELS_GPU_KV_H
#define PRIMA_KERNELS_GPU_KV_H
#include "kernels/kernels.h"

#ifdef __CUDACC__
#define GPU_KV_INLINE static __host__ __device__ __forceinline__
#else
#define GPU_KV_INLINE static inline
#endif

/* Index of a dimension of the key in slot 0..31, in elements from the page's beginning. */
GPU_KV_INLINE size_t gpu_kv_key_at(kv_type type, size_t head_size, size_t slot, size_t dim)
{
    size_t chunk = dim / 32, width = head_size - 32 * chunk < 32 ? head_size - 32 * chunk : 32;
    size_t j = slot / 2 % 4, g = 2 * (slot / 8) + slot % 2, in_row = dim % 32;

    if (type == KV_Q8_0)
        return chunk * 1024 + j / 2 * 512 + (4 * g + in_row / 8) * 16 + j % 2 * 8 + in_row % 8;
    return chunk * 1024 + (8 * j + g) * width + in_row;
}

/* The same of a value. */
GPU_KV_INLINE size_t gpu_kv_value_at(kv_type type, size_t head_size, size_t slot, size_t dim)
{
    if (type == KV_Q8_0)
        return 32 * head_size + dim / 16 * 512 + (4 * (dim % 8) + slot / 8) * 16 + dim / 8 % 2 * 8 + slot % 8;
    return 32 * head_size + dim * 32 + slot;
}

/* Q8_0: byte at which the scales begin; indices in them. */
GPU_KV_INLINE size_t gpu_kv_scales(size_t head_size)
{
    return 64 * head_size;
}
GPU_KV_INLINE size_t gpu_kv_key_scale_at(size_t slot, size_t dim)
{
    return dim / 32 * 32 + slot;
}
GPU_KV_INLINE size_t gpu_kv_value_scale_at(size_t head_size, size_t slot, size_t dim)
{
    return head_size + dim / 32 * 32 + slot;
}

#endif
