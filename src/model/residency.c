/* The windows of a device that do not fit; see residency.h. What one window is: residency_window.c. */
#include "src/model/residency_impl.h"
#include <stdlib.h>

/* --- the stream's order -------------------------------------------------------------------------------- */
/* Pieces that are not resident, window after window. */
typedef struct {
    size_t *first, n;
    stream_piece *piece;
} order;

static void order_clear(order *x)
{
    free(x->first);
    free(x->piece);
}

static int order_init(order *x, uint32_t n_windows, size_t n_pieces, pr_err *err)
{
    *x = (order){.first = calloc(n_windows + 1, sizeof *x->first),
                 .piece = calloc(n_pieces + 1, sizeof *x->piece)};
    if (x->first && x->piece) return PR_OK;
    order_clear(x);
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

static void order_add(order *x, const piece *p, uint64_t record_at)
{
    x->piece[x->n++] = (stream_piece){record_at + p->at, p->bytes};
}

static uint64_t order_bytes(const order *x)
{
    uint64_t n = 0;

    for (size_t i = 0; i < x->n; i++) n += x->piece[i].n;
    return n;
}

/* --- what it takes ---------------------------------------------------------------------------------------
 */
int residency_need(residency_bytes *out, const hparams *hp, const residency_options *o, pr_err *err)
{
    size_t most = 1, streamed = 0;
    piece *p;
    order x;
    int rc;

    *out = (residency_bytes){0};
    for (uint32_t i = 0; i < o->n_windows; i++) {
        if (o->streamed[i] && residency_pieces(o, i) > most) most = residency_pieces(o, i);
        streamed += o->streamed[i];
    }
    if ((rc = order_init(&x, o->n_windows, streamed, err))) return rc;
    p = calloc(most, sizeof *p);
    if (!p) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    for (uint32_t i = 0; !rc && i < o->n_windows; i++) {
        size_t n = o->streamed[i] ? residency_pieces(o, i) : 0;
        if (n) out->weights += residency_cut(p, hp, o, i);
        for (size_t j = 0; j < n; j++) {
            if (piece_is_streamed(j, n, o->streamed[i]) && p[j].bytes) order_add(&x, &p[j], 0);
        }
        x.first[i + 1] = x.n;
    }
    out->streamed = order_bytes(&x);
    out->buffer = stream_need_bytes(&(stream_options){
        .n_windows = o->n_windows, .first = x.first, .piece = x.piece, .n_slots = o->buffer_pieces});
    free(p);
    order_clear(&x);
    return rc;
}

/* --- the stream ------------------------------------------------------------------------------------------
 */
static residency_counts add(residency_counts a, stream *s)
{
    if (!s) return a;
    stream_counts c = stream_about(s);
    a.stream.read_bytes += c.read_bytes;
    a.stream.wasted_bytes += c.wasted_bytes;
    a.stream.stalls += c.stalls;
    a.stream.stall_ms += c.stall_ms;
    a.busy_s += stream_disk(s).busy_s;
    return a;
}

static int order_now(order *x, residency *r, pr_err *err)
{
    size_t n = 0;
    int rc;

    for (uint32_t i = 0; i < r->n_windows; i++) n += r->x[i] ? r->x[i]->n : 0;
    if ((rc = order_init(x, r->n_windows, n, err))) return rc;
    for (uint32_t i = 0; i < r->n_windows; i++) {
        weight_pieces *w = r->x[i];
        for (size_t j = 0; w && j < w->n; j++) {
            if (w->data[j] || !w->piece[j].bytes) continue;
            w->use[j] = x->n - x->first[i];
            order_add(x, &w->piece[j], pack_file_at(r->pack, w->piece[j].layer));
        }
        x->first[i + 1] = x->n;
    }
    return PR_OK;
}

int residency_start(residency *r, pr_err *err)
{
    stream_options so = r->so;
    stream *s = NULL;
    order x;
    int rc = order_now(&x, r, err);

    if (rc) return rc;
    so.first = x.first;
    so.piece = x.piece;
    rc = stream_new(&s, pack_file_path(r->pack), &so, err);
    pthread_mutex_lock(&r->mutex);
    r->s = s;
    r->before.pass_bytes = order_bytes(&x);
    if (s) stream_watch(s, r->note, r->note_arg);
    pthread_mutex_unlock(&r->mutex);
    order_clear(&x);
    return rc;
}

void residency_stop(residency *r)
{
    pthread_mutex_lock(&r->mutex);
    stream *s = r->s;
    r->before = add(r->before, s);
    r->s = NULL;
    pthread_mutex_unlock(&r->mutex);
    stream_free(s);
}

/* --- all windows -----------------------------------------------------------------------------------------
 */
static int open_pack(residency *r, const model *m, const residency_options *o, pool *p,
                     const volatile int *stop, pr_err *err)
{
    pack_file_options po = {.dir = o->pack_dir, .label = "packing"};
    uint32_t *first = calloc(o->n_windows, sizeof *first), *end = calloc(o->n_windows, sizeof *end);
    size_t n = 0;
    int rc = first && end ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");

    for (uint32_t i = 0; !rc && i < o->n_windows; i++) {
        if (!o->streamed[i]) continue;
        first[n] = o->first[i];
        end[n++] = o->end[i];
    }
    if (!rc) rc = pack_file_open(&r->pack, m, first, end, n, &po, p, stop, err);
    free(first);
    free(end);
    return rc;
}

static int make(residency *r, const model *m, const residency_options *o, pool *p, const volatile int *stop,
                pr_err *err)
{
    int rc = open_pack(r, m, o, p, stop, err);

    for (uint32_t i = 0; !rc && i < o->n_windows; i++) {
        if (o->streamed[i]) rc = residency_make_window(r, &m->hp, o, i, err);
    }
    return rc ? rc : residency_start(r, err);
}

int residency_new(residency **out, const model *m, const residency_options *o, pool *p,
                  const volatile int *stop, pr_err *err)
{
    residency *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    pthread_mutex_init(&r->mutex, NULL);
    r->n_windows = o->n_windows;
    r->so = (stream_options){
        .kind = o->kind, .n_windows = o->n_windows, .n_slots = o->buffer_pieces, .disk = o->disk};
    r->x = calloc(o->n_windows, sizeof(weight_pieces *));
    r->w = calloc(o->n_windows, sizeof *r->w);
    rc = r->x && r->w ? make(r, m, o, p, stop, err) : pr_fail(err, PR_ERESOURCE, "out of memory");
    if (rc) residency_free(r);
    else *out = r;
    return rc;
}

void residency_free(residency *r)
{
    if (!r) return;
    residency_stop(r);
    for (uint32_t i = 0; r->w && i < r->n_windows; i++) weights_free(r->w[i]);
    pack_file_close(r->pack);
    free(r->x);
    free(r->w);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}

weights *residency_take_weights(residency *r, uint32_t i)
{
    weights *w = r->w[i];

    r->w[i] = NULL;
    return w;
}

/* --- looking at it ---------------------------------------------------------------------------------------
 */
void residency_watch(residency *r, stream_note note, void *arg)
{
    pthread_mutex_lock(&r->mutex);
    r->note = note;
    r->note_arg = arg;
    if (r->s) stream_watch(r->s, note, arg);
    pthread_mutex_unlock(&r->mutex);
}

residency_counts residency_about(residency *r)
{
    pthread_mutex_lock(&r->mutex);
    residency_counts c = add(r->before, r->s);
    pthread_mutex_unlock(&r->mutex);
    return c;
}

disk_read_facts residency_disk(residency *r)
{
    pthread_mutex_lock(&r->mutex);
    disk_read_facts f = r->s ? stream_disk(r->s) : (disk_read_facts){0};
    pthread_mutex_unlock(&r->mutex);
    return f;
}
