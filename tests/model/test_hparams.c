/* The shape of models: every model of the test data against its list, rotary frequencies against formulas
 * written out here, and what must be refused, by a small model built here and changed in one place each time.
 */
#include "kernels/quant.h"
#include "src/base/hash.h"
#include "src/model/gguf_impl.h"
#include "src/model/hparams.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(hparams, .timeout = 60);

/* --- the models of the test data --------------------------------------------------------------- */

ParameterizedTestParameters(hparams, test_models)
{
    static int index[256];
    const char *path = test_data_or_null("models/models.json");
    json_t *list = path ? json_load_file(path, 0, NULL) : NULL;
    size_t n = list ? json_array_size(list) : 1; /* one test that says that it skips */

    for (int i = 0; i < 256; i++) index[i] = i;
    json_decref(list);
    return cr_make_param_array(int, index, n < 256 ? n : 256);
}

static unsigned num(const json_t *o, const char *key)
{
    cr_assert(json_is_integer(json_object_get(o, key)), "%s", key);
    return (unsigned)json_integer_value(json_object_get(o, key));
}

static void check_types(const gguf *g, json_t *want)
{
    int count[Q_TYPE_COUNT] = {0}, kinds = 0;
    const char *type;
    json_t *n;

    for (size_t i = 0; i < gguf_n_tensors(g); i++) count[gguf_tensor_at(g, i)->type]++;
    for (uint32_t t = 0; t < Q_TYPE_COUNT; t++) {
        if (!count[t]) continue;
        kinds++;
        n = json_object_get(want, quant_info(t)->name);
        cr_expect_eq(json_integer_value(n), count[t], "%s", quant_info(t)->name);
    }
    json_object_foreach(want, type, n) kinds--;
    cr_expect_eq(kinds, 0, "as many types as in the list");
}

ParameterizedTest(int *i, hparams, test_models)
{
    json_t *list = test_data_json("models/models.json"), *m = json_array_get(list, (size_t)*i);
    const char *file = json_string_value(json_object_get(m, "file")), *path;
    char rel[256], hex[HASH_HEX_BYTES];
    uint64_t all = 0;
    hparams hp;
    gguf *g;
    pr_err e = {0};

    snprintf(rel, sizeof rel, "models/%s", file);
    path = test_data(rel);
    cr_assert_eq(hash_file_hex(path, hex, &e), PR_OK, "%s", e.msg);
    cr_assert_str_eq(hex, json_string_value(json_object_get(m, "sha256")), "%s", file);
    cr_assert_eq(gguf_open(&g, path, &e), PR_OK, "%s", e.msg);
    cr_assert_eq(hparams_read(&hp, g, &e), PR_OK, "%s", e.msg);
    cr_expect_str_eq(model_arch_name(hp.arch), json_string_value(json_object_get(m, "arch")));
    cr_expect_eq(hp.n_layers, num(m, "layers"));
    cr_expect_eq(hp.n_embd, num(m, "embedding"));
    cr_expect_eq(hp.n_heads, num(m, "heads"));
    cr_expect_eq(hp.n_kv_heads, num(m, "kv_heads"));
    cr_expect_eq(hp.n_ff, num(m, "feed_forward"));
    cr_expect_eq(hp.n_vocab, num(m, "vocab"));
    cr_expect_eq(gguf_file_bytes(g), num(m, "bytes"));
    check_types(g, json_object_get(m, "tensors"));
    cr_expect_eq(hp.rope_neox, strncmp(file, "qwen", 4) == 0);
    cr_expect_eq(hp.head_size,
                 strstr(file, "headdim") || strstr(file, "qknorm") ? 32 : hp.n_embd / hp.n_heads);
    cr_expect_eq(hp.output == hp.token_embd, strstr(file, "tied") || strncmp(file, "qwen2-q-", 8) == 0, "%s",
                 file);
    cr_expect_eq(hp.layer[0].attn_q_bias != NULL, hp.arch == ARCH_QWEN2);
    cr_expect_eq(hp.layer[hp.n_layers - 1].attn_k_norm != NULL, hp.arch == ARCH_QWEN3);
    for (size_t t = 0; t < gguf_n_tensors(g); t++) all += gguf_tensor_at(g, t)->n_bytes;
    if (gguf_tensor_find(g, "rope_freqs.weight")) all -= gguf_tensor_find(g, "rope_freqs.weight")->n_bytes;
    cr_expect_eq(hparams_layer_bytes(&hp, 0, hp.n_layers) + hparams_output_bytes(&hp), all,
                 "every tensor is counted once");
    hparams_clear(&hp);
    gguf_close(g);
    json_decref(list);
}

Test(hparams, quant_names_of_files)
{
    static const struct {
        const char *file, *quant;
    } t[] = {
        {"llama-q-Q4_K_M", "Q4_K_M"}, {"llama-q-Q3_K_S-pure", "Q3_K_S"},
        {"stories260K-Q6_K", "Q6_K"}, {"llama-q-IQ2_XXS", "IQ2_XXS"},
        {"llama-q-IQ1_M", "IQ1_M"},   {"llama-mha-BF16", "BF16"},
        {"stories260K-F16", "F16"},   {"stories260K", "F32"},
        {"llama-q-Q5_1", "Q5_1"},     {"llama-q-IQ4_XS", "IQ4_XS"},
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char rel[128];
        hparams hp;
        gguf *g;

        snprintf(rel, sizeof rel, "models/%s.gguf", t[i].file);
        cr_assert_eq(gguf_open(&g, test_data(rel), NULL), PR_OK);
        cr_assert_eq(hparams_read(&hp, g, NULL), PR_OK);
        cr_expect_str_eq(hp.quant, t[i].quant, "%s: %s", t[i].file, hp.quant);
        hparams_clear(&hp);
        gguf_close(g);
    }
}

/* --- rotary frequencies ------------------------------------------------------------------------ */

static const double two_pi = 6.283185307179586;

/* Llama 3.1: the divisor as published (factor 8, low 1, high 4), here with original context 64. */
static double llama31(double freq)
{
    double wave = two_pi / freq, smooth;

    if (wave < 64.0 / 4) return freq;
    if (wave > 64.0 / 1) return freq / 8;
    smooth = (64.0 / wave - 1) / (4 - 1);
    return (1 - smooth) * freq / 8 + smooth * freq;
}

/* YaRN with factor 4, original context 128, beta 32 and 1: dimension at which a frequency turns beta times in
 * the context. */
static double yarn(double freq, int i, int n_rot, double base)
{
    double first = floor(n_rot * log(128 / (32 * two_pi)) / (2 * log(base)));
    double last = ceil(n_rot * log(128 / (1 * two_pi)) / (2 * log(base)));
    double ramp;

    if (first < 0) first = 0;
    if (last > n_rot - 1) last = n_rot - 1;
    ramp = ((double)i - first) / (last - first < 0.001 ? 0.001 : last - first);
    if (ramp < 0) ramp = 0;
    if (ramp > 1) ramp = 1;
    return freq / 4 * ramp + freq * (1 - ramp);
}

typedef struct {
    const char *file, *scaling;
    int n_rot;
    double base, mscale;
    char kind;
} rope_case;

static void check_rope(const rope_case *c)
{
    char rel[128];
    hparams hp;
    gguf *g;
    pr_err e = {0};

    snprintf(rel, sizeof rel, "models/%s.gguf", c->file);
    cr_assert_eq(gguf_open(&g, test_data(rel), &e), PR_OK, "%s", e.msg);
    cr_assert_eq(hparams_read(&hp, g, &e), PR_OK, "%s", e.msg);
    cr_assert_eq((int)hp.n_rot, c->n_rot, "%s", c->file);
    cr_expect_str_eq(hp.rope_scaling, c->scaling);
    cr_expect_eq(hp.rope_divided, c->kind == '3');
    for (int i = 0; i < c->n_rot / 2; i++) {
        double freq = exp(-log(c->base) * 2 * i / c->n_rot), want = freq;

        if (c->kind == 'l') want = freq / 4;
        if (c->kind == 'y') want = yarn(freq, i, c->n_rot, c->base);
        if (c->kind == '3') want = llama31(freq);
        /* one rounding to float here; the divisors of '3' are rounded to float in the file too */
        cr_expect_float_eq(hp.rope_freq[i], want, want * 2.5e-7, "%s pair %d: %.9g, expected %.9g", c->file,
                           i, (double)hp.rope_freq[i], want);
    }
    cr_expect_float_eq(hp.rope_mscale, c->mscale, 1e-7);
    hparams_clear(&hp);
    gguf_close(g);
}

Test(hparams, rope_frequencies)
{
    static const rope_case cases[] = {
        {"stories260K", "none", 8, 10000, 1, 'n'},
        {"qwen3-qknorm", "none", 32, 1000000, 1, 'n'},
        {"llama-linear", "linear", 24, 10000, 1, 'l'},
        {"qwen2-yarn", "yarn", 32, 10000, 1.1386294361119891, 'y'}, /* 1 + 0.1 ln 4 */
        {"llama-gqa-ropefreqs", "none", 16, 500000, 1, '3'},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_rope(&cases[i]);
}

/* --- models built here ------------------------------------------------------------------------- */

typedef struct {
    gguf *g;
    hparams hp;
    unsigned char *bytes;
    pr_err err;
    int rc;
} built;

/* Consumes b. */
static built read_built(gguf_build *b)
{
    built m = {0};
    size_t n;

    m.bytes = gb_bytes(b, &n);
    gb_free(b);
    cr_assert_eq(gguf_open_memory(&m.g, m.bytes, n, &m.err), PR_OK, "%s", m.err.msg);
    m.rc = hparams_read(&m.hp, m.g, &m.err);
    return m;
}

static void done(built *m)
{
    hparams_clear(&m->hp);
    gguf_close(m->g);
    free(m->bytes);
}

static void refused(gguf_build *b, const char *words)
{
    built m = read_built(b);

    cr_assert_eq(m.rc, PR_EINTEGRITY, "accepted (%d), expected \"%s\"", m.rc, words);
    cr_assert_not_null(strstr(m.err.msg, words), "\"%s\" without \"%s\"", m.err.msg, words);
    cr_assert(m.hp.layer == NULL && m.hp.rope_freq == NULL, "cleared");
    done(&m);
}

static built accepted(gguf_build *b)
{
    built m = read_built(b);

    cr_assert_eq(m.rc, PR_OK, "%s", m.err.msg);
    return m;
}

static gguf_build *tiny(void)
{
    return gb_tiny("llama");
}

/* The tiny model with one key changed or added. */
static gguf_build *with_u32(const char *key, uint32_t v)
{
    gguf_build *b = tiny();

    gb_drop(b, key);
    gb_u32(b, key, v);
    return b;
}

static gguf_build *with_f32(const char *key, float v)
{
    gguf_build *b = tiny();

    gb_drop(b, key);
    gb_f32(b, key, v);
    return b;
}

static gguf_build *with_str(const char *key, const char *v)
{
    gguf_build *b = tiny();

    gb_drop(b, key);
    gb_str(b, key, v);
    return b;
}

static gguf_build *with_tensor(const char *name, uint32_t type, uint64_t n0, uint64_t n1, const void *data,
                               size_t n_bytes)
{
    gguf_build *b = tiny();

    gb_drop_tensor(b, name);
    gb_tensor(b, name, type, n1 ? 2 : 1, (uint64_t[]){n0, n1}, data, n_bytes);
    return b;
}

static gguf_build *with_u32s(const char *key, const uint32_t *v, size_t n)
{
    gguf_build *b = tiny();
    unsigned char le[64];

    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 4; k++) le[4 * i + (size_t)k] = (unsigned char)(v[i] >> (8 * k));
    }
    gb_drop(b, key);
    gb_array(b, key, GB_U32, le, 4 * n, n);
    return b;
}

Test(hparams, tiny_models_of_each_architecture)
{
    static const char *const arch[] = {"llama", "qwen2", "qwen3"};

    for (int i = 0; i < 3; i++) {
        built m = accepted(gb_tiny(arch[i]));

        cr_expect_eq(m.hp.arch, (model_arch)i);
        cr_expect(m.hp.n_layers == 2 && m.hp.n_embd == 16 && m.hp.n_heads == 2 && m.hp.n_kv_heads == 1 &&
                  m.hp.head_size == 8);
        cr_expect(m.hp.n_ff == 32 && m.hp.n_vocab == 8 && m.hp.n_ctx_train == 64 && m.hp.n_rot == 8);
        cr_expect_float_eq(m.hp.attn_scale, 1 / sqrt(8), 1e-7);
        cr_expect_eq(m.hp.norm_eps, 1e-5f);
        cr_expect_eq(m.hp.rope_neox, i > 0);
        cr_expect_str_eq(m.hp.name, "memory", "without general.name: the file's name");
        cr_expect_str_eq(m.hp.quant, "F32", "without general.file_type: the commonest type");
        cr_expect_eq(m.hp.layer[1].ffn_down, gguf_tensor_find(m.g, "blk.1.ffn_down.weight"));
        /* 2 norms of 16, q and o 16x16, k and v 16x8, three of 16x32; qwen2: biases 16+8+8; qwen3: norms 8+8
         */
        cr_expect_eq(hparams_layer_bytes(&m.hp, 1, 2), 4u * (32 + 512 + 256 + 1536 +
                                                             (i == 1   ? 32
                                                              : i == 2 ? 16
                                                                       : 0)));
        cr_expect_eq(hparams_layer_bytes(&m.hp, 0, 2), 2 * hparams_layer_bytes(&m.hp, 0, 1));
        cr_expect_eq(hparams_output_bytes(&m.hp), 4u * (128 + 128 + 16));
        done(&m);
    }
}

Test(hparams, every_required_key_and_tensor_is_missed_by_name)
{
    static const char *const keys[] = {"general.architecture",
                                       "llama.block_count",
                                       "llama.context_length",
                                       "llama.embedding_length",
                                       "llama.feed_forward_length",
                                       "llama.attention.head_count",
                                       "llama.attention.layer_norm_rms_epsilon"};
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    gguf_build *b;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char words[96];

        b = tiny();
        gb_drop(b, keys[i]);
        snprintf(words, sizeof words, "key %s is missing", keys[i]);
        refused(b, words);
    }
    for (size_t a = 0; a < 3; a++) {
        built m = accepted(gb_tiny(archs[a]));

        for (size_t i = 0; i < gguf_n_tensors(m.g); i++) {
            const char *name = gguf_tensor_at(m.g, i)->name;
            char words[96];

            if (strcmp(name, "output.weight") == 0) continue; /* tied then */
            b = gb_tiny(archs[a]);
            gb_drop_tensor(b, name);
            snprintf(words, sizeof words, "tensor %s is missing", name);
            refused(b, words);
        }
        done(&m);
    }
}

Test(hparams, every_tensor_has_one_shape)
{
    built all = accepted(gb_tiny("qwen3"));

    for (size_t i = 0; i < gguf_n_tensors(all.g); i++) {
        const gguf_tensor *t = gguf_tensor_at(all.g, i);

        for (uint32_t d = 0; d < t->n_dims + 1;
             d++) { /* one larger in each dimension, and a further dimension */
            uint64_t ne[3] = {t->ne[0], t->ne[1], t->ne[2]};
            gguf_build *b = gb_tiny("qwen3");

            ne[d]++;
            gb_drop_tensor(b, t->name);
            gb_tensor(b, t->name, Q_F32, d + 1 > t->n_dims ? d + 1 : t->n_dims, ne, NULL,
                      (size_t)(4 * ne[0] * ne[1] * ne[2]));
            refused(b, strcmp(t->name, "token_embd.weight") == 0 && d == 1 ? "the vocabulary has 8 tokens"
                                                                           : t->name);
        }
    }
    done(&all);
}

Test(hparams, keys_out_of_range)
{
    refused(with_u32("llama.block_count", 0), "key llama.block_count is 0, expected 1..1000");
    refused(with_u32("llama.block_count", 1001), "expected 1..1000");
    refused(with_u32("llama.context_length", 0), "llama.context_length");
    refused(with_u32("llama.embedding_length", 0), "llama.embedding_length");
    refused(with_u32("llama.feed_forward_length", 0), "llama.feed_forward_length");
    refused(with_u32("llama.attention.head_count", 0), "llama.attention.head_count");
    refused(with_u32("llama.attention.head_count", 3), "no multiple of the 3 heads");
    refused(with_u32("llama.attention.head_count_kv", 0), "llama.attention.head_count_kv is 0");
    refused(with_u32("llama.attention.head_count_kv", 4), "head_count_kv is 4, expected 1..2");
    refused(with_u32("llama.attention.key_length", 4), "key head size 4 and value head size 8 differ");
    refused(with_u32("llama.expert_count", 8), "mixture-of-experts");
    refused(with_f32("llama.attention.layer_norm_rms_epsilon", 0), "more than 0");
    refused(with_f32("llama.attention.layer_norm_rms_epsilon", NAN), "is nan");
    refused(with_f32("llama.attention.layer_norm_rms_epsilon", -1e-5f), "more than 0");
    refused(with_u32("llama.attention.layer_norm_rms_epsilon", 1), "is u32, expected f32");
    refused(with_str("general.architecture", "mixtral\n"), "architecture \"mixtral\\n\" is not supported");
    refused(with_str("llama.block_count", "2"), "is string, expected an integer");
    refused(with_u32("llama.rope.dimension_count", 10), "expected 1..8");
    refused(with_u32("llama.rope.dimension_count", 0), "expected 1..8");
    refused(with_u32("llama.rope.dimension_count", 7), "an even number");
    refused(with_f32("llama.rope.freq_base", 0), "more than 0");
    refused(with_f32("llama.rope.freq_base", INFINITY), "is inf");
    refused(with_f32("llama.rope.scaling.factor", -2), "from 0 to");
    refused(with_str("llama.rope.scaling.type", "longrope"),
            "\"longrope\"; prima knows none, linear and yarn");
    refused(with_str("llama.rope.scaling.type", "su"), "\"su\"");
}

Test(hparams, six_heads_of_four_cannot_share)
{
    gguf_build *b = with_u32("llama.attention.head_count", 3);

    gb_u32(b, "llama.attention.key_length", 8);
    gb_u32(b, "llama.attention.value_length", 8);
    gb_drop(b, "llama.attention.head_count_kv");
    gb_u32(b, "llama.attention.head_count_kv", 2);
    refused(b, "3 heads cannot be shared evenly by 2");
}

Test(hparams, arrays_of_equal_layers)
{
    static const uint32_t equal[] = {1, 1}, unequal[] = {1, 2}, ff[] = {32, 32};
    built m = accepted(with_u32s("llama.attention.head_count_kv", equal, 2));

    cr_expect_eq(m.hp.n_kv_heads, 1u);
    done(&m);
    m = accepted(with_u32s("llama.feed_forward_length", ff, 2));
    cr_expect_eq(m.hp.n_ff, 32u);
    done(&m);
    refused(with_u32s("llama.attention.head_count_kv", unequal, 2),
            "differs between layers (1 in layer 0, 2 in layer 1)");
    refused(with_u32s("llama.attention.head_count_kv", equal, 0), "array of 0 u32, expected integers");
}

Test(hparams, defaults)
{
    gguf_build *b = tiny();
    built m;

    gb_drop(b, "llama.attention.head_count_kv");
    refused(b, "tensor blk.0.attn_k.weight is 16 x 8, expected 16 x 16"); /* as many kv heads as heads */
    b = tiny();
    gb_drop_tensor(b, "output.weight");
    m = accepted(b);
    cr_expect_eq(m.hp.output, m.hp.token_embd);
    cr_expect_eq(hparams_output_bytes(&m.hp), 4u * (128 + 16));
    done(&m);
    b = tiny();
    gb_drop(b, "tokenizer.ggml.tokens");
    m = accepted(b);
    cr_expect_eq(m.hp.n_vocab, 8u, "a file without a token list has as many tokens as embedding rows");
    done(&m);
    m = accepted(with_u32("llama.rope.dimension_count", 4));
    cr_expect_eq(m.hp.n_rot, 4u);
    done(&m);
}

Test(hparams, scaling_keys)
{
    built plain = accepted(tiny()), m = accepted(with_f32("llama.rope.scaling.factor", 0));
    gguf_build *b;

    cr_expect_eq(m.hp.rope_freq[1], plain.hp.rope_freq[1], "factor 0 means not scaled");
    done(&m);
    m = accepted(with_f32("llama.rope.scaling.factor", 2));
    cr_expect_eq(m.hp.rope_freq[1], plain.hp.rope_freq[1] / 2, "without a type the factor is linear");
    done(&m);
    m = accepted(with_f32("llama.rope.scale_linear", 2));
    cr_expect_eq(m.hp.rope_freq[1], plain.hp.rope_freq[1] / 2, "the old key");
    done(&m);
    b = with_f32("llama.rope.scaling.factor", 2);
    gb_str(b, "llama.rope.scaling.type", "none");
    m = accepted(b);
    cr_expect_eq(m.hp.rope_freq[1], plain.hp.rope_freq[1], "none leaves the factor alone");
    done(&m);
    b = with_f32("llama.rope.scaling.factor", 4);
    gb_str(b, "llama.rope.scaling.type", "yarn");
    gb_f32(b, "llama.rope.scaling.attn_factor", 0.5f);
    m = accepted(b);
    cr_expect_float_eq(m.hp.rope_mscale, 0.5 * (1 + 0.1 * log(4)), 1e-7);
    done(&m);
    b = with_f32("llama.rope.freq_base", 1);
    gb_str(b, "llama.rope.scaling.type", "yarn");
    refused(b, "YaRN scaling needs more than 1");
    done(&plain);
}

/* Corners by hand: n_rot 8, base 100, original context 1000 gives 1.39 and 4.40, so floor 1 and ceil 5, and
 * pairs 0..3 keep 1, 1, 0.75 and 0.5 of their frequency 100^(-i/4). */
Test(hparams, yarn_corners)
{
    static const double want[4] = {1, 0.31622776601683794, 0.1 * (0.75 + 0.25 / 4),
                                   0.03162277660168379 * (0.5 + 0.5 / 4)};
    gguf_build *b = with_f32("llama.rope.scaling.factor", 4);
    built m;

    gb_str(b, "llama.rope.scaling.type", "yarn");
    gb_f32(b, "llama.rope.freq_base", 100);
    gb_u32(b, "llama.rope.scaling.original_context_length", 1000);
    m = accepted(b);
    for (int i = 0; i < 4; i++)
        cr_expect_float_eq(m.hp.rope_freq[i], want[i], 1e-7, "pair %d: %g", i, (double)m.hp.rope_freq[i]);
    done(&m);
}

Test(hparams, rope_freqs_tensor)
{
    static const float good[4] = {1, 2, 4, 8}, zero[4] = {1, 0, 1, 1}, nan_[4] = {1, 1, 1, NAN};
    built plain = accepted(tiny()), m = accepted(with_tensor("rope_freqs.weight", Q_F32, 4, 0, good, 16));

    for (int i = 0; i < 4; i++) cr_expect_eq(m.hp.rope_freq[i], plain.hp.rope_freq[i] / good[i]);
    done(&m);
    done(&plain);
    refused(with_tensor("rope_freqs.weight", Q_F32, 4, 0, zero, 16), "rope_freqs.weight: value 1 is 0");
    refused(with_tensor("rope_freqs.weight", Q_F32, 4, 0, nan_, 16), "rope_freqs.weight: value 3 is");
    refused(with_tensor("rope_freqs.weight", Q_F32, 5, 0, NULL, 20), "rope_freqs.weight is 5, expected 4");
}

Test(hparams, tensor_types)
{
    built m = accepted(with_tensor("blk.0.ffn_down.weight", Q_Q8_0, 32, 16, NULL, 34 * 16));

    cr_expect_eq(m.hp.layer[0].ffn_down->type, (uint32_t)Q_Q8_0);
    done(&m);
    refused(with_tensor("blk.1.attn_norm.weight", Q_F16, 16, 0, NULL, 32),
            "blk.1.attn_norm.weight is of type F16, expected F32");
    refused(with_tensor("output_norm.weight", Q_BF16, 16, 0, NULL, 32),
            "output_norm.weight is of type BF16, expected F32");
}

Test(hparams, optional_and_unknown_tensors)
{
    built m = accepted(with_tensor("blk.0.attn_output.bias", Q_F32, 16, 0, NULL, 64));

    cr_expect_not_null(m.hp.layer[0].attn_output_bias);
    cr_expect_null(m.hp.layer[1].attn_output_bias);
    done(&m);
    m = accepted(with_tensor("blk.0.attn_q.bias", Q_F32, 16, 0, NULL, 64));
    cr_expect_not_null(m.hp.layer[0].attn_q_bias);
    done(&m);
    m = accepted(with_tensor("output.bias", Q_F32, 8, 0, NULL, 32));
    cr_expect_not_null(m.hp.output_bias);
    done(&m);
    m = accepted(with_tensor("mystery", Q_F32, 8, 0, NULL, 32));
    done(&m);
    m = accepted(with_tensor("blk.0.attn_rot_embd", Q_F32, 4, 0, NULL, 16));
    done(&m);
    refused(with_tensor("blk.0.ffn_up.bias", Q_F32, 32, 0, NULL, 128),
            "tensor blk.0.ffn_up.bias is not part of a llama model");
    refused(with_tensor("blk.2.attn_norm.weight", Q_F32, 16, 0, NULL, 64), "llama model of 2 layers");
    refused(with_tensor("blk.0.attn_q_norm.weight", Q_F32, 8, 0, NULL, 32), "not part of a llama model");
}

Test(hparams, names)
{
    static const struct {
        const char *in, *out;
    } t[] = {{"Tiny Llama", "Tiny Llama"}, {"a\033[0m\xff", "a\\x1b[0m\\xff"}};
    char longer[300];
    built m;

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        m = accepted(with_str("general.name", t[i].in));
        cr_expect_str_eq(m.hp.name, t[i].out);
        done(&m);
    }
    longer[0] = 'x';
    for (size_t i = 0; i < 130; i++) memcpy(longer + 1 + 2 * i, "\303\251", 3);
    m = accepted(with_str("general.name", longer));
    cr_expect_eq(strlen(m.hp.name) % 2, 1u, "cut between characters");
    done(&m);
    m = accepted(with_u32("general.file_type", 15));
    cr_expect_str_eq(m.hp.quant, "Q4_K_M");
    done(&m);
    m = accepted(with_u32("general.file_type", 1024 + 7));
    cr_expect_str_eq(m.hp.quant, "Q8_0");
    done(&m);
    m = accepted(with_u32("general.file_type", 5));
    cr_expect_str_eq(m.hp.quant, "F32", "a number without a name: the commonest type");
    done(&m);
}
