/* What products on a GPU need to know of a type without CUDA: how they run, and their work memory.
 *
 * Types with grids are unpacked on the GPU, some groups of rows at a time, to 8 bits in the order of tensor
 * core fragments (kernels/cuda/matmul_grids.cu), 276 bytes a block and row. The piece is small enough to stay
 * in the cache of a large GPU between being written and being read. */
#include "kernels/gpu_matmul.h"
#include "kernels/cuda.h"
#include "kernels/gpu_layout.h"
#include "kernels/gpu_pack.h"

bool gpu_matmul_unpacks(uint32_t type)
{
    switch (type) {
    case Q_IQ2_XXS:
    case Q_IQ2_XS:
    case Q_IQ2_S:
    case Q_IQ3_XXS:
    case Q_IQ3_S:
    case Q_IQ1_S:
    case Q_IQ1_M: return true;
    default: return false;
    }
}

size_t gpu_matmul_piece_groups(size_t n_rows, size_t n_cols)
{
    size_t group_bytes = n_cols / 256 * GPU_UNPACKED_BYTES, groups = gpu_pack_groups(n_rows);
    size_t fit = GPU_UNPACKED_PIECE / group_bytes / 8 * 8; /* whole tiles of rows */

    if (fit < 8) fit = 8;
    return fit < groups ? fit : groups;
}

size_t gpu_matmul_scratch(uint32_t type, size_t n_rows, size_t n_cols)
{
    if (!gpu_matmul_unpacks(type)) return 0;
    return gpu_matmul_piece_groups(n_rows, n_cols) * (n_cols / 256) * GPU_UNPACKED_BYTES;
}

const char *gpu_matmul_path(uint32_t type)
{
    const quant_type *t = quant_info(type);

    if (!t) return NULL;
    if (gpu_matmul_unpacks(type)) return "unpacked to 8 bits";
    if (t->block_values > 1) return "mma q8";
    return type == Q_F32 ? "fma f32" : type == Q_F16 ? "mma f16" : "mma bf16";
}
