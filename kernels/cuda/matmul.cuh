/* Products of quantised weights: what the files of matmul*.cu share. matmul.cu chooses the kernels; a type's
 * kernels are instances of matmul_few.cuh (few tokens) and matmul_tile.cuh (many), one file for each type, so
 * that they are compiled side by side. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_CUH
#include "kernels/cuda/device.cuh"

/* One product of a launch. Units of work (groups of 16 rows, or tiles of some groups) are numbered through
 * the products: those of this one begin at `first`. */
struct product_part {
    const uint8_t *pack;
    float *out;
    size_t out_stride;
    unsigned n_rows, first;
};

/* What kernels are given. q, d, sum: planes of the inputs (gpu_layout.h), of the kind that the type reads. */
struct product_args {
    product_part part[GPU_PRODUCTS];
    unsigned n_parts, n_cols, n_tokens;
    const int8_t *q;
    const float *d;
    const int16_t *sum;
};

/* The product that unit `unit` belongs to. */
static __device__ __forceinline__ product_part part_of(const product_args &a, unsigned unit)
{
    const bool past0 = a.n_parts > 1 && unit >= a.part[1].first;
    const bool past1 = a.n_parts > 2 && unit >= a.part[2].first;

    return a.part[past0 + past1];
}

/* Number the units of `rows` rows each; how many there are. */
static inline unsigned number_units(product_args *a, unsigned rows)
{
    unsigned n = 0;

    for (unsigned i = 0; i < a->n_parts; i++) {
        a->part[i].first = n;
        n += (a->part[i].n_rows + rows - 1) / rows;
    }
    return n;
}

/* Products of one type: any number of tokens. */
typedef cudaError_t (*matmul_launcher)(product_args a, cudaStream_t stream);
cudaError_t matmul_q4_0(product_args a, cudaStream_t stream);
cudaError_t matmul_q4_1(product_args a, cudaStream_t stream);
cudaError_t matmul_q5_0(product_args a, cudaStream_t stream);
cudaError_t matmul_q5_1(product_args a, cudaStream_t stream);
cudaError_t matmul_q8_0(product_args a, cudaStream_t stream);
cudaError_t matmul_iq4_nl(product_args a, cudaStream_t stream);
cudaError_t matmul_q2_k(product_args a, cudaStream_t stream);
cudaError_t matmul_q3_k(product_args a, cudaStream_t stream);
cudaError_t matmul_q4_k(product_args a, cudaStream_t stream);
cudaError_t matmul_q5_k(product_args a, cudaStream_t stream);
cudaError_t matmul_q6_k(product_args a, cudaStream_t stream);
cudaError_t matmul_iq4_xs(product_args a, cudaStream_t stream);
cudaError_t matmul_unpacked(product_args a, cudaStream_t stream);

/* Group-blocks of a type with grids to the form `unpacked` of matmul_types.cuh (matmul_grids.cu). */
cudaError_t unpack_grids(uint32_t type, uint8_t *to, const uint8_t *pack, size_t n_blocks,
                         cudaStream_t stream);

#ifdef __cplusplus
extern "C" {
#endif
/* As launch_matmul, for n products of one type out of F16, BF16, F32 (matmul_float.cu). */
cudaError_t launch_matmul_float(const gpu_product *p, size_t n, const gpu_acts *x, size_t n_tokens,
                                cudaStream_t stream);
#ifdef __cplusplus
}
#endif

#endif
