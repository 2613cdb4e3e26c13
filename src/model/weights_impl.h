/* What weights.c (all resident) and residency.c (in pieces) share; nobody else includes it. */
#ifndef PRIMA_MODEL_WEIGHTS_IMPL_H
#define PRIMA_MODEL_WEIGHTS_IMPL_H
#include "src/model/layer_pack.h"
#include "src/model/weights.h"

typedef struct weight_pieces weight_pieces;

struct weights {
    uint32_t first, end;
    mem_region region;
    layer_weights *layer;  /* [end - first] */
    weight_pieces *pieces; /* NULL: all is resident, record after record */
};

/* The object without its weights. */
int weights_make(weights **out, uint32_t first, uint32_t end, size_t bytes, pr_err *err);
/* The vectors of a record that begins at `vectors`, matrices without data. */
layer_weights weights_layer_at(const uint8_t *vectors, const layer_layout *l);
/* Matrix m of a layer. */
matrix *weights_matrix(layer_weights *l, layer_matrix m);

const uint8_t *weight_pieces_take(weight_pieces *x, const matrix_run *run);
void weight_pieces_give(weight_pieces *x, const matrix_run *run, size_t n);
void weight_pieces_begin(weight_pieces *x);
int weight_pieces_end(weight_pieces *x, pr_err *err);
void weight_pieces_free(weight_pieces *x);

#endif
