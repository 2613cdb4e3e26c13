/* Cuts a batch into tiles, the units of work of attention on a GPU. Host code without CUDA.
 *
 * The rows of a run are its queries' heads of one kv head's group: row = query * n_group + head. They are cut
 * in tiles of GPU_ATTN_ROWS from the first one on; every tile is done once for each kv head. A run of one
 * token (decoding) is one tile of n_group rows. Those stand first, so that attention can do them in another
 * way than the rest. How a run is cut and where its tiles stand has no influence on results. */
#ifndef PRIMA_KERNELS_GPU_TILES_H
#define PRIMA_KERNELS_GPU_TILES_H
#include "kernels/cuda.h"
#include "kernels/gpu_layout.h"

/* What a tile says (gpu_step.tile): its run, first row, rows, and the position of the run's first token. */
enum { GPU_TILE_RUN, GPU_TILE_FIRST, GPU_TILE_ROWS, GPU_TILE_POS, GPU_TILE_FIELDS };

/* Most tiles of any batch of so many tokens in so many runs. */
size_t gpu_tiles_most(size_t n_tokens, size_t n_runs, size_t n_group);

/* The tiles of these runs: of runs of one token, then of the others, both in their order; returns how many.
 * tile [gpu_tiles_most][GPU_TILE_FIELDS]; NULL: count only. */
size_t gpu_tiles_cut(int32_t *tile, const gpu_run *run, size_t n_runs, size_t n_group);

#endif
