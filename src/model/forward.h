/* The forward pass: embed, layer windows, head.
 *
 * forward(window, batch, hidden): hidden states in, hidden states out. One machine is one window that holds
 * all layers; several windows, on one device or many, give the same bits. hidden is [n_tokens][n_embd] f32,
 * row-major. */
#ifndef PRIMA_MODEL_FORWARD_H
#define PRIMA_MODEL_FORWARD_H
#include "kernels/cuda.h"
#include "src/model/batch.h"
#include "src/model/exec.h"
#include "src/model/kv.h"

/* Work buffers and threads of a device, shared by its windows (which run one after another). */
typedef struct workspace workspace;
typedef struct {
    size_t max_tokens; /* of a batch */
    size_t max_out;    /* rows of one head_logits call; 0: it is not called */
    bool has_layers;   /* windows have layers on the CPU, not only on GPUs */
} workspace_size;
/* Takes what these need and no more. k and p are borrowed. */
int workspace_new(workspace **out, const hparams *hp, const kernel_table *k, pool *p,
                  const workspace_size *size, pr_err *err);
void workspace_free(workspace *ws);
size_t workspace_need_bytes(const hparams *hp, int n_threads, const workspace_size *size);
const exec *workspace_exec(const workspace *ws);

/* Layers of a window on a GPU: [first, first + n) of those that the place has. */
typedef struct {
    gpu_place *place;
    size_t first, n;
} gpu_part;

/* Layers [first, end) on the CPU: their weights and their KV cache. Before them those on GPUs, part after
 * part. */
typedef struct {
    const hparams *hp;
    weights *w;
    kv_cache kv;
    uint32_t first, end;
    const gpu_part *part; /* [n_parts], borrowed; set after window_init */
    size_t n_parts;
} window;

/* w: of these layers; the window's from here on, also after an error. */
int window_init(window *win, const hparams *hp, uint32_t first, uint32_t end, kv_type kv, size_t n_pages,
                weights *w, pr_err *err);
void window_clear(window *win);
/* hidden is transformed in place; the batch's pages get the new keys and values. n_tokens <= the workspace's
 * max_tokens. Fails only where weights are read ahead, when they cannot be read (PR_ERESOURCE,
 * PR_EINTEGRITY), and where a GPU is lost (PR_ERESOURCE). */
int window_forward(window *win, workspace *ws, const batch *b, float *hidden, pr_err *err);

/* What the head of the ring does beside its windows: token embedding before the first layer; final norm and
 * output projection after the last. */
typedef struct {
    const hparams *hp;
    packed_matrix output; /* empty where a GPU has it */
} head;

/* with_output: false where the output projection is elsewhere; head_logits is then not called. */
int head_init(head *h, const hparams *hp, bool with_output, pool *p, pr_err *err);
void head_clear(head *h);
void head_embed(const head *h, workspace *ws, const batch *b, float *hidden);
/* Logits of rows[n_rows] of hidden (n_rows <= max_out): logits row i starts at i * head_logits_stride. */
void head_logits(const head *h, workspace *ws, const float *hidden, const int32_t *rows, size_t n_rows,
                 float *logits);
size_t head_logits_stride(const hparams *hp); /* n_vocab rounded up to PACK_ROWS */

#endif
