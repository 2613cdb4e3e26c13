/* Small models of random weights; see random_model.h. Weights are even over a range that keeps hidden states
 * of the size of their input. */
#include "tests/gpu/random_model.h"
#include "kernels/quant.h"
#include "tests/common/gguf_build.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const random_model *r;
    gguf_build *b;
    uint64_t state;
    size_t n_matrices;
} maker;

static float next_float(maker *m)
{
    m->state = m->state * 6364136223846793005u + 1442695040888963407u;
    return (float)(m->state >> 40) / 0x1p23f - 1.0f;
}

static void vector(maker *m, const char *name, size_t n, float middle, float spread)
{
    float *x = malloc(n * sizeof *x);

    cr_assert_not_null(x);
    for (size_t i = 0; i < n; i++) x[i] = middle + spread * next_float(m);
    gb_tensor(m->b, name, Q_F32, 1, (uint64_t[]){n}, x, n * sizeof *x);
    free(x);
}

static void matrix_of_type(maker *m, const char *name, uint32_t type, size_t cols, size_t rows)
{
    size_t row_bytes = quant_row_bytes(type, cols);
    float *x = malloc(cols * sizeof *x);
    uint8_t *data = malloc(rows * row_bytes);

    cr_assert(x && data && row_bytes, "%s", name);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < cols; i++) x[i] = next_float(m) * sqrtf(3.0f / (float)cols);
        if (type == Q_F32) memcpy(data + r * row_bytes, x, row_bytes);
        else cr_assert(quant_quantize(type, x, data + r * row_bytes, cols), "type %u", type);
    }
    gb_tensor(m->b, name, type, 2, (uint64_t[]){cols, rows}, data, rows * row_bytes);
    free(x);
    free(data);
}

static void matrix(maker *m, int layer, const char *what, size_t cols, size_t rows)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, what);
    matrix_of_type(m, name, m->r->type[m->n_matrices++ % 3], cols, rows);
}

static void layer_vector(maker *m, int layer, const char *what, size_t n, float middle)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%d.%s", layer, what);
    vector(m, name, n, middle, 0.3f);
}

static void layer(maker *m, int il)
{
    const random_model *r = m->r;
    size_t q = r->heads * r->head_size, kv = r->kv_heads * r->head_size;

    layer_vector(m, il, "attn_norm.weight", r->embd, 1);
    layer_vector(m, il, "ffn_norm.weight", r->embd, 1);
    matrix(m, il, "attn_q", r->embd, q);
    matrix(m, il, "attn_k", r->embd, kv);
    matrix(m, il, "attn_v", r->embd, kv);
    matrix(m, il, "attn_output", q, r->embd);
    matrix(m, il, "ffn_gate", r->embd, r->ff);
    matrix(m, il, "ffn_up", r->embd, r->ff);
    matrix(m, il, "ffn_down", r->ff, r->embd);
    if (strcmp(r->arch, "qwen2") == 0) {
        layer_vector(m, il, "attn_q.bias", q, 0);
        layer_vector(m, il, "attn_k.bias", kv, 0);
        layer_vector(m, il, "attn_v.bias", kv, 0);
    }
    if (strcmp(r->arch, "qwen3") == 0) {
        layer_vector(m, il, "attn_q_norm.weight", r->head_size, 1);
        layer_vector(m, il, "attn_k_norm.weight", r->head_size, 1);
    }
}

static void number(maker *m, const char *suffix, uint32_t n)
{
    char key[96];

    snprintf(key, sizeof key, "%s.%s", m->r->arch, suffix);
    gb_u32(m->b, key, n);
}

static void header(maker *m)
{
    const random_model *r = m->r;
    const char **tokens = calloc(r->vocab, sizeof *tokens);
    char(*text)[8] = calloc(r->vocab, sizeof *text), key[96];

    cr_assert(tokens && text);
    for (uint32_t i = 0; i < r->vocab; i++) {
        snprintf(text[i], sizeof text[i], "t%u", i % 10000);
        tokens[i] = text[i];
    }
    gb_str(m->b, "general.architecture", r->arch);
    number(m, "block_count", r->layers);
    number(m, "context_length", 4096);
    number(m, "embedding_length", r->embd);
    number(m, "feed_forward_length", r->ff);
    number(m, "attention.head_count", r->heads);
    number(m, "attention.head_count_kv", r->kv_heads);
    number(m, "attention.key_length", r->head_size);
    number(m, "attention.value_length", r->head_size);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", r->arch);
    gb_f32(m->b, key, 1e-5f);
    gb_strings(m->b, "tokenizer.ggml.tokens", tokens, r->vocab);
    free(tokens);
    free(text);
}

void random_model_write(const random_model *r, uint64_t seed, const char *path)
{
    maker m = {.r = r, .b = gb_new(3), .state = seed};

    header(&m);
    matrix_of_type(&m, "token_embd.weight", Q_F32, r->embd, r->vocab);
    for (uint32_t i = 0; i < r->layers; i++) layer(&m, (int)i);
    vector(&m, "output_norm.weight", r->embd, 1, 0.3f);
    matrix_of_type(&m, "output.weight", r->type[1], r->embd, r->vocab);
    gb_write(m.b, path);
    gb_free(m.b);
}
