/* Which kernels a product runs on. Products of one input and one type go in one launch, one after the other
 * where types differ. Types with grids are unpacked piece by piece, each piece multiplied before the next. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/gpu_matmul.h"
#include <assert.h>

static matmul_launcher launcher_of(uint32_t type)
{
    switch (type) {
    case Q_Q4_0: return matmul_q4_0;
    case Q_Q4_1: return matmul_q4_1;
    case Q_Q5_0: return matmul_q5_0;
    case Q_Q5_1: return matmul_q5_1;
    case Q_Q8_0: return matmul_q8_0;
    case Q_IQ4_NL: return matmul_iq4_nl;
    case Q_Q2_K: return matmul_q2_k;
    case Q_Q3_K: return matmul_q3_k;
    case Q_Q4_K: return matmul_q4_k;
    case Q_Q5_K: return matmul_q5_k;
    case Q_Q6_K: return matmul_q6_k;
    case Q_IQ4_XS: return matmul_iq4_xs;
    default: assert(gpu_matmul_unpacks(type)); return matmul_unpacked;
    }
}

static product_part part_of_product(const gpu_product *p)
{
    product_part part = {};

    part.pack = (const uint8_t *)p->pack;
    part.out = p->out;
    part.out_stride = p->out_stride;
    part.n_rows = (unsigned)p->n_rows;
    return part;
}

/* Without products yet. */
static product_args args_of(uint32_t type, const gpu_acts *x, size_t n_tokens)
{
    const int kind = gpu_act_for_type(type) == GPU_ACT_Q8_32;
    product_args a = {};

    a.n_cols = (unsigned)x->n_cols;
    a.n_tokens = (unsigned)n_tokens;
    a.q = x->q[kind];
    a.d = x->d[kind];
    a.sum = x->sum[kind];
    return a;
}

static cudaError_t unpack_and_multiply(const gpu_product *p, product_args a, uint8_t *scratch,
                                       cudaStream_t stream)
{
    const size_t piece = gpu_matmul_piece_groups(p->n_rows, p->n_cols), groups = gpu_pack_groups(p->n_rows);
    const size_t n_blocks = p->n_cols / 256, group_bytes = gpu_pack_group_bytes(p->type, p->n_cols);

    a.n_parts = 1;
    for (size_t g = 0; g < groups; g += piece) {
        const size_t n = groups - g < piece ? groups - g : piece, row = g * GPU_PACK_ROWS;
        const uint8_t *pack = (const uint8_t *)p->pack + g * group_bytes;
        cudaError_t e = unpack_grids(p->type, scratch, pack, n * n_blocks, stream);

        if (e != cudaSuccess) return e;
        a.part[0] = part_of_product(p);
        a.part[0].pack = scratch;
        a.part[0].out += row;
        a.part[0].n_rows =
            (unsigned)(p->n_rows - row < n * GPU_PACK_ROWS ? p->n_rows - row : n * GPU_PACK_ROWS);
        e = matmul_unpacked(a, stream);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

/* n products of one type */
static cudaError_t launch_one_type(const gpu_product *p, size_t n, const gpu_acts *x, size_t n_tokens,
                                   void *scratch, cudaStream_t stream)
{
    product_args a;

    if (gpu_act_for_type(p->type) >= GPU_ACT_F16) return launch_matmul_float(p, n, x, n_tokens, stream);
    a = args_of(p->type, x, n_tokens);
    if (gpu_matmul_unpacks(p->type)) {
        for (size_t i = 0; i < n; i++) {
            cudaError_t e = unpack_and_multiply(&p[i], a, (uint8_t *)scratch, stream);
            if (e != cudaSuccess) return e;
        }
        return cudaSuccess;
    }
    a.n_parts = (unsigned)n;
    for (size_t i = 0; i < n; i++) a.part[i] = part_of_product(&p[i]);
    return launcher_of(p->type)(a, stream);
}

cudaError_t launch_matmul(const gpu_product *p, size_t n, const gpu_acts *x, size_t n_tokens, void *scratch,
                          cudaStream_t stream)
{
    assert(n <= GPU_PRODUCTS && n_tokens > 0);
    for (size_t first = 0; first < n;) {
        size_t end = first + 1;
        cudaError_t e;

        while (end < n && p[end].type == p[first].type) end++;
        e = launch_one_type(p + first, end - first, x, n_tokens, scratch, stream);
        if (e != cudaSuccess) return e;
        first = end;
    }
    return cudaSuccess;
}
