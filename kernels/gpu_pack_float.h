/* GPU packs of F32, F16 and BF16 (kernels/gpu_pack.h calls these): the fragments of mma.m16n8k16 one after
 * the other, so that each lane of a warp loads its part of two products as two times 16 bytes side by side.
 *
 * A row is cut in chunks of GPU_FLOAT_CHUNK = 32 values, the last one filled up with zeros. The lane with
 * g = lane / 4, t = lane % 4 holds rows g and g + 8 and the eight values 8t .. 8t + 7 of a chunk, which are
 * the same that it loads of an input by one load of 16 bytes. (A product may number its k as it likes, if
 * weights and inputs agree.)
 *
 *   F16, BF16: 1024 bytes a chunk: fragment s = 0, 1 [lane]: 8 halves:
 *              row g: k 8t+4s, +1 | row g+8: the same k | row g: k 8t+4s+2, +3 | row g+8: the same k
 *   F32:       2048 bytes a chunk: part s = 0..3 [lane]: 4 floats: row lane / 2: k 8s + 4 (lane % 2) .. + 3
 */
#ifndef PRIMA_KERNELS_GPU_PACK_FLOAT_H
#define PRIMA_KERNELS_GPU_PACK_FLOAT_H
#include <stddef.h>
#include <stdint.h>

/* Bytes of a group of 16 rows. */
size_t gpu_pack_float_group_bytes(uint32_t type, size_t n_cols);
/* One group: n_rows <= 16 rows of src (file layout) to dst, the other rows are zeros. */
void gpu_pack_float_group(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols);
/* Row `row` < 16 of a group back in file layout. */
void gpu_pack_float_row_back(uint32_t type, void *dst, const void *group, size_t n_cols, size_t row);

#endif
