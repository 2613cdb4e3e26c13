/* Shape file -> model_facts. The tensors and their types are those of llama.cpp's quantize tool (its rules in
 * words: Q4_K_M gives attn_v and ffn_down of about half of the layers Q6_K, in 70B models the other attn_v
 * Q5_K; the output projection is Q6_K; a matrix whose rows do not divide into blocks of 256 takes a type with
 * blocks of 32). tests/cmd/test_shape_gguf.c holds the sums against files that this tool wrote. */
#include "planner/shape.h"
#include "planner/yaml.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include <stdlib.h>
#include <string.h>

enum { SHAPE_MAX_BYTES = 1 << 20 };

/* Blocks of the GGUF weight types in use here (format: ggml, MIT). */
typedef enum { T_Q4_K, T_Q5_K, T_Q6_K, T_Q8_0, T_Q5_0, T_Q5_1, T_COUNT } weight_type;
static const struct {
    const char *name;
    uint32_t block, bytes;
    weight_type small; /* in its place when rows are no multiple of the block */
} types[T_COUNT] = {[T_Q4_K] = {"Q4_K", 256, 144, T_Q5_0}, [T_Q5_K] = {"Q5_K", 256, 176, T_Q5_1},
                    [T_Q6_K] = {"Q6_K", 256, 210, T_Q8_0}, [T_Q8_0] = {"Q8_0", 32, 34, T_Q8_0},
                    [T_Q5_0] = {"Q5_0", 32, 22, T_Q5_0},   [T_Q5_1] = {"Q5_1", 32, 24, T_Q5_1}};

static const char *const mix_names[] = {"Q4_K_M", "Q6_K", "Q8_0", NULL};
static const struct {
    weight_type base, more, output;
} mixes[] = {{T_Q4_K, T_Q6_K, T_Q6_K}, {T_Q6_K, T_Q6_K, T_Q6_K}, {T_Q8_0, T_Q8_0, T_Q8_0}};

typedef struct {
    model_facts *f;
    size_t mix;
    bool tied, rope_freqs, has_bias;
    uint64_t header_bytes;
    double layer_elements[T_COUNT], output_elements[T_COUNT]; /* summed over the layers */
} shape;

/* --- sizes ---------------------------------------------------------------------------------------------- */
static weight_type fitting(weight_type t, uint64_t row)
{
    return row % types[t].block ? types[t].small : t;
}

static uint64_t matrix_bytes(weight_type t, uint64_t row, uint64_t n_rows)
{
    t = fitting(t, row);
    return row / types[t].block * types[t].bytes * n_rows;
}

/* One matrix of a layer: its bytes; its work is counted. */
static uint64_t layer_matrix(shape *s, weight_type t, uint64_t row, uint64_t n_rows)
{
    s->layer_elements[fitting(t, row)] += (double)(row * n_rows);
    return matrix_bytes(t, row, n_rows);
}

/* Which layers of Q4_K_M get more bits. */
static bool has_more_bits(uint32_t il, uint32_t n)
{
    return il < n / 8 || il >= 7 * n / 8 || (il - n / 8) % 3 == 2;
}

/* Several query heads share one attn_v in the 70B models: bits spent there cost little. */
static bool is_70b(const model_facts *f)
{
    return f->n_layers == 80 && (f->n_kv_heads != f->n_heads || !strcmp(f->arch, "qwen2"));
}

static uint64_t layer_size(shape *s, uint32_t il)
{
    const model_facts *f = s->f;
    uint64_t embd = f->n_embd, q = (uint64_t)f->n_heads * f->head_size,
             kv = (uint64_t)f->n_kv_heads * f->head_size;
    weight_type base = mixes[s->mix].base, more = has_more_bits(il, f->n_layers) ? mixes[s->mix].more : base,
                value = more == T_Q4_K && is_70b(f) ? T_Q5_K : more;
    uint64_t floats = 2 * embd + (s->has_bias ? q + 2 * kv : 0); /* norms and biases are F32 */

    return 4 * floats + layer_matrix(s, base, embd, q) + layer_matrix(s, base, embd, kv) +
           layer_matrix(s, value, embd, kv) + layer_matrix(s, base, q, embd) +
           layer_matrix(s, base, embd, f->n_ff) + layer_matrix(s, base, embd, f->n_ff) +
           layer_matrix(s, more, f->n_ff, embd);
}

static void fill_work(shape *s)
{
    model_facts *f = s->f;

    for (size_t t = 0; t < T_COUNT; t++) {
        facts_work *w = &f->work[f->n_work];
        if (s->layer_elements[t] + s->output_elements[t] <= 0) continue;
        memcpy(w->type, types[t].name, strlen(types[t].name) + 1);
        w->layer_elements = s->layer_elements[t] / f->n_layers;
        w->output_elements = s->output_elements[t];
        f->n_work++;
    }
}

static void fill_sizes(shape *s)
{
    model_facts *f = s->f;
    /* A tied embedding takes the type of the output projection. */
    weight_type output = mixes[s->mix].output, input = s->tied ? output : mixes[s->mix].base;
    uint64_t norm = 4 * (uint64_t)f->n_embd, projection = matrix_bytes(output, f->n_embd, f->n_vocab);

    for (uint32_t il = 0; il < f->n_layers; il++) {
        f->layer_bytes[il] = layer_size(s, il);
        f->file_bytes += f->layer_bytes[il];
    }
    f->input_bytes = matrix_bytes(input, f->n_embd, f->n_vocab);
    f->input_row_bytes = matrix_bytes(input, f->n_embd, 1);
    f->output_bytes = norm + projection;
    f->file_bytes += s->header_bytes + f->input_bytes + norm + (s->tied ? 0 : projection) +
                     (s->rope_freqs ? 4 * (uint64_t)f->head_size / 2 : 0);
    s->output_elements[fitting(output, f->n_embd)] = (double)f->n_embd * f->n_vocab;
    fill_work(s);
}

/* --- the file ------------------------------------------------------------------------------------------- */
static uint32_t read_count(yaml_tree *t, const yaml_item *root, const char *key, uint64_t min, uint64_t max)
{
    return (uint32_t)yaml_uint(t, yaml_need(t, root, key), min, max, min);
}

/* A length of rows: blocks hold 32 values at least. */
static uint32_t read_width(yaml_tree *t, const yaml_item *root, const char *key, uint64_t max)
{
    uint32_t v = read_count(t, root, key, 32, max);

    if (v % 32)
        yaml_fail(t, yaml_get(root, key), "%s: %u is no multiple of 32, the smallest block of weights", key,
                  (unsigned)v);
    return v;
}

static void read_heads(yaml_tree *t, const yaml_item *root, model_facts *f)
{
    const yaml_item *size = yaml_get(root, "head_size");

    f->n_heads = read_count(t, root, "n_heads", 1, 1024);
    f->n_kv_heads = read_count(t, root, "n_kv_heads", 1, 1024);
    if (f->n_heads % f->n_kv_heads)
        yaml_fail(t, yaml_get(root, "n_kv_heads"), "n_kv_heads: %u heads cannot share %u",
                  (unsigned)f->n_heads, (unsigned)f->n_kv_heads);
    if (!size && f->n_embd % f->n_heads)
        yaml_fail(t, yaml_get(root, "n_heads"), "n_heads: %u does not divide n_embd %u: give head_size",
                  (unsigned)f->n_heads, (unsigned)f->n_embd);
    f->head_size = (uint32_t)yaml_uint(t, size, 2, 1024, f->n_embd / f->n_heads);
    if (f->n_heads * f->head_size % 32)
        yaml_fail(t, yaml_get(root, "n_heads"), "n_heads: %u heads of %u values are no multiple of 32",
                  (unsigned)f->n_heads, (unsigned)f->head_size);
}

static void read_quant(yaml_tree *t, const yaml_item *root, const char *quant, shape *s)
{
    yaml_item wanted = {.kind = YAML_TEXT, .key = "quant", .text = quant};
    const yaml_item *item = yaml_need(t, root, "quant");

    if (item && quant) {
        wanted.line = item->line;
        wanted.column = item->column;
        item = &wanted;
    }
    s->mix = yaml_choice(t, item, mix_names, 0);
    memcpy(s->f->quant, mix_names[s->mix], strlen(mix_names[s->mix]) + 1);
}

static void read_shape(yaml_tree *t, const yaml_item *root, const char *quant, shape *s)
{
    static const char *const keys[] = {"schema",     "name",         "source",      "note",    "arch",
                                       "n_layers",   "n_embd",       "n_ff",        "n_heads", "n_kv_heads",
                                       "head_size",  "n_vocab",      "n_ctx_train", "quant",   "tied",
                                       "rope_freqs", "header_bytes", NULL},
                             *const archs[] = {"llama", "qwen2", NULL};
    model_facts *f = s->f;
    size_t arch;

    yaml_schema(t, root, "shape");
    if (!yaml_keys(t, root, keys)) return;
    yaml_text(t, yaml_need(t, root, "name"), f->name, sizeof f->name);
    arch = yaml_choice(t, yaml_need(t, root, "arch"), archs, 0);
    memcpy(f->arch, archs[arch], strlen(archs[arch]) + 1);
    s->has_bias = arch == 1;
    f->n_layers = read_count(t, root, "n_layers", 1, FACTS_MAX_LAYERS);
    f->n_embd = read_width(t, root, "n_embd", 1 << 17);
    f->n_ff = read_width(t, root, "n_ff", 1 << 20);
    read_heads(t, root, f);
    f->n_vocab = read_count(t, root, "n_vocab", 1, 1 << 24);
    f->n_ctx_train = read_count(t, root, "n_ctx_train", 1, 1 << 24);
    read_quant(t, root, quant, s);
    s->tied = yaml_bool(t, yaml_get(root, "tied"), false);
    s->rope_freqs = yaml_bool(t, yaml_get(root, "rope_freqs"), false);
    s->header_bytes = yaml_size(t, yaml_get(root, "header_bytes"), 0, (uint64_t)1 << 30, 0);
}

int shape_parse(model_facts *f, const char *text, size_t n, const char *name_for_errors, const char *quant,
                pr_err *err)
{
    shape s = {.f = f};
    yaml_tree *t;
    int rc = yaml_parse(&t, text, n, name_for_errors, err);

    if (rc) return rc;
    memset(f, 0, sizeof *f);
    read_shape(t, yaml_root(t), quant, &s);
    rc = yaml_error(t, err);
    yaml_free(t);
    if (rc) return rc;
    fill_sizes(&s);
    hash_sha256_hex(text, n, f->header_sha256);
    return PR_OK;
}

int shape_read(model_facts *f, const char *path, const char *quant, pr_err *err)
{
    char *text;
    size_t n;
    int rc = file_slurp(&text, &n, path, SHAPE_MAX_BYTES, err);

    if (rc) return rc;
    rc = shape_parse(f, text, n, path, quant, err);
    free(text);
    return rc;
}
