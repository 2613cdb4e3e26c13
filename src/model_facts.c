/* GGUF header -> model_facts: sizes from the tensor directory, work from the shapes of the matrices. */
#include "src/model_facts.h"
#include "kernels/quant.h"
#include "src/model/hparams.h"
#include <stdio.h>
#include <string.h>

/* The entry of a weight type, made when it is the first of its kind; NULL: the table is full. */
static facts_work *work_of(model_facts *f, uint32_t type)
{
    const char *name = quant_info(type)->name;

    for (size_t i = 0; i < f->n_work; i++) {
        if (strcmp(f->work[i].type, name) == 0) return &f->work[i];
    }
    if (f->n_work == FACTS_MAX_TYPES) return NULL;
    snprintf(f->work[f->n_work].type, sizeof f->work->type, "%s", name);
    return &f->work[f->n_work++];
}

static void add_layer_work(model_facts *f, const gguf_tensor *t)
{
    facts_work *w = work_of(f, t->type);

    if (w) w->layer_elements += (double)t->ne[0] * (double)t->ne[1] / f->n_layers;
}

static void layer_facts(model_facts *f, const hparams *hp, uint32_t il)
{
    const layer_tensors *l = &hp->layer[il];
    const gguf_tensor *matrix[] = {l->attn_q,   l->attn_k, l->attn_v,  l->attn_output,
                                   l->ffn_gate, l->ffn_up, l->ffn_down};

    f->layer_bytes[il] = hparams_layer_bytes(hp, il, il + 1);
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) add_layer_work(f, matrix[i]);
}

static void end_facts(model_facts *f, const hparams *hp)
{
    facts_work *w = work_of(f, hp->output->type);

    f->input_bytes = hp->token_embd->n_bytes;
    f->input_row_bytes = quant_row_bytes(hp->token_embd->type, hp->token_embd->ne[0]);
    f->output_bytes =
        hp->output_norm->n_bytes + hp->output->n_bytes + (hp->output_bias ? hp->output_bias->n_bytes : 0);
    if (w) w->output_elements += (double)hp->output->ne[0] * (double)hp->output->ne[1];
}

static void copy_ascii(char *dst, size_t cap, const char *src)
{
    size_t i = 0;

    for (; i + 1 < cap && src[i]; i++) dst[i] = src[i] < ' ' || src[i] > '~' ? '?' : src[i];
    dst[i] = 0;
}

static int from_hparams(model_facts *f, const gguf *g, const hparams *hp, pr_err *err)
{
    if (hp->n_layers > FACTS_MAX_LAYERS)
        return pr_fail(err, PR_EINTEGRITY, "%u layers: prima plans models of at most %d",
                       (unsigned)hp->n_layers, FACTS_MAX_LAYERS);
    copy_ascii(f->name, sizeof f->name, hp->name);
    copy_ascii(f->quant, sizeof f->quant, hp->quant);
    snprintf(f->arch, sizeof f->arch, "%s", model_arch_name(hp->arch));
    f->n_layers = hp->n_layers;
    f->n_embd = hp->n_embd;
    f->n_ff = hp->n_ff;
    f->n_heads = hp->n_heads;
    f->n_kv_heads = hp->n_kv_heads;
    f->head_size = hp->head_size;
    f->n_vocab = hp->n_vocab;
    f->n_ctx_train = hp->n_ctx_train;
    f->file_bytes = gguf_file_bytes(g);
    gguf_header_sha256(g, f->header_sha256);
    for (uint32_t il = 0; il < hp->n_layers; il++) layer_facts(f, hp, il);
    end_facts(f, hp);
    return PR_OK;
}

int model_facts_read(model_facts *out, const char *path, pr_err *err)
{
    gguf *g;
    hparams hp = {0};
    int rc = gguf_open(&g, path, err);

    memset(out, 0, sizeof *out);
    if (rc) return rc;
    if ((rc = hparams_read(&hp, g, err)) || (rc = from_hparams(out, g, &hp, err))) pr_wrap(err, "%s", path);
    hparams_clear(&hp);
    gguf_close(g);
    return rc;
}
