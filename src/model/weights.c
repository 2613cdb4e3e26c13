/* Resident weights: the layers of a window, packed into one huge-page region at start-up, record after record
 * (layer_pack.h), as they would stand in a pack file. Those in pieces are made by residency.c. */
#include "kernels/pack.h"
#include "src/base/log.h"
#include "src/model/weights_impl.h"
#include <stdlib.h>

/* --- one layer --------------------------------------------------------------------------------- */
static const float *vector_at(const uint8_t *vectors, const layer_layout *l, layer_vector v)
{
    return l->vector_at[v] == SIZE_MAX ? NULL : (const float *)(vectors + l->vector_at[v]);
}

matrix *weights_matrix(layer_weights *l, layer_matrix m)
{
    matrix *all[LAYER_MATRICES] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    return all[m];
}

layer_weights weights_layer_at(const uint8_t *vectors, const layer_layout *l)
{
    layer_weights x = {.attn_norm = vector_at(vectors, l, LAYER_ATTN_NORM),
                       .ffn_norm = vector_at(vectors, l, LAYER_FFN_NORM),
                       .q_norm = vector_at(vectors, l, LAYER_Q_NORM),
                       .k_norm = vector_at(vectors, l, LAYER_K_NORM),
                       .q_bias = vector_at(vectors, l, LAYER_Q_BIAS),
                       .k_bias = vector_at(vectors, l, LAYER_K_BIAS),
                       .v_bias = vector_at(vectors, l, LAYER_V_BIAS),
                       .o_bias = vector_at(vectors, l, LAYER_O_BIAS)};

    for (int m = 0; m < LAYER_MATRICES; m++) {
        const matrix_place *p = &l->matrix[m];
        *weights_matrix(&x, (layer_matrix)m) =
            (matrix){.type = p->type, .n_rows = p->n_rows, .n_cols = p->n_cols};
    }
    return x;
}

static layer_weights layer_at(const uint8_t *record, const layer_layout *l)
{
    layer_weights x = weights_layer_at(record, l);

    for (int m = 0; m < LAYER_MATRICES; m++)
        weights_matrix(&x, (layer_matrix)m)->pack = record + l->matrix[m].at;
    return x;
}

size_t weights_need_bytes(const hparams *hp, uint32_t first, uint32_t end)
{
    layer_layout l;
    size_t n = 0;

    for (uint32_t il = first; il < end; il++) {
        layer_layout_of(&l, &hp->layer[il]);
        n += l.bytes;
    }
    return n;
}

/* --- the object ------------------------------------------------------------------------------ */
int weights_make(weights **out, uint32_t first, uint32_t end, size_t bytes, pr_err *err)
{
    weights *w = calloc(1, sizeof *w);

    if (w) w->layer = calloc(end - first + 1, sizeof *w->layer);
    if (!w || !w->layer) {
        weights_free(w);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    w->first = first;
    w->end = end;
    if (bytes && mem_region_new(&w->region, bytes)) {
        weights_free(w);
        return pr_fail_errno(err, PR_ERESOURCE, "cannot get %zu bytes for the weights of layers %u..%u",
                             bytes, first, end);
    }
    *out = w;
    return PR_OK;
}

int weights_new(weights **out, const hparams *hp, uint32_t first, uint32_t end, pool *p, const char *label,
                pr_err *err)
{
    size_t at = 0;
    layer_layout l;
    int rc = weights_make(out, first, end, weights_need_bytes(hp, first, end), err);

    for (uint32_t il = first; !rc && il < end; il++) {
        uint8_t *record = (uint8_t *)(*out)->region.p + at;

        layer_layout_of(&l, &hp->layer[il]);
        layer_pack(record, &l, &hp->layer[il], p);
        (*out)->layer[il - first] = layer_at(record, &l);
        at += l.bytes;
        log_progress("%s: layer %u of %u", label, il - first + 1, end - first);
    }
    log_progress("%s", "");
    return rc;
}

void weights_free(weights *w)
{
    if (!w) return;
    weight_pieces_free(w->pieces);
    mem_region_free(&w->region);
    free(w->layer);
    free(w);
}

const layer_weights *weights_layer(const weights *w, uint32_t layer)
{
    return &w->layer[layer - w->first];
}

void weights_begin(weights *w)
{
    if (w->pieces) weight_pieces_begin(w->pieces);
}

const uint8_t *weights_take(weights *w, const matrix_run *run)
{
    return weight_pieces_take(w->pieces, run);
}

void weights_give(weights *w, const matrix_run *run, size_t n)
{
    weight_pieces_give(w->pieces, run, n);
}

int weights_end(weights *w, pr_err *err)
{
    return w->pieces ? weight_pieces_end(w->pieces, err) : PR_OK;
}

size_t weights_bytes(const weights *w)
{
    return w->region.n;
}
const char *weights_pages(const weights *w)
{
    return w->region.pages ? w->region.pages : "none";
}

/* --- one matrix -------------------------------------------------------------------------------- */
int packed_matrix_new(packed_matrix *out, const gguf_tensor *t, pool *p, pr_err *err)
{
    size_t need = pack_bytes(t->type, t->ne[1], t->ne[0]);

    if (mem_region_new(&out->region, need))
        return pr_fail_errno(err, PR_ERESOURCE, "cannot get %zu bytes for %s", need, t->name);
    layer_pack_matrix(out->region.p, t, p);
    out->m = (matrix){.type = t->type, .n_rows = t->ne[1], .n_cols = t->ne[0], .pack = out->region.p};
    return PR_OK;
}

void packed_matrix_free(packed_matrix *m)
{
    mem_region_free(&m->region);
    m->m = (matrix){0};
}
