/* Resident weights: the matrices of a window, packed into one huge-page region at start-up.
 *
 * The region is laid out once (place_* below compute the same offsets for the size and for the data): layer
 * by layer in the order of use, every tensor at a multiple of 4096 bytes, so that the same layout can become
 * a pack file. Packing is a loop over groups of 16 rows shared by all threads; each thread drops the file
 * pages that it has read, which keeps the peak at one copy. */
#include "src/model/weights.h"
#include "kernels/pack.h"
#include "src/base/log.h"
#include <stdlib.h>
#include <string.h>

enum { TENSOR_ALIGN = 4096, GROUPS_PER_ITEM = 8 };

struct weights {
    const hparams *hp;
    uint32_t first, end;
    mem_region region;
    layer_weights *layer;
};

static size_t matrix_bytes(const gguf_tensor *t)
{
    return pack_bytes(t->type, t->ne[1], t->ne[0]);
}

/* --- packing one matrix ---------------------------------------------------------------------- */
typedef struct {
    const gguf_tensor *t;
    void *dst;
} pack_job;

static void pack_item(void *arg, size_t first, size_t end, int thread)
{
    const pack_job *j = arg;
    size_t row_bytes = quant_row_bytes(j->t->type, j->t->ne[0]);
    size_t n_rows = j->t->ne[1];
    size_t row_first = first * PACK_ROWS, row_end = end * PACK_ROWS;

    (void)thread;
    if (row_end > n_rows) row_end = n_rows;
    pack_rows(j->t->type, j->dst, j->t->data, n_rows, j->t->ne[0], first, end);
    gguf_drop_pages(j->t->data + row_first * row_bytes, (row_end - row_first) * row_bytes);
}

static matrix pack_matrix(const gguf_tensor *t, void *dst, pool *p)
{
    pack_job j = {t, dst};

    pool_run(p, pack_groups(t->ne[1]), GROUPS_PER_ITEM, pack_item, &j);
    return (matrix){t->type, t->ne[1], t->ne[0], dst};
}

/* --- layout ------------------------------------------------------------------------------------ */
/* Advance *at past a tensor of n bytes; the returned pointer is NULL while only the size is wanted (base
 * NULL). */
static void *place(uint8_t *base, size_t *at, size_t n)
{
    void *p = base ? base + *at : NULL;

    *at += MEM_ALIGN_UP(n, (size_t)TENSOR_ALIGN);
    return p;
}

static const float *place_vector(uint8_t *base, size_t *at, const gguf_tensor *t)
{
    if (!t) return NULL;
    float *p = place(base, at, t->n_bytes);
    if (p) memcpy(p, t->data, t->n_bytes);
    return p;
}

static matrix place_matrix(uint8_t *base, size_t *at, const gguf_tensor *t, pool *p)
{
    void *dst = place(base, at, matrix_bytes(t));
    return dst ? pack_matrix(t, dst, p) : (matrix){0};
}

/* One layer in the order in which forward() reads it. */
static layer_weights place_layer(uint8_t *base, size_t *at, const layer_tensors *t, pool *p)
{
    layer_weights l;

    l.attn_norm = place_vector(base, at, t->attn_norm);
    l.q = place_matrix(base, at, t->attn_q, p);
    l.k = place_matrix(base, at, t->attn_k, p);
    l.v = place_matrix(base, at, t->attn_v, p);
    l.q_bias = place_vector(base, at, t->attn_q_bias);
    l.k_bias = place_vector(base, at, t->attn_k_bias);
    l.v_bias = place_vector(base, at, t->attn_v_bias);
    l.q_norm = place_vector(base, at, t->attn_q_norm);
    l.k_norm = place_vector(base, at, t->attn_k_norm);
    l.o = place_matrix(base, at, t->attn_output, p);
    l.o_bias = place_vector(base, at, t->attn_output_bias);
    l.ffn_norm = place_vector(base, at, t->ffn_norm);
    l.gate = place_matrix(base, at, t->ffn_gate, p);
    l.up = place_matrix(base, at, t->ffn_up, p);
    l.down = place_matrix(base, at, t->ffn_down, p);
    return l;
}

size_t weights_need_bytes(const hparams *hp, uint32_t first, uint32_t end)
{
    size_t at = 0;

    for (uint32_t il = first; il < end; il++) place_layer(NULL, &at, &hp->layer[il], NULL);
    return at;
}

/* --- the object ------------------------------------------------------------------------------ */
int weights_new(weights **out, const hparams *hp, uint32_t first, uint32_t end, pool *p, const char *label,
                pr_err *err)
{
    size_t need = weights_need_bytes(hp, first, end), at = 0;
    weights *w = calloc(1, sizeof *w);

    if (w) w->layer = calloc(end - first + 1, sizeof *w->layer);
    if (!w || !w->layer) {
        weights_free(w);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    w->hp = hp;
    w->first = first;
    w->end = end;
    if (need && mem_region_new(&w->region, need)) {
        weights_free(w);
        return pr_fail_errno(err, PR_ERESOURCE, "cannot get %zu bytes for the weights of layers %u..%u", need,
                             first, end);
    }
    for (uint32_t il = first; il < end; il++) {
        w->layer[il - first] = place_layer(w->region.p, &at, &hp->layer[il], p);
        log_progress("%s: layer %u of %u", label, il - first + 1, end - first);
    }
    log_progress("%s", "");
    *out = w;
    return PR_OK;
}

void weights_free(weights *w)
{
    if (!w) return;
    mem_region_free(&w->region);
    free(w->layer);
    free(w);
}

const layer_weights *weights_acquire(weights *w, uint32_t layer)
{
    return &w->layer[layer - w->first];
}

/* Resident weights are always ready: nothing to give back. */
void weights_release(weights *w, uint32_t layer)
{
    (void)w;
    (void)layer;
}

size_t weights_bytes(const weights *w)
{
    return w->region.n;
}
const char *weights_pages(const weights *w)
{
    return w->region.pages ? w->region.pages : "none";
}

int packed_matrix_new(packed_matrix *out, const gguf_tensor *t, pool *p, pr_err *err)
{
    size_t need = matrix_bytes(t);

    if (mem_region_new(&out->region, need))
        return pr_fail_errno(err, PR_ERESOURCE, "cannot get %zu bytes for %s", need, t->name);
    out->m = pack_matrix(t, out->region.p, p);
    return PR_OK;
}

void packed_matrix_free(packed_matrix *m)
{
    mem_region_free(&m->region);
    m->m = (matrix){0};
}
