/* Layers of a model on one GPU: what kernels/cuda.h asks for, made of the tensors of the file. Weights come
 * from the file's pages, which are dropped behind the packing; nothing of them stays in RAM. */
#ifndef PRIMA_MODEL_GPU_LAYERS_H
#define PRIMA_MODEL_GPU_LAYERS_H
#include "kernels/cuda.h"
#include "src/model/hparams.h"

typedef struct {
    int gpu;               /* kernels/cuda/device.h */
    const uint32_t *layer; /* [n_layers] of the model: which ones, in the order in which gpu_forward counts */
    size_t n_layers;
    bool output; /* the output projection too */
    kv_type kv;
    size_t n_pages, max_tokens, max_runs, max_positions, max_out; /* as in gpu_options */
} gpu_layers_options;

/* The shape of so many of the model's layers. */
gpu_shape gpu_layers_shape(const hparams *hp, size_t n_layers);

/* As gpu_need and gpu_open. hp need not outlive the place. */
int gpu_layers_need(gpu_memory *out, const hparams *hp, const gpu_layers_options *o, pr_err *err);
int gpu_layers_open(gpu_place **out, const hparams *hp, const gpu_layers_options *o, pool *p, pr_err *err);

#endif
