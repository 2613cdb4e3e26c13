/* Layers on the GPU, launch by launch: the text-book transformer block of src/model/forward.c, where each
 * product's input is made by the kernel before it.
 *
 * The feed-forward branch of a layer is added where the next one is normed, and at the end by a norm without
 * output: the same additions in the same order, however the layers are spread over windows. */
#include "kernels/cuda/place.h"

typedef struct {
    gpu_place *g;
    const step_place *s;
    const layer_place *l;
    size_t n_tokens;
} work;

/* The kinds of an input that these products read. */
static gpu_acts for_products(const gpu_acts *x, const gpu_product *p, size_t n)
{
    gpu_acts wanted = *x;

    wanted.kinds = 0;
    for (size_t i = 0; i < n; i++) wanted.kinds |= 1u << gpu_act_for_type(p[i].type);
    return wanted;
}

static float *at(const gpu_place *g, uint64_t offset)
{
    return (float *)(void *)(g->memory + offset);
}

static cudaError_t multiply(const work *w, const gpu_product *p, size_t n, const gpu_acts *x)
{
    return launch_matmul(p, n, x, w->n_tokens, w->g->memory + w->g->map.scratch, w->g->stream);
}

/* hidden += branch + bias; the input of these products = norm(hidden). */
static cudaError_t norm(const work *w, bool add, const float *bias, const float *weight, const gpu_product *p,
                        size_t n)
{
    const gpu_place *g = w->g;
    gpu_norm_args a = {.hidden = w->s->hidden,
                       .branch = add ? at(g, g->map.branch) : NULL,
                       .branch_bias = bias,
                       .branch_stride = g->map.embd_stride,
                       .weight = weight,
                       .n_embd = g->shape.n_embd,
                       .n_tokens = w->n_tokens,
                       .eps = g->shape.norm_eps};
    gpu_acts out = for_products(&g->x, p, n);

    return launch_norm(&a, n ? &out : NULL, g->stream);
}

static cudaError_t rope(const work *w)
{
    const gpu_place *g = w->g;
    const gpu_map *m = &g->map;
    const gpu_shape *s = &g->shape;
    gpu_rope_args a = {.q = at(g, m->q),
                       .k = at(g, m->k),
                       .v = at(g, m->v),
                       .q_stride = m->q_stride,
                       .kv_stride = m->kv_stride,
                       .q_bias = w->l->vector[GPU_Q_BIAS],
                       .k_bias = w->l->vector[GPU_K_BIAS],
                       .v_bias = w->l->vector[GPU_V_BIAS],
                       .q_norm = w->l->vector[GPU_Q_NORM],
                       .k_norm = w->l->vector[GPU_K_NORM],
                       .n_heads = s->n_heads,
                       .n_kv_heads = s->n_kv_heads,
                       .head_size = s->head_size,
                       .n_rot = s->n_rot,
                       .neox = s->rope_neox,
                       .eps = s->norm_eps,
                       .type = g->kv,
                       .kv = w->l->kv,
                       .step = w->s->step,
                       .n_tokens = w->n_tokens};

    return launch_rope(&a, g->stream);
}

/* Sequences that decode, also beside prompts, are cut along the context, unless they are many. */
static size_t n_split(const work *w)
{
    const gpu_step_layout *l = &w->s->layout;

    return l->n_single <= w->g->map.split_tokens ? l->n_single : 0;
}

static cudaError_t attention(const work *w)
{
    const gpu_place *g = w->g;
    const gpu_map *m = &g->map;
    const gpu_shape *s = &g->shape;
    gpu_attention_args a = {.q = at(g, m->q),
                            .out = at(g, m->attn),
                            .q_stride = m->q_stride,
                            .out_stride = m->q_stride,
                            .n_heads = s->n_heads,
                            .n_kv_heads = s->n_kv_heads,
                            .head_size = s->head_size,
                            .scale = s->attn_scale,
                            .type = g->kv,
                            .kv = w->l->kv,
                            .step = w->s->step,
                            .n_tiles = w->s->layout.n_tiles,
                            .n_split = n_split(w),
                            .n_spans = w->s->layout.single_bucket,
                            .partial = at(g, m->partial)};

    return launch_attention(&a, g->stream);
}

static cudaError_t attention_part(const work *w, bool add)
{
    const gpu_place *g = w->g;
    const gpu_product *p = w->l->product;
    gpu_acts heads = for_products(&g->heads, &p[GPU_O], 1);
    cudaError_t e = norm(w, add, NULL, w->l->vector[GPU_ATTN_NORM], &p[GPU_Q], 3);

    if (!e) e = multiply(w, &p[GPU_Q], 3, &g->x);
    if (!e) e = rope(w);
    if (!e) e = attention(w);
    if (!e) e = launch_act(&heads, at(g, g->map.attn), g->map.q_stride, w->n_tokens, g->stream);
    return e ? e : multiply(w, &p[GPU_O], 1, &g->heads);
}

static cudaError_t feed_forward_part(const work *w)
{
    const gpu_place *g = w->g;
    const gpu_product *p = w->l->product;
    gpu_acts ff = for_products(&g->ff, &p[GPU_DOWN], 1);
    cudaError_t e = norm(w, true, w->l->vector[GPU_O_BIAS], w->l->vector[GPU_FFN_NORM], &p[GPU_GATE], 2);

    if (!e) e = multiply(w, &p[GPU_GATE], 2, &g->x);
    if (!e)
        e = launch_silu(&ff, at(g, g->map.gate), at(g, g->map.up), g->map.ff_stride, w->n_tokens, g->stream);
    return e ? e : multiply(w, &p[GPU_DOWN], 1, &g->ff);
}

cudaError_t place_launch(gpu_place *g, size_t first, size_t n, const step_place *s)
{
    work w = {.g = g, .s = s, .n_tokens = s->layout.n_tokens};
    cudaError_t e = cudaSuccess;

    for (size_t i = 0; i < n && !e; i++) {
        w.l = &g->layer[first + i];
        e = attention_part(&w, i > 0);
        if (!e) e = feed_forward_part(&w);
    }
    return e ? e : norm(&w, true, NULL, NULL, NULL, 0);
}
