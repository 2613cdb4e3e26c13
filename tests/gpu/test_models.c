/* Whole models on a GPU against the oracle: every model of the test data, all layers and the output
 * projection there. Tolerances are those of the data's README. On an emulated GPU, which is slow, one short
 * sequence of each. */
#include "kernels/cuda/device.h"
#include "src/run/engine.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

#ifdef PRIMA_EMULATED_GPU
enum { MOST_TOKENS = 24, MOST_SEQUENCES = 1 };
#else
enum { MOST_TOKENS = 512, MOST_SEQUENCES = 100 };
#endif
enum { MAX_MODELS = 64, MAX_IDS = 512 };

static int list_models(char file[MAX_MODELS][96])
{
    const char *path = test_data_or_null("models/models.json");
    json_t *all = path ? json_load_file(path, 0, NULL) : NULL, *m;
    int n = 0;
    size_t i;

    json_array_foreach(all, i, m)
    {
        const char *name = json_string_value(json_object_get(m, "file"));
        size_t len = strlen(name);
        if (n < MAX_MODELS && len > 5 && len < 90) snprintf(file[n++], 96, "%.*s", (int)(len - 5), name);
    }
    json_decref(all);
    return n;
}

/* README of the data, "Suggested tolerances", with an F16 KV cache. */
static double limit_of(const char *name)
{
    if (strstr(name, "BF16")) return 0.02;
    if (strstr(name, "-q-")) return 0.10;
    if (strstr(name, "Q6_K") || strstr(name, "ff192")) return 0.03;
    return 0.005;
}

static double nrmse(const float *got, const json_t *want)
{
    size_t n = json_array_size(want);
    double sum = 0, sum2 = 0, err2 = 0;

    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i));
        cr_assert(isfinite(got[i]), "logit %zu is %g", i, (double)got[i]);
        sum += w;
        sum2 += w * w;
        err2 += pow((double)got[i] - w, 2);
    }
    return sqrt(err2 / (double)n) / sqrt(sum2 / (double)n - sum / (double)n * (sum / (double)n));
}

/* Logits of the last token of a sequence. */
static const float *feed(engine *e, const json_t *ids, size_t n)
{
    static int32_t id[MAX_IDS], pages[MAX_IDS / KV_PAGE];
    int32_t last = (int32_t)n - 1;
    batch_run all = {.n = n, .pages = pages};
    batch b = {.n_tokens = n, .token = id, .n_runs = 1, .run = &all, .n_out = 1, .out = &last};
    pr_err err = {0};

    for (size_t i = 0; i < n; i++) id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    for (int i = 0; i < MAX_IDS / KV_PAGE; i++) pages[i] = (i * 5 + 3) % (MAX_IDS / KV_PAGE);
    cr_assert_eq(engine_forward(e, &b, &err), PR_OK, "%s", err.msg);
    return engine_logits(e, 0);
}

static void check_model(const char *name)
{
    engine_options o = {.n_threads = 1, .n_pages = MAX_IDS / KV_PAGE, .max_tokens = MAX_IDS, .max_out = 1};
    engine_gpu_part part;
    char rel[160];
    size_t i, n_done = 0;
    json_t *ref, *seq;
    model m;
    engine *e;
    pr_err err = {0};

    snprintf(rel, sizeof rel, "models/ref/%s.json", name);
    ref = test_data_json(rel);
    snprintf(rel, sizeof rel, "models/%s.gguf", name);
    cr_assert_eq(model_open(&m, test_data(rel), &err), PR_OK, "%s", err.msg);
    cr_assert_eq(engine_use_gpu(&m, &o, 0, &part, UINT32_MAX), m.hp.n_layers);
    cr_assert_eq(engine_new(&e, &m, &o, &err), PR_OK, "%s", err.msg);
    cr_assert(engine_about(e).gpu_layers == m.hp.n_layers && engine_about(e).weights_bytes == 0);
    json_array_foreach(json_object_get(ref, "sequences"), i, seq)
    {
        const json_t *ids = json_object_get(seq, "ids");
        double off;
        if (json_array_size(ids) > MOST_TOKENS || n_done == MOST_SEQUENCES) continue;
        off = nrmse(feed(e, ids, json_array_size(ids)), json_object_get(seq, "last_logits_exact"));
        cr_expect_leq(off, limit_of(name), "%s sequence %zu: nrmse %g", name, i, off);
        n_done++;
    }
    cr_expect(n_done, "%s: no sequence is short enough", name);
    engine_free(e);
    model_close(&m);
    json_decref(ref);
}

struct which {
    int first;
};

enum { MODELS_A_TEST = 6 }; /* a GPU is started for each test */
static struct which cases[MAX_MODELS];

ParameterizedTestParameters(gpu_models, logits_within_tolerance)
{
    char name[MAX_MODELS][96];
    int n = list_models(name), n_cases = 0;

    for (int i = 0; i < n || !n_cases; i += MODELS_A_TEST) cases[n_cases++].first = i;
    return cr_make_param_array(struct which, cases, (size_t)n_cases);
}
ParameterizedTest(struct which *w, gpu_models, logits_within_tolerance, .timeout = 300)
{
    static char name[MAX_MODELS][96];
    pr_err why = {0};
    int n;

    if (!gpu_count(&why)) cr_skip_test("%s", why.msg);
    if (!(n = list_models(name))) test_data("models/models.json");
    for (int i = w->first; i < n && i < w->first + MODELS_A_TEST; i++) check_model(name[i]);
}
