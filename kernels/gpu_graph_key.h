/* Which captured graphs are kept: a small table by key, the least recently used goes first. Host code without
 * CUDA; the graphs themselves lie beside it (cuda/graph.c), slot by slot. */
#ifndef PRIMA_KERNELS_GPU_GRAPH_KEY_H
#define PRIMA_KERNELS_GPU_GRAPH_KEY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All that is baked into the launches of a decoding step. */
typedef struct {
    size_t first, n_layers; /* of the GPU's layers */
    size_t n_tokens;
    size_t bucket; /* gpu_step.h */
} gpu_graph_key;

enum { GPU_GRAPHS = 32 };

typedef struct {
    gpu_graph_key key[GPU_GRAPHS];
    uint64_t used[GPU_GRAPHS]; /* when; 0: empty */
    uint64_t now;
} gpu_graph_table;

/* The slot of this key, which is now the most recently used. *is_new: it was not there: an empty slot, or
 * that of the least recently used key, whose graph must go. */
size_t gpu_graph_slot(gpu_graph_table *t, const gpu_graph_key *key, bool *is_new);

#endif
