/* Tiles of a batch: gpu_tiles.h. */
#include "kernels/gpu_tiles.h"

/* A run wastes less than one tile. */
size_t gpu_tiles_most(size_t n_tokens, size_t n_runs, size_t n_group)
{
    return n_tokens * n_group / GPU_ATTN_ROWS + n_runs;
}

/* The tiles of run r behind n others; returns how many there are then. */
static size_t cut_run(int32_t *tile, size_t n, const gpu_run *run, size_t r, size_t n_group)
{
    size_t n_rows = run[r].n * n_group;

    for (size_t first = 0; first < n_rows; first += GPU_ATTN_ROWS, n++) {
        if (!tile) continue;
        int32_t *to = tile + n * GPU_TILE_FIELDS;
        to[GPU_TILE_RUN] = (int32_t)r;
        to[GPU_TILE_FIRST] = (int32_t)first;
        to[GPU_TILE_ROWS] = (int32_t)(n_rows - first < GPU_ATTN_ROWS ? n_rows - first : GPU_ATTN_ROWS);
        to[GPU_TILE_POS] = (int32_t)run[r].pos;
    }
    return n;
}

size_t gpu_tiles_cut(int32_t *tile, const gpu_run *run, size_t n_runs, size_t n_group)
{
    size_t n = 0;

    for (int single = 1; single >= 0; single--) {
        for (size_t r = 0; r < n_runs; r++)
            if ((run[r].n == 1) == single) n = cut_run(tile, n, run, r, n_group);
    }
    return n;
}
