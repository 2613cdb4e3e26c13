/* What the C files of this folder share about the layers on one GPU (kernels/cuda.h): nobody else includes
 * it.
 *
 *   open.c     takes the memory, closes                    layers.c   a layer, launch by launch
 *   load.c     packs weights and copies them               graph.c    decoding steps as captured graphs
 *   forward.c  a batch there and back, logits */
#ifndef PRIMA_KERNELS_CUDA_PLACE_H
#define PRIMA_KERNELS_CUDA_PLACE_H
#include "kernels/cuda/cuda_impl.h"
#include "kernels/gpu_graph_key.h"
#include "kernels/gpu_map.h"
#include "kernels/gpu_step.h"

/* Types and sizes of a layer's matrices, packs and vectors where they lie. */
typedef struct {
    const float *vector[GPU_VECTORS]; /* NULL: the model has none */
    gpu_product product[GPU_MATRICES];
    uint8_t *kv;
} layer_place;

typedef struct {
    bool off; /* a capture has failed: not tried again */
    gpu_graph_table table;
    bool seen[GPU_GRAPHS];            /* launched once: the next time it is worth a graph */
    cudaGraphExec_t exec[GPU_GRAPHS]; /* NULL: none yet */
} graph_cache;

struct gpu_place {
    int gpu;
    gpu_shape shape;
    kv_type kv;
    size_t max_tokens, max_runs, max_out;
    gpu_map map;
    layer_place *layer; /* [shape.n_layers] */
    const float *output_norm, *output_bias;
    gpu_product output; /* pack NULL: not here */
    uint8_t *memory;    /* on the GPU: all of it */
    uint8_t *step_host; /* pinned: what memory + map.step gets */
    float *logits_host; /* pinned; NULL without output */
    gpu_acts x, heads, ff;
    cudaStream_t stream;
    cudaEvent_t begin, end; /* of the work of a call */
    double busy_ms;
    uint64_t generation; /* of the step that is on the GPU; 0: none */
    graph_cache graphs;
    bool is_lost; /* after an error of CUDA */
};

/* A step that is on the GPU. */
typedef struct {
    gpu_step_layout layout;
    gpu_step step;
    float *hidden; /* [T][D] */
} step_place;

/* load.c. PR_ERESOURCE. */
int place_load(gpu_place *g, const gpu_options *o, pool *p, const char *label, pr_err *err);
/* layers.c. Puts layers [first, first + n) on the stream. */
cudaError_t place_launch(gpu_place *g, size_t first, size_t n, const step_place *s);
/* graph.c. The same, by a graph where there is one. */
cudaError_t place_run(gpu_place *g, size_t first, size_t n, const step_place *s);
void place_drop_graphs(gpu_place *g);

#endif
