/* The packed weights of layers [first, end) and where they live (residency).
 *
 * A layer is used between weights_acquire and weights_release; what happens in between calls is the
 * residency's affair, so that mapped and streamed ones can wait for a reader, and forward() does not know the
 * difference. */
#ifndef PRIMA_MODEL_WEIGHTS_H
#define PRIMA_MODEL_WEIGHTS_H
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/model/hparams.h"

/* A weight matrix in kernel order. */
typedef struct {
    uint32_t type; /* quant type */
    size_t n_rows, n_cols;
    const void *pack;
} matrix;

/* One layer ready for use. Vectors are f32 of the file; NULL where the model has none. */
typedef struct {
    const float *attn_norm, *ffn_norm, *q_norm, *k_norm;
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    matrix q, k, v, o, gate, up, down;
} layer_weights;

typedef struct weights weights;

/* Resident: pack every matrix of the layers into anonymous memory on huge pages, dropping the file's pages
 * behind it, so that the peak is one copy of the weights. Progress goes to the log's progress line as
 * `label`. hp must outlive it. PR_ERESOURCE names the bytes that could not be had. */
int weights_new(weights **out, const hparams *hp, uint32_t first, uint32_t end, pool *p, const char *label,
                pr_err *err);
void weights_free(weights *w);

const layer_weights *weights_acquire(weights *w, uint32_t layer); /* first <= layer < end */
void weights_release(weights *w, uint32_t layer);

size_t weights_bytes(const weights *w);
const char *weights_pages(const weights *w); /* "2 MiB (madvise)" or "4 KiB", for the log */

/* Packed bytes of layers [first, end), vectors included: what weights_new will take. */
size_t weights_need_bytes(const hparams *hp, uint32_t first, uint32_t end);

/* One matrix on its own (the output projection). */
typedef struct {
    matrix m;
    mem_region region;
} packed_matrix;
int packed_matrix_new(packed_matrix *out, const gguf_tensor *t, pool *p, pr_err *err);
void packed_matrix_free(packed_matrix *m);

#endif
