/* Synthetic models; see synth.h. The rows are drawn from a pool of blocks quantised from N(0, 0.02) values,
 * so that scales look like those of a real file and 40 GB are written at the speed of the disk. Type mixes
 * follow llama.cpp's of the same name. */
#include "src/synth.h"
#include "kernels/quant.h"
#include "src/base/log.h"
#include "src/model/gguf_write.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { POOL_BLOCKS = 4096, ROW_BUFFER = 1 << 20 };

typedef struct {
    const char *name, *arch;
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, n_ff, n_vocab, n_ctx;
    float rope_base;
} shape;

static const shape shapes[] = {
    {"llama-1.1b", "llama", 22, 2048, 32, 4, 5632, 32000, 2048, 1e4f},
    {"llama-8b", "llama", 32, 4096, 32, 8, 14336, 32000, 8192, 5e5f},
    {"llama-70b", "llama", 80, 8192, 64, 8, 28672, 128256, 8192, 5e5f},
    {"qwen2-32b", "qwen2", 64, 5120, 40, 8, 27648, 152064, 32768, 1e6f},
};

typedef struct {
    const char *name;
    uint32_t base, more, output, file_type; /* more: half of attn_v and ffn_down, as in the _M mixes */
} mix;

static const mix mixes[] = {
    {"q4_k_m", Q_Q4_K, Q_Q6_K, Q_Q6_K, 15}, {"q4_k", Q_Q4_K, Q_Q4_K, Q_Q4_K, 14},
    {"q6_k", Q_Q6_K, Q_Q6_K, Q_Q6_K, 18},   {"q8_0", Q_Q8_0, Q_Q8_0, Q_Q8_0, 7},
    {"q4_0", Q_Q4_0, Q_Q4_0, Q_Q6_K, 2},    {"f16", Q_F16, Q_F16, Q_F16, 1},
    {"bf16", Q_BF16, Q_BF16, Q_BF16, 32},   {"f32", Q_F32, Q_F32, Q_F32, 0},
};

const char *const synth_help =
    "SHAPE:TYPES, SHAPE llama-1.1b, llama-8b, llama-70b or qwen2-32b, TYPES q4_k_m, q4_k, q6_k, q8_0, q4_0, "
    "f16, bf16 or f32";

typedef struct {
    const shape *s;
    const mix *m;
    gguf_writer *w;
    uint64_t random;
    uint8_t
        *block[Q_TYPE_COUNT]; /* pool of POOL_BLOCKS groups of 256 values of a type, made when first needed */
    uint8_t *row;
} synth;

static uint64_t next_random(synth *y)
{
    y->random ^= y->random << 13;
    y->random ^= y->random >> 7;
    y->random ^= y->random << 17;
    return y->random;
}

static float next_normal(synth *y)
{
    double u = ((double)(next_random(y) >> 11) + 1) * 0x1p-53, v = (double)(next_random(y) >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* --- metadata ------------------------------------------------------------------------------------------- */
static void put_arch(synth *y, const char *key, uint32_t v)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", y->s->arch, key);
    gguf_put_u32(y->w, name, v);
}

static void put_arch_f32(synth *y, const char *key, float v)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", y->s->arch, key);
    gguf_put_f32(y->w, name, v);
}

/* A vocabulary of the right size that loads everywhere: unknown, BOS, EOS, the 256 bytes, then "t300",
 * "t301", ... */
static int put_vocab(synth *y, pr_err *err)
{
    uint32_t n = y->s->n_vocab;
    char(*text)[16] = calloc(n, sizeof *text);
    const char **token = calloc(n, sizeof *token);
    float *score = calloc(n, sizeof *score);
    int32_t *kind = calloc(n, sizeof *kind);
    bool ok = text && token && score && kind;

    for (uint32_t i = 0; ok && i < n; i++) {
        static const char *const first[] = {"<unk>", "<s>", "</s>"};
        if (i < 3) snprintf(text[i], sizeof *text, "%s", first[i]);
        else if (i < 259) snprintf(text[i], sizeof *text, "<0x%02X>", i - 3);
        else snprintf(text[i], sizeof *text, "t%u", i);
        token[i] = text[i];
        score[i] = -(float)i;
        kind[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
    }
    if (ok) {
        gguf_put_string(y->w, "tokenizer.ggml.model", "llama");
        gguf_put_strings(y->w, "tokenizer.ggml.tokens", token, n);
        gguf_put_f32s(y->w, "tokenizer.ggml.scores", score, n);
        gguf_put_i32s(y->w, "tokenizer.ggml.token_type", kind, n);
        gguf_put_u32(y->w, "tokenizer.ggml.bos_token_id", 1);
        gguf_put_u32(y->w, "tokenizer.ggml.eos_token_id", 2);
        gguf_put_u32(y->w, "tokenizer.ggml.unknown_token_id", 0);
    }
    free(text);
    free(token);
    free(score);
    free(kind);
    return ok ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

static int put_metadata(synth *y, pr_err *err)
{
    const shape *s = y->s;
    char name[64];

    snprintf(name, sizeof name, "synth %s %s", s->name, y->m->name);
    gguf_put_string(y->w, "general.architecture", s->arch);
    gguf_put_string(y->w, "general.name", name);
    gguf_put_u32(y->w, "general.file_type", y->m->file_type);
    gguf_put_u32(y->w, "general.quantization_version", 2);
    put_arch(y, "block_count", s->n_layers);
    put_arch(y, "context_length", s->n_ctx);
    put_arch(y, "embedding_length", s->n_embd);
    put_arch(y, "feed_forward_length", s->n_ff);
    put_arch(y, "attention.head_count", s->n_heads);
    put_arch(y, "attention.head_count_kv", s->n_kv_heads);
    put_arch(y, "vocab_size", s->n_vocab);
    put_arch_f32(y, "attention.layer_norm_rms_epsilon", 1e-5f);
    put_arch_f32(y, "rope.freq_base", s->rope_base);
    return put_vocab(y, err);
}

/* --- tensors
 * ------------------------------------------------------------------------------------------------ */
/* Which layers of an _M mix get more bits, as llama.cpp chooses them. */
static bool more_bits(uint32_t il, uint32_t n)
{
    return il < n / 8 || il >= 7 * n / 8 || (il - n / 8) % 3 == 2;
}

typedef void (*tensor_fn)(synth *y, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1, pr_err *err);

static void layer_tensors_of(synth *y, uint32_t il, tensor_fn fn, pr_err *err)
{
    const shape *s = y->s;
    uint32_t kv = s->n_embd / s->n_heads * s->n_kv_heads,
             more = more_bits(il, s->n_layers) ? y->m->more : y->m->base;
    const struct {
        const char *name;
        uint32_t type;
        uint64_t ne0, ne1;
        bool bias;
    } t[] = {{"attn_norm.weight", Q_F32, s->n_embd, 0, false},
             {"attn_q.weight", y->m->base, s->n_embd, s->n_embd, false},
             {"attn_k.weight", y->m->base, s->n_embd, kv, false},
             {"attn_v.weight", more, s->n_embd, kv, false},
             {"attn_q.bias", Q_F32, s->n_embd, 0, true},
             {"attn_k.bias", Q_F32, kv, 0, true},
             {"attn_v.bias", Q_F32, kv, 0, true},
             {"attn_output.weight", y->m->base, s->n_embd, s->n_embd, false},
             {"ffn_norm.weight", Q_F32, s->n_embd, 0, false},
             {"ffn_gate.weight", y->m->base, s->n_embd, s->n_ff, false},
             {"ffn_up.weight", y->m->base, s->n_embd, s->n_ff, false},
             {"ffn_down.weight", more, s->n_ff, s->n_embd, false}};

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char name[64];
        if (t[i].bias && strcmp(s->arch, "qwen2")) continue;
        snprintf(name, sizeof name, "blk.%u.%s", il, t[i].name);
        fn(y, name, t[i].type, t[i].ne0, t[i].ne1, err);
    }
}

static void all_tensors(synth *y, tensor_fn fn, pr_err *err)
{
    const shape *s = y->s;

    fn(y, "token_embd.weight", y->m->base, s->n_embd, s->n_vocab, err);
    for (uint32_t il = 0; il < s->n_layers; il++) layer_tensors_of(y, il, fn, err);
    fn(y, "output_norm.weight", Q_F32, s->n_embd, 0, err);
    fn(y, "output.weight", y->m->output, s->n_embd, s->n_vocab, err);
}

static void declare(synth *y, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1, pr_err *err)
{
    (void)err;
    gguf_put_tensor(y->w, name, type, ne0, ne1);
}

static size_t block_bytes(uint32_t type)
{
    return quant_row_bytes(type, 256);
}

static bool make_pool(synth *y, uint32_t type)
{
    float v[256];
    size_t n = block_bytes(type);

    if (y->block[type]) return true;
    if (!(y->block[type] = malloc(POOL_BLOCKS * n))) return false;
    for (size_t b = 0; b < POOL_BLOCKS; b++) {
        for (size_t i = 0; i < 256; i++) v[i] = 0.02f * next_normal(y);
        if (!quant_quantize(type, v, y->block[type] + b * n, 256)) return false;
    }
    return true;
}

static void write_vector(synth *y, const char *name, uint64_t n, pr_err *err)
{
    float *v = (float *)(void *)y->row;
    bool norm = strstr(name, "norm") != NULL;

    for (uint64_t i = 0; i < n; i++) v[i] = norm ? 1 + 0.02f * next_normal(y) : 0.02f * next_normal(y);
    gguf_writer_data(y->w, v, n * sizeof *v, err);
}

static void write_tensor(synth *y, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1, pr_err *err)
{
    size_t n = block_bytes(type), in_buffer = ROW_BUFFER / n;
    uint64_t left = ne0 * ne1 / 256;

    if (err->code) return;
    if (!ne1) {
        write_vector(y, name, ne0, err);
        return;
    }
    if (!make_pool(y, type)) {
        pr_fail(err, PR_ERESOURCE, "out of memory");
        return;
    }
    log_progress("writing %s", name);
    while (left && !err->code) {
        size_t now = left < in_buffer ? (size_t)left : in_buffer;
        for (size_t i = 0; i < now; i++)
            memcpy(y->row + i * n, y->block[type] + next_random(y) % POOL_BLOCKS * n, n);
        gguf_writer_data(y->w, y->row, now * n, err);
        left -= now;
    }
}

/* --- the spec
 * --------------------------------------------------------------------------------------------------- */
static int parse_spec(synth *y, const char *spec, pr_err *err)
{
    const char *colon = strchr(spec, ':');

    for (size_t i = 0; colon && i < sizeof shapes / sizeof *shapes; i++) {
        if (strlen(shapes[i].name) == (size_t)(colon - spec) &&
            !strncasecmp(shapes[i].name, spec, (size_t)(colon - spec)))
            y->s = &shapes[i];
    }
    for (size_t i = 0; colon && i < sizeof mixes / sizeof *mixes; i++) {
        if (!strcasecmp(mixes[i].name, colon + 1)) y->m = &mixes[i];
    }
    return y->s && y->m ? PR_OK : pr_fail(err, PR_EUSAGE, "%s: expected %s", spec, synth_help);
}

int synth_write(const char *spec, const char *path, pr_err *err)
{
    synth y = {.random = 0x9e3779b97f4a7c15u};
    pr_err local = {0};
    int rc = parse_spec(&y, spec, &local);

    y.w = gguf_writer_new();
    y.row = malloc(ROW_BUFFER);
    if (!rc && (!y.w || !y.row)) rc = pr_fail(&local, PR_ERESOURCE, "out of memory");
    if (!rc) rc = put_metadata(&y, &local);
    if (!rc) all_tensors(&y, declare, &local);
    if (!rc) rc = gguf_writer_begin(y.w, path, &local);
    if (!rc) {
        all_tensors(&y, write_tensor, &local);
        rc = local.code;
    }
    if (!rc) rc = gguf_writer_finish(y.w, &local);
    log_progress("%s", "");
    gguf_writer_free(y.w);
    for (size_t i = 0; i < Q_TYPE_COUNT; i++) free(y.block[i]);
    free(y.row);
    return rc ? pr_fail(err, (pr_code)rc, "%s", local.msg) : PR_OK;
}
