/* prima inspect as a user runs it: the JSON of every model of the test data against its list, the page, split
 * models, bad files. */
#include "kernels/cuda/device.h"
#include "tests/common/data.h"
#include "tests/common/gguf_build.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_dir(void)
{
    test_dir_new();
}

TestSuite(inspect, .init = make_dir, .fini = test_dir_remove, .timeout = 120);

/* `prima inspect PATH [more]` -> exit status; standard output in DIR/out. */
static prima_result inspect(const char *path, const char *more1, const char *more2)
{
    return prima_run(in_dir("out"), (const char *const[]){"inspect", path, more1, more2, NULL});
}

/* Its JSON; caller decrefs. */
static json_t *inspect_json(const char *path, const char *more)
{
    prima_result r = inspect(path, "--json", more);
    json_t *v;

    cr_assert_eq(r.status, 0, "%s: %s", path, r.err);
    v = json_load_file(in_dir("out"), 0, NULL);
    cr_assert_not_null(v, "%s: not one JSON value", path);
    return v;
}

/* The value at "a.b.c". */
static json_t *at(json_t *v, const char *where)
{
    char name[64];
    size_t n;

    for (; v; where += n + 1) {
        n = strcspn(where, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, where);
        v = json_object_get(v, name);
        if (!where[n]) break;
    }
    cr_assert_not_null(v, "%s", where);
    return v;
}

static json_int_t int_at(json_t *v, const char *where)
{
    v = at(v, where);
    cr_assert(json_is_integer(v), "%s", where);
    return json_integer_value(v);
}

static const char *text_at(json_t *v, const char *where)
{
    v = at(v, where);
    cr_assert(json_is_string(v), "%s", where);
    return json_string_value(v);
}

/* Where code for GPUs is built in, each type says its way there; else none does. */
static void check_gpu_path(json_t *type)
{
    static const char *const ways[][2] = {{"F32", "fma f32"},   {"F16", "mma f16"},
                                          {"BF16", "mma bf16"}, {"Q4_K", "mma q8"},
                                          {"IQ4_XS", "mma q8"}, {"IQ2_XS", "unpacked to 8 bits"},
                                          {"Q8_0", "mma q8"},   {"IQ1_M", "unpacked to 8 bits"}};

    cr_expect_eq(json_object_get(type, "runs_on_gpu_as") != NULL, gpu_is_built());
    for (size_t i = 0; i < sizeof ways / sizeof *ways && gpu_is_built(); i++)
        if (!strcmp(text_at(type, "type"), ways[i][0]))
            cr_expect_str_eq(text_at(type, "runs_on_gpu_as"), ways[i][1], "%s", ways[i][0]);
}

/* One entry of models.json against what inspect says of the file. */
static void check_model(json_t *want)
{
    static const struct {
        const char *ours, *theirs;
    } same[] = {
        {"shape.layers", "layers"},     {"shape.embedding", "embedding"},       {"shape.heads", "heads"},
        {"shape.kv_heads", "kv_heads"}, {"shape.feed_forward", "feed_forward"}, {"shape.vocab", "vocab"},
        {"file.file_bytes", "bytes"},
    };
    const char *file = text_at(want, "file");
    json_t *got, *type;
    char rel[256];
    double share = 0;
    size_t i;

    snprintf(rel, sizeof rel, "models/%s", file);
    got = inspect_json(test_data(rel), NULL);
    cr_expect_str_eq(text_at(got, "schema"), "prima/inspect/1");
    cr_expect_str_eq(text_at(got, "arch"), text_at(want, "arch"), "%s", file);
    for (size_t k = 0; k < sizeof same / sizeof *same; k++)
        cr_expect_eq(int_at(got, same[k].ours), int_at(want, same[k].theirs), "%s: %s", file, same[k].ours);
    cr_expect_eq(json_array_size(at(got, "layer_bytes")), (size_t)int_at(want, "layers"));
    cr_expect_eq(json_array_size(at(got, "tensor_types")), json_object_size(at(want, "tensors")));
    json_array_foreach(at(got, "tensor_types"), i, type)
    {
        cr_expect_eq(int_at(type, "count"), int_at(at(want, "tensors"), text_at(type, "type")), "%s", file);
        cr_expect_gt(strlen(text_at(type, "runs_as")), 0u);
        check_gpu_path(type);
        share += json_number_value(at(type, "share_pct"));
    }
    cr_expect_float_eq(share, 100, 0.01);
    cr_expect_eq(int_at(got, "memory.total_bytes"), int_at(got, "memory.weights_bytes") +
                                                        int_at(got, "memory.kv_bytes") +
                                                        int_at(got, "memory.buffer_bytes"));
    json_decref(got);
}

Test(inspect, every_test_model)
{
    json_t *list = test_data_json("models/models.json"), *want;
    size_t i;

    json_array_foreach(list, i, want) check_model(want);
    cr_assert_gt(i, 0u);
    json_decref(list);
}

/* F16 KV of this model: 2 (K and V) x 2 bytes x 2 layers x 1 head x 8 values a token. */
Test(inspect, kv_and_memory)
{
    gguf_build *b = gb_tiny("llama");
    json_t *v;

    gb_str(b, "tokenizer.ggml.model", "llama");
    gb_array(b, "tokenizer.ggml.scores", GB_F32, (float[8]){0}, 32, 8);
    gb_array(b, "tokenizer.ggml.token_type", GB_I32, (int32_t[8]){2, 3, 3, 1, 1, 1, 1, 1}, 32, 8);
    gb_write(b, in_dir("m.gguf"));
    gb_free(b);
    v = inspect_json(in_dir("m.gguf"), NULL);
    cr_expect_eq(int_at(v, "kv_bytes_per_token.f16"), 64);
    cr_expect_eq(int_at(v, "kv_bytes_per_token.f32"), 128);
    cr_expect(json_is_null(at(v, "kv_bytes_per_token.q8_0")), "a head of 8 values is no multiple of 32");
    cr_expect_eq(int_at(v, "memory.ctx"), 64, "the model's context when it is below 4096");
    cr_expect_eq(int_at(v, "memory.kv_bytes"), 64 * 64);
    cr_expect_eq(int_at(v, "parameters"), 2 * (32 + 512 + 256 + 1536) + 128 + 128 + 16);
    cr_expect_str_eq(text_at(v, "chat_template"), "none");
    json_decref(v);
}

Test(inspect, listing_of_keys_and_tensors)
{
    json_t *v = inspect_json(test_data("models/qwen2-yarn.gguf"), "-v"), *t;
    char *page;

    cr_expect_eq(json_array_size(at(v, "tensors")), 39u);
    cr_expect_eq(json_array_size(at(v, "metadata")), 25u);
    t = json_array_get(at(v, "tensors"), 0);
    cr_expect_str_eq(text_at(t, "name"), "token_embd.weight");
    cr_expect_eq(json_integer_value(json_array_get(at(t, "shape"), 0)), 96);
    cr_expect_eq(json_integer_value(json_array_get(at(t, "shape"), 1)), 512);
    cr_expect_eq(int_at(t, "file_offset"), 14176);
    cr_expect_str_eq(text_at(v, "rope.scaling"), "yarn");
    cr_expect_str_eq(text_at(v, "chat_template"), "chatml");
    json_decref(v);

    cr_assert_eq(inspect(test_data("models/qwen2-yarn.gguf"), "-v", NULL).status, 0);
    page = read_file(in_dir("out"));
    cr_expect_not_null(strstr(page, "yarn scaling by 4"), "%s", page);
    cr_expect_not_null(strstr(page, "qwen2.rope.scaling.original_context_length"));
    cr_expect_not_null(strstr(page, "blk.2.ffn_down.weight"));
    free(page);
}

/* Every file of the list that must be refused: exit 8, the file named, nothing on standard output. */
Test(inspect, bad_files_exit_with_8)
{
    json_t *list = json_load_file(test_data("broken/broken.json"), JSON_ALLOW_NUL, NULL), *entry;
    char rel[256], *out;
    size_t i;

    cr_assert_not_null(list);
    json_array_foreach(list, i, entry)
    {
        const char *expect = text_at(entry, "expect"), *path;
        prima_result r;

        snprintf(rel, sizeof rel, "broken/%s", text_at(entry, "file"));
        path = test_data(rel);
        r = inspect(path, NULL, NULL);
        out = read_file(in_dir("out"));
        if (strcmp(expect, "reject") == 0) {
            cr_expect_eq(r.status, 8, "%s: status %d", rel, r.status);
            cr_expect_not_null(strstr(r.err, path), "%s: %s", rel, r.err);
            cr_expect_str_empty(out, "%s", rel);
        } else if (strcmp(expect, "accept") == 0) {
            cr_expect_eq(r.status, 0, "%s: %s", rel, r.err);
        } else {
            cr_expect(r.status == 0 || r.status == 8, "%s: status %d", rel, r.status);
        }
        free(out);
    }
    json_decref(list);
}

Test(inspect, usage)
{
    cr_expect_eq(prima_run(NULL, (const char *const[]){"inspect", NULL}).status, 2, "no file");
    cr_expect_eq(prima_run(NULL, (const char *const[]){"inspect", "a", "b", NULL}).status, 2, "two files");
    cr_expect_eq(prima_run(NULL, (const char *const[]){"inspect", "a", "--nothing", NULL}).status, 2);
    cr_expect_eq(prima_run(NULL, (const char *const[]){"inspect", "-h", NULL}).status, 0);
    cr_expect_eq(inspect(in_dir("absent.gguf"), NULL, NULL).status, 9);
    cr_expect_eq(inspect(in_dir("."), NULL, NULL).status, 9, "a folder");
}
