/* The one block of VRAM, cut in parts one after another; see gpu_map.h. Weights first, each matrix in its GPU
 * pack, then KV pages of each layer, then work buffers. What is not alive at the same time shares a place. */
#include "kernels/gpu_map.h"
#include "kernels/gpu_pack.h"
#include "kernels/gpu_step.h"
#include "src/base/mem.h"
#include <stdlib.h>

const float *gpu_layer_vector(const gpu_layer *l, gpu_vector v)
{
    const float *const all[GPU_VECTORS] = {l->attn_norm, l->ffn_norm, l->q_norm, l->k_norm,
                                           l->q_bias,    l->k_bias,   l->v_bias, l->o_bias};
    return all[v];
}

size_t gpu_vector_length(const gpu_shape *s, gpu_vector v)
{
    switch (v) {
    case GPU_Q_NORM:
    case GPU_K_NORM: return s->head_size;
    case GPU_Q_BIAS: return s->n_heads * s->head_size;
    case GPU_K_BIAS:
    case GPU_V_BIAS: return s->n_kv_heads * s->head_size;
    default: return s->n_embd;
    }
}

const gpu_matrix *gpu_layer_matrix(const gpu_layer *l, gpu_matrix_name m)
{
    const gpu_matrix *const all[GPU_MATRICES] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    return all[m];
}

/* --- what cannot be done ----------------------------------------------------------------------------- */
static int check_shape(const gpu_options *o, pr_err *err)
{
    const gpu_shape *s = &o->shape;

    if (o->kv != KV_F16 && o->kv != KV_Q8_0)
        return pr_fail(err, PR_EUSAGE, "layers on a GPU need an f16 or q8_0 KV cache: use --kv-type f16");
    if (!s->head_size || s->head_size % 8 || s->head_size > GPU_MAX_HEAD)
        return pr_fail(
            err, PR_EUSAGE,
            "heads of %zu values cannot be computed on a GPU (multiples of 8 up to %d can): run this "
            "model without GPU layers",
            s->head_size, GPU_MAX_HEAD);
    if (o->kv == KV_Q8_0 && s->head_size % 32)
        return pr_fail(
            err, PR_EUSAGE,
            "KV type q8_0 needs a head size that is a multiple of 32, this model has %zu: use --kv-type f16",
            s->head_size);
    if (!s->n_kv_heads || s->n_heads % s->n_kv_heads || s->n_heads / s->n_kv_heads > GPU_MAX_GROUP)
        return pr_fail(err, PR_EUSAGE,
                       "%zu query heads on %zu key and value heads cannot be computed on a GPU (up to %d on "
                       "each can): run this model without GPU layers",
                       s->n_heads, s->n_kv_heads, GPU_MAX_GROUP);
    if (s->n_embd > GPU_MAX_EMBD)
        return pr_fail(err, PR_EUSAGE,
                       "embeddings of %zu values cannot be computed on a GPU (up to %d can): run this model "
                       "without GPU layers",
                       s->n_embd, GPU_MAX_EMBD);
    if (s->n_rot % 2 || s->n_rot > s->head_size)
        return pr_fail(err, PR_EUSAGE, "%zu rotated values in heads of %zu: expected an even number of them",
                       s->n_rot, s->head_size);
    return PR_OK;
}

static int check_batch(const gpu_options *o, pr_err *err)
{
    size_t most = o->max_tokens > o->max_out ? o->max_tokens : o->max_out;

    if (o->max_tokens && most <= GPU_MAX_TOKENS) return PR_OK;
    return pr_fail(err, PR_EUSAGE, "batches of %zu tokens on a GPU: expected 1 to %d: lower --micro-batch",
                   most, GPU_MAX_TOKENS);
}

/* --- parts one after another ------------------------------------------------------------------------- */
typedef struct {
    uint64_t end, largest, largest_group; /* the largest matrix, the largest group of rows */
    pr_err *err;
    int rc;
} cutter;

static uint64_t cut(cutter *c, uint64_t bytes)
{
    uint64_t at = c->end;

    c->end += MEM_ALIGN_UP(bytes, (uint64_t)GPU_ALIGN);
    return at;
}

static uint64_t cut_floats(cutter *c, size_t rows, size_t width)
{
    return cut(c, (uint64_t)rows * width * sizeof(float));
}

static uint64_t more(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t cut_matrix(cutter *c, const gpu_matrix *m)
{
    uint64_t bytes = gpu_pack_bytes(m->type, m->n_rows, m->n_cols);
    const quant_type *t = quant_info(m->type);

    c->largest = more(c->largest, bytes);
    c->largest_group = more(c->largest_group, gpu_pack_group_bytes(m->type, m->n_cols));

    if (!bytes && !c->rc)
        c->rc =
            pr_fail(c->err, PR_EUSAGE, "weights of type %s in rows of %zu values cannot be computed on a GPU",
                    t ? t->name : "(unknown)", m->n_cols);
    return cut(c, bytes);
}

static void cut_weights(gpu_map *m, cutter *c, const gpu_options *o)
{
    for (size_t i = 0; i < o->shape.n_layers; i++) {
        const gpu_layer *l = &o->layer[i];
        for (gpu_vector v = 0; v < GPU_VECTORS; v++)
            m->layer[i].vector[v] =
                gpu_layer_vector(l, v) ? cut_floats(c, 1, gpu_vector_length(&o->shape, v)) : GPU_NOWHERE;
        for (gpu_matrix_name x = 0; x < GPU_MATRICES; x++)
            m->layer[i].matrix[x] = cut_matrix(c, gpu_layer_matrix(l, x));
    }
    if (!o->output) return;
    m->output_norm = cut_floats(c, 1, o->shape.n_embd);
    m->output_bias = o->output->bias ? cut_floats(c, 1, o->shape.n_vocab) : GPU_NOWHERE;
    m->output_matrix = cut_matrix(c, &o->output->matrix);
}

static void cut_kv(gpu_map *m, cutter *c, const gpu_options *o)
{
    uint64_t bytes =
        (uint64_t)gpu_kv_page_bytes(o->kv, o->shape.head_size) * o->shape.n_kv_heads * o->n_pages;

    for (size_t i = 0; i < o->shape.n_layers; i++) m->layer[i].kv = cut(c, bytes);
}

/* Which kinds of input the products of a row of matrices read. */
static unsigned kinds_of(const gpu_layer *l, gpu_matrix_name first, gpu_matrix_name last)
{
    unsigned kinds = 0;

    for (gpu_matrix_name x = first; x <= last; x++)
        kinds |= 1u << gpu_act_for_type(gpu_layer_matrix(l, x)->type);
    return kinds;
}

static uint64_t scratch_of(const gpu_matrix *x)
{
    return gpu_matmul_scratch(x->type, x->n_rows, x->n_cols);
}

/* The kinds of all layers, and the largest work memory of a product. */
static uint64_t look_at_products(gpu_map *m, const gpu_options *o)
{
    uint64_t scratch = 0;

    for (size_t i = 0; i < o->shape.n_layers; i++) {
        const gpu_layer *l = &o->layer[i];
        m->x_kinds |= kinds_of(l, GPU_Q, GPU_V) | kinds_of(l, GPU_GATE, GPU_UP);
        m->heads_kinds |= kinds_of(l, GPU_O, GPU_O);
        m->ff_kinds |= kinds_of(l, GPU_DOWN, GPU_DOWN);
        for (gpu_matrix_name x = 0; x < GPU_MATRICES; x++)
            scratch = more(scratch, scratch_of(gpu_layer_matrix(l, x)));
    }
    if (!o->output) return scratch;
    m->x_kinds |= 1u << gpu_act_for_type(o->output->matrix.type);
    return more(scratch, scratch_of(&o->output->matrix));
}

/* q, k, v and the result of attention are done with when gate and up are made. */
static void cut_layer_buffers(gpu_map *m, cutter *c, size_t T)
{
    cutter again = *c;

    m->q = cut_floats(c, T, m->q_stride);
    m->k = cut_floats(c, T, m->kv_stride);
    m->v = cut_floats(c, T, m->kv_stride);
    m->attn = cut_floats(c, T, m->q_stride);
    m->gate = cut_floats(&again, T, m->ff_stride);
    m->up = cut_floats(&again, T, m->ff_stride);
    c->end = more(c->end, again.end);
}

static void cut_buffers(gpu_map *m, cutter *c, const gpu_options *o)
{
    const gpu_shape *s = &o->shape;
    size_t T = o->max_tokens, D = s->n_embd, heads = s->n_heads * s->head_size;
    uint64_t scratch = look_at_products(m, o);

    m->step_bytes = (size_t)(MEM_ALIGN_UP(m->rows * D * sizeof(float), (size_t)GPU_ALIGN) +
                             gpu_step_most_bytes(s, T, o->max_runs, m->max_pages));
    m->step = cut(c, m->step_bytes);
    m->x = cut(c, gpu_acts_bytes(D, m->rows, m->x_kinds));
    if (o->output) m->logits = cut_floats(c, o->max_out, m->logits_stride);
    m->scratch = cut(c, scratch);
    if (!s->n_layers) return;
    m->heads = cut(c, gpu_acts_bytes(heads, T, m->heads_kinds));
    m->ff = cut(c, gpu_acts_bytes(s->n_ff, T, m->ff_kinds));
    cut_layer_buffers(m, c, T);
    m->branch = cut_floats(c, T, m->embd_stride);
    m->partial = cut(c, m->split_tokens
                            ? gpu_attention_scratch(m->split_tokens, s->n_heads, s->head_size, m->max_spans)
                            : 0);
}

static size_t padded(size_t n)
{
    return MEM_ALIGN_UP(n, (size_t)GPU_PACK_ROWS);
}

static void measure(gpu_map *m, const gpu_options *o)
{
    const gpu_shape *s = &o->shape;
    size_t split = GPU_SPLIT_BLOCKS / s->n_kv_heads;

    m->q_stride = padded(s->n_heads * s->head_size);
    m->kv_stride = padded(s->n_kv_heads * s->head_size);
    m->ff_stride = padded(s->n_ff);
    m->embd_stride = padded(s->n_embd);
    m->logits_stride = padded(s->n_vocab);
    m->rows = o->output && o->max_out > o->max_tokens ? o->max_out : o->max_tokens;
    m->max_pages = (o->max_positions + KV_PAGE - 1) / KV_PAGE;
    m->max_spans = (o->max_positions + GPU_ATTN_SPAN - 1) / GPU_ATTN_SPAN;
    m->split_tokens = split < o->max_runs ? split : o->max_runs;
}

/* Whole groups of rows go into a buffer. */
static uint64_t stage_of(const cutter *c)
{
    return more(c->largest < GPU_STAGE_BYTES ? c->largest : GPU_STAGE_BYTES, c->largest_group);
}

int gpu_map_init(gpu_map *m, const gpu_options *o, pr_err *err)
{
    cutter c = {.err = err};
    int rc;

    *m = (gpu_map){.output_norm = GPU_NOWHERE, .output_bias = GPU_NOWHERE, .output_matrix = GPU_NOWHERE};
    if ((rc = check_shape(o, err)) || (rc = check_batch(o, err))) return rc;
    if (!(m->layer = calloc(o->shape.n_layers + 1, sizeof *m->layer)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    measure(m, o);
    cut_weights(m, &c, o);
    m->bytes.weights = c.end;
    cut_kv(m, &c, o);
    m->bytes.kv = c.end - m->bytes.weights;
    if (!c.rc) cut_buffers(m, &c, o);
    m->bytes.buffers = c.end - m->bytes.weights - m->bytes.kv;
    m->bytes.total = c.end;
    m->stage_bytes = (size_t)stage_of(&c);
    m->bytes.loading = (uint64_t)GPU_STAGES * m->stage_bytes;
    m->bytes.host = m->step_bytes + (o->output ? o->max_out * m->logits_stride * sizeof(float) : 0);
    if (c.rc) gpu_map_clear(m);
    return c.rc;
}

void gpu_map_clear(gpu_map *m)
{
    free(m->layer);
    m->layer = NULL;
}
