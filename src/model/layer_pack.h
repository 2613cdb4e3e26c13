/* One layer in kernel order: a record of bytes, the same in memory and in a pack file.
 *
 *   [ vectors, f32, each at a multiple of 64 bytes ][ q ][ k ][ v ][ o ][ gate ][ up ][ down ]
 *
 * The record and each matrix begin at a multiple of LAYER_ALIGN; the matrices stand in the order of use. A
 * matrix is a row of groups of 16 rows (kernels/pack.h), all of the same size; computing may take them from
 * different places, so a layer can be cut between any two groups. */
#ifndef PRIMA_MODEL_LAYER_PACK_H
#define PRIMA_MODEL_LAYER_PACK_H
#include "src/base/pool.h"
#include "src/model/hparams.h"

enum {
    LAYER_ALIGN = 4096,
    LAYER_LAYOUT = 1 /* changes with the order of bytes in a record */
};
typedef enum {
    LAYER_Q,
    LAYER_K,
    LAYER_V,
    LAYER_O,
    LAYER_GATE,
    LAYER_UP,
    LAYER_DOWN,
    LAYER_MATRICES
} layer_matrix;
typedef enum {
    LAYER_ATTN_NORM,
    LAYER_Q_BIAS,
    LAYER_K_BIAS,
    LAYER_V_BIAS,
    LAYER_Q_NORM,
    LAYER_K_NORM,
    LAYER_O_BIAS,
    LAYER_FFN_NORM,
    LAYER_VECTORS
} layer_vector;

typedef struct {
    uint32_t type;
    size_t n_rows, n_cols;
    size_t n_groups, group_bytes;
    size_t at; /* in the record; its bytes are n_groups * group_bytes */
} matrix_place;

typedef struct {
    size_t vector_at[LAYER_VECTORS]; /* SIZE_MAX: the model has none */
    size_t vectors_bytes;            /* a multiple of LAYER_ALIGN */
    matrix_place matrix[LAYER_MATRICES];
    size_t bytes; /* of the record, a multiple of LAYER_ALIGN */
} layer_layout;

/* The tensor behind a place; a vector may be NULL. */
const gguf_tensor *layer_vector_of(const layer_tensors *t, layer_vector v);
const gguf_tensor *layer_matrix_of(const layer_tensors *t, layer_matrix m);

void layer_layout_of(layer_layout *out, const layer_tensors *t);

/* Make the record at dst (zeroed memory or not: every byte is written). Each thread drops the file pages that
 * it has read. */
void layer_pack(void *dst, const layer_layout *l, const layer_tensors *t, pool *p);
/* The vectors alone: the first vectors_bytes of the record. */
void layer_pack_vectors(void *dst, const layer_layout *l, const layer_tensors *t);
/* One matrix on its own, pack_bytes() long; and groups [first, end) of one. */
void layer_pack_matrix(void *dst, const gguf_tensor *t, pool *p);
void layer_pack_groups(void *dst, const gguf_tensor *t, size_t first, size_t end, pool *p);

#endif
