/* GPU packs: a weight matrix in the order in which a GPU's kernels read it. Host code without CUDA, so that
 * packing, sizes and the permutation can be tested everywhere.
 *
 * Rows are grouped by GPU_PACK_ROWS = 16, the rows of one tensor core product (mma.m16n8k32, PTX ISA "Matrix
 * fragments"). Within a group the blocks follow each other along the row, each as a group-block that holds
 * the same block of all 16 rows: same bytes as in the file, permuted so that each lane of a warp finds what
 * its fragment needs in 16 bytes side by side. The layout of each type stands in gpu_pack.c.
 *
 * A row of floats is cut in units of 32 bytes, the last of them filled with zeros. */
#ifndef PRIMA_KERNELS_GPU_PACK_H
#define PRIMA_KERNELS_GPU_PACK_H
#include "kernels/quant.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_PACK_ROWS = 16 };

static inline size_t gpu_pack_groups(size_t n_rows)
{
    return (n_rows + GPU_PACK_ROWS - 1) / GPU_PACK_ROWS;
}

/* Bytes of a packed matrix, a multiple of 256; rows are filled up to whole groups with zeros. 0: unknown
 * type, or cols not whole blocks. What is behind the last group is never written and never read. */
size_t gpu_pack_bytes(uint32_t type, size_t n_rows, size_t n_cols);
/* Of one group: a multiple of 16. */
size_t gpu_pack_group_bytes(uint32_t type, size_t n_cols);

/* Groups [first, end) of src (file layout, n_rows x n_cols) to dst, which is where group `first` begins. */
void gpu_pack_rows(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols,
                   size_t group_first, size_t group_end);
/* Row `row` of a packed matrix back in file layout: quant_row_bytes(type, n_cols) bytes. */
void gpu_pack_row_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row);

/* The order of 8-bit inputs (gpu_layout.h: gpu_acts.q) that goes with it: value k of a row stands at this
 * byte. `block` is 256 or 32, the values of the activation's blocks. A B fragment is words t and t + 4 of 32
 * values (t = lane % 4): those of 32 values, and of 64 where blocks are long enough, stand side by side. */
static inline size_t gpu_act_place(size_t k, size_t block)
{
    size_t span = block == 256 ? 64 : 32, word = k % span / 4;
    return k / span * span + (word % 4 * (span / 16) + word / 4) * 4 + k % 4;
}

#ifdef __cplusplus
}
#endif

#endif
