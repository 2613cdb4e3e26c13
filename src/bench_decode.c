/* Suite `decode`: tokens/s of prefill (ppN) and decode (tgN) by size, threads and sequences, named as
 * llama-bench does.
 *
 * With tokens in the cache beforehand (--depth) only two of the 32 of each page are computed, and each as if
 * it were the first of its sequence; the others are zeros. That gives every page its memory, and how long
 * reading it takes does not depend on its values. To compute them all would take minutes for each case. */
#include "src/base/cache.h"
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/bench.h"
#include "src/cmd.h"
#include "src/probe.h"
#include "src/run/engine.h"
#include "src/run/timings.h"
#include "src/synth.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_LIST = 16, TOUCH_AT_ONCE = 512, CHUNK = 512, GPU_CHUNK = 2048 };

typedef struct {
    size_t v[MAX_LIST];
    size_t n;
} list;

/* --- small helpers ------------------------------------------------------------------------------------- */
static int parse_list(list *l, const char *option, const char *text, pr_err *err)
{
    const char *at = text;

    l->n = 0;
    while (*at && l->n < MAX_LIST) {
        char *end;
        l->v[l->n++] = strtoull(at, &end, 10);
        if (end == at || (*end && *end != ',')) break;
        at = *end ? end + 1 : end;
        if (!*at) return PR_OK;
    }
    return pr_fail(err, PR_EUSAGE, "--%s %s: expected numbers separated by commas", option, text);
}

/* --- one measurement --------------------------------------------------------------------------------------
 */
typedef struct {
    const bench_options *o;
    const model *m;
    csv *csv;
    const char *model_path;
    uint32_t gpu_layers;
} bench;

typedef struct {
    const char *name; /* pp512, tg128 */
    size_t threads, sequences, n_prompt, n_generate;
} test_case;

typedef struct {
    engine *e;
    engine_gpu_part gpu_part;
    int32_t *pages, *token, *out;
    batch_run *run;
    size_t pages_per_seq, n_vocab, chunk;
} rig;

static void rig_free(rig *r)
{
    engine_free(r->e);
    free(r->pages);
    free(r->token);
    free(r->out);
    free(r->run);
}

static int rig_new(rig *r, const bench *b, const test_case *t, pr_err *err)
{
    size_t per_seq = b->o->depth + t->n_prompt + t->n_generate, chunk = b->gpu_layers ? GPU_CHUNK : CHUNK,
           tokens = t->sequences > chunk ? t->sequences : chunk;
    engine_options eo = {.isa = b->o->isa,
                         .n_threads = (int)t->threads,
                         .max_tokens = tokens,
                         .max_out = t->sequences,
                         .n_windows = 1};

    *r = (rig){.pages_per_seq = (per_seq + KV_PAGE - 1) / KV_PAGE,
               .n_vocab = vocab_size(b->m->vocab),
               .chunk = chunk};
    if (!kv_type_parse(b->o->kv_type, &eo.kv))
        return pr_fail(err, PR_EUSAGE, "--kv-type %s: expected f16, q8_0 or f32", b->o->kv_type);
    eo.n_pages = r->pages_per_seq * t->sequences;
    eo.max_positions = r->pages_per_seq * KV_PAGE;
    r->pages = malloc((eo.n_pages + 1) * sizeof *r->pages);
    r->token = malloc(tokens * sizeof *r->token);
    r->out = malloc(t->sequences * sizeof *r->out);
    r->run = malloc(t->sequences * sizeof *r->run);
    if (!r->pages || !r->token || !r->out || !r->run) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < eo.n_pages; i++) r->pages[i] = (int32_t)i;
    for (size_t i = 0; i < tokens; i++) r->token[i] = (int32_t)((i * 7919 + 3) % r->n_vocab);
    if (b->gpu_layers) engine_use_gpu(b->m, &eo, (int)b->o->gpu, &r->gpu_part, b->gpu_layers);
    return engine_new(&r->e, b->m, &eo, err);
}

/* Every page of the first `n` tokens of all sequences is written to: in a batch a run of one token for each,
 * in slot 0 or 16, which are 4 KiB apart or less in a page of F16 values of 128 dimensions. */
static int touch_pages(rig *r, size_t n_seq, size_t n, pr_err *err)
{
    size_t per_seq = (n + KV_PAGE - 1) / KV_PAGE, n_pages = n_seq * per_seq, many;
    batch_run run[TOUCH_AT_ONCE];
    int32_t last = 0;
    batch b = {.token = r->token, .run = run, .n_out = 1, .out = &last};

    for (size_t page = 0; page < n_pages; page += many) {
        many = n_pages - page < TOUCH_AT_ONCE ? n_pages - page : TOUCH_AT_ONCE;
        for (size_t slot = 0; slot < KV_PAGE; slot += KV_PAGE / 2) {
            for (size_t i = 0; i < many; i++) {
                size_t seq = (page + i) / per_seq, at = (page + i) % per_seq;
                run[i] = (batch_run){
                    .first = i, .n = 1, .pos = slot, .pages = r->pages + seq * r->pages_per_seq + at};
            }
            b.n_tokens = b.n_runs = many;
            int rc = engine_forward(r->e, &b, err);
            if (rc) return rc;
        }
    }
    return PR_OK;
}

/* n tokens of one sequence in chunks. */
static int prefill(rig *r, size_t seq, size_t pos, size_t n, pr_err *err)
{
    int rc = PR_OK;

    while (n && !rc) {
        size_t now = n < r->chunk ? n : r->chunk;
        batch_run run = {.n = now, .pos = pos, .pages = r->pages + seq * r->pages_per_seq};
        int32_t last = (int32_t)now - 1;
        batch b = {.n_tokens = now, .token = r->token, .n_runs = 1, .run = &run, .n_out = 1, .out = &last};
        rc = engine_forward(r->e, &b, err);
        pos += now;
        n -= now;
    }
    return rc;
}

static int decode(rig *r, size_t n_seq, size_t pos, size_t n, pr_err *err)
{
    batch b = {
        .n_tokens = n_seq, .token = r->token, .n_runs = n_seq, .run = r->run, .n_out = n_seq, .out = r->out};
    int rc = PR_OK;

    for (size_t step = 0; step < n && !rc; step++) {
        for (size_t s = 0; s < n_seq; s++) {
            r->run[s] =
                (batch_run){.first = s, .n = 1, .pos = pos + step, .pages = r->pages + s * r->pages_per_seq};
            r->out[s] = (int32_t)s;
        }
        rc = engine_forward(r->e, &b, err);
    }
    return rc;
}

/* Milliseconds of one repetition. */
static int repetition(double *ms, const bench *b, const test_case *t, rig *r, pr_err *err)
{
    uint64_t start = clock_ns();
    int rc = PR_OK;

    for (size_t s = 0; s < t->sequences && t->n_prompt && !rc; s++)
        rc = prefill(r, s, b->o->depth, t->n_prompt, err);
    if (!rc && t->n_generate) rc = decode(r, t->sequences, b->o->depth + t->n_prompt, t->n_generate, err);
    *ms = clock_ms_since(start);
    return rc;
}

static int write_row(const bench *b, const test_case *t, const engine_facts *f, double *ms, double probe_gbs,
                     pr_err *err)
{
    size_t tokens = t->sequences * (t->n_prompt + t->n_generate);
    double median = timings_percentile(ms, b->o->reps, 50),
           passes = t->n_generate ? (double)t->n_generate : NAN;
    double gbs = (double)(f->weights_bytes + f->gpu.weights) * passes / (median * 1e6);

    csv_str(b->csv, "prima/bench-decode/1");
    csv_str(b->csv, prima_version);
    csv_str(b->csv, f->isa);
    csv_int(b->csv, f->n_threads);
    csv_str(b->csv, b->m->hp.name);
    csv_str(b->csv, b->m->hp.quant);
    csv_str(b->csv, b->o->kv_type);
    csv_str(b->csv, t->name);
    csv_int(b->csv, (int64_t)t->sequences);
    csv_int(b->csv, (int64_t)b->o->depth);
    csv_int(b->csv, (int64_t)b->o->reps);
    csv_num(b->csv, (double)tokens / median * 1e3, 3);
    csv_num(b->csv, (double)tokens / ms[b->o->reps - 1] * 1e3, 3);
    csv_num(b->csv, (double)tokens / ms[0] * 1e3, 3);
    csv_num(b->csv, gbs, 3);
    csv_num(b->csv, probe_gbs, 3);
    csv_str(b->csv, f->gpu_name);
    csv_int(b->csv, f->gpu_layers);
    log_info("%-6s threads %d sequences %zu: %.2f tokens/s%s%s%s", t->name, f->n_threads, t->sequences,
             (double)tokens / median * 1e3, t->n_generate ? "" : " (prefill)", *f->gpu_name ? ", " : "",
             f->gpu_name);
    return csv_row(b->csv, err);
}

static int measure(const bench *b, const test_case *t, pr_err *err)
{
    double ms[BENCH_MAX_REPS], probe_gbs;
    rig r = {0};
    engine_facts f;
    int rc;

    /* The limit of this machine's memory says nothing about a GPU's. */
    probe_gbs = b->gpu_layers ? NAN : probe_read_gb_per_s((int)t->threads, err);
    if ((rc = rig_new(&r, b, t, err))) {
        rig_free(&r);
        return rc;
    }
    f = engine_about(r.e);
    rc = touch_pages(&r, t->sequences, b->o->depth, err);
    if (!rc) rc = repetition(&ms[0], b, t, &r, err);
    for (size_t i = 0; i < b->o->reps && !rc; i++) {
        log_progress("%s: repetition %zu of %zu", t->name, i + 1, b->o->reps);
        rc = repetition(&ms[i], b, t, &r, err);
    }
    log_progress("%s", "");
    if (!rc) rc = write_row(b, t, &f, ms, probe_gbs, err);
    rig_free(&r);
    return rc;
}

/* --- the suite
 * ---------------------------------------------------------------------------------------------- */
static int decode_suite(const bench *b, pr_err *err)
{
    list threads, sequences, lengths, generates;
    char name[32];
    int rc;

    if ((rc = parse_list(&threads, "threads", b->o->threads, err)) ||
        (rc = parse_list(&sequences, "sequences", b->o->sequences, err)) ||
        (rc = parse_list(&lengths, "prompt", b->o->prompts, err)) ||
        (rc = parse_list(&generates, "generate", b->o->generates, err)))
        return rc;
    for (size_t i = 0; i < threads.n; i++) {
        for (size_t p = 0; p < lengths.n && !rc; p++) {
            if (!lengths.v[p]) continue;
            snprintf(name, sizeof name, "pp%zu", lengths.v[p]);
            rc = measure(b, &(test_case){name, threads.v[i], 1, lengths.v[p], 0}, err);
        }
        for (size_t g = 0; g < generates.n * sequences.n && !rc; g++) {
            size_t n = generates.v[g / sequences.n];
            if (!n) continue;
            snprintf(name, sizeof name, "tg%zu", n);
            rc = measure(b, &(test_case){name, threads.v[i], sequences.v[g % sequences.n], 0, n}, err);
        }
    }
    return rc;
}

/* --- the model and the file ----------------------------------------------------------------------------- */
int bench_find_model(const char *model_path, const char *synth, char path[4096], pr_err *err)
{
    char name[256];
    int rc;

    if (!model_path && !synth)
        return pr_fail(err, PR_EUSAGE, "a model is needed: -m FILE, or --synth %s", synth_help);
    if (model_path) {
        snprintf(path, 4096, "%s", model_path);
        if (!synth) return PR_OK;
    } else {
        snprintf(name, sizeof name, "synth-%s.gguf", synth);
        for (char *c = name; *c; c++)
            if (*c == ':') *c = '-';
        if ((rc = cache_path(path, 4096, name, err))) return rc;
    }
    if (access(path, R_OK) == 0) return PR_OK;
    log_info("making %s", path);
    return synth_write(synth, path, err);
}

static const char decode_header[] = "schema,build,isa,threads,model,quant,kv_type,test,sequences,depth_"
                                    "tokens,reps,median_tps,min_tps,max_tps,"
                                    "weights_gb_per_s,read_limit_gb_per_s,gpu,gpu_layers";

static int count_gpu_layers(bench *b, pr_err *err)
{
    uint32_t n_layers = b->m->hp.n_layers;
    bool on_gpu = strcmp(b->o->device, "GPU") == 0;
    const char *text = b->o->gpu_layers;
    unsigned long n;
    char *end;

    if (!on_gpu && strcmp(b->o->device, "CPU"))
        return pr_fail(err, PR_EUSAGE, "--device %s: expected CPU or GPU", b->o->device);
    b->gpu_layers = on_gpu ? n_layers : 0;
    if (!text) return PR_OK;
    b->gpu_layers = n_layers;
    if (strcmp(text, "all") == 0) return PR_OK;
    n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > n_layers)
        return pr_fail(err, PR_EUSAGE, "--gpu-layers %s: expected all, or a number up to the model's %u",
                       text, n_layers);
    b->gpu_layers = (uint32_t)n;
    return PR_OK;
}

int bench_decode(const bench_options *o, pr_err *err)
{
    char path[4096], csv_path[4096];
    model m = {0};
    bench b = {.o = o, .m = &m, .model_path = path};
    int rc = bench_find_model(o->model, o->synth, path, err), rc2;

    if (rc || (rc = model_open(&m, path, err))) return rc;
    if ((rc = count_gpu_layers(&b, err))) {
        model_close(&m);
        return rc;
    }
    mkdir(o->output, 0755);
    snprintf(csv_path, sizeof csv_path, "%s/decode.csv", o->output);
    if (!(rc = csv_open(&b.csv, csv_path, decode_header, true, err))) rc = decode_suite(&b, err);
    rc2 = csv_close(b.csv, rc ? NULL : err);
    model_close(&m);
    return rc ? rc : rc2;
}
