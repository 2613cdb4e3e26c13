/* planner.csv: every model, mix of weights and method on the paper's cluster, with the cluster file's first
 * device as the head and with the best one, beside what the paper measured. */
#include "planner/ttft.h"
#include "src/base/log.h"
#include "src/bench_planner.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char header[] =
    "schema,build,cluster,model,quant,ctx_tokens,method,head_rule,head,status,reason,rounds,layers,gpu_"
    "layers,"
    "predicted_ms,simulated_ms,simulated_over_predicted,bound,read_bytes_per_token,published_prima_ms,"
    "published_memory_ms,published_llamacpp_ms,published_exo_ms,published_dllama_ms,published_oom,compared_"
    "with,"
    "predicted_over_published,disk_floor_ms,ttft_16_tokens_ms,ttft_512_tokens_ms,published_ttft_ms";
static const char *const tools[] = {"prima.cpp", "prima.cpp by memory", "llama.cpp", "exo", "dllama"};
enum { N_TOOLS = sizeof tools / sizeof *tools, MAX_FIELD = 1024 };
static const char PUBLISHED_QUANT[] = "Q4_K_M";

typedef struct {
    const planner_options *o;
    machines m;
    published_times times;
    model_facts f;
    model_name model;
    csv *csv;
} table;

/* A method's answer with one head; err.code says that there is none. */
typedef struct {
    bench_ring ring;
    assignment a;
    pr_err err;
} answer;

/* --- a row -----------------------------------------------------------------------------------------------
 */
static const published_time *published(const table *t, const char *tool)
{
    const published_time *p = published_find(&t->times, t->model.stem, tool);
    return strcmp(t->f.quant, PUBLISHED_QUANT) ? NULL : p;
}

/* Figures of other weights than ours are shown and not compared. */
static void write_published(const table *t, const bench_method *method, double predicted_ms)
{
    const published_time *own = published(t, method->published);
    char oom[MAX_FIELD] = "";
    bool compare = own && !own->oom && !*own->weights && isfinite(predicted_ms);

    for (size_t i = 0; i < N_TOOLS; i++) {
        const published_time *p = published(t, tools[i]);
        csv_num(t->csv, p ? p->tpot_ms : NAN, 0);
        if (p && p->oom)
            snprintf(oom + strlen(oom), sizeof oom - strlen(oom), "%s%s", *oom ? " " : "", tools[i]);
    }
    csv_str(t->csv, oom);
    csv_str(t->csv, compare ? method->published : NULL);
    csv_num(t->csv, compare ? predicted_ms / own->tpot_ms : NAN, 3);
}

/* What no plan can beat: the bytes that all RAM and VRAM together cannot hold, without KV cache and buffers,
 * read by all disks together without a pause. */
static double disk_floor_ms(const bench_ring *r)
{
    double bytes = r->p.layer_bytes * r->p.n_layers + (double)r->f->output_bytes, bytes_per_ms = 0;

    for (size_t i = 0; i < r->p.n_devices; i++) {
        bytes -= r->p.device[i].ram_bytes + r->p.device[i].vram_bytes;
        bytes_per_ms += r->p.device[i].disk_bytes_per_ms;
    }
    return fmax(0, bytes) / bytes_per_ms;
}

/* How long the prompts of the published times were is not known: short ones, by what they took. */
static void write_ttft(const table *t, const bench_method *method, const answer *k)
{
    static const uint32_t tokens[] = {16, 512};
    const published_time *own = published(t, method->published);

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        double ms = k->err.code ? 0 : ttft_ms(&k->ring.p, &k->a, tokens[i]);
        csv_num(t->csv, ms > 0 ? ms : NAN, 1);
    }
    csv_num(t->csv, own && !*own->weights ? own->ttft_ms : NAN, 0);
}

static int write_row(const table *t, const bench_method *method, const char *head_rule, const answer *k,
                     pr_err *err)
{
    char layers[MAX_FIELD] = "", gpu_layers[MAX_FIELD] = "", bound[64] = "";
    bool found = !k->err.code;
    double predicted = found ? k->a.pass_ms : NAN, simulated = NAN;
    pr_err refused = {0};

    if (found) {
        ring_layers(&k->ring, &k->a, false, layers, sizeof layers);
        ring_layers(&k->ring, &k->a, true, gpu_layers, sizeof gpu_layers);
        ring_bound(&k->ring, &k->a, bound, sizeof bound);
        simulated = ring_simulate(&k->ring, &k->a, &refused);
    }
    row_begin(t->csv, "prima/bench-planner/1", &k->ring, t->model.stem, t->o->ctx);
    csv_str(t->csv, method->name);
    csv_str(t->csv, head_rule);
    csv_str(t->csv, k->ring.p.device[0].name);
    csv_str(t->csv, found ? "ok" : "infeasible");
    csv_str(t->csv, found ? refused.msg : k->err.msg);
    if (found) csv_int(t->csv, k->a.rounds);
    else csv_str(t->csv, NULL);
    csv_str(t->csv, layers);
    csv_str(t->csv, gpu_layers);
    csv_num(t->csv, predicted, 3);
    csv_num(t->csv, simulated, 3);
    csv_num(t->csv, simulated / predicted, 3);
    csv_str(t->csv, bound);
    if (found) csv_int(t->csv, (int64_t)ceil(ring_read_bytes(&k->a)));
    else csv_str(t->csv, NULL);
    write_published(t, method, predicted);
    csv_num(t->csv, disk_floor_ms(&k->ring), 3);
    write_ttft(t, method, k);
    return csv_row(t->csv, err);
}

/* --- all rows --------------------------------------------------------------------------------------------
 */
static int answer_with(const table *t, const bench_method *method, size_t head, answer *k, pr_err *err)
{
    int rc;

    memset(k, 0, sizeof *k);
    if ((rc = ring_make(&k->ring, &t->m, &t->f, t->o->ctx, head, err))) return rc;
    rc = method->split(&k->ring, &k->a, &k->err);
    if (!rc || rc == PR_EINFEASIBLE) return PR_OK;
    if (err) *err = k->err;
    return rc;
}

static int method_rows(const table *t, const bench_method *method, pr_err *err)
{
    answer best, k;
    int rc = answer_with(t, method, 0, &best, err);

    if (!rc) rc = write_row(t, method, "cluster file", &best, err);
    for (size_t head = 1; head < t->m.c->n_devices && !rc; head++) {
        rc = answer_with(t, method, head, &k, err);
        if (k.err.code || (!best.err.code && k.a.pass_ms >= best.a.pass_ms)) continue;
        best = k;
    }
    return rc ? rc : write_row(t, method, "best", &best, err);
}

static int model_rows(table *t, pr_err *err)
{
    static const char *const quants[] = {"Q4_K_M", "Q6_K", "Q8_0"};
    int rc = PR_OK;

    for (size_t q = 0; q < sizeof quants / sizeof *quants && !rc; q++) {
        log_progress("planner.csv: %s %s", t->model.stem, quants[q]);
        rc = models_read(&t->f, t->o, t->model.stem, quants[q], err);
        for (const bench_method *method = bench_methods; method->name && !rc; method++)
            rc = method_rows(t, method, err);
    }
    log_progress("%s", "");
    return rc;
}

static int all_rows(table *t, pr_err *err)
{
    model_name models[BENCH_MAX_MODELS];
    size_t n;
    int rc = models_list(models, &n, t->o, err);

    for (size_t i = 0; i < n && !rc; i++) {
        t->model = models[i];
        rc = model_rows(t, err);
    }
    return rc;
}

int bench_planner_table(const planner_options *o, pr_err *err)
{
    static table t; /* large: a cluster, a model and all published figures */
    char path[BENCH_PATH_BYTES];
    int rc, rc2;

    memset(&t, 0, sizeof t);
    t.o = o;
    if ((rc = paper_cluster(&t.m, &t.times, o, err))) return rc;
    snprintf(path, sizeof path, "%s/planner.csv", o->output);
    if (!(rc = csv_open(&t.csv, path, header, false, err))) rc = all_rows(&t, err);
    rc2 = csv_close(t.csv, rc ? NULL : err);
    machines_free(&t.m);
    return rc ? rc : rc2;
}
