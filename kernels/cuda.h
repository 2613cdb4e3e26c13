/* Layers on a GPU: weights in VRAM in a layout of their own, KV cache in VRAM, hidden states in and out.
 *
 * C11 without a CUDA type: a build without the CUDA toolkit has the same functions (kernels/cuda_none.c), of
 * which gpu_open fails and says so; gpu_need and everything that only counts works in every build.
 *
 * Rule 3 of kernels.h holds on one model of GPU: a token's result depends on its own sequence only, never on
 * the rest of the batch, on how prompts are cut in chunks, or on how layers are spread over windows. Products
 * of 8-bit inputs give the very bits of the CPU's (kernels/unpack8.h defines them); products of float
 * weights, norms and attention differ from the CPU's by rounding.
 *
 * Shapes: T tokens, D embedding width, H query heads, K kv heads, S head size, F feed-forward width, V tokens
 * of the vocabulary. One thread at a time may use a gpu_place. */
#ifndef PRIMA_KERNELS_CUDA_H
#define PRIMA_KERNELS_CUDA_H
#include "kernels/kernels.h"
#include "src/base/err.h"
#include "src/base/pool.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t n_layers; /* of the device that are on this GPU, of all its windows */
    size_t n_embd, n_heads, n_kv_heads, head_size, n_ff, n_rot, n_vocab;
    bool rope_neox;
    float norm_eps, attn_scale;
} gpu_shape;

/* A weight matrix as it lies in the model file: n_rows rows of n_cols values. */
typedef struct {
    uint32_t type;
    size_t n_rows, n_cols;
    const void *data; /* host memory; NULL where only sizes are asked for */
} gpu_matrix;

/* One layer. Vectors are f32 in host memory; NULL where the model has none. */
typedef struct {
    const float *attn_norm, *ffn_norm;              /* [D] */
    const float *q_norm, *k_norm;                   /* [S] */
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* [H*S], [K*S], [K*S], [D] */
    gpu_matrix q, k, v, o, gate, up, down;
} gpu_layer;

/* The output projection, where the plan puts it on the GPU. */
typedef struct {
    const float *norm; /* [D] */
    const float *bias; /* [V] or NULL */
    gpu_matrix matrix; /* V x D */
} gpu_output;

typedef struct {
    int gpu; /* kernels/cuda/device.h */
    gpu_shape shape;
    const gpu_layer *layer;   /* [shape.n_layers], in the order of the device's rounds */
    const gpu_output *output; /* NULL: not on this GPU */
    kv_type kv;               /* KV_F16 or KV_Q8_0 */
    size_t n_pages;           /* KV pages, numbered as on every device */
    size_t max_tokens;        /* of a batch */
    size_t max_runs;          /* of a batch */
    size_t max_positions;     /* of a sequence */
    size_t max_out;           /* rows of one gpu_project; 0 without output */
    /* Told of host memory that has been read and is not needed again; from any thread. NULL: nobody. */
    void (*done_with)(const void *data, size_t bytes);
} gpu_options;

/* Bytes of VRAM, exactly what gpu_open takes but for the driver's own context; and of pinned host memory.
 * PR_EUSAGE: a KV type or shape that no GPU code of ours can do (says which). Needs no GPU and no CUDA. */
typedef struct {
    uint64_t weights, kv, buffers, total; /* VRAM */
    uint64_t host;                        /* beside it */
    uint64_t loading;                     /* beside both, only while gpu_open loads */
} gpu_memory;
int gpu_need(gpu_memory *out, const gpu_options *o, pr_err *err);

typedef struct gpu_place gpu_place; /* the layers of a device that one GPU has */

/* Takes the VRAM (all at once; nothing is taken later), packs the weights with the pool's threads and copies
 * them. Host memory pointed to by o may go afterwards. PR_ERESOURCE: no such GPU, or less free VRAM than
 * needed (says how much is missing). progress label: as weights_new. */
int gpu_open(gpu_place **out, const gpu_options *o, pool *p, const char *label, pr_err *err);
void gpu_close(gpu_place *g); /* NULL is fine */

/* A run of consecutive tokens of one sequence (as batch_run of src/model/batch.h). */
typedef struct {
    size_t first, n, pos;
    const int32_t *pages; /* covers positions 0 .. pos + n - 1 */
} gpu_run;

typedef struct {
    size_t n_tokens, n_runs;
    const gpu_run *run; /* they cover all tokens, in order */
    const float
        *rope; /* [T][n_rot] cos, sin pairs of each token's position, as kernel_table.rope takes them */
    uint64_t
        generation; /* batches with the same number are the same: it is then not copied again. 0: unknown */
} gpu_batch;

/* Layers [first, first + n) of gpu_options.layer: hidden [T][D] f32 in host memory is transformed in place.
 * Returns when it is there. PR_ERESOURCE: an error of CUDA; it is then only closed. */
int gpu_forward(gpu_place *g, size_t first, size_t n, const gpu_batch *b, float *hidden, pr_err *err);

/* Final norm and output projection of n_rows <= max_out rows of hidden [T][D]: logits [n_rows][logits_stride]
 * f32 in host memory. */
int gpu_project(gpu_place *g, const float *hidden, const int32_t *rows, size_t n_rows, float *logits,
                size_t logits_stride, pr_err *err);

/* Pinned memory of the place for [max_tokens][D] hidden states. As `hidden` of the two functions above it is
 * not copied within the host; gpu_project then wants ascending rows and leaves other hidden states. */
float *gpu_hidden(gpu_place *g);

/* Since gpu_open: time that kernels and copies took on the GPU (events on its stream), for the tables. */
double gpu_busy_ms(const gpu_place *g);
bool gpu_is_lost(const gpu_place *g); /* after an error of CUDA */
gpu_memory gpu_taken(const gpu_place *g);

/* How products of a type run on a GPU, for people: "mma q8", "unpacked to 8 bits", "mma f16", "fma f32". */
const char *gpu_matmul_path(uint32_t type);

#endif
