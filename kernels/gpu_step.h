/* What a batch is, as it goes to the GPU in one copy: the arrays of cuda_impl.h's gpu_step side by side, as
 * many as this batch needs. For a decoding step (every run has one token) sizes and places follow from the
 * number of tokens and the bucket of its longest context alone: that is what a captured graph depends on.
 * Host code without CUDA. */
#ifndef PRIMA_KERNELS_GPU_STEP_H
#define PRIMA_KERNELS_GPU_STEP_H
#include "kernels/gpu_map.h"

typedef struct {
    size_t n_tokens, n_runs, n_tiles;
    size_t page_stride;   /* of a run's page table */
    size_t bucket;        /* spans of the longest context, rounded up */
    size_t n_single;      /* runs of one token, whose tiles stand first */
    size_t single_bucket; /* spans of the longest context among them, rounded up; 0: there are none */
    bool is_decoding;     /* every run has one token */
    size_t pos, page, run, tile, first, pages, rope; /* offsets in bytes */
    size_t bytes;
} gpu_step_layout;

/* The number of spans that a context of so many positions is taken for: the least power of two that covers
 * it, at most max_spans. Steps of one bucket are one graph. */
size_t gpu_step_bucket(size_t n_positions, size_t max_spans);

/* For batches of at most these sizes. */
size_t gpu_step_most_bytes(const gpu_shape *s, size_t max_tokens, size_t max_runs, size_t max_pages);

gpu_step_layout gpu_step_layout_of(const gpu_batch *b, const gpu_shape *s, size_t max_pages,
                                   size_t max_spans);
/* at: l->bytes, 16-byte aligned. */
void gpu_step_fill(void *at, const gpu_step_layout *l, const gpu_batch *b, const gpu_shape *s);

#endif
