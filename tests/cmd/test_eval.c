/* prima eval against the oracle's answers in the test data. */
#include "tests/common/data.h"
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void open_dir(void)
{
    test_dir_new();
}

TestSuite(eval, .init = open_dir, .fini = test_dir_remove, .timeout = 300);

/* The lines of a JSONL file as an array. */
static json_t *read_lines(const char *path)
{
    char *text = read_file(path), *at = text, *end;
    json_t *a = json_array();

    for (; (end = strchr(at, '\n')); at = end + 1) {
        json_t *v = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
        if (end > at) cr_assert_not_null(v, "%s: %.100s", path, at);
        if (v) json_array_append_new(a, v);
    }
    free(text);
    return a;
}

static json_t *eval(const char *what, const char *model, const char *input, const char *const more[])
{
    const char *argv[16] = {"eval", what, model, input};
    prima_result r;

    for (int i = 0; more && more[i]; i++) argv[4 + i] = more[i];
    r = prima_run(in_dir("answers"), argv);
    cr_assert_eq(r.status, 0, "%s", r.err);
    return read_lines(in_dir("answers"));
}

/* --- perplexity ------------------------------------------------------------------------------------------
 */
static double perplexity(const char *model, int ctx, const char *kv)
{
    char rel[128], ctx_text[16];
    json_t *a;
    double ppl;

    snprintf(rel, sizeof rel, "models/%s", model);
    snprintf(ctx_text, sizeof ctx_text, "%d", ctx);
    a = eval("perplexity", test_data(rel), test_data("stories/stories.txt"),
             (const char *[]){"--ctx", ctx_text, "--kv-type", kv, NULL});
    ppl = json_number_value(json_object_get(json_array_get(a, 0), "perplexity"));
    json_decref(a);
    return ppl;
}

Test(eval, perplexity_of_the_oracle)
{
    json_t *all = test_data_json("stories/perplexity.json"), *e;
    size_t i;

    json_array_foreach(json_object_get(all, "llama_perplexity"), i, e)
    {
        const char *model = json_string_value(json_object_get(e, "model"));
        int ctx = (int)json_integer_value(json_object_get(e, "ctx"));
        double want = json_number_value(json_object_get(e, "ppl"));
        double got = perplexity(model, ctx, json_string_value(json_object_get(e, "kv_cache")));
        /* README of the data: 0.001 for F32 and F16 weights, 0.01 for quantised ones. */
        double limit = strcmp(model, "stories260K.gguf") == 0 || strstr(model, "F16") ? 0.001 : 0.01;
        cr_expect_leq(fabs(got - want), limit, "%s ctx %d: %g, expected %g", model, ctx, got, want);
    }
    json_decref(all);
}

Test(eval, perplexity_of_exact_arithmetic)
{
    json_t *all = test_data_json("stories/perplexity.json"), *e;
    size_t i;

    json_array_foreach(json_object_get(all, "exact_float64_of_stories260K"), i, e)
    {
        double want = json_number_value(json_object_get(e, "ppl"));
        double got =
            perplexity("stories260K.gguf", (int)json_integer_value(json_object_get(e, "ctx")), "f32");
        cr_expect_leq(fabs(got - want), 0.0001, "%g, expected %g", got, want);
    }
    json_decref(all);
}

/* weights-nan.gguf is valid, but some of its weights are NaN: JSON has no word for what comes out. */
Test(eval, logits_that_are_no_numbers_are_an_error)
{
    const char *model = test_data("broken/weights-nan.gguf");
    json_t *got;
    prima_result r;

    write_file(in_dir("ids"), "{\"ids\":[1,5,6]}\n");
    got = eval("logits", model, in_dir("ids"), (const char *[]){"--greedy", "2", NULL});
    cr_assert_eq(json_array_size(got), 1);
    cr_assert(strstr(json_string_value(json_object_get(json_array_get(got, 0), "error")), "finite"));
    json_decref(got);
    write_file(in_dir("text"), "Once upon a time there was a little cat who sat in the sun all day long.");
    r = prima_run(NULL, (const char *[]){"eval", "perplexity", model, in_dir("text"), "--ctx", "8", NULL});
    cr_assert_eq(r.status, 8, "status %d: %s", r.status, r.err);
    cr_assert(strstr(r.err, "finite"), "%s", r.err);
}

/* --- tokens ------------------------------------------------------------------------------------------------
 */
static void compare_field(const char *model, const char *input, const char *field)
{
    json_t *want = read_lines(input), *got = eval("tokens", model, input, NULL);

    cr_assert_eq(json_array_size(got), json_array_size(want));
    cr_assert_gt(json_array_size(want), 10);
    for (size_t i = 0; i < json_array_size(want); i++) {
        json_t *w = json_object_get(json_array_get(want, i), field),
               *g = json_object_get(json_array_get(got, i), field);
        cr_assert(json_equal(w, g), "%s line %zu", input, i + 1);
    }
    json_decref(want);
    json_decref(got);
}

Test(eval, tokens_and_pieces_of_the_oracle)
{
    const char *model = test_data("models/stories260K.gguf");
    json_t *pieces, *want, *v;
    size_t i;

    compare_field(model, test_data("tokenizer/stories260K.jsonl"), "ids");
    want = read_lines(test_data("tokenizer/stories260K.pieces.jsonl"));
    pieces = eval("tokens", model, test_data("tokenizer/stories260K.pieces.jsonl"), NULL);
    json_array_foreach(want, i, v)
        cr_assert_str_eq(json_string_value(json_object_get(json_array_get(pieces, i), "text_hex")),
                         json_string_value(json_object_get(v, "bytes_hex")));
    json_decref(want);
    json_decref(pieces);
}

Test(eval, a_bad_line_is_answered_in_its_place)
{
    json_t *a;

    write_file(
        in_dir("in"),
        "{\"text\":\"ab\"}\nnonsense\n{\"ids\":[99999999]}\n{\"text_hex\":\"abc\"}\n[1]\n{\"text\":\"c\"}\n");
    a = eval("tokens", "datasets/demo/demo.gguf", in_dir("in"), NULL);
    cr_assert_eq(json_array_size(a), 6);
    for (size_t i = 0; i < 6; i++)
        cr_assert_eq(json_object_get(json_array_get(a, i), "error") != NULL, i > 0 && i < 5, "line %zu",
                     i + 1);
    json_decref(a);
}

/* --- logits
 * --------------------------------------------------------------------------------------------------- */
Test(eval, logits_and_greedy_of_the_oracle)
{
    const char *model = test_data("models/stories260K.gguf");
    json_t *ref = test_data_json("models/ref/stories260K.json"), *seq, *a;
    FILE *f = fopen(in_dir("in"), "w");
    size_t i;

    json_array_foreach(json_object_get(ref, "sequences"), i, seq)
    {
        char *ids = json_dumps(json_object_get(seq, "ids"), 0);
        fprintf(f, "{\"ids\":%s}\n", ids);
        free(ids);
    }
    fclose(f);
    a = eval("logits", model, in_dir("in"),
             (const char *[]){"--isa", "ref", "--kv-type", "f32", "--greedy", "32", NULL});
    json_array_foreach(json_object_get(ref, "sequences"), i, seq)
    {
        const json_t *got = json_array_get(a, i), *want = json_object_get(seq, "last_logits_exact");
        const json_t *top = json_object_get(seq, "top10");
        cr_assert_eq(json_array_size(json_object_get(got, "last_logits")), json_array_size(want));
        for (size_t v = 0; v < json_array_size(want); v++)
            cr_assert_leq(fabs(json_number_value(json_array_get(json_object_get(got, "last_logits"), v)) -
                               json_number_value(json_array_get(want, v))),
                          1e-3);
        cr_assert_eq(json_array_size(json_object_get(got, "top10")), json_array_size(top));
        for (size_t pos = 0; pos < json_array_size(top); pos++) {
            const json_t *w = json_array_get(json_array_get(top, pos), 0);
            const json_t *g = json_array_get(json_array_get(json_object_get(got, "top10"), pos), 0);
            cr_assert_leq(
                fabs(json_number_value(json_array_get(w, 1)) - json_number_value(json_array_get(g, 1))), 1e-3,
                "position %zu", pos);
        }
        cr_assert_eq(json_array_size(json_object_get(got, "greedy")), 32);
    }
    json_decref(a);
    json_decref(ref);
}
