/* What lies in VRAM beside packed weights, and how large it is: inputs of products, KV pages, work buffers.
 * Host code without CUDA, so that sizes are known, and tested, in every build. */
#ifndef PRIMA_KERNELS_GPU_LAYOUT_H
#define PRIMA_KERNELS_GPU_LAYOUT_H
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- inputs of products ------------------------------------------------------------------------ */
/* Kinds of input, and their arrays. Rows of tokens follow each other without gaps. Those of the Q8 kinds have
 * n_cols values, a multiple of the block; those of the others `stride`, of which the ones behind n_cols are
 * zeros. */
typedef enum {
    GPU_ACT_Q8_256, /* as ACT_Q8_256, in planes: q, d [T][n_cols/256], sum [T][n_cols/16] */
    GPU_ACT_Q8_32,  /* as ACT_Q8_32, in planes: q, d [T][n_cols/32], sum [T][n_cols/32] */
    GPU_ACT_F16,  /* for F16 weights: x = scale * (hi + lo), f16, to 2^-23 of x or 2^-39 of the row's largest;
                     scale is a power of two for the row: hi < 2^15 */
    GPU_ACT_BF16, /* for BF16 weights: the same with hi and lo in bf16, to 2^-17 of x or 2^-148 of the
                     row's largest */
    GPU_ACT_F32,  /* for F32 weights */
    GPU_ACT_COUNT
} gpu_act_kind;
/* q is in the order of gpu_act_place (kernels/gpu_pack.h), all else in that of the values.
 * A row with a NaN or an infinity comes out as NaN in the products: in the Q8 kinds by the block (kernels.h),
 * in F16 and BF16 by its scale. */
gpu_act_kind gpu_act_for_type(uint32_t type);

typedef struct {
    size_t n_cols, stride; /* stride: gpu_act_stride(n_cols) */
    unsigned kinds;        /* bit mask over gpu_act_kind: those that have memory here */
    int8_t *q[2];          /* of the two Q8 kinds: [T][n_cols] */
    float *d[2];
    int16_t *sum[2];
    uint16_t *hi[2], *lo[2]; /* F16, BF16: [T][stride] */
    float *scale[2];         /* [T] */
    float *f32;              /* [T][stride] */
} gpu_acts;

/* Rows of float weights and their inputs are filled up with zeros to whole chunks of this many values
 * (kernels/gpu_pack_float.h). */
enum { GPU_FLOAT_CHUNK = 32 };
static inline size_t gpu_act_stride(size_t n_cols)
{
    return (n_cols + GPU_FLOAT_CHUNK - 1) / GPU_FLOAT_CHUNK * GPU_FLOAT_CHUNK;
}

/* Longest row of launch_norm, which keeps it in registers. */
enum { GPU_MAX_EMBD = 16384 };

/* Bytes of the arrays of these kinds, each at a multiple of 256; place them in memory at `at` (256-byte
 * aligned). */
size_t gpu_acts_bytes(size_t n_cols, size_t max_tokens, unsigned kinds);
void gpu_acts_place(gpu_acts *a, void *at, size_t n_cols, size_t max_tokens, unsigned kinds);

/* One page (KV_PAGE tokens) of one kv head, laid out as gpu_kv.h says: 128 S bytes for KV_F16, 72 S for
 * KV_Q8_0, a multiple of 16. A layer's cache: [n_pages][K] of them. */
size_t gpu_kv_page_bytes(kv_type t, size_t head_size);

enum { GPU_ATTN_ROWS = 64, GPU_ATTN_SPAN = 256 }; /* of cuda_impl.h's gpu_step and gpu_attention_args */

/* Work memory of a product of this type; 0: none (kernels/cuda/cuda_impl.h: launch_matmul). */
size_t gpu_matmul_scratch(uint32_t type, size_t n_rows, size_t n_cols);
/* gpu_attention_args.partial of so many tokens that decode. */
size_t gpu_attention_scratch(size_t n_tokens, size_t n_heads, size_t head_size, size_t n_spans);

#ifdef __cplusplus
}
#endif

#endif
