/* Where everything lies in a GPU's memory: one block, taken once, and the offsets in it. What gpu_need counts
 * and what gpu_open uses come from here, so that they are the same. Host code without CUDA. */
#ifndef PRIMA_KERNELS_GPU_MAP_H
#define PRIMA_KERNELS_GPU_MAP_H
#include "kernels/cuda.h"
#include "kernels/gpu_layout.h"

enum {
    GPU_ALIGN = 256,
    GPU_STAGES = 2,
    GPU_STAGE_BYTES = 16 << 20, /* as far as there is that much to load, or one group of rows is more */
    GPU_MAX_TOKENS = 4096,      /* of a batch */
    GPU_MAX_GROUP = 64,         /* query heads of a kv head */
    GPU_MAX_HEAD = 256,         /* values of a head */
    GPU_SPLIT_BLOCKS = 512      /* sequences that decode are cut along the context while a step has fewer
                                   (sequence, kv head) pairs than this: else a GPU has enough to do without */
};

typedef enum {
    GPU_ATTN_NORM,
    GPU_FFN_NORM,
    GPU_Q_NORM,
    GPU_K_NORM,
    GPU_Q_BIAS,
    GPU_K_BIAS,
    GPU_V_BIAS,
    GPU_O_BIAS,
    GPU_VECTORS
} gpu_vector;
typedef enum { GPU_Q, GPU_K, GPU_V, GPU_O, GPU_GATE, GPU_UP, GPU_DOWN, GPU_MATRICES } gpu_matrix_name;

#define GPU_NOWHERE UINT64_MAX /* the offset of what the model does not have */

typedef struct {
    uint64_t vector[GPU_VECTORS], matrix[GPU_MATRICES], kv;
} gpu_layer_map;

/* Offsets in bytes, multiples of GPU_ALIGN; strides in floats. */
typedef struct {
    gpu_layer_map *layer; /* [n_layers] */
    uint64_t output_norm, output_bias, output_matrix;
    size_t q_stride, kv_stride, ff_stride, embd_stride, logits_stride;
    size_t rows;                             /* of hidden and of x: most tokens or rows of logits */
    unsigned x_kinds, heads_kinds, ff_kinds; /* of gpu_act_kind */
    size_t max_pages, max_spans;             /* of a sequence */
    size_t split_tokens; /* most sequences that decode in a step and are cut along the context */
    uint64_t step;       /* hidden states, then what gpu_step.h describes */
    size_t step_bytes;
    uint64_t x, heads, ff;     /* inputs of products (gpu_acts) */
    uint64_t q, k, v, attn;    /* [T][.] until attention is done; then the same place is */
    uint64_t gate, up;         /* [T][F] */
    uint64_t branch;           /* [T][D] */
    uint64_t logits;           /* [max_out][V] */
    uint64_t scratch, partial; /* of products, of attention */
    size_t stage_bytes;        /* of each of GPU_STAGES pinned buffers that weights go through */
    gpu_memory bytes;
} gpu_map;

/* The vectors and matrices of a layer by name. */
const float *gpu_layer_vector(const gpu_layer *l, gpu_vector v);
size_t gpu_vector_length(const gpu_shape *s, gpu_vector v);
const gpu_matrix *gpu_layer_matrix(const gpu_layer *l, gpu_matrix_name m);

/* PR_EUSAGE as gpu_need. */
int gpu_map_init(gpu_map *m, const gpu_options *o, pr_err *err);
void gpu_map_clear(gpu_map *m);

#endif
