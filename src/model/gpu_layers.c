/* Tensors of the file as the GPU's layers; see gpu_layers.h. */
#include "src/model/gpu_layers.h"
#include <stdio.h>
#include <stdlib.h>

static gpu_matrix matrix_of(const gguf_tensor *t)
{
    return (gpu_matrix){.type = t->type, .n_rows = t->ne[1], .n_cols = t->ne[0], .data = t->data};
}

static const float *vector_of(const gguf_tensor *t)
{
    return t ? (const float *)(const void *)t->data : NULL;
}

static gpu_layer layer_of(const layer_tensors *t)
{
    return (gpu_layer){.attn_norm = vector_of(t->attn_norm),
                       .ffn_norm = vector_of(t->ffn_norm),
                       .q_norm = vector_of(t->attn_q_norm),
                       .k_norm = vector_of(t->attn_k_norm),
                       .q_bias = vector_of(t->attn_q_bias),
                       .k_bias = vector_of(t->attn_k_bias),
                       .v_bias = vector_of(t->attn_v_bias),
                       .o_bias = vector_of(t->attn_output_bias),
                       .q = matrix_of(t->attn_q),
                       .k = matrix_of(t->attn_k),
                       .v = matrix_of(t->attn_v),
                       .o = matrix_of(t->attn_output),
                       .gate = matrix_of(t->ffn_gate),
                       .up = matrix_of(t->ffn_up),
                       .down = matrix_of(t->ffn_down)};
}

gpu_shape gpu_layers_shape(const hparams *hp, size_t n_layers)
{
    return (gpu_shape){.n_layers = n_layers,
                       .n_embd = hp->n_embd,
                       .n_heads = hp->n_heads,
                       .n_kv_heads = hp->n_kv_heads,
                       .head_size = hp->head_size,
                       .n_ff = hp->n_ff,
                       .n_rot = hp->n_rot,
                       .n_vocab = hp->n_vocab,
                       .rope_neox = hp->rope_neox,
                       .norm_eps = hp->norm_eps,
                       .attn_scale = hp->attn_scale};
}

/* What gpu_options point to. */
typedef struct {
    gpu_layer *layer;
    gpu_output output;
    gpu_options o;
} request;

static int make_request(request *r, const hparams *hp, const gpu_layers_options *o, pr_err *err)
{
    if (!(r->layer = calloc(o->n_layers + 1, sizeof *r->layer)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < o->n_layers; i++) r->layer[i] = layer_of(&hp->layer[o->layer[i]]);
    r->output = (gpu_output){vector_of(hp->output_norm), vector_of(hp->output_bias), matrix_of(hp->output)};
    r->o = (gpu_options){.gpu = o->gpu,
                         .shape = gpu_layers_shape(hp, o->n_layers),
                         .layer = r->layer,
                         .output = o->output ? &r->output : NULL,
                         .kv = o->kv,
                         .n_pages = o->n_pages,
                         .max_tokens = o->max_tokens,
                         .max_runs = o->max_runs,
                         .max_positions = o->max_positions,
                         .max_out = o->output ? o->max_out : 0,
                         .done_with = gguf_drop_pages};
    return PR_OK;
}

int gpu_layers_need(gpu_memory *out, const hparams *hp, const gpu_layers_options *o, pr_err *err)
{
    request r;
    int rc = make_request(&r, hp, o, err);

    if (rc) return rc;
    rc = gpu_need(out, &r.o, err);
    free(r.layer);
    return rc;
}

int gpu_layers_open(gpu_place **out, const hparams *hp, const gpu_layers_options *o, pool *p, pr_err *err)
{
    char label[64];
    request r;
    int rc = make_request(&r, hp, o, err);

    if (rc) return rc;
    snprintf(label, sizeof label, "packing for GPU %d", o->gpu);
    rc = gpu_open(out, &r.o, p, label, err);
    free(r.layer);
    return rc;
}
