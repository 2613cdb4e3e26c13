/* See gguf_build.h. Metadata, tensor directory and data are three growing buffers; gb_bytes puts them
 * together. A key or tensor is kept as its encoded bytes, so that what is wrong on purpose stays as it was
 * given. */
#include "tests/common/gguf_build.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    unsigned char *p;
    size_t n, cap;
} buffer;

typedef struct {
    char *name;
    buffer value;          /* type and value of a key */
    uint32_t type, n_dims; /* of a tensor, with its data in `value` */
    uint64_t ne[4], lie_offset;
    int lies;
} item;

typedef struct {
    item *at;
    size_t n, cap;
} items;

struct gguf_build {
    uint32_t version;
    uint64_t alignment, n_tensors, n_kv;
    int lies;
    items kv, tensor;
};

static void put(buffer *b, const void *p, size_t n)
{
    if (b->n + n > b->cap) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        cr_assert_not_null(b->p, "out of memory");
    }
    if (n && p) memcpy(b->p + b->n, p, n);
    if (n && !p) memset(b->p + b->n, 0, n);
    b->n += n;
}

static void put_le(buffer *b, uint64_t v, int n)
{
    unsigned char le[8];

    for (int i = 0; i < 8; i++) le[i] = (unsigned char)(v >> (8 * i));
    put(b, le, (size_t)n);
}

static void put_str(buffer *b, const char *s)
{
    put_le(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static item *add(items *list, const char *name)
{
    item *it;

    if (list->n == list->cap) {
        list->cap = list->cap ? 2 * list->cap : 32;
        list->at = realloc(list->at, list->cap * sizeof *list->at);
        cr_assert_not_null(list->at, "out of memory");
    }
    it = &list->at[list->n++];
    *it = (item){.name = strdup(name)};
    cr_assert_not_null(it->name, "out of memory");
    return it;
}

static void drop(items *list, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->n; i++) {
        if (name && strcmp(list->at[i].name, name) != 0) {
            list->at[kept++] = list->at[i];
        } else {
            free(list->at[i].name);
            free(list->at[i].value.p);
        }
    }
    list->n = kept;
}

gguf_build *gb_new(uint32_t version)
{
    gguf_build *b = calloc(1, sizeof *b);

    cr_assert_not_null(b, "out of memory");
    b->version = version;
    b->alignment = 32;
    return b;
}

void gb_free(gguf_build *b)
{
    if (!b) return;
    drop(&b->kv, NULL);
    drop(&b->tensor, NULL);
    free(b->kv.at);
    free(b->tensor.at);
    free(b);
}

/* --- metadata ------------------------------------------------------------------------------ */

void gb_raw(gguf_build *b, const char *key, uint32_t type, const void *value, size_t n)
{
    item *it = add(&b->kv, key);

    put_le(&it->value, type, 4);
    put(&it->value, value, n);
}

void gb_u32(gguf_build *b, const char *key, uint32_t v)
{
    put_le(&add(&b->kv, key)->value, GB_U32 | (uint64_t)v << 32, 8);
}

void gb_f32(gguf_build *b, const char *key, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, 4);
    put_le(&add(&b->kv, key)->value, GB_F32 | (uint64_t)bits << 32, 8);
}

void gb_bool(gguf_build *b, const char *key, uint8_t v)
{
    gb_raw(b, key, GB_BOOL, &v, 1);
}

void gb_str(gguf_build *b, const char *key, const char *v)
{
    item *it = add(&b->kv, key);

    put_le(&it->value, GB_STRING, 4);
    put_str(&it->value, v);
}

void gb_array(gguf_build *b, const char *key, uint32_t elem, const void *values, size_t n_bytes,
              uint64_t count)
{
    item *it = add(&b->kv, key);

    put_le(&it->value, GB_ARRAY, 4);
    put_le(&it->value, elem, 4);
    put_le(&it->value, count, 8);
    put(&it->value, values, n_bytes);
}

void gb_strings(gguf_build *b, const char *key, const char *const *v, size_t n)
{
    buffer all = {0};

    for (size_t i = 0; i < n; i++) put_str(&all, v[i]);
    gb_array(b, key, GB_STRING, all.p, all.n, n);
    free(all.p);
}

void gb_drop(gguf_build *b, const char *key)
{
    drop(&b->kv, key);
}

/* --- tensors --------------------------------------------------------------------------------- */

void gb_align(gguf_build *b, uint64_t alignment)
{
    b->alignment = alignment;
}

void gb_tensor(gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
               const void *data, size_t n_bytes)
{
    item *it = add(&b->tensor, name);

    it->type = type;
    it->n_dims = n_dims;
    for (uint32_t d = 0; d < n_dims && d < 4; d++) it->ne[d] = ne[d];
    put(&it->value, data, n_bytes);
}

void gb_drop_tensor(gguf_build *b, const char *name)
{
    drop(&b->tensor, name);
}

void gb_lie_offset(gguf_build *b, const char *name, uint64_t offset)
{
    for (size_t i = 0; i < b->tensor.n; i++) {
        if (strcmp(b->tensor.at[i].name, name) != 0) continue;
        b->tensor.at[i].lies = 1;
        b->tensor.at[i].lie_offset = offset;
    }
}

void gb_lie_counts(gguf_build *b, uint64_t n_tensors, uint64_t n_kv)
{
    b->lies = 1;
    b->n_tensors = n_tensors;
    b->n_kv = n_kv;
}

/* --- the file -------------------------------------------------------------------------------- */

static size_t padded(const gguf_build *b, size_t n)
{
    return (n + b->alignment - 1) / b->alignment * b->alignment;
}

unsigned char *gb_bytes(const gguf_build *b, size_t *n)
{
    buffer f = {0};
    size_t offset = 0;

    put(&f, "GGUF", 4);
    put_le(&f, b->version, 4);
    put_le(&f, b->lies ? b->n_tensors : b->tensor.n, 8);
    put_le(&f, b->lies ? b->n_kv : b->kv.n, 8);
    for (size_t i = 0; i < b->kv.n; i++) {
        put_str(&f, b->kv.at[i].name);
        put(&f, b->kv.at[i].value.p, b->kv.at[i].value.n);
    }
    for (size_t i = 0; i < b->tensor.n; i++) {
        const item *t = &b->tensor.at[i];

        put_str(&f, t->name);
        put_le(&f, t->n_dims, 4);
        for (uint32_t d = 0; d < t->n_dims && d < 4; d++) put_le(&f, t->ne[d], 8);
        put_le(&f, t->type, 4);
        put_le(&f, t->lies ? t->lie_offset : offset, 8);
        offset += padded(b, t->value.n);
    }
    for (size_t i = 0; i < b->tensor.n; i++) {
        put(&f, NULL, padded(b, f.n) - f.n);
        put(&f, b->tensor.at[i].value.p, b->tensor.at[i].value.n);
    }
    *n = f.n;
    return f.p;
}

void gb_write(const gguf_build *b, const char *path)
{
    size_t n;
    unsigned char *p = gb_bytes(b, &n);
    FILE *f = fopen(path, "wb");

    cr_assert_not_null(f, "%s cannot be written", path);
    cr_assert_eq(fwrite(p, 1, n, f), n, "%s", path);
    cr_assert_eq(fclose(f), 0, "%s", path);
    free(p);
}

/* --- a small model --------------------------------------------------------------------------- */

static void f32_tensor(gguf_build *b, const char *name, uint64_t cols, uint64_t rows)
{
    gb_tensor(b, name, 0, rows ? 2 : 1, (uint64_t[]){cols, rows}, NULL,
              (size_t)(4 * cols * (rows ? rows : 1)));
}

static void tiny_layer(gguf_build *b, int il, int biases, int head_norms)
{
    static const struct {
        const char *name;
        uint64_t cols, rows;
        int kind;
    } table[] = {
        {"attn_norm.weight", 16, 0, 0},  {"attn_q.weight", 16, 16, 0},      {"attn_k.weight", 16, 8, 0},
        {"attn_v.weight", 16, 8, 0},     {"attn_output.weight", 16, 16, 0}, {"attn_q.bias", 16, 0, 1},
        {"attn_k.bias", 8, 0, 1},        {"attn_v.bias", 8, 0, 1},          {"attn_q_norm.weight", 8, 0, 2},
        {"attn_k_norm.weight", 8, 0, 2}, {"ffn_norm.weight", 16, 0, 0},     {"ffn_gate.weight", 16, 32, 0},
        {"ffn_up.weight", 16, 32, 0},    {"ffn_down.weight", 32, 16, 0},
    };
    char name[64];

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if ((table[i].kind == 1 && !biases) || (table[i].kind == 2 && !head_norms)) continue;
        snprintf(name, sizeof name, "blk.%d.%s", il, table[i].name);
        f32_tensor(b, name, table[i].cols, table[i].rows);
    }
}

static const char *key_of(char out[64], const char *arch, const char *suffix)
{
    snprintf(out, 64, "%s.%s", arch, suffix);
    return out;
}

gguf_build *gb_tiny(const char *arch)
{
    static const char *const tokens[8] = {"<unk>", "<s>", "</s>", "a", "b", "c", "d", "e"};
    gguf_build *b = gb_new(3);
    char key[64];

    gb_str(b, "general.architecture", arch);
    gb_u32(b, key_of(key, arch, "block_count"), 2);
    gb_u32(b, key_of(key, arch, "context_length"), 64);
    gb_u32(b, key_of(key, arch, "embedding_length"), 16);
    gb_u32(b, key_of(key, arch, "feed_forward_length"), 32);
    gb_u32(b, key_of(key, arch, "attention.head_count"), 2);
    gb_u32(b, key_of(key, arch, "attention.head_count_kv"), 1);
    gb_f32(b, key_of(key, arch, "attention.layer_norm_rms_epsilon"), 1e-5f);
    gb_strings(b, "tokenizer.ggml.tokens", tokens, 8);
    f32_tensor(b, "token_embd.weight", 16, 8);
    for (int il = 0; il < 2; il++) tiny_layer(b, il, strcmp(arch, "qwen2") == 0, strcmp(arch, "qwen3") == 0);
    f32_tensor(b, "output_norm.weight", 16, 0);
    f32_tensor(b, "output.weight", 16, 8);
    return b;
}
