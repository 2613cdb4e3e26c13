/* Shapes: sizes against published files, and refusals. tests/cmd/test_shape_gguf.c compares with GGUF
 * headers. */
#include "planner/shape.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static model_facts f;

static void read_shape(const char *name, const char *quant)
{
    char path[128];
    pr_err e = {0};

    snprintf(path, sizeof path, "datasets/shapes/%s.yaml", name);
    cr_assert_eq(shape_read(&f, path, quant, &e), PR_OK, "%s", e.msg);
}

static double total_elements(void)
{
    double sum = (double)f.n_embd * f.n_vocab; /* the token embedding is no work */

    for (size_t i = 0; i < f.n_work; i++)
        sum += f.work[i].layer_elements * f.n_layers + f.work[i].output_elements;
    return sum;
}

/* Sizes of public GGUF files as their pages list them, in 1e9 bytes with two decimals, and parameters in 1e9
 * from the model cards. The tolerance is that of two decimals; byte for byte see tests/cmd/test_shape_gguf.c.
 */
static const struct {
    const char *name, *quant;
    double file_gb, tolerance, parameters;
} published[] = {
    {"llama-3-8b", NULL, 4.92, 0.006, 8.03},   {"llama-3-8b", "Q6_K", 6.60, 0.006, 8.03},
    {"llama-3-8b", "Q8_0", 8.54, 0.006, 8.03}, {"llama-3-70b", NULL, 42.52, 0.006, 70.6},
    {"qwen2.5-7b", NULL, 4.68, 0.006, 7.62},   {"qwen2.5-14b", NULL, 8.99, 0.006, 14.8},
    {"qwen2.5-32b", NULL, 19.85, 0.006, 32.8}, {"qwq-32b", NULL, 19.85, 0.006, 32.8},
    {"qwen2.5-72b", NULL, 47.42, 0.006, 72.7}, {"r1-distill-llama-8b", NULL, 4.92, 0.006, 8.03},
    {"llama-1-30b", NULL, 19.62, 0.006, 32.5}, {"llama-1-65b", NULL, 39.28, 0.1, 65.3}, /* an older mix */
};

Test(shape, sizes_of_published_files)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        double off, parameters;
        read_shape(published[i].name, published[i].quant);
        off = fabs((double)f.file_bytes / 1e9 - published[i].file_gb);
        parameters = total_elements() / 1e9;
        cr_expect(off <= published[i].tolerance, "%s: %llu bytes, published %.2f GB", published[i].name,
                  (unsigned long long)f.file_bytes, published[i].file_gb);
        cr_expect(fabs(parameters / published[i].parameters - 1) < 0.005, "%s: %.3f e9 parameters",
                  published[i].name, parameters);
    }
}

/* The figures that were worked out by hand for the paper's largest model. */
Test(shape, llama_3_70b)
{
    read_shape("llama-3-70b", NULL);
    cr_assert_str_eq(f.name, "Llama 3 70B");
    cr_assert_str_eq(f.arch, "llama");
    cr_assert_str_eq(f.quant, "Q4_K_M");
    cr_assert_eq(f.n_layers, 80);
    cr_assert_eq(f.head_size, 128);
    cr_assert_eq(f.input_bytes, 591003648); /* 128256 x 8192 at 144 bytes for 256 */
    cr_assert_eq(f.input_row_bytes, 4608);
    cr_assert_eq(f.output_bytes, 861880320 + 4 * 8192);
    cr_assert_float_eq(facts_mean_layer_bytes(&f) / 1e6, 513.2, 0.1);
    cr_assert_eq(facts_layer_bytes(&f, 0, 80), 80 * facts_mean_layer_bytes(&f));
    cr_assert_eq(facts_layer_bytes(&f, 3, 5), f.layer_bytes[3] + f.layer_bytes[4]);
    cr_assert_eq(facts_layer_bytes(&f, 5, 5), 0);
    cr_assert_eq(facts_kv_token_bytes(&f, "f16"), 4096);
    cr_assert_eq(facts_kv_token_bytes(&f, "f32"), 8192);
    cr_assert_eq(facts_kv_token_bytes(&f, "q8_0"), 2 * 8 * (128 + 4 * 4));
    cr_assert_eq(facts_kv_token_bytes(&f, "q4_0"), 0);
    cr_assert_eq(strlen(f.header_sha256), 64);
}

/* By hand: the first 10 and last 10 layers and every third between have Q6_K in attn_v and ffn_down, the
 * others Q5_K in attn_v, since there are 80 layers and shared heads. */
Test(shape, q4_k_m_rule_of_70b)
{
    const uint64_t embd = 8192, ff = 28672, kv = 1024,
                   rest = (2 * embd * embd + kv * embd + 2 * ff * embd) / 256 * 144 + 8 * embd;
    uint64_t more = rest + (kv * embd + ff * embd) / 256 * 210;
    uint64_t less = rest + kv * embd / 256 * 176 + ff * embd / 256 * 144;
    unsigned n_more = 0;

    read_shape("llama-3-70b", NULL);
    cr_assert_eq(f.layer_bytes[0], more);
    cr_assert_eq(f.layer_bytes[9], more);
    cr_assert_eq(f.layer_bytes[10], less);
    cr_assert_eq(f.layer_bytes[11], less);
    cr_assert_eq(f.layer_bytes[12], more);
    cr_assert_eq(f.layer_bytes[69], more);
    cr_assert_eq(f.layer_bytes[68], less);
    cr_assert_eq(f.layer_bytes[70], more);
    cr_assert_eq(f.layer_bytes[79], more);
    for (uint32_t il = 0; il < 80; il++) n_more += f.layer_bytes[il] == more;
    cr_assert_eq(n_more, 40);
    read_shape("llama-1-65b", NULL); /* 80 layers, but every head has its own attn_v: no Q5_K */
    for (size_t i = 0; i < f.n_work; i++) cr_assert_str_neq(f.work[i].type, "Q5_K");
}

/* 29568 is no multiple of 256: ffn_down takes Q5_0 and Q8_0. */
Test(shape, qwen_72b_takes_small_blocks)
{
    double small = 0;

    read_shape("qwen2.5-72b", NULL);
    for (size_t i = 0; i < f.n_work; i++) {
        if (!strcmp(f.work[i].type, "Q5_0") || !strcmp(f.work[i].type, "Q8_0"))
            small += f.work[i].layer_elements;
    }
    cr_assert_eq(small, 8192.0 * 29568);
    read_shape("qwen2.5-72b", "Q8_0");
    cr_assert_eq(f.n_work, 1);
}

Test(shape, every_file_in_every_mix)
{
    static const char *const mixes[] = {"Q4_K_M", "Q6_K", "Q8_0"};
    struct dirent **files;
    int n = scandir("datasets/shapes", &files, NULL, alphasort), found = 0;

    cr_assert(n > 0);
    for (int i = 0; i < n; i++) {
        char *dot = strrchr(files[i]->d_name, '.');
        uint64_t smaller = 0;
        if (!dot || strcmp(dot, ".yaml")) continue;
        *dot = 0;
        found++;
        for (size_t m = 0; m < 3; m++) {
            read_shape(files[i]->d_name, mixes[m]);
            cr_expect_str_eq(f.quant, mixes[m]);
            cr_expect_gt(f.file_bytes, smaller);
            smaller = f.file_bytes;
        }
    }
    cr_assert_eq(found, 14);
    for (int i = 0; i < n; i++) free(files[i]);
    free(files);
}

#define HEAD "schema: prima/shape/1\nname: x\narch: llama\n"
#define SIZES                                                                                                \
    "n_layers: 2\nn_embd: 256\nn_ff: 512\nn_heads: 8\nn_kv_heads: 2\nn_vocab: 512\nn_ctx_train: 512\n"
static const struct {
    const char *text, *message;
} refused[] = {
    {HEAD SIZES, "s:1:1: the file: the key 'quant' is missing"},
    {HEAD SIZES "quant: Q4_0\n", "s:11:8: quant: expected one of Q4_K_M, Q6_K, Q8_0, found 'Q4_0'"},
    {HEAD SIZES "quants: Q4_0\n", "s:11:1: unknown key 'quants': did you mean 'quant'?"},
    {"schema: prima/shape/1\nname: x\narch: gpt2\n" SIZES "quant: Q6_K\n",
     "s:3:7: arch: expected one of llama, qwen2, found 'gpt2'"},
    {"schema: prima/shape/2\nname: x\narch: llama\n" SIZES "quant: Q6_K\n",
     "s:1:9: schema: 'prima/shape/2' is another"},
    {HEAD "n_layers: 1001\n", "s:4:11: n_layers: 1001 is outside 1..1000"},
    {HEAD "n_layers: 2\nn_embd: 250\n", "s:5:9: n_embd: 250 is no multiple of 32"},
    {HEAD "n_layers: 2\nn_embd: 256\nn_ff: 512\nn_heads: 8\nn_kv_heads: 3\n",
     "s:8:13: n_kv_heads: 8 heads cannot share 3"},
    {HEAD "n_layers: 2\nn_embd: 256\nn_ff: 512\nn_heads: 6\nn_kv_heads: 3\n",
     "s:7:10: n_heads: 6 does not divide n_embd 256"},
    {HEAD "n_layers: 2\nn_embd: 256\nn_ff: 512\nn_heads: 1\nn_kv_heads: 1\nhead_size: 20\n",
     "s:7:10: n_heads: 1 heads of 20 values are no multiple of 32"},
    {HEAD SIZES "quant: Q6_K\ntied: maybe\n", "s:12:7: tied: expected true or false"},
    {HEAD SIZES "quant: Q6_K\nheader_bytes: 2G\n", "s:12:15: header_bytes: '2G' is no size"},
};

Test(shape, refuses_with_line_and_column)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        pr_err e = {0};
        cr_expect_eq(shape_parse(&f, refused[i].text, strlen(refused[i].text), "s", NULL, &e), PR_EUSAGE);
        cr_expect(!strncmp(e.msg, refused[i].message, strlen(refused[i].message)),
                  "got \"%s\", expected \"%s\"", e.msg, refused[i].message);
    }
}

Test(shape, another_mix_that_is_not_known)
{
    pr_err e = {0};
    cr_assert_eq(shape_read(&f, "datasets/shapes/llama-3-8b.yaml", "Q3_K_M", &e), PR_EUSAGE);
    cr_assert(strstr(e.msg, "quant: expected one of Q4_K_M, Q6_K, Q8_0, found 'Q3_K_M'"), "%s", e.msg);
    cr_assert_eq(shape_read(&f, "datasets/shapes/none.yaml", NULL, &e), PR_ERESOURCE);
}
