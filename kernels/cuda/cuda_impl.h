/* What the files of this folder share, in C and C++: the check of CUDA's errors, what lies in VRAM, and the
 * launchers, which the .cu files give to the C files. A .cu file holds kernels and their launcher; everything
 * else is C.
 *
 * A launcher puts its kernels on a stream and returns; errors of the kernels themselves come with a later
 * call. All pointers are to device memory unless said otherwise. What a launcher is given by value is baked
 * into a captured graph; what changes from step to step lies in device memory (gpu_step). */
#ifndef PRIMA_KERNELS_CUDA_CUDA_IMPL_H
#define PRIMA_KERNELS_CUDA_CUDA_IMPL_H
#include "kernels/gpu_layout.h"
#include "kernels/gpu_pack.h"
#include "src/base/err.h"
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* PR_OK, or PR_ERESOURCE with "GPU 0: WHAT: cudaErrorName (words)" in *err (device.c). */
int cuda_check(cudaError_t e, int gpu, const char *what, pr_err *err);

/* *sum += all 64-bit words of data, modulo 2^64 (sum.cu).
 *   sum   device memory
 *   data  device memory, 16-byte aligned     bytes  multiple of 16     n_sms  of this GPU */
cudaError_t launch_sum(uint64_t *sum, const void *data, size_t bytes, int n_sms, cudaStream_t stream);

/* --- inputs of products ------------------------------------------------------------------------ */
/* hidden [T][D] += branch (NULL: nothing) + bias (NULL: none); then, where out is not NULL, out = kinds of
 * rms_norm(hidden) * weight. `rows` (NULL: token t is row t): take row rows[t] of hidden, and add nothing. */
typedef struct {
    float *hidden;
    const float *branch, *branch_bias; /* branch [T][D], rows branch_stride floats apart */
    size_t branch_stride;
    const float *weight;
    const int32_t *rows;
    size_t n_embd, n_tokens;
    float eps;
} gpu_norm_args;
cudaError_t launch_norm(const gpu_norm_args *a, const gpu_acts *out, cudaStream_t stream);
/* out = x [T][n_cols], rows stride floats apart. */
cudaError_t launch_act(const gpu_acts *out, const float *x, size_t stride, size_t n_tokens,
                       cudaStream_t stream);
/* out = silu(gate) * up, both [T][n_cols], rows stride floats apart. */
cudaError_t launch_silu(const gpu_acts *out, const float *gate, const float *up, size_t stride,
                        size_t n_tokens, cudaStream_t stream);
/* logits[t * stride + i] += bias[i] */
cudaError_t launch_bias(float *x, const float *bias, size_t n, size_t stride, size_t n_tokens,
                        cudaStream_t stream);

/* --- products ----------------------------------------------------------------------------------- */
enum { GPU_PRODUCTS = 3 };
typedef struct {
    uint32_t type;
    const void *pack; /* kernels/gpu_pack.h */
    size_t n_rows, n_cols;
    float *out;        /* out[t * out_stride + row]; rows padded to 16 may be written (zeros) */
    size_t out_stride; /* floats, >= n_rows rounded up to 16 */
} gpu_product;
/* n <= GPU_PRODUCTS products of one input, for any n_tokens >= 1: in one launch where they are of one kind.
 * scratch: gpu_matmul_scratch of the largest; NULL where that is 0. */
cudaError_t launch_matmul(const gpu_product *p, size_t n, const gpu_acts *x, size_t n_tokens, void *scratch,
                          cudaStream_t stream);

/* --- attention ------------------------------------------------------------------------------------ */
/* What a batch is, in device memory at fixed places; filled before each step (step.c). */
typedef struct {
    int32_t *pos;  /* [T] position of each token */
    int32_t *page; /* [T] page that its key and value go to */
    int32_t *run;  /* [T] its run */
    int32_t *tile; /* [n_tiles][4]: run, first row, rows, position of the run's first token. Rows of a run are
                      numbered query * n_group + head; a tile has at most GPU_ATTN_ROWS of one kv head */
    int32_t *first;   /* [n_runs] first token of the run */
    int32_t *pages;   /* [n_runs][max_pages] */
    size_t max_pages; /* of a sequence */
    float *rope;      /* [T][n_rot] */
} gpu_step;

/* Biases, head norms, rotary embedding of q, k, v [T][.] in place (q: also times nothing else); k and v go to
 * the cache. */
typedef struct {
    float *q, *k, *v;
    size_t q_stride, kv_stride;
    const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm; /* NULL: none */
    size_t n_heads, n_kv_heads, head_size, n_rot;
    bool neox;
    float eps;
    kv_type type;
    uint8_t *kv; /* the layer's cache */
    gpu_step step;
    size_t n_tokens;
} gpu_rope_args;
cudaError_t launch_rope(const gpu_rope_args *a, cudaStream_t stream);

/* Softmax(q k * scale) v of all queries of the batch. */
typedef struct {
    const float *q;
    float *out; /* [T][H*S], rows out_stride apart */
    size_t q_stride, out_stride;
    size_t n_heads, n_kv_heads, head_size;
    float scale;
    kv_type type;
    const uint8_t *kv;
    gpu_step step;
    size_t n_tiles;
    size_t n_split; /* of them, the first ones: runs of one token (decoding), each cut along the context:
                       blocks for n_spans spans of each tile, those behind its end do nothing, and a second
                       kernel joins them in order. In the others each block goes over all spans of its tile,
                       in the same order (prompts) */
    size_t n_spans; /* > 0 where n_split is */
    float *partial; /* gpu_attention_scratch(n_split, ..., n_spans) bytes, where n_split > 0 */
} gpu_attention_args;
cudaError_t launch_attention(const gpu_attention_args *a, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
