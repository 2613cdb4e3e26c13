/* Metadata and tensor directory -> the checked shape of a model.
 *
 * The first error sticks in the reader and every later step does nothing, so the steps just follow each
 * other: architecture, sizes, rotary embedding (hparams_rope.c), tensors, names. What the tensors of a layer
 * are called, how large they must be and which architecture needs them stands in one table. A tensor of a
 * layer that prima would not compute with is refused: leaving it out would give wrong results without a word.
 */
#include "kernels/quant.h"
#include "src/base/log.h"
#include "src/model/hparams_impl.h"
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- architecture and sizes ------------------------------------------------------------------ */

static const char *const arch_names[] = {
    [ARCH_LLAMA] = "llama", [ARCH_QWEN2] = "qwen2", [ARCH_QWEN3] = "qwen3"};
enum { N_ARCHS = sizeof arch_names / sizeof *arch_names };

const char *model_arch_name(model_arch a)
{
    return arch_names[a];
}

static void read_arch(hp_reader *r)
{
    gguf_str s;
    char *shown;

    if (!gguf_string(r->g, "general.architecture", &s, &r->err)) {
        hp_bad(r, "key general.architecture is missing");
        return;
    }
    for (int a = 0; a < N_ARCHS; a++) {
        if (strlen(arch_names[a]) != s.n || memcmp(arch_names[a], s.p, s.n) != 0) continue;
        r->hp->arch = (model_arch)a;
        r->hp->rope_neox = a != ARCH_LLAMA;
        r->arch = arch_names[a];
        return;
    }
    shown = gguf_text(s, 64);
    hp_bad(r, "architecture \"%s\" is not supported; prima runs llama, qwen2 and qwen3", shown ? shown : "?");
    free(shown);
}

static void read_head_size(hp_reader *r)
{
    hparams *hp = r->hp;
    uint32_t k = hp_opt_u32(r, "attention.key_length", 0, 1, 4096),
             v = hp_opt_u32(r, "attention.value_length", 0, 1, 4096);

    if (!hp_ok(r)) return;
    if ((k == 0 || v == 0) && hp->n_embd % hp->n_heads) {
        hp_bad(r,
               "embedding length %" PRIu32 " is no multiple of the %" PRIu32
               " heads and no head size is given",
               hp->n_embd, hp->n_heads);
        return;
    }
    if (k == 0) k = hp->n_embd / hp->n_heads;
    if (v == 0) v = hp->n_embd / hp->n_heads;
    if (k != v)
        hp_bad(r, "key head size %" PRIu32 " and value head size %" PRIu32 " differ; prima needs them equal",
               k, v);
    hp->head_size = k;
    hp->attn_scale = 1.0f / sqrtf((float)k);
}

static void read_sizes(hp_reader *r)
{
    hparams *hp = r->hp;
    uint32_t n_experts = hp_opt_u32(r, "expert_count", 0, 0, UINT32_MAX);

    if (n_experts > 0)
        hp_bad(r, "a mixture-of-experts model (%s.expert_count %" PRIu32 ") is not supported", r->arch,
               n_experts);
    hp->n_layers = hp_need_u32(r, "block_count", 1, 1000);
    hp->n_ctx_train = hp_need_u32(r, "context_length", 1, 1u << 27);
    hp->n_embd = hp_need_u32(r, "embedding_length", 1, 1u << 20);
    hp->n_ff = hp_need_u32(r, "feed_forward_length", 1, 1u << 22);
    hp->n_heads = hp_need_u32(r, "attention.head_count", 1, 4096);
    hp->n_kv_heads = hp_opt_u32(r, "attention.head_count_kv", hp->n_heads, 1, hp->n_heads);
    if (!hp_ok(r)) return;
    if (hp->n_heads % hp->n_kv_heads)
        hp_bad(r, "%" PRIu32 " heads cannot be shared evenly by %" PRIu32 " key/value heads", hp->n_heads,
               hp->n_kv_heads);
    read_head_size(r);
    hp->norm_eps = hp_opt_f32(r, "attention.layer_norm_rms_epsilon", NAN, HP_ABOVE_ZERO, 1);
    if (isnan(hp->norm_eps)) hp_bad(r, "key %s.attention.layer_norm_rms_epsilon is missing", r->arch);
}

/* --- tensors --------------------------------------------------------------------------------- */

/* "64 x 172 x 1": sizes in the file's order, row length first. */
static const char *shape_text(char out[96], const gguf_tensor *t)
{
    int n = snprintf(out, 96, "%" PRIu64, t->ne[0]);

    for (uint32_t d = 1; d < t->n_dims; d++)
        n += snprintf(out + n, (size_t)(96 - n), " x %" PRIu64, t->ne[d]);
    return out;
}

const gguf_tensor *hp_tensor(hp_reader *r, const char *name, uint64_t cols, uint64_t rows, bool required)
{
    const gguf_tensor *t = hp_ok(r) ? gguf_tensor_find(r->g, name) : NULL;
    char shape[96];

    if (!t) {
        if (required) hp_bad(r, "tensor %s is missing", name);
        return NULL;
    }
    if (t->ne[0] != cols || t->ne[1] != (rows ? rows : 1) || t->ne[2] != 1 || t->ne[3] != 1) {
        shape_text(shape, t);
        if (rows) hp_bad(r, "tensor %s is %s, expected %" PRIu64 " x %" PRIu64, name, shape, cols, rows);
        else hp_bad(r, "tensor %s is %s, expected %" PRIu64, name, shape, cols);
        return NULL;
    }
    if (!rows && t->type != Q_F32) {
        hp_bad(r, "tensor %s is of type %s, expected F32", name, quant_info(t->type)->name);
        return NULL;
    }
    r->used[t - gguf_tensor_at(r->g, 0)] = true;
    return t;
}

/* What a width is: nothing (the tensor is a vector), D, H*S, K*S, S, or the feed-forward width. */
typedef enum { DIM_VECTOR, DIM_D, DIM_Q, DIM_KV, DIM_S, DIM_F } dim;
/* Sets of architectures. */
enum {
    LLAMA = 1 << ARCH_LLAMA,
    QWEN2 = 1 << ARCH_QWEN2,
    QWEN3 = 1 << ARCH_QWEN3,
    ALL = LLAMA | QWEN2 | QWEN3
};

/* The tensors of a layer: blk.N.NAME, [rows][cols], which architectures may have and which must have them. */
static const struct layer_tensor {
    const char *name;
    size_t field;
    dim rows, cols;
    unsigned may, must;
} layer_table[] = {
    {"attn_norm.weight", offsetof(layer_tensors, attn_norm), DIM_VECTOR, DIM_D, ALL, ALL},
    {"attn_q.weight", offsetof(layer_tensors, attn_q), DIM_Q, DIM_D, ALL, ALL},
    {"attn_k.weight", offsetof(layer_tensors, attn_k), DIM_KV, DIM_D, ALL, ALL},
    {"attn_v.weight", offsetof(layer_tensors, attn_v), DIM_KV, DIM_D, ALL, ALL},
    {"attn_q.bias", offsetof(layer_tensors, attn_q_bias), DIM_VECTOR, DIM_Q, ALL, QWEN2},
    {"attn_k.bias", offsetof(layer_tensors, attn_k_bias), DIM_VECTOR, DIM_KV, ALL, QWEN2},
    {"attn_v.bias", offsetof(layer_tensors, attn_v_bias), DIM_VECTOR, DIM_KV, ALL, QWEN2},
    {"attn_output.bias", offsetof(layer_tensors, attn_output_bias), DIM_VECTOR, DIM_D, ALL, 0},
    {"attn_q_norm.weight", offsetof(layer_tensors, attn_q_norm), DIM_VECTOR, DIM_S, QWEN3, QWEN3},
    {"attn_k_norm.weight", offsetof(layer_tensors, attn_k_norm), DIM_VECTOR, DIM_S, QWEN3, QWEN3},
    {"attn_output.weight", offsetof(layer_tensors, attn_output), DIM_D, DIM_Q, ALL, ALL},
    {"ffn_norm.weight", offsetof(layer_tensors, ffn_norm), DIM_VECTOR, DIM_D, ALL, ALL},
    {"ffn_gate.weight", offsetof(layer_tensors, ffn_gate), DIM_F, DIM_D, ALL, ALL},
    {"ffn_up.weight", offsetof(layer_tensors, ffn_up), DIM_F, DIM_D, ALL, ALL},
    {"ffn_down.weight", offsetof(layer_tensors, ffn_down), DIM_D, DIM_F, ALL, ALL},
};
enum { LAYER_TABLE = sizeof layer_table / sizeof *layer_table };
_Static_assert(LAYER_TABLE * sizeof(gguf_tensor *) == sizeof(layer_tensors),
               "every field of layer_tensors has a row");

static uint64_t width(const hparams *hp, dim d)
{
    switch (d) {
    case DIM_D: return hp->n_embd;
    case DIM_Q: return (uint64_t)hp->n_heads * hp->head_size;
    case DIM_KV: return (uint64_t)hp->n_kv_heads * hp->head_size;
    case DIM_S: return hp->head_size;
    case DIM_F: return hp->n_ff;
    case DIM_VECTOR: break;
    }
    return 0;
}

static const gguf_tensor **layer_field(const layer_tensors *l, const struct layer_tensor *row)
{
    return (const gguf_tensor **)((const char *)l + row->field);
}

static void read_layers(hp_reader *r)
{
    hparams *hp = r->hp;
    unsigned arch = 1u << hp->arch;
    char name[64];

    if (!hp_ok(r)) return;
    if (!(hp->layer = calloc(hp->n_layers, sizeof *hp->layer))) {
        pr_fail(&r->err, PR_ERESOURCE, "out of memory for %" PRIu32 " layers", hp->n_layers);
        return;
    }
    for (uint32_t il = 0; il < hp->n_layers && hp_ok(r); il++) {
        for (int i = 0; i < LAYER_TABLE; i++) {
            const struct layer_tensor *row = &layer_table[i];

            if (!(row->may & arch)) continue;
            snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", il, row->name);
            *layer_field(&hp->layer[il], row) =
                hp_tensor(r, name, width(hp, row->cols), width(hp, row->rows), (row->must & arch) != 0);
        }
    }
}

/* The token list and the embedding must agree; without a list (no tokenizer) the embedding's rows count. */
static void read_vocab_size(hp_reader *r)
{
    hparams *hp = r->hp;
    const gguf_tensor *t = hp_ok(r) ? gguf_tensor_find(r->g, "token_embd.weight") : NULL;
    gguf_array tokens;

    if (!hp_ok(r)) return;
    if (gguf_get_array(r->g, "tokenizer.ggml.tokens", &tokens, &r->err)) {
        if (tokens.n < 1 || tokens.n > (1u << 24))
            hp_bad(r, "tokenizer.ggml.tokens has %zu entries, expected 1..%u", tokens.n, 1u << 24);
        else hp->n_vocab = (uint32_t)tokens.n;
    } else if (hp_ok(r) && t) {
        if (t->ne[1] > (1u << 24))
            hp_bad(r, "token_embd.weight has %" PRIu64 " rows, expected 1..%u", t->ne[1], 1u << 24);
        else hp->n_vocab = (uint32_t)t->ne[1];
    }
    if (t && t->ne[1] != hp->n_vocab)
        hp_bad(r, "the vocabulary has %" PRIu32 " tokens, but token_embd.weight has %" PRIu64 " rows",
               hp->n_vocab, t->ne[1]);
}

static void read_ends(hp_reader *r)
{
    hparams *hp = r->hp;

    read_vocab_size(r);
    hp->token_embd = hp_tensor(r, "token_embd.weight", hp->n_embd, hp->n_vocab, true);
    hp->output_norm = hp_tensor(r, "output_norm.weight", hp->n_embd, 0, true);
    hp->output = hp_tensor(r, "output.weight", hp->n_embd, hp->n_vocab, false);
    hp->output_bias = hp_tensor(r, "output.bias", hp->n_vocab, 0, false);
    if (!hp->output) hp->output = hp->token_embd;
}

/* The first converters stored the rotary frequencies in each layer; they follow from the keys. */
static bool is_redundant(const char *name)
{
    return strstr(name, ".attn_rot_embd") != NULL;
}

static void check_unused(hp_reader *r)
{
    size_t n = hp_ok(r) ? gguf_n_tensors(r->g) : 0;

    for (size_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(r->g, i);
        char *shown;

        if (r->used[i]) continue;
        shown = gguf_text((gguf_str){t->name, strlen(t->name)}, sizeof t->name);
        if (strncmp(t->name, "blk.", 4) == 0 && !is_redundant(t->name)) {
            hp_bad(r, "tensor %s is not part of a %s model of %" PRIu32 " layers as prima computes it",
                   shown ? shown : "?", r->arch, r->hp->n_layers);
            free(shown);
            return;
        }
        log_debug("tensor %s is not used", shown ? shown : "?");
        free(shown);
    }
}

/* --- names ----------------------------------------------------------------------------------- */

/* general.file_type, numbered as in llama.cpp's llama_ftype. */
static const char *const file_types[] = {
    [0] = "F32",     [1] = "F16",     [2] = "Q4_0",     [3] = "Q4_1",    [7] = "Q8_0",     [8] = "Q5_0",
    [9] = "Q5_1",    [10] = "Q2_K",   [11] = "Q3_K_S",  [12] = "Q3_K_M", [13] = "Q3_K_L",  [14] = "Q4_K_S",
    [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",  [18] = "Q6_K",   [19] = "IQ2_XXS", [20] = "IQ2_XS",
    [21] = "Q2_K_S", [22] = "IQ3_XS", [23] = "IQ3_XXS", [24] = "IQ1_S",  [25] = "IQ4_NL",  [26] = "IQ3_S",
    [27] = "IQ3_M",  [28] = "IQ2_S",  [29] = "IQ2_M",   [30] = "IQ4_XS", [31] = "IQ1_M",   [32] = "BF16",
};
enum { N_FILE_TYPES = sizeof file_types / sizeof *file_types, FILE_TYPE_GUESSED = 1024 };

/* The type that most bytes of the file are in. */
static const char *commonest_type(const gguf *g)
{
    uint64_t n_bytes[Q_TYPE_COUNT] = {0};
    uint32_t best = Q_F32;

    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        n_bytes[gguf_tensor_at(g, i)->type] += gguf_tensor_at(g, i)->n_bytes;
    for (uint32_t t = 0; t < Q_TYPE_COUNT; t++) {
        if (n_bytes[t] > n_bytes[best]) best = t;
    }
    return quant_info(best)->name;
}

static void read_quant(hp_reader *r)
{
    const char *name = NULL;
    uint32_t type;

    if (gguf_u32(r->g, "general.file_type", &type, NULL)) {
        type &= ~(uint32_t)FILE_TYPE_GUESSED;
        name = type < N_FILE_TYPES ? file_types[type] : NULL;
    }
    snprintf(r->hp->quant, sizeof r->hp->quant, "%s", name ? name : commonest_type(r->g));
}

static void read_name(hp_reader *r)
{
    char *name = r->hp->name;
    const char *path = gguf_part_path(r->g, 0), *slash = strrchr(path, '/');
    gguf_str s = {slash ? slash + 1 : path, 0};
    char *text;
    size_t n;

    if (!gguf_string(r->g, "general.name", &s, NULL) || s.n == 0) {
        s = (gguf_str){slash ? slash + 1 : path, 0};
        s.n = strlen(s.p);
        if (s.n > 5 && strcmp(s.p + s.n - 5, ".gguf") == 0) s.n -= 5;
    }
    text = gguf_text(s, sizeof r->hp->name);
    n = text ? strlen(text) : 0;
    if (n > sizeof r->hp->name - 1) {
        n = sizeof r->hp->name - 1;
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) n--; /* no half character */
    }
    memcpy(name, text ? text : "", n);
    name[n] = 0;
    free(text);
}

/* --- together -------------------------------------------------------------------------------- */

int hparams_read(hparams *hp, const gguf *g, pr_err *err)
{
    size_t n = gguf_n_tensors(g);
    hp_reader r = {.g = g, .arch = "", .hp = hp, .used = calloc(n ? n : 1, sizeof *r.used)};

    *hp = (hparams){0};
    if (!r.used) return pr_fail(err, PR_ERESOURCE, "out of memory for %zu tensors", n);
    read_arch(&r);
    read_sizes(&r);
    hp_read_rope(&r);
    read_ends(&r);
    read_layers(&r);
    check_unused(&r);
    free(r.used);
    if (!hp_ok(&r)) {
        hparams_clear(hp);
        return pr_fail(err, r.err.code, "%s", r.err.msg);
    }
    read_quant(&r);
    read_name(&r);
    return PR_OK;
}

void hparams_clear(hparams *hp)
{
    free(hp->rope_freq);
    free(hp->layer);
    *hp = (hparams){0};
}

uint64_t hparams_layer_bytes(const hparams *hp, uint32_t first, uint32_t end)
{
    uint64_t total = 0;

    for (uint32_t il = first; il < end; il++) {
        for (int i = 0; i < LAYER_TABLE; i++) {
            const gguf_tensor *t = *layer_field(&hp->layer[il], &layer_table[i]);
            total += t ? t->n_bytes : 0;
        }
    }
    return total;
}

uint64_t hparams_output_bytes(const hparams *hp)
{
    uint64_t total = hp->token_embd->n_bytes + hp->output_norm->n_bytes;

    if (hp->output != hp->token_embd) total += hp->output->n_bytes;
    return total + (hp->output_bias ? hp->output_bias->n_bytes : 0);
}
