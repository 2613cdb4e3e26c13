/* Whole models against the oracle: every model of the test data, its reference logits and greedy tokens; and
 * rule 3: the same bits for any split into windows, number of threads and composition of batches. Tolerances
 * are those of the data's README. */
#include "src/run/engine.h"
#include "tests/common/data.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODELS = 64, MAX_IDS = 512, GREEDY = 32 };

/* --- a sequence on an engine ------------------------------------------------------------------------ */
typedef struct {
    const char *isa;
    kv_type kv;
    int threads;
    uint32_t windows;
} setting;

typedef struct {
    model m;
    engine *e;
    int32_t pages[MAX_IDS / KV_PAGE + 1];
} rig;

static void rig_open(rig *r, const char *path, setting s)
{
    pr_err err = {0};
    engine_options o = {.isa = s.isa,
                        .n_threads = s.threads,
                        .kv = s.kv,
                        .n_pages = MAX_IDS / KV_PAGE,
                        .max_tokens = 64,
                        .max_out = 2,
                        .n_windows = s.windows};

    cr_assert_eq(model_open(&r->m, path, &err), PR_OK, "%s", err.msg);
    cr_assert_eq(engine_new(&r->e, &r->m, &o, &err), PR_OK, "%s", err.msg);
    /* A page table that is neither ascending nor dense at its start. */
    for (int i = 0; i < MAX_IDS / KV_PAGE; i++) r->pages[i] = (i * 5 + 3) % (MAX_IDS / KV_PAGE);
}

static void rig_close(rig *r)
{
    engine_free(r->e);
    model_close(&r->m);
}

/* Logits of the last of n tokens, computed in chunks of `chunk`. */
static const float *feed(rig *r, const int32_t *id, size_t n, size_t pos, size_t chunk)
{
    for (size_t at = 0; at < n; at += chunk) {
        size_t now = n - at < chunk ? n - at : chunk;
        int32_t last = (int32_t)now - 1;
        batch_run run = {.n = now, .pos = pos + at, .pages = r->pages};
        batch b = {.n_tokens = now, .token = id + at, .n_runs = 1, .run = &run, .n_out = 1, .out = &last};
        cr_assert_eq(engine_forward(r->e, &b, NULL), PR_OK);
    }
    return engine_logits(r->e, 0);
}

/* --- the reference files ------------------------------------------------------------------------------ */
static int list_models(char name[MAX_MODELS][96])
{
    const char *path = test_data_or_null("models/models.json");
    json_t *all = path ? json_load_file(path, 0, NULL) : NULL;
    int n = 0;
    size_t i;
    json_t *m;

    json_array_foreach(all, i, m)
    {
        const char *file = json_string_value(json_object_get(m, "file"));
        size_t len = strlen(file);
        if (n < MAX_MODELS && len > 5 && len < 90) snprintf(name[n++], 96, "%.*s", (int)(len - 5), file);
    }
    json_decref(all);
    return n;
}

static size_t read_ids(const json_t *a, int32_t *id)
{
    size_t n = json_array_size(a);

    cr_assert_leq(n, MAX_IDS);
    for (size_t i = 0; i < n; i++) id[i] = (int32_t)json_integer_value(json_array_get(a, i));
    return n;
}

typedef struct {
    double max_abs, nrmse;
} difference;

static difference compare(const float *got, const json_t *want)
{
    size_t n = json_array_size(want);
    double sum = 0, sum2 = 0, err2 = 0, max = 0;

    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i)), d = fabs((double)got[i] - w);
        cr_assert(isfinite(got[i]), "logit %zu is %g", i, (double)got[i]);
        sum += w;
        sum2 += w * w;
        err2 += d * d;
        if (d > max) max = d;
    }
    return (difference){max, sqrt(err2 / (double)n) /
                                 sqrt(sum2 / (double)n - sum / (double)n * (sum / (double)n))};
}

static bool has(const char *name, const char *what)
{
    return strstr(name, what) != NULL;
}

/* README of the data, "Suggested tolerances": nrmse against last_logits_exact with 8-bit activations and F32
 * KV. */
static double nrmse_limit(const char *name)
{
    bool quantised = has(name, "-q-") || has(name, "Q6_K") || has(name, "ff192");

    if (has(name, "BF16")) return 0.02;
    if (has(name, "F16")) return 0.005;
    if (!quantised) return 0.0005;
    return has(name, "stories") ? 0.03 : 0.10;
}

/* --- logits -----------------------------------------------------------------------------------------------
 */
/* A greedy step whose margin is below `margin` ends the comparison of greedy tokens; so does one within twice
 * what the oracle itself was off the exact logits (it rounds activations to 8 bits). */
static void check_model(const char *name, setting s, double max_abs, double max_nrmse, double margin)
{
    char rel[160];
    rig r;
    json_t *ref, *seq;
    size_t i;

    snprintf(rel, sizeof rel, "models/ref/%s.json", name);
    ref = test_data_json(rel);
    snprintf(rel, sizeof rel, "models/%s.gguf", name);
    rig_open(&r, test_data(rel), s);
    margin += 2 * json_number_value(json_object_get(
                      json_object_get(json_object_get(ref, "diffs"), "exact_float64"), "max_abs"));
    json_array_foreach(json_object_get(ref, "sequences"), i, seq)
    {
        int32_t id[MAX_IDS], greedy[GREEDY];
        size_t n = read_ids(json_object_get(seq, "ids"), id),
               n_greedy = read_ids(json_object_get(seq, "greedy"), greedy);
        const float *logits = feed(&r, id, n, 0, 64);
        difference d = compare(logits, json_object_get(seq, "last_logits_exact"));
        cr_expect_leq(d.max_abs, max_abs, "%s sequence %zu (%zu tokens): max abs %g > %g", name, i, n,
                      d.max_abs, max_abs);
        cr_expect_leq(d.nrmse, max_nrmse, "%s sequence %zu (%zu tokens): nrmse %g > %g", name, i, n, d.nrmse,
                      max_nrmse);
        for (size_t g = 0; g < n_greedy; g++) {
            int32_t best = 0;
            if (json_number_value(json_array_get(json_object_get(seq, "greedy_margin"), g)) < margin) break;
            for (int32_t v = 1; v < (int32_t)r.m.hp.n_vocab; v++) {
                if (logits[v] > logits[best]) best = v;
            }
            cr_assert_eq(best, greedy[g], "%s sequence %zu: greedy token %zu is %d, expected %d", name, i, g,
                         best, greedy[g]);
            logits = feed(&r, &best, 1, n + g, 1);
        }
    }
    rig_close(&r);
    json_decref(ref);
}

struct which {
    int index;
};

static struct which cases[MAX_MODELS + 1];

static struct criterion_test_params all_models(void)
{
    char name[MAX_MODELS][96];
    int n = list_models(name);

    for (int i = 0; i < n; i++) cases[i].index = i;
    cases[n].index = n;
    /* Without the data one case remains: it skips and says so. */
    return cr_make_param_array(struct which, cases, n ? (size_t)n : 1);
}

static const char *model_name(int index)
{
    static char name[MAX_MODELS][96];

    if (list_models(name) <= index) test_data("models/models.json");
    return name[index];
}

/* Reference arithmetic keeps activations F32: the sharpest test of dequantisation and of the forward pass. */
ParameterizedTestParameters(models, reference_within_1e_3)
{
    return all_models();
}
ParameterizedTest(struct which *w, models, reference_within_1e_3, .timeout = 120)
{
    check_model(model_name(w->index), (setting){"ref", KV_F32, 1, 1}, 1e-3, 1.0, 2e-3);
}

ParameterizedTestParameters(models, fast_within_tolerance)
{
    return all_models();
}
ParameterizedTest(struct which *w, models, fast_within_tolerance, .timeout = 120)
{
    const char *name = model_name(w->index);
    double limit = nrmse_limit(name);

    /* A greedy step is doubtful when its margin is within the error of two logits: nrmse x standard deviation
     * 3 x 2 x a peak factor of 3. */
    check_model(name, (setting){NULL, KV_F32, 2, 1}, INFINITY, limit, limit * 18);
}

ParameterizedTestParameters(models, f16_cache_within_tolerance)
{
    return all_models();
}
ParameterizedTest(struct which *w, models, f16_cache_within_tolerance, .timeout = 120)
{
    const char *name = model_name(w->index);
    double limit = nrmse_limit(name);

    if (limit < 0.005) limit = 0.005;
    check_model(name, (setting){NULL, KV_F16, 2, 1}, INFINITY, limit, limit * 18);
}

/* --- rule 3
 * ---------------------------------------------------------------------------------------------------- */
static void copy_logits(const rig *r, const float *logits, float *out)
{
    memcpy(out, logits, r->m.hp.n_vocab * sizeof *out);
}

ParameterizedTestParameters(models, same_bits_however_it_is_run)
{
    return all_models();
}
ParameterizedTest(struct which *w, models, same_bits_however_it_is_run, .timeout = 120)
{
    static const setting settings[] = {{NULL, KV_F16, 1, 1},
                                       {NULL, KV_F16, 2, 1},
                                       {NULL, KV_F16, 3, 2},
                                       {NULL, KV_F16, 1, 3},
                                       {NULL, KV_F16, 2, 5}};
    static const size_t chunks[] = {64, 1, 2, 3, 7, 8};
    const char *name = model_name(w->index);
    static float first[200000], now[200000];
    int32_t id[MAX_IDS];
    char rel[160];
    json_t *ref;
    size_t n;

    snprintf(rel, sizeof rel, "models/ref/%s.json", name);
    ref = test_data_json(rel);
    n = read_ids(json_object_get(json_array_get(json_object_get(ref, "sequences"),
                                                json_array_size(json_object_get(ref, "sequences")) - 1),
                                 "ids"),
                 id);
    snprintf(rel, sizeof rel, "models/%s.gguf", name);
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        rig r;
        rig_open(&r, test_data(rel), settings[s]);
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
            copy_logits(&r, feed(&r, id, n, 0, chunks[c]), s + c ? now : first);
            if (s + c)
                cr_assert_eq(memcmp(first, now, r.m.hp.n_vocab * sizeof *now), 0,
                             "%s: bits differ: %u windows, %d threads, chunks of %zu", name,
                             settings[s].windows, settings[s].threads, chunks[c]);
        }
        rig_close(&r);
    }
    json_decref(ref);
}

/* Two sequences in one batch, of unequal lengths and positions, give what each gives alone. */
Test(batch, neighbours_change_nothing, .timeout = 60)
{
    static const int32_t a_pages[] = {2, 0}, b_pages[] = {5, 4, 3};
    static float alone[512], together[512];
    int32_t id[100];
    batch_run runs[2] = {{.first = 0, .n = 20, .pos = 0, .pages = a_pages},
                         {.first = 20, .n = 40, .pos = 0, .pages = b_pages}};
    int32_t out[2] = {19, 59};
    rig r;

    rig_open(&r, test_data("models/stories260K.gguf"), (setting){NULL, KV_F16, 2, 1});
    for (int i = 0; i < 100; i++) id[i] = 3 + (i * 37) % 500;
    memcpy(r.pages, b_pages, sizeof b_pages);
    copy_logits(&r, feed(&r, id + 20, 40, 0, 40), alone);
    const batch both = {.n_tokens = 60, .token = id, .n_runs = 2, .run = runs, .n_out = 2, .out = out};
    cr_assert_eq(engine_forward(r.e, &both, NULL), PR_OK);
    memcpy(together, engine_logits(r.e, 1), sizeof together);
    cr_assert_eq(memcmp(alone, together, sizeof alone), 0);
    rig_close(&r);
}

/* --- small files that must load, or must not
 * ------------------------------------------------------------------------ */
Test(broken, valid_files_give_the_oracles_tokens, .timeout = 60)
{
    json_t *all = test_data_json("broken/broken.json"), *e;
    size_t i, n = 0;

    json_array_foreach(all, i, e)
    {
        const char *file = json_string_value(json_object_get(e, "file"));
        int32_t id[MAX_IDS], want[64];
        char rel[160];
        rig r;
        if (strcmp(json_string_value(json_object_get(e, "expect")), "accept")) continue;
        snprintf(rel, sizeof rel, "broken/%s", file);
        rig_open(&r, test_data(rel), (setting){NULL, KV_F32, 1, 1});
        size_t n_ids = read_ids(json_object_get(e, "prompt"), id),
               n_want = read_ids(json_object_get(e, "greedy"), want);
        const float *logits = feed(&r, id, n_ids, 0, 64);
        for (size_t g = 0; g < n_want; g++) {
            int32_t best = 0;
            for (int32_t v = 1; v < (int32_t)r.m.hp.n_vocab; v++) best = logits[v] > logits[best] ? v : best;
            cr_assert_eq(best, want[g], "%s: token %zu is %d, expected %d", file, g, best, want[g]);
            logits = feed(&r, &best, 1, n_ids + g, 1);
        }
        rig_close(&r);
        n++;
    }
    cr_assert_geq(n, 4);
    json_decref(all);
}

/* Files for which any orderly behaviour will do: opened or refused with a reason; NaN weights do not stop the
 * program. */
Test(broken, doubtful_files_are_handled_in_order, .timeout = 60)
{
    json_t *all = test_data_json("broken/broken.json"), *e;
    size_t i;

    json_array_foreach(all, i, e)
    {
        static const int32_t id[] = {1, 5, 6};
        engine_options o = {.n_threads = 1, .n_pages = 2, .max_tokens = 4, .max_out = 1};
        batch_run run = {.n = 3, .pages = (const int32_t[]){1}};
        pr_err err = {0};
        char rel[160];
        model m;
        engine *eng;
        if (strcmp(json_string_value(json_object_get(e, "expect")), "either")) continue;
        snprintf(rel, sizeof rel, "broken/%s", json_string_value(json_object_get(e, "file")));
        if (model_open(&m, test_data(rel), &err)) {
            cr_assert_gt(strlen(err.msg), 10);
            continue;
        }
        cr_assert_eq(engine_new(&eng, &m, &o, &err), PR_OK, "%s", err.msg);
        const batch b = {
            .n_tokens = 3, .token = id, .n_runs = 1, .run = &run, .n_out = 1, .out = (const int32_t[]){2}};
        cr_assert_eq(engine_forward(eng, &b, NULL), PR_OK);
        engine_free(eng);
        model_close(&m);
    }
    json_decref(all);
}
