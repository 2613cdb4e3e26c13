/* Types that are unpacked on the GPU before they are multiplied: which, and in pieces of what size. Host code
 * without CUDA; what callers need of it is in gpu_layout.h and cuda.h. */
#ifndef PRIMA_KERNELS_GPU_MATMUL_H
#define PRIMA_KERNELS_GPU_MATMUL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GPU_UNPACKED_BYTES = 16 * 276,        /* of an unpacked group-block: 4096 digits, scales, d */
    GPU_UNPACKED_PIECE = 24 * 1024 * 1024 /* about so many bytes at a time */
};

bool gpu_matmul_unpacks(uint32_t type);
/* Groups of 16 rows that are unpacked at a time. n_cols > 0, a multiple of 256. */
size_t gpu_matmul_piece_groups(size_t n_rows, size_t n_cols);

#ifdef __cplusplus
}
#endif

#endif
