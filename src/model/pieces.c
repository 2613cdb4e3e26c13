/* Cutting a layer; see pieces.h. Boundary j lies at the last group that begins at or before j eighths of the
 * matrices' bytes. */
#include "src/model/pieces.h"

static size_t matrix_bytes(const matrix_place *m)
{
    return m->n_groups * m->group_bytes;
}

static size_t all_bytes(const layer_layout *l)
{
    size_t n = 0;

    for (int m = 0; m < LAYER_MATRICES; m++) n += matrix_bytes(&l->matrix[m]);
    return n;
}

/* Groups of matrix m that begin before byte `byte` of the matrices, counted over all of them. */
static size_t groups_before(const layer_layout *l, int m, size_t byte)
{
    size_t start = 0;

    for (int i = 0; i < m; i++) start += matrix_bytes(&l->matrix[i]);
    if (byte <= start) return 0;
    size_t n = (byte - start) / l->matrix[m].group_bytes;
    return n < l->matrix[m].n_groups ? n : l->matrix[m].n_groups;
}

static void add_run(piece *p, const layer_layout *l, int m, size_t first, size_t end)
{
    const matrix_place *x = &l->matrix[m];
    size_t at = x->at + first * x->group_bytes;

    if (p->n_runs == 0) p->at = at;
    p->run[p->n_runs++] = (piece_run){(layer_matrix)m, first, end, at - p->at};
    p->n_groups += end - first;
    p->bytes = x->at + end * x->group_bytes - p->at;
}

void pieces_of_layer(piece out[LAYER_PIECES], const layer_layout *l, uint32_t layer)
{
    size_t all = all_bytes(l), part = (all + LAYER_PIECES - 1) / LAYER_PIECES;

    for (size_t j = 0; j < LAYER_PIECES; j++) {
        size_t from = j * part, to = j + 1 < LAYER_PIECES && (j + 1) * part < all ? (j + 1) * part : all;
        out[j] = (piece){.layer = layer};
        for (int m = 0; m < LAYER_MATRICES; m++) {
            size_t first = groups_before(l, m, from), end = groups_before(l, m, to);
            if (first < end) add_run(&out[j], l, m, first, end);
        }
    }
}
