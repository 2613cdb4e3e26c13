/* prima bench planner as a user runs it, on three models and few random clusters: what its files hold, that
 * our plan is never behind another method's, that it can be repeated, and what it says of inputs that are
 * wrong. */
#include "tests/common/prima.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_COLUMNS = 40, MAX_ROWS = 400, FIELD_BYTES = 600 };

typedef struct {
    size_t n_columns, n_rows;
    char name[MAX_COLUMNS][64];
    char (*field)[MAX_COLUMNS][FIELD_BYTES];
} table;

TestSuite(bench_planner, .init = (void (*)(void))test_dir_new, .fini = test_dir_remove, .timeout = 300);

static prima_result bench(const char *output, const char *datasets, const char *models)
{
    setenv("PRIMA_LOG", "error", 1);
    return prima_run(NULL, (const char *const[]){"bench", "planner", "-o", output, "--datasets", datasets,
                                                 "--models", models, "--clusters", "24", "--devices",
                                                 "2,4,80", "--reps", "1", "--certify", "100ms", NULL});
}

static void bench_ok(const char *output)
{
    prima_result r = bench(output, "datasets", "llama-3-8b,llama-1-30b,llama-3-70b");
    cr_assert_eq(r.status, 0, "exit %d: %s", r.status, r.err);
}

/* --- reading CSV (RFC 4180, no line breaks in fields) ----------------------------------------------------
 */
static const char *next_field(const char *at, char out[FIELD_BYTES])
{
    size_t n = 0;
    bool quoted = *at == '"';

    for (at += quoted; *at && (quoted || *at != ','); at++) {
        if (quoted && *at == '"' && *++at != '"') break;
        cr_assert_lt(n, FIELD_BYTES - 1);
        out[n++] = *at;
    }
    out[n] = 0;
    return at;
}

static table read_table(const char *path)
{
    char *text = read_file(path), *line = strtok(text, "\n");
    table t = {.field = calloc(MAX_ROWS, sizeof *t.field)};

    cr_assert_not_null(line);
    for (const char *at = line;; at++) {
        char name[FIELD_BYTES];
        cr_assert_lt(t.n_columns, MAX_COLUMNS);
        at = next_field(at, name);
        snprintf(t.name[t.n_columns++], sizeof t.name[0], "%.63s", name);
        if (!*at) break;
    }
    while ((line = strtok(NULL, "\n"))) {
        const char *at = line;
        cr_assert_lt(t.n_rows, MAX_ROWS);
        for (size_t c = 0; c < t.n_columns; c++, at++) {
            at = next_field(at, t.field[t.n_rows][c]);
            cr_assert_eq(*at, c + 1 < t.n_columns ? ',' : 0, "%s row %zu: %s", path, t.n_rows + 1, line);
        }
        t.n_rows++;
    }
    free(text);
    return t;
}

static const char *field(const table *t, size_t row, const char *column)
{
    for (size_t c = 0; c < t->n_columns; c++) {
        if (!strcmp(t->name[c], column)) return t->field[row][c];
    }
    cr_assert_fail("no column %s", column);
    return NULL;
}

/* NAN for an empty field. */
static double number(const table *t, size_t row, const char *column)
{
    const char *text = field(t, row, column);
    char *end;
    double v = strtod(text, &end);

    if (!*text) return NAN;
    cr_assert(*end == 0 && isfinite(v), "row %zu: %s is %s", row + 1, column, text);
    return v;
}

static bool ends_in(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);
    return n >= m && !strcmp(name + n - m, ending);
}

/* Every column whose name says a unit or a ratio holds numbers, none negative; the schema is the file's. */
static void expect_numbers(const table *t, const char *schema)
{
    static const char *const units[] = {"_ms",
                                        "_pct",
                                        "_tokens",
                                        "_token",
                                        "rounds",
                                        "reps",
                                        "devices",
                                        "layers_of_model",
                                        "_over_predicted",
                                        "_over_published",
                                        "_p50",
                                        "_p90",
                                        "_max",
                                        "clusters",
                                        "no_plan"};

    cr_assert_gt(t->n_rows, 0);
    for (size_t r = 0; r < t->n_rows; r++) {
        cr_assert_str_eq(field(t, r, "schema"), schema);
        for (size_t c = 0; c < t->n_columns; c++)
            for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
                if (ends_in(t->name[c], units[u]))
                    cr_assert_not(number(t, r, t->name[c]) < 0, "row %zu: %s", r + 1, t->name[c]);
            }
    }
}

/* "22:0:16:0" -> numbers; their sum. */
static unsigned layers_of(const char *text, unsigned out[4])
{
    int n = sscanf(text, "%u:%u:%u:%u", &out[0], &out[1], &out[2], &out[3]);

    cr_assert_eq(n, 4, "%s", text);
    return out[0] + out[1] + out[2] + out[3];
}

/* --- planner.csv -----------------------------------------------------------------------------------------
 */
static const unsigned model_layers[] = {32, 60, 80};
static const char *const model_names[] = {"llama-3-8b", "llama-1-30b", "llama-3-70b"};

static unsigned layers_in_model(const char *name)
{
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(name, model_names[i])) return model_layers[i];
    cr_assert_fail("model %s was not asked for", name);
    return 0;
}

/* In proportion to RAM and VRAM of the cluster file, to less than a layer. */
static void expect_proportion(const unsigned l[4], unsigned n)
{
    static const double gib[] = {9.7 + 10.6, 2.4, 4.1 + 7.6, 1.9};

    for (size_t i = 0; i < 4; i++)
        cr_assert_lt(fabs(l[i] - n * gib[i] / (gib[0] + gib[1] + gib[2] + gib[3])), 1, "device %zu: %u", i,
                     l[i]);
}

/* All layers are given out, GPUs only where there are some (first and third device), each method as it is
 * defined. */
static void expect_split(const table *t, size_t row)
{
    const char *method = field(t, row, "method");
    unsigned n = layers_in_model(field(t, row, "model")), l[4], g[4], most = 0, least = 99, used = 0;

    cr_assert_eq(layers_of(field(t, row, "layers"), l), n);
    layers_of(field(t, row, "gpu_layers"), g);
    for (size_t i = 0; i < 4; i++) {
        cr_assert_leq(g[i], l[i]);
        most = l[i] > most ? l[i] : most;
        least = l[i] < least ? l[i] : least;
        used += l[i] > 0;
    }
    cr_assert(g[1] == 0 && g[3] == 0, "GPU layers without a GPU: %s", field(t, row, "gpu_layers"));
    if (!strcmp(method, "even")) cr_assert_leq(most - least, 1, "%s", field(t, row, "layers"));
    if (!strcmp(method, "single")) cr_assert_eq(used, 1);
    if (!strcmp(method, "memory")) expect_proportion(l, n);
    if (strcmp(method, "prima")) cr_assert_eq(number(t, row, "rounds"), 1);
}

/* The promise: under the one model of time no method beats the plan for the same model, weights and choice of
 * head; choosing the head never makes anything slower. */
static void expect_best(const table *t, size_t row)
{
    double ours = number(t, row, "predicted_ms");

    for (size_t r = 0; r < t->n_rows; r++) {
        bool same_head = !strcmp(field(t, r, "head_rule"), field(t, row, "head_rule"));
        if (strcmp(field(t, r, "model"), field(t, row, "model")) ||
            strcmp(field(t, r, "quant"), field(t, row, "quant")))
            continue;
        if (strcmp(field(t, r, "status"), "ok")) continue;
        if (!same_head && strcmp(field(t, row, "head_rule"), "best")) continue;
        cr_assert_leq(ours, number(t, r, "predicted_ms") + 0.001, "%s %s: %s is faster", field(t, r, "model"),
                      field(t, r, "quant"), field(t, r, "method"));
    }
}

/* Figures of the paper's table, typed here a second time; none beside weights that it did not use. */
static void expect_published(const table *t, size_t row)
{
    static const double prima[] = {15, 72, 674}, llamacpp[] = {15, 202, 10120},
                        prima_ttft[] = {18, 214, 1793};
    bool q4 = !strcmp(field(t, row, "quant"), "Q4_K_M");
    double ratio = number(t, row, "predicted_over_published");

    for (size_t i = 0; i < 3; i++) {
        if (strcmp(field(t, row, "model"), model_names[i])) continue;
        if (!q4) cr_assert(isnan(number(t, row, "published_prima_ms")));
        else cr_assert_eq(number(t, row, "published_prima_ms"), prima[i]);
        if (q4) cr_assert_eq(number(t, row, "published_llamacpp_ms"), llamacpp[i]);
        if (q4) cr_assert_eq(!strcmp(field(t, row, "published_oom"), "exo dllama"), i == 2);
        if (q4 && !strcmp(field(t, row, "method"), "prima"))
            cr_assert_eq(number(t, row, "published_ttft_ms"), prima_ttft[i]);
        if (!q4 || !strcmp(field(t, row, "method"), "memory"))
            cr_assert(isnan(number(t, row, "published_ttft_ms")));
        if (q4 && !strcmp(field(t, row, "method"), "prima"))
            cr_assert_float_eq(ratio, number(t, row, "predicted_ms") / prima[i], 0.001);
        if (!q4) cr_assert(isnan(ratio));
    }
}

/* A prompt takes no less than a token, and a longer one no less; 16 tokens less than 16 passes, but for
 * rounding. */
static void expect_ttft(const table *t, size_t row)
{
    double pass = number(t, row, "predicted_ms"), few = number(t, row, "ttft_16_tokens_ms");

    cr_assert(few >= 0.999 * pass && few <= 16.001 * pass + 0.1, "row %zu: %g, a token %g", row + 1, few,
              pass);
    cr_assert_gt(number(t, row, "ttft_512_tokens_ms"), few);
}

Test(bench_planner, every_method_beside_what_was_published)
{
    size_t ours = 0, feasible = 0;
    table t;

    bench_ok(in_dir("out"));
    t = read_table(in_dir("out/planner.csv"));
    expect_numbers(&t, "prima/bench-planner/1");
    cr_assert_eq(t.n_rows, 3 * 3 * 5 * 2, "%zu rows", t.n_rows); /* models, mixes, methods, head rules */
    for (size_t r = 0; r < t.n_rows; r++) {
        expect_published(&t, r);
        if (strcmp(field(&t, r, "status"), "ok")) {
            cr_assert_neq(*field(&t, r, "reason"), 0);
            cr_assert(isnan(number(&t, r, "predicted_ms")));
            continue;
        }
        feasible++;
        expect_split(&t, r);
        expect_ttft(&t, r);
        cr_assert_not(number(&t, r, "simulated_over_predicted") < 0.95, "row %zu", r + 1);
        cr_assert_geq(number(&t, r, "predicted_ms"), number(&t, r, "disk_floor_ms"));
        if (strcmp(field(&t, r, "method"), "prima")) continue;
        ours++;
        expect_best(&t, r);
    }
    cr_assert_eq(ours, 3 * 3 * 2);
    cr_assert_geq(feasible, t.n_rows / 2);
    free(t.field);
}

/* --- the other files -------------------------------------------------------------------------------------
 */
/* planner.csv holds the best of the rounds for the head of the cluster file. */
Test(bench_planner, rounds_agree_with_the_plan)
{
    table plans, rounds;

    bench_ok(in_dir("out"));
    plans = read_table(in_dir("out/planner.csv"));
    rounds = read_table(in_dir("out/planner_rounds.csv"));
    expect_numbers(&rounds, "prima/bench-planner-rounds/1");
    for (size_t m = 1; m < 3; m++) {
        double best = INFINITY, planned = NAN;
        for (size_t r = 0; r < rounds.n_rows; r++) {
            unsigned l[4];
            if (strcmp(field(&rounds, r, "model"), model_names[m])) continue;
            cr_assert_eq(layers_of(field(&rounds, r, "layers"), l), model_layers[m]);
            best = fmin(best, number(&rounds, r, "simulated_ms"));
        }
        for (size_t r = 0; r < plans.n_rows; r++) {
            if (!strcmp(field(&plans, r, "model"), model_names[m]) &&
                !strcmp(field(&plans, r, "quant"), "Q4_K_M") &&
                !strcmp(field(&plans, r, "method"), "prima") &&
                !strcmp(field(&plans, r, "head_rule"), "cluster file"))
                planned = number(&plans, r, "simulated_ms");
        }
        cr_assert_float_eq(best, planned, 0.002, "%s: %g and %g ms", model_names[m], best, planned);
    }
    free(plans.field);
    free(rounds.field);
}

/* The row of a model and a change; fails the test when there is none. */
static size_t find_change(const table *t, const char *model, const char *changed)
{
    for (size_t r = 0; r < t->n_rows; r++) {
        if (!strcmp(field(t, r, "model"), model) && !strcmp(field(t, r, "changed"), changed)) return r;
    }
    cr_assert_fail("no row %s, %s", model, changed);
    return 0;
}

/* Better hardware never makes a plan slower. */
Test(bench_planner, more_of_anything_is_never_slower)
{
    static const char *const rising[][3] = {
        {"CPUs 25 % slower", "nothing", "CPUs 25 % faster"},
        {"GPUs 25 % slower", "nothing", "GPUs 25 % faster"},
        {"disks 25 % slower", "nothing", "disks 25 % faster"},
        {"hops take double", "nothing", "hops take half"},
        {"RAM 10 % less", "nothing", "RAM 10 % more"},
        {"nothing", "VRAM 0.4 GiB more", "VRAM 0.8 GiB more"},
        {"disks rest while computing", "nothing", "disks run while computing"}};
    size_t n_gains = 0;
    table t;

    bench_ok(in_dir("out"));
    t = read_table(in_dir("out/planner_sensitivity.csv"));
    expect_numbers(&t, "prima/bench-planner-sensitivity/1");
    for (size_t m = 0; m < 3; m++)
        for (size_t c = 0; c < sizeof rising / sizeof *rising; c++)
            for (size_t i = 0; i < 2; i++) {
                double worse = number(&t, find_change(&t, model_names[m], rising[c][i]), "predicted_ms"),
                       better = number(&t, find_change(&t, model_names[m], rising[c][i + 1]), "predicted_ms");
                cr_assert_leq(better, worse + 0.001, "%s: %s", model_names[m], rising[c][i + 1]);
                n_gains += better < worse;
            }
    cr_assert_geq(n_gains, 20);
    free(t.field);
}

Test(bench_planner, halda_never_beats_either_optimum)
{
    table t;

    bench_ok(in_dir("out"));
    t = read_table(in_dir("out/planner_halda.csv"));
    expect_numbers(&t, "prima/bench-planner-halda/1");
    cr_assert_str_eq(field(&t, 0, "clusters_of"), "all");
    cr_assert_eq(number(&t, 0, "clusters"), 24);
    for (size_t r = 0; r < t.n_rows; r++) {
        if (number(&t, r, "clusters") - number(&t, r, "no_plan") < 1) continue;
        cr_assert_geq(number(&t, r, "ratio_p50"), 1);
        cr_assert_geq(number(&t, r, "ratio_p90"), number(&t, r, "ratio_p50"));
        cr_assert_geq(number(&t, r, "own_model_ratio_p50"), 1);
        cr_assert_geq(number(&t, r, "own_model_ratio_max"), number(&t, r, "own_model_ratio_p90"));
    }
    free(t.field);
}

Test(bench_planner, solve_times_and_certificates)
{
    static const double devices[] = {2, 4, 80};
    table t;

    bench_ok(in_dir("out"));
    t = read_table(in_dir("out/planner_solve.csv"));
    expect_numbers(&t, "prima/bench-planner-solve/1");
    cr_assert_eq(t.n_rows, 3);
    for (size_t r = 0; r < 3; r++) {
        bool complete = !strcmp(field(&t, r, "certificate_complete"), "yes");
        cr_assert_eq(number(&t, r, "devices"), devices[r]);
        cr_assert_gt(number(&t, r, "solve_ms"), 0);
        cr_assert(complete || !strcmp(field(&t, r, "status"), "feasible"));
    }
    free(t.field);
}

Test(bench_planner, same_inputs_same_bytes)
{
    static const char *const files[] = {"planner.csv", "planner_rounds.csv", "planner_sensitivity.csv",
                                        "planner_halda.csv"};

    bench_ok(in_dir("a"));
    bench_ok(in_dir("b"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char a[64], b[64];
        snprintf(a, sizeof a, "a/%s", files[i]);
        snprintf(b, sizeof b, "b/%s", files[i]);
        char *first = read_file(in_dir(a)), *second = read_file(in_dir(b));
        cr_assert_str_eq(first, second, "%s", files[i]);
        free(first);
        free(second);
    }
}

/* --- wrong inputs ----------------------------------------------------------------------------------------
 */
static void expect_refusal(prima_result r, int status, const char *says)
{
    cr_assert_eq(r.status, status, "exit %d: %s", r.status, r.err);
    cr_assert_not_null(strstr(r.err, says), "not said: %s; but: %s", says, r.err);
}

Test(bench_planner, says_what_is_missing)
{
    expect_refusal(bench(in_dir("out"), "datasets", "llama-9"), 2, "no model named llama-9");
    expect_refusal(bench(in_dir("out"), in_dir("nowhere"), "llama-3-8b"), 9, "published.yaml");
    expect_refusal(prima_run(NULL, (const char *const[]){"bench", "planer", NULL}), 2,
                   "bench planer: expected decode, ");
    expect_refusal(
        prima_run(NULL, (const char *const[]){"bench", "planner", "-o", in_dir("out"), "--models",
                                              "llama-3-8b", "--clusters", "1", "--devices", "2,x", NULL}),
        2, "--devices 2,x");
}

Test(bench_planner, published_figures_are_checked)
{
    static const char *const broken[][2] = {
        {"- {model: A, shape: a, tool: exo, table: t, tpot_ms: 1, oom: true}",
         "published.yaml:4:5: expected either"},
        {"- {model: A, shape: a, tool: exo, table: t}", "published.yaml:4:5: expected either"},
        {"- {model: A, shape: a, tool: exo, table: t, tpot_ms: -1}", "published.yaml:4:"},
        {"- {model: A, shape: a, tool: exo, table: t, tpot: 1}", "published.yaml:4:"},
        {"- {model: A, shape: a, tpot_ms: 1, table: t}", "published.yaml:4:"}};
    char text[512];

    mkdir(in_dir("sets"), 0755);
    mkdir(in_dir("sets/clusters"), 0755);
    mkdir(in_dir("sets/clusters/paper-home"), 0755);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        snprintf(text, sizeof text, "schema: prima/published/1\nsource: made up\nmeasured:\n  %s\n",
                 broken[i][0]);
        write_file(in_dir("sets/clusters/paper-home/published.yaml"), text);
        expect_refusal(bench(in_dir("out"), in_dir("sets"), "llama-3-8b"), 2, broken[i][1]);
    }
}
