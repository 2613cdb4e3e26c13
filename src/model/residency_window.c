/* One window in pieces: its place in memory, and a pass over it.
 *
 * A window's region holds the vectors of its layers and then its resident pieces, neighbours together, each
 * at the same place within a block of the disk as in the pack: they are read like streamed ones, and kernels
 * find the alignment that they know. A streamed piece is given back to the stream when the last of its groups
 * has been used. */
#include "src/base/log.h"
#include "src/model/residency_impl.h"
#include <stdlib.h>

/* --- a pass: from forward's threads -------------------------------------------------------------------- */
void weight_pieces_begin(weight_pieces *x)
{
    for (size_t i = 0; i < x->n; i++)
        atomic_store_explicit(&x->left[i], x->piece[i].n_groups, memory_order_relaxed);
    if (x->r->s) stream_begin(x->r->s, x->window);
}

const uint8_t *weight_pieces_take(weight_pieces *x, const matrix_run *run)
{
    const uint8_t *p = x->data[run->piece];

    if (!p && x->r->s) p = stream_wait(x->r->s, x->use[run->piece]);
    return p ? p + run->at : NULL;
}

void weight_pieces_give(weight_pieces *x, const matrix_run *run, size_t n)
{
    if (x->data[run->piece]) return;
    if (atomic_fetch_sub(&x->left[run->piece], n) == n) stream_done(x->r->s, x->use[run->piece]);
}

int weight_pieces_end(weight_pieces *x, pr_err *err)
{
    if (!x->r->s) return pr_fail(err, x->r->ended.code, "%s", x->r->ended.msg);
    stream_end(x->r->s, x->window);
    return stream_failed(x->r->s, err);
}

void weight_pieces_free(weight_pieces *x)
{
    if (!x) return;
    free(x->piece);
    free(x->home);
    free(x->data);
    free(x->use);
    free(x->left);
    free(x->run);
    free(x);
}

/* --- its place in memory --- */
/* Resident pieces of a layer that follow each other: bytes of the record, and where they are in the region.
 */
typedef struct {
    uint32_t layer;
    size_t first, end; /* pieces of the window */
    size_t at, bytes;  /* in the record, whole blocks */
    size_t to;         /* in the region */
} extent;

/* The next one from piece i on; *cursor is the region's use so far. */
static bool next_extent(extent *x, const piece *p, size_t n, uint32_t streamed, size_t i, size_t *cursor)
{
    size_t end;

    while (i < n && (p[i].bytes == 0 || piece_is_streamed(i, n, streamed))) i++;
    if (i == n) return false;
    *x = (extent){.layer = p[i].layer, .first = i, .at = p[i].at / LAYER_ALIGN * LAYER_ALIGN};
    for (end = p[i].at; i < n && p[i].layer == x->layer && !piece_is_streamed(i, n, streamed); i++) {
        if (p[i].bytes) end = p[i].at + p[i].bytes;
    }
    x->end = i;
    x->bytes = MEM_ALIGN_UP(end, (size_t)LAYER_ALIGN) - x->at;
    x->to = *cursor = MEM_ALIGN_UP(*cursor, (size_t)LAYER_ALIGN);
    *cursor += x->bytes;
    return true;
}

size_t residency_cut(piece *out, const hparams *hp, const residency_options *o, uint32_t i)
{
    size_t at = 0, n = residency_pieces(o, i);
    layer_layout l;
    extent x;

    for (uint32_t il = o->first[i]; il < o->end[i]; il++) {
        layer_layout_of(&l, &hp->layer[il]);
        pieces_of_layer(out + (size_t)(il - o->first[i]) * LAYER_PIECES, &l, il);
        at += l.vectors_bytes;
    }
    for (size_t j = 0; next_extent(&x, out, n, o->streamed[i], j, &at); j = x.end) {}
    return at;
}

/* --- one window ------------------------------------------------------------------------------------------
 */
static int make_pieces(weight_pieces **out, residency *r, const residency_options *o, uint32_t i, pr_err *err)
{
    size_t n = residency_pieces(o, i);
    weight_pieces *x = calloc(1, sizeof *x);

    if (!x) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *x = (weight_pieces){.r = r,
                         .window = i,
                         .n = n,
                         .piece = calloc(n, sizeof *x->piece),
                         .home = calloc(n, sizeof *x->home),
                         .data = calloc(n, sizeof *x->data),
                         .use = calloc(n, sizeof *x->use),
                         .left = calloc(n, sizeof *x->left),
                         .run = calloc(n * LAYER_MATRICES, sizeof *x->run)};
    *out = x;
    return x->piece && x->home && x->data && x->use && x->left && x->run
               ? PR_OK
               : pr_fail(err, PR_ERESOURCE, "out of memory");
}

/* The vectors of all layers at the beginning of the region; matrices in runs. Returns the bytes used. */
static size_t place_layers(weights *w, const hparams *hp, const pack_file *f)
{
    weight_pieces *x = w->pieces;
    matrix_run *run = x->run;
    size_t at = 0;

    for (uint32_t il = w->first; il < w->end; il++) {
        const layer_layout *l = pack_file_layout(f, il);
        uint8_t *vectors = (uint8_t *)w->region.p + at;
        layer_weights *lw = &w->layer[il - w->first];

        layer_pack_vectors(vectors, l, &hp->layer[il]);
        *lw = weights_layer_at(vectors, l);
        at += l->vectors_bytes;
        for (int m = 0; m < LAYER_MATRICES; m++) {
            matrix *mx = weights_matrix(lw, (layer_matrix)m);
            mx->w = w;
            mx->run = run;
            for (size_t j = (size_t)(il - w->first) * LAYER_PIECES;
                 j < (size_t)(il - w->first + 1) * LAYER_PIECES; j++) {
                for (size_t k = 0; k < x->piece[j].n_runs; k++) {
                    const piece_run *pr = &x->piece[j].run[k];
                    if (pr->matrix == (layer_matrix)m)
                        *run++ = (matrix_run){pr->group_first, pr->group_end, j, pr->at};
                }
            }
            mx->n_runs = (size_t)(run - mx->run);
        }
    }
    return at;
}

/* Reading what is resident, from the pack into the region. */
static int await_one(disk_read *d, size_t *open, pr_err *err)
{
    uint64_t tag;
    disk_read_end end = disk_read_wait(d, -1, &tag, err);

    *open -= end != DISK_READ_TIMEOUT;
    return end == DISK_READ_FAILED ? (int)err->code : PR_OK;
}

static int read_resident(weights *w, const pack_file *f, const disk_read_options *o, uint32_t streamed,
                         size_t at, pr_err *err)
{
    weight_pieces *x = w->pieces;
    uint8_t *region = w->region.p;
    size_t open = 0;
    pr_err why;
    disk_read *d;
    extent e;
    int rc = disk_read_open(&d, pack_file_path(f), o, err);

    if (rc) return rc;
    for (size_t j = 0; !rc && next_extent(&e, x->piece, x->n, streamed, j, &at); j = e.end) {
        for (size_t k = e.first; k < e.end; k++)
            x->home[k] = x->data[k] = region + e.to + (x->piece[k].at - e.at);
        while (!rc && open == disk_read_room(d)) rc = await_one(d, &open, &why);
        if (!rc) rc = disk_read_submit(d, j, pack_file_at(f, e.layer) + e.at, e.bytes, region + e.to, &why);
        open += !rc;
    }
    while (open && !rc) rc = await_one(d, &open, &why);
    disk_read_close(d);
    return rc ? pr_fail(err, why.code, "%s", why.msg) : PR_OK;
}

int residency_make_window(residency *r, const hparams *hp, const residency_options *o, uint32_t i,
                          pr_err *err)
{
    weight_pieces *pieces = NULL;
    int rc = make_pieces(&pieces, r, o, i, err);
    size_t bytes = rc ? 0 : residency_cut(pieces->piece, hp, o, i), at;

    if (!rc) rc = weights_make(&r->w[i], o->first[i], o->end[i], bytes, err);
    if (rc) {
        weight_pieces_free(pieces);
        return rc;
    }
    r->w[i]->pieces = pieces;
    r->x[i] = pieces;
    at = place_layers(r->w[i], hp, r->pack);
    log_progress("reading layers %u..%u", o->first[i], o->end[i]);
    rc = read_resident(r->w[i], r->pack, &o->disk, o->streamed[i], at, err);
    log_progress("%s", "");
    return rc;
}
