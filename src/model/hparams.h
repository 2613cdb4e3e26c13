/* The checked shape of a model: metadata and tensor directory -> everything that forward, plan and KV need to
 * know. Architectures: llama, qwen2, qwen3; anything else is refused by name. */
#ifndef PRIMA_MODEL_HPARAMS_H
#define PRIMA_MODEL_HPARAMS_H
#include "src/model/gguf.h"

typedef enum { ARCH_LLAMA, ARCH_QWEN2, ARCH_QWEN3 } model_arch;

/* Tensors of one layer; NULL = the model has none. Shapes are verified by hparams_read: weight[out rows][in
 * cols]. */
typedef struct {
    const gguf_tensor *attn_norm;                /* [D] f32 */
    const gguf_tensor *attn_q, *attn_k, *attn_v; /* [H*S][D], [K*S][D], [K*S][D] */
    const gguf_tensor *attn_q_bias, *attn_k_bias, *attn_v_bias, *attn_output_bias; /* optional, f32 */
    const gguf_tensor *attn_q_norm, *attn_k_norm;                                  /* [S] f32, qwen3 */
    const gguf_tensor *attn_output;                                                /* [D][H*S] */
    const gguf_tensor *ffn_norm;                                                   /* [D] f32 */
    const gguf_tensor *ffn_gate, *ffn_up;                                          /* [F][D] */
    const gguf_tensor *ffn_down;                                                   /* [D][F] */
} layer_tensors;

typedef struct {
    model_arch arch;
    char name[128]; /* general.name, or the file's base name */
    char quant[16]; /* general.file_type as llama.cpp names it ("Q4_K_M"), else the commonest weight type */
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_size, n_ff, n_vocab, n_ctx_train;
    uint32_t n_rot; /* rotated dims of a head, even */
    bool rope_neox; /* qwen2, qwen3 */
    float norm_eps;
    float attn_scale; /* 1/sqrt(head_size) */
    /* Rotary frequencies of dim pair i: cos/sin(pos * rope_freq[i]) * rope_mscale; linear and YaRN scaling
     * and rope_freqs.weight are already in (n_rot / 2 values). */
    float *rope_freq;
    float rope_mscale;
    /* Where they come from, for people. */
    float rope_base, rope_factor;   /* factor 1: not scaled */
    const char *rope_scaling;       /* "none", "linear", "yarn" */
    bool rope_divided;              /* by rope_freqs.weight */
    layer_tensors *layer;           /* [n_layers] */
    const gguf_tensor *token_embd;  /* [V][D] */
    const gguf_tensor *output_norm; /* [D] f32 */
    const gguf_tensor *output;      /* [V][D]; == token_embd when tied */
    const gguf_tensor *output_bias; /* optional */
} hparams;

/* The tensors pointed to belong to g, which must outlive *hp. PR_EINTEGRITY names key or tensor, found and
 * expected (not the file: the caller knows it). A tensor blk.N.* that prima would not compute with is
 * refused, other unknown tensors are ignored. On failure *hp is cleared. */
int hparams_read(hparams *hp, const gguf *g, pr_err *err);
void hparams_clear(hparams *hp);

const char *model_arch_name(model_arch a);
/* File bytes of all tensors of layers [first, end); of what comes before and after the layers (a tied matrix
 * counts once). */
uint64_t hparams_layer_bytes(const hparams *hp, uint32_t first, uint32_t end);
uint64_t hparams_output_bytes(const hparams *hp);

#endif
