/* The packed weights of layers [first, end), and where they live: all resident, or in pieces (pieces.h) of
 * which some are streamed (residency.h). forward() does not know the difference; products (exec.h) take the
 * groups of a matrix run by run. */
#ifndef PRIMA_MODEL_WEIGHTS_H
#define PRIMA_MODEL_WEIGHTS_H
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/model/hparams.h"

typedef struct weights weights;

/* Neighbouring groups of a matrix that lie side by side. */
typedef struct {
    size_t group_first, group_end;
    size_t piece; /* of the window */
    size_t at;    /* bytes behind the piece's first */
} matrix_run;

/* A weight matrix in kernel order. */
typedef struct {
    uint32_t type; /* quant type */
    size_t n_rows, n_cols;
    const void *pack; /* all groups in a row; NULL: in runs */
    const matrix_run *run;
    size_t n_runs;
    weights *w; /* who has the runs */
} matrix;

/* One layer ready for use. Vectors are f32 of the file; NULL where the model has none. */
typedef struct {
    const float *attn_norm, *ffn_norm, *q_norm, *k_norm;
    const float *q_bias, *k_bias, *v_bias, *o_bias;
    matrix q, k, v, o, gate, up, down;
} layer_weights;

/* Resident: pack every matrix of the layers into anonymous memory on huge pages, dropping the file's pages
 * behind it, so that the peak is one copy of the weights. Progress goes to the log's progress line as
 * `label`. hp must outlive it. PR_ERESOURCE names the bytes that could not be had. */
int weights_new(weights **out, const hparams *hp, uint32_t first, uint32_t end, pool *p, const char *label,
                pr_err *err);
void weights_free(weights *w);

const layer_weights *weights_layer(const weights *w, uint32_t layer); /* first <= layer < end */

/* A pass over the window. Between begin and end each group of each matrix is used once, in the order of use:
 * any thread takes a run's groups (the pointer is to those of run->group_first; NULL: they cannot be read)
 * and says when it has computed with n of them. weights_end: PR_OK, or why something could not be read; what
 * was computed is then nothing. */
void weights_begin(weights *w);
const uint8_t *weights_take(weights *w, const matrix_run *run);
void weights_give(weights *w, const matrix_run *run, size_t n);
int weights_end(weights *w, pr_err *err);

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
