/* A small model whose layers hold three weight types and vectors of all kinds, and what a layer's record must
 * be, byte by byte: laid out anew from the description in layer_pack.h and pack.h, without their code. Prefix
 * pm_. */
#ifndef PRIMA_TESTS_PACK_MODEL_H
#define PRIMA_TESTS_PACK_MODEL_H
#include "kernels/quant.h"
#include "src/model/model.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PM_LAYERS = 6, PM_EMBD = 256, PM_HEAD = 100, PM_HEADS = 2, PM_FF = 544 };

typedef struct {
    const char *name; /* behind "blk.N." */
    uint32_t type;
    uint64_t rows, cols; /* rows 0: a vector */
} pm_tensor;

/* In the order of a record: vectors, then matrices. Rows that are no multiple of 16, and a matrix of many
 * groups. */
static const pm_tensor pm_tensors[] = {
    {"attn_norm.weight", Q_F32, 0, PM_EMBD},
    {"attn_q.bias", Q_F32, 0, PM_HEADS *PM_HEAD},
    {"attn_k.bias", Q_F32, 0, PM_HEAD},
    {"attn_v.bias", Q_F32, 0, PM_HEAD},
    {"ffn_norm.weight", Q_F32, 0, PM_EMBD},
    {"attn_q.weight", Q_Q4_K, PM_HEADS *PM_HEAD, PM_EMBD},
    {"attn_k.weight", Q_F32, PM_HEAD, PM_EMBD},
    {"attn_v.weight", Q_Q8_0, PM_HEAD, PM_EMBD},
    {"attn_output.weight", Q_F32, PM_EMBD, PM_HEADS *PM_HEAD},
    {"ffn_gate.weight", Q_Q4_K, PM_FF, PM_EMBD},
    {"ffn_up.weight", Q_Q8_0, PM_FF, PM_EMBD},
    {"ffn_down.weight", Q_Q8_0, PM_EMBD, PM_FF},
};
enum { PM_TENSORS = sizeof pm_tensors / sizeof *pm_tensors };

/* Blocks as the file format has them: values, bytes, and the fields in the order of a pack. */
typedef struct {
    size_t values, bytes;
    struct {
        size_t at, bytes, unit;
    } field[5];
} pm_block;

/* Set before a model is written: of how many layers, and how wide their feed-forward is. */
static uint32_t pm_layers = PM_LAYERS;
static uint64_t pm_ff = PM_FF;

static inline pm_tensor pm_tensor_at(size_t i)
{
    pm_tensor t = pm_tensors[i];

    if (t.rows == PM_FF) t.rows = pm_ff;
    if (t.cols == PM_FF) t.cols = pm_ff;
    return t;
}

static inline pm_block pm_block_of(uint32_t type)
{
    if (type == Q_Q4_K) return (pm_block){256, 144, {{16, 128, 4}, {4, 12, 4}, {0, 2, 2}, {2, 2, 2}}};
    if (type == Q_Q8_0) return (pm_block){32, 34, {{2, 32, 4}, {0, 2, 2}}};
    return (pm_block){1, 4, {{0, 4, 4}}};
}

static inline size_t pm_row_bytes(const pm_tensor *t)
{
    pm_block b = pm_block_of(t->type);

    return t->cols / b.values * b.bytes;
}

static inline size_t pm_bytes(const pm_tensor *t)
{
    return (t->rows ? t->rows : 1) * pm_row_bytes(t);
}

/* The data of tensor i of a layer; caller frees. */
static inline uint8_t *pm_data(size_t i, uint32_t layer, uint32_t seed)
{
    uint64_t state = (uint64_t)seed << 40 ^ (uint64_t)layer << 20 ^ i ^ 0x9e3779b97f4a7c15;
    pm_tensor t = pm_tensor_at(i);
    uint8_t *p = malloc(pm_bytes(&t));

    cr_assert_not_null(p);
    for (size_t k = 0; k < pm_bytes(&t); k++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        p[k] = (uint8_t)(state >> 56);
    }
    return p;
}

static inline void pm_add(gguf_build *b, size_t i, uint32_t layer, uint32_t seed)
{
    pm_tensor t = pm_tensor_at(i);
    uint64_t ne[2] = {t.cols, t.rows};
    uint8_t *data = pm_data(i, layer, seed);
    char name[64];

    snprintf(name, sizeof name, "blk.%u.%s", layer, t.name);
    gb_tensor(b, name, t.type, t.rows ? 2 : 1, ne, data, pm_bytes(&t));
    free(data);
}

/* Models of different seeds have the same header. */
static inline void pm_write(const char *path, uint32_t seed)
{
    static const char *const tokens[8] = {"<unk>", "<s>", "</s>", "a", "b", "c", "d", "e"};
    const uint64_t ne[2] = {PM_EMBD, 8};
    gguf_build *b = gb_new(3);

    gb_str(b, "general.architecture", "qwen2");
    gb_u32(b, "qwen2.block_count", pm_layers);
    gb_u32(b, "qwen2.context_length", 64);
    gb_u32(b, "qwen2.embedding_length", PM_EMBD);
    gb_u32(b, "qwen2.feed_forward_length", (uint32_t)pm_ff);
    gb_u32(b, "qwen2.attention.head_count", PM_HEADS);
    gb_u32(b, "qwen2.attention.head_count_kv", 1);
    gb_u32(b, "qwen2.attention.key_length", PM_HEAD);
    gb_u32(b, "qwen2.attention.value_length", PM_HEAD);
    gb_f32(b, "qwen2.attention.layer_norm_rms_epsilon", 1e-5f);
    gb_strings(b, "tokenizer.ggml.tokens", tokens, 8);
    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_tensor(b, "token_embd.weight", Q_F32, 2, ne, NULL, 8 * PM_EMBD * 4);
    for (uint32_t il = 0; il < pm_layers; il++)
        for (size_t i = 0; i < PM_TENSORS; i++) pm_add(b, i, il, seed);
    gb_tensor(b, "output_norm.weight", Q_F32, 1, ne, NULL, PM_EMBD * 4);
    gb_tensor(b, "output.weight", Q_F32, 2, ne, NULL, 8 * PM_EMBD * 4);
    gb_write(b, path);
    gb_free(b);
}

/* --- the record ---------------------------------------------------------------------------------------- */
/* 16 rows side by side, rows behind the last one zero. */
static inline size_t pm_put_matrix(uint8_t *out, const pm_tensor *t, const uint8_t *data)
{
    pm_block b = pm_block_of(t->type);
    size_t row_bytes = pm_row_bytes(t), n = 0;

    for (size_t row = 0; row < t->rows; row += 16)
        for (size_t block = 0; block < t->cols / b.values; block++)
            for (size_t k = 0; b.field[k].bytes; k++)
                for (size_t unit = 0; unit < b.field[k].bytes; unit += b.field[k].unit)
                    for (size_t r = row; r < row + 16; r++)
                        for (size_t i = 0; i < b.field[k].unit; i++)
                            out[n++] = r < t->rows
                                           ? data[r * row_bytes + block * b.bytes + b.field[k].at + unit + i]
                                           : 0;
    return n;
}

static inline size_t pm_align(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* The record of a layer; caller frees. */
static inline uint8_t *pm_record(uint32_t layer, uint32_t seed, size_t *n)
{
    size_t most = 0;
    uint8_t *out;

    for (size_t i = 0; i < PM_TENSORS; i++) {
        pm_tensor t = pm_tensor_at(i);
        most += pm_bytes(&t) + 16 * pm_row_bytes(&t) + 4096;
    }
    cr_assert_not_null(out = calloc(1, most));
    *n = 0;
    for (size_t i = 0; i < PM_TENSORS; i++) {
        pm_tensor t = pm_tensor_at(i);
        uint8_t *data = pm_data(i, layer, seed);

        if (t.rows) *n = pm_align(*n, 4096) + pm_put_matrix(out + pm_align(*n, 4096), &t, data);
        else {
            memcpy(out + *n, data, pm_bytes(&t));
            *n = pm_align(*n + pm_bytes(&t), 64);
        }
        free(data);
    }
    *n = pm_align(*n, 4096);
    return out;
}

#endif
