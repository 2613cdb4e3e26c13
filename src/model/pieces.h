/* A layer's record cut in eight nearly equal pieces, between groups of rows: what is resident or streamed one
 * by one.
 *
 * The plan counts in these pieces (planner/plan.h); the runtime's are whole groups, so they differ from an
 * eighth by less than a group (16 rows). Vectors belong to no piece: they are always resident. */
#ifndef PRIMA_MODEL_PIECES_H
#define PRIMA_MODEL_PIECES_H
#include "src/model/layer_pack.h"
#include <stdbool.h>

enum { LAYER_PIECES = 8 };

/* Groups of one matrix that lie in a piece. */
typedef struct {
    layer_matrix matrix;
    size_t group_first, group_end; /* of the matrix */
    size_t at;                     /* of the first one, behind the piece's first byte */
} piece_run;

typedef struct {
    uint32_t layer;
    size_t at, bytes; /* in the record; 0 bytes where a layer has fewer groups than pieces */
    size_t n_groups, n_runs;
    piece_run run[LAYER_MATRICES]; /* in the order of use */
} piece;

void pieces_of_layer(piece out[LAYER_PIECES], const layer_layout *l, uint32_t layer);

/* Of n pieces x are streamed: is piece i? In turn with resident ones, so that reading goes on under their
 * compute. */
static inline bool piece_is_streamed(uint64_t i, uint64_t n, uint64_t x)
{
    return (i + 1) * x / n > i * x / n;
}

#endif
