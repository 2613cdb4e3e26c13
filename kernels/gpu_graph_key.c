/* The table of graphs; see gpu_graph_key.h. */
#include "kernels/gpu_graph_key.h"

static bool same(const gpu_graph_key *a, const gpu_graph_key *b)
{
    return a->first == b->first && a->n_layers == b->n_layers && a->n_tokens == b->n_tokens &&
           a->bucket == b->bucket;
}

size_t gpu_graph_slot(gpu_graph_table *t, const gpu_graph_key *key, bool *is_new)
{
    size_t oldest = 0, slot = GPU_GRAPHS;

    for (size_t i = 0; i < GPU_GRAPHS && slot == GPU_GRAPHS; i++) {
        if (t->used[i] && same(&t->key[i], key)) slot = i;
        if (t->used[i] < t->used[oldest]) oldest = i;
    }
    *is_new = slot == GPU_GRAPHS;
    if (*is_new) t->key[slot = oldest] = *key;
    t->used[slot] = ++t->now;
    return slot;
}
