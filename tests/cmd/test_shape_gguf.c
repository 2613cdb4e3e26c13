/* The facts computed from a shape equal those of the headers that llama.cpp's quantize tool wrote for models
 * of that shape, to the byte. */
#include "planner/shape.h"
#include "src/model_facts.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *file, *arch, *quant;
    unsigned n_heads;
    bool tied;
} models[] = {
    {"models/llama-q-Q4_K_M.gguf", "llama", "Q4_K_M", 8, false},
    {"models/llama-q-Q6_K.gguf", "llama", "Q6_K", 8, false},
    {"models/llama-q-Q8_0.gguf", "llama", "Q8_0", 8, false},
    {"models/qwen2-q-Q4_K_M.gguf", "qwen2", "Q4_K_M", 4, true},
    {"models/qwen2-q-Q8_0.gguf", "qwen2", "Q8_0", 4, true},
};

static const facts_work *work_of(const model_facts *f, const char *type)
{
    for (size_t i = 0; i < f->n_work; i++) {
        if (!strcmp(f->work[i].type, type)) return &f->work[i];
    }
    return NULL;
}

static void compare(const model_facts *file, const model_facts *shape, const char *name)
{
    cr_expect_eq(file->head_size, shape->head_size, "%s", name);
    cr_expect_eq(file->input_bytes, shape->input_bytes, "%s", name);
    cr_expect_eq(file->input_row_bytes, shape->input_row_bytes, "%s", name);
    cr_expect_eq(file->output_bytes, shape->output_bytes, "%s", name);
    for (uint32_t il = 0; il < file->n_layers; il++)
        cr_expect_eq(file->layer_bytes[il], shape->layer_bytes[il], "%s: layer %u", name, (unsigned)il);
    cr_assert_eq(file->n_work, shape->n_work, "%s", name);
    for (size_t i = 0; i < file->n_work; i++) {
        const facts_work *w = work_of(shape, file->work[i].type);
        cr_assert_not_null(w, "%s: no work in %s", name, file->work[i].type);
        cr_expect_eq(w->layer_elements, file->work[i].layer_elements, "%s: %s", name, w->type);
        cr_expect_eq(w->output_elements, file->work[i].output_elements, "%s: %s", name, w->type);
    }
    /* The rest of the file is metadata and directory. */
    cr_expect_gt(file->file_bytes, shape->file_bytes, "%s", name);
    cr_expect_lt(file->file_bytes, shape->file_bytes + 20000, "%s", name);
}

Test(shape_gguf, same_as_the_header)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        static model_facts file, shape;
        char text[400];
        pr_err e = {0};
        int n = snprintf(
            text, sizeof text,
            "{schema: prima/shape/1, name: x, arch: %s, n_layers: 2, n_embd: 256, n_ff: 512, n_heads: %u, "
            "n_kv_heads: 2, n_vocab: 512, n_ctx_train: 512, quant: %s, tied: %s}",
            models[i].arch, models[i].n_heads, models[i].quant, models[i].tied ? "true" : "false");
        cr_assert_eq(model_facts_read(&file, test_data(models[i].file), &e), PR_OK, "%s", e.msg);
        cr_assert_eq(shape_parse(&shape, text, (size_t)n, "shape", NULL, &e), PR_OK, "%s", e.msg);
        compare(&file, &shape, models[i].file);
    }
}
