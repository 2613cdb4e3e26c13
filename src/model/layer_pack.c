/* A layer's record: where everything stands in it, and packing it from the tensors of the file.
 *
 * Packing a matrix is a loop over groups of 16 rows shared by all threads; each thread drops the file pages
 * that it has read, so that no second copy of the weights gathers in memory. What lies between the parts is
 * zero: the same tensors always give the same bytes, and a record has one digest. */
#include "src/model/layer_pack.h"
#include "kernels/pack.h"
#include "src/base/mem.h"
#include <string.h>

enum { VECTOR_ALIGN = 64, MAX_GROUPS_PER_ITEM = 32 };

const gguf_tensor *layer_vector_of(const layer_tensors *t, layer_vector v)
{
    switch (v) {
    case LAYER_ATTN_NORM: return t->attn_norm;
    case LAYER_Q_BIAS: return t->attn_q_bias;
    case LAYER_K_BIAS: return t->attn_k_bias;
    case LAYER_V_BIAS: return t->attn_v_bias;
    case LAYER_Q_NORM: return t->attn_q_norm;
    case LAYER_K_NORM: return t->attn_k_norm;
    case LAYER_O_BIAS: return t->attn_output_bias;
    case LAYER_FFN_NORM: return t->ffn_norm;
    case LAYER_VECTORS: break;
    }
    return NULL;
}

const gguf_tensor *layer_matrix_of(const layer_tensors *t, layer_matrix m)
{
    switch (m) {
    case LAYER_Q: return t->attn_q;
    case LAYER_K: return t->attn_k;
    case LAYER_V: return t->attn_v;
    case LAYER_O: return t->attn_output;
    case LAYER_GATE: return t->ffn_gate;
    case LAYER_UP: return t->ffn_up;
    case LAYER_DOWN: return t->ffn_down;
    case LAYER_MATRICES: break;
    }
    return NULL;
}

/* --- layout -------------------------------------------------------------------------------------------- */
static matrix_place place_of(const gguf_tensor *t, size_t at)
{
    size_t n_groups = pack_groups(t->ne[1]);

    return (matrix_place){.type = t->type,
                          .n_rows = t->ne[1],
                          .n_cols = t->ne[0],
                          .n_groups = n_groups,
                          .group_bytes = n_groups ? pack_bytes(t->type, t->ne[1], t->ne[0]) / n_groups : 0,
                          .at = at};
}

static size_t place_end(const matrix_place *p)
{
    return p->at + p->n_groups * p->group_bytes;
}

void layer_layout_of(layer_layout *out, const layer_tensors *t)
{
    size_t at = 0;

    for (layer_vector v = 0; v < LAYER_VECTORS; v++) {
        const gguf_tensor *x = layer_vector_of(t, v);

        out->vector_at[v] = x ? at : SIZE_MAX;
        if (x) at += MEM_ALIGN_UP(x->n_bytes, (size_t)VECTOR_ALIGN);
    }
    at = out->vectors_bytes = MEM_ALIGN_UP(at, (size_t)LAYER_ALIGN);
    for (layer_matrix m = 0; m < LAYER_MATRICES; m++) {
        out->matrix[m] = place_of(layer_matrix_of(t, m), at);
        at = MEM_ALIGN_UP(place_end(&out->matrix[m]), (size_t)LAYER_ALIGN);
    }
    out->bytes = at;
}

/* --- packing ------------------------------------------------------------------------------------------- */
/* Groups of a matrix: rows [row_first, n_rows) of t are a matrix too, whose groups go to dst. */
typedef struct {
    const gguf_tensor *t;
    size_t row_first;
    void *dst;
} pack_job;

static void pack_item(void *arg, size_t first, size_t end, int thread)
{
    const pack_job *j = arg;
    size_t row_bytes = quant_row_bytes(j->t->type, j->t->ne[0]);
    size_t n_rows = j->t->ne[1] - j->row_first;
    size_t begin = first * PACK_ROWS, stop = end * PACK_ROWS < n_rows ? end * PACK_ROWS : n_rows;
    const uint8_t *rows = j->t->data + j->row_first * row_bytes;

    (void)thread;
    pack_rows(j->t->type, j->dst, rows, n_rows, j->t->ne[0], first, end);
    gguf_drop_pages(rows + begin * row_bytes, (stop - begin) * row_bytes);
}

/* Pages that hold rows of two items, and what the system maps around a page that is touched, come back after
 * an item has dropped them: at the end all up to here goes at once. */
static void drop_all(const gguf_tensor *t, size_t groups)
{
    size_t rows = groups * PACK_ROWS;

    gguf_drop_pages(t->data, rows < t->ne[1] ? rows * quant_row_bytes(t->type, t->ne[0]) : t->n_bytes);
}

void layer_pack_groups(void *dst, const gguf_tensor *t, size_t first, size_t end, pool *p)
{
    pack_job j = {t, first * PACK_ROWS, dst};
    size_t share = (end - first) / (4 * (size_t)pool_threads(p)) + 1;

    pool_run(p, end - first, share < MAX_GROUPS_PER_ITEM ? share : MAX_GROUPS_PER_ITEM, pack_item, &j);
    drop_all(t, end);
}

void layer_pack_matrix(void *dst, const gguf_tensor *t, pool *p)
{
    layer_pack_groups(dst, t, 0, pack_groups(t->ne[1]), p);
}

void layer_pack_vectors(void *dst, const layer_layout *l, const layer_tensors *t)
{
    memset(dst, 0, l->vectors_bytes);
    for (layer_vector v = 0; v < LAYER_VECTORS; v++) {
        const gguf_tensor *x = layer_vector_of(t, v);

        if (x) memcpy((uint8_t *)dst + l->vector_at[v], x->data, x->n_bytes);
    }
}

void layer_pack(void *dst, const layer_layout *l, const layer_tensors *t, pool *p)
{
    uint8_t *record = dst;

    layer_pack_vectors(record, l, t);
    for (layer_matrix m = 0; m < LAYER_MATRICES; m++) {
        size_t end = place_end(&l->matrix[m]);
        size_t next = m + 1 < LAYER_MATRICES ? l->matrix[m + 1].at : l->bytes;

        layer_pack_matrix(record + l->matrix[m].at, layer_matrix_of(t, m), p);
        memset(record + end, 0, next - end);
    }
}
