/* Suite `ring`: what a ring of processes on this machine costs and gains against the same layers in one
 * process, one thread each.
 *
 * The two are measured in turn, so that what else the machine does hits both, and ratios are taken pair by
 * pair; with one sequence, where a few percent count, token by token. Links with a delay are compared with
 * the same ring without one. Decoding is timed from the moment when every micro-batch has been round once. */
#include "src/bench_ring.h"
#include "planner/solve.h"
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/bench.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 512, PAGES = RING_BENCH_CTX / KV_PAGE, PREFILL_ONE = 256, HOPS = 2000, EMPTY_POS = 32 };

typedef enum { TEST_DECODE, TEST_PROMPT, TEST_HOP } test_kind;
typedef enum { SPLIT_PLANNED, SPLIT_EVEN } split_kind;

/* One row. Rows of the same devices, rounds, split and wire type follow each other: they share the processes.
 */
typedef struct {
    uint32_t devices, rounds;
    split_kind split;
    frame_elem elem;
    test_kind test;
    uint32_t n; /* tokens of each sequence; laps */
    uint32_t sequences, in_flight, chunk;
    double delay_ms;
    bool secure;
} test_case;

static const test_case cases[] = {
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_HOP, HOPS, 1, 1, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_HOP, HOPS, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 64, 1, 1, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 2, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 2, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 3, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 4, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 8, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 2, 16, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 2, 64, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 2, 128, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 24, 1, 1, 1, 1, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 24, 1, 1, 1, 5, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 2, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 4, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_DECODE, 10, 16, 8, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 2, 32, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, TEST_PROMPT, 512, 1, 8, 32, 20, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, TEST_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, TEST_DECODE, 10, 16, 2, 1, 0, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, TEST_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F16, TEST_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F16, TEST_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 11, SPLIT_EVEN, FRAME_F32, TEST_DECODE, 64, 1, 1, 1, 0, true},
    {2, 11, SPLIT_EVEN, FRAME_F32, TEST_DECODE, 24, 1, 1, 1, 1, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, TEST_DECODE, 64, 1, 1, 1, 0, true},
};

typedef struct {
    const char *output, *model, *synth, *isa, *peers, *only;
    size_t reps;
} ring_options_given;

typedef struct {
    const ring_options_given *o;
    const model *m;
    csv *csv;
    ring_peers peers;
    uint32_t planned[RING_BENCH_DEVICES + 1][RING_BENCH_DEVICES]; /* layers, by number of devices */
    engine *e;                                                    /* one process */
    ring_rig *rig;
    struct lot *lot; /* [RING_BENCH_DEPTH] */
    int32_t pages[RING_BENCH_SEQUENCES * PAGES];
} bench;

/* --- micro-batches ----------------------------------------------------------------------------------------
 */
/* One that goes round and round, and its arrays. */
typedef struct lot {
    micro_batch mb;
    int32_t token[CHUNK], out[RING_BENCH_SEQUENCES];
    batch_run run[RING_BENCH_SEQUENCES];
    size_t left; /* times to go */
} lot;

static void fill_tokens(lot *l, size_t n_vocab)
{
    for (size_t i = 0; i < CHUNK; i++) l->token[i] = (int32_t)((i * 7919 + 3) % n_vocab);
}

/* Sequences [first, end), one token each. */
static void make_decoding(bench *b, lot *l, size_t first, size_t end, size_t times)
{
    size_t n = end - first;

    for (size_t i = 0; i < n; i++) {
        l->run[i] =
            (batch_run){.first = i, .n = 1, .pos = EMPTY_POS, .pages = b->pages + (first + i) * PAGES};
        l->out[i] = (int32_t)i;
    }
    l->mb = (micro_batch){.b = {n, l->token, n, l->run, n, l->out}};
    l->left = times;
}

static void make_chunk(bench *b, lot *l, size_t pos, size_t n, bool last)
{
    l->run[0] = (batch_run){.n = n, .pos = pos, .pages = b->pages};
    l->out[0] = (int32_t)n - 1;
    l->mb = (micro_batch){.b = {n, l->token, 1, l->run, last, l->out}, .n_prefill = n};
}

static int submit(pipeline *p, lot *l, uint64_t *id, pr_err *err)
{
    l->mb.id = ++*id;
    return p->ops->submit(p, &l->mb, err);
}

static int await(pipeline *p, lot **done, pr_err *err)
{
    pipe_event event = PIPE_WAKE;
    micro_batch *mb;
    int rc = PR_OK;

    while (!rc && event != PIPE_DONE) rc = p->ops->next(p, &event, &mb, err);
    if (!rc) *done = (lot *)mb;
    return rc;
}

/* Tokens a second of n steps of each sequence, once all micro-batches have been round. */
static int decode(bench *b, pipeline *p, const test_case *t, double *tps, pr_err *err)
{
    size_t n_lots = p->depth < t->sequences ? p->depth : t->sequences, n_tokens = 0;
    uint64_t id = 0, start = 0;
    int rc = PR_OK;

    for (size_t i = 0; i < n_lots && !rc; i++) {
        make_decoding(b, &b->lot[i], i * t->sequences / n_lots, (i + 1) * t->sequences / n_lots, t->n + 1);
        rc = submit(p, &b->lot[i], &id, err);
    }
    for (size_t i = 0; i < n_lots * (t->n + 1) && !rc; i++) {
        lot *l;
        if ((rc = await(p, &l, err))) break;
        if (i >= n_lots) n_tokens += l->mb.b.n_tokens;
        if (i + 1 == n_lots) start = clock_ns();
        for (size_t s = 0; s < l->mb.b.n_runs; s++) l->run[s].pos++;
        if (--l->left) rc = submit(p, l, &id, err);
    }
    *tps = (double)n_tokens / clock_ms_since(start) * 1e3;
    return rc;
}

static int prompt(bench *b, pipeline *p, const test_case *t, double *tps, pr_err *err)
{
    size_t at = 0, n_done = 0, n_sent = 0;
    uint64_t id = 0, start = clock_ns();
    int rc = PR_OK;

    while (!rc && n_done < t->n) {
        lot *l;
        while (!rc && at < t->n && n_sent < p->depth) {
            size_t n = t->n - at < p->max_prefill ? t->n - at : p->max_prefill;
            l = &b->lot[id % RING_BENCH_DEPTH];
            make_chunk(b, l, at, n, at + n == t->n);
            at += n;
            n_sent++;
            rc = submit(p, l, &id, err);
        }
        if (rc || (rc = await(p, &l, err))) break;
        n_done += l->mb.b.n_tokens;
        n_sent--;
    }
    *tps = (double)t->n / clock_ms_since(start) * 1e3;
    return rc;
}

/* --- pairs ------------------------------------------------------------------------------------------------
 */
static ring_wiring wiring(const test_case *t)
{
    return (ring_wiring){.secure = t->secure,
                         .delay_ms = t->delay_ms,
                         .empty = t->test == TEST_HOP,
                         .depth = t->in_flight,
                         .chunk_tokens = t->chunk};
}

static int run_ring(bench *b, const test_case *t, double *tps, pr_err *err)
{
    const ring_wiring w = wiring(t);
    test_case warm = *t;
    pipeline *p;
    int rc = ring_rig_wire(b->rig, &w, &p, err);

    warm.n = 1;
    if (rc || (rc = decode(b, p, &warm, tps, err))) return rc;
    return t->test == TEST_PROMPT ? prompt(b, p, t, tps, err) : decode(b, p, t, tps, err);
}

static int run_one(bench *b, const test_case *t, double *tps, pr_err *err)
{
    test_case warm = *t;
    pipeline *p;
    int rc = pipeline_local(&p, b->e, PREFILL_ONE, NULL, clock_ns(), err);

    if (rc) return rc;
    warm.n = 1;
    rc = decode(b, p, &warm, tps, err);
    if (!rc) rc = t->test == TEST_PROMPT ? prompt(b, p, t, tps, err) : decode(b, p, t, tps, err);
    p->ops->free(p);
    return rc;
}

static bool has_delay(const test_case *t)
{
    return t->delay_ms > 0;
}

/* What it is compared with. */
static int run_base(bench *b, const test_case *t, double *tps, pr_err *err)
{
    test_case without = *t;

    without.delay_ms = 0;
    return has_delay(t) && t->in_flight > 1 ? run_ring(b, &without, tps, err) : run_one(b, t, tps, err);
}

static int run_hop(bench *b, const test_case *t, double *us, pr_err *err)
{
    const ring_wiring w = wiring(t);
    int rc = ring_rig_wire(b->rig, &w, NULL, err);

    if (!rc) rc = ring_rig_hop_us(b->rig, t->n / 10, us, err);
    return rc ? rc : ring_rig_hop_us(b->rig, t->n, us, err);
}

/* --- rows -------------------------------------------------------------------------------------------------
 */
static const char ring_header[] =
    "schema,build,isa,model,quant,devices,rounds,split,layers,wire,security,link_delay_ms,test,sequences,"
    "in_flight,chunk_tokens,reps,base,base_tps,ring_tps,ring_over_base,least_ratio,most_ratio,hop_us,"
    "primacpp_ring_over_one,dllama_ring_over_one";

static void print_layers(char *out, size_t cap, const uint32_t *layers, uint32_t n)
{
    size_t at = 0;

    *out = 0;
    for (uint32_t i = 0; i < n && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%u", i ? ":" : "", layers[i]);
}

static const uint32_t *layers_of(const bench *b, const test_case *t, uint32_t even[RING_BENCH_DEVICES])
{
    uint32_t n = b->m->hp.n_layers;

    if (t->split == SPLIT_PLANNED) return b->planned[t->devices];
    for (uint32_t i = 0; i < t->devices; i++) even[i] = (i + 1) * n / t->devices - i * n / t->devices;
    return even;
}

static void write_setting(const bench *b, const test_case *t)
{
    static const char *const elem[] = {"", "f32", "f16", "bf16"};
    uint32_t even[RING_BENCH_DEVICES];
    char layers[64];

    print_layers(layers, sizeof layers, layers_of(b, t, even), t->devices);
    csv_str(b->csv, "prima/bench-ring/1");
    csv_str(b->csv, prima_version);
    csv_str(b->csv, engine_about(b->e).isa);
    csv_str(b->csv, b->m->hp.name);
    csv_str(b->csv, b->m->hp.quant);
    csv_int(b->csv, t->devices);
    csv_int(b->csv, t->rounds);
    csv_str(b->csv, t->split == SPLIT_PLANNED ? "planned" : "even");
    csv_str(b->csv, layers);
    csv_str(b->csv, elem[t->elem]);
    csv_str(b->csv, t->secure ? "psk" : "plain");
    csv_num(b->csv, t->delay_ms, 0);
}

static const char *name_test(char out[16], const test_case *t)
{
    if (t->test == TEST_HOP) return "hop";
    snprintf(out, 16, "%s%u", t->test == TEST_PROMPT ? "pp" : "tg", t->n);
    return out;
}

static void write_peers(const bench *b, const test_case *t)
{
    const char *kind = t->test == TEST_PROMPT ? "prompt" : "decode";
    bool like = t->test != TEST_HOP && t->sequences == 1;
    double p = ring_peers_ratio(&b->peers, "prima.cpp", kind, t->devices, t->rounds, t->delay_ms),
           d = ring_peers_ratio(&b->peers, "dllama", kind, t->devices, t->rounds, t->delay_ms);

    csv_num(b->csv, like ? p : NAN, 3);
    csv_num(b->csv, like ? d : NAN, 3);
}

static int write_row(const bench *b, const test_case *t, double *base, double *ring, double *ratio,
                     double *hop, pr_err *err)
{
    size_t n = b->o->reps;
    bool rates = t->test != TEST_HOP, other = has_delay(t) && t->in_flight > 1;
    double of_base = timings_percentile(base, n, 50), of_ring = timings_percentile(ring, n, 50),
           of_ratio = timings_percentile(ratio, n, 50), of_hop = timings_percentile(hop, n, 50);
    char name[16];

    write_setting(b, t);
    csv_str(b->csv, name_test(name, t));
    csv_int(b->csv, t->sequences);
    csv_int(b->csv, t->in_flight);
    if (t->test == TEST_PROMPT) csv_int(b->csv, t->chunk);
    else csv_str(b->csv, NULL);
    csv_int(b->csv, (int64_t)n);
    csv_str(b->csv, !rates ? NULL : other ? "no delay" : "one process");
    csv_num(b->csv, of_base, 3);
    csv_num(b->csv, of_ring, 3);
    csv_num(b->csv, of_ratio, 4);
    csv_num(b->csv, rates ? ratio[0] : NAN, 4); /* sorted now */
    csv_num(b->csv, rates ? ratio[n - 1] : NAN, 4);
    csv_num(b->csv, of_hop, 1);
    write_peers(b, t);
    log_info("%u devices x %u, %s, %s, %.0f ms: %-5s %2u sequences, %u in flight, chunk %3u: %8.2f -> %8.2f "
             "tokens/s, "
             "%.3f (%.3f to %.3f); hop %.1f us",
             t->devices, t->rounds, t->split == SPLIT_PLANNED ? "planned" : "even",
             t->secure ? "psk" : "plain", t->delay_ms, name_test(name, t), t->sequences, t->in_flight,
             t->chunk, of_base, of_ring, of_ratio, ratio[0], ratio[n - 1], of_hop);
    return csv_row(b->csv, err);
}

/* One sequence: a token in one process, the same token in the ring, and so on. */
static bool is_in_turn(const test_case *t)
{
    return t->test == TEST_DECODE && t->in_flight == 1;
}

static int step(bench *b, pipeline *p, size_t pos, uint64_t *id, double *ms, pr_err *err)
{
    lot *l = &b->lot[0];
    uint64_t start = clock_ns();
    int rc;

    make_decoding(b, l, 0, 1, 1);
    l->run[0].pos = pos;
    if ((rc = submit(p, l, id, err)) || (rc = await(p, &l, err))) return rc;
    *ms = clock_ms_since(start);
    return PR_OK;
}

typedef struct {
    double base, ring, ratio, hop; /* tokens/s; us */
} figures;

static int run_in_turn(bench *b, const test_case *t, figures *f, pr_err *err)
{
    const ring_wiring w = wiring(t);
    double one[CHUNK], ring[CHUNK], ratio[CHUNK], more[CHUNK], hops = (double)t->devices * t->rounds;
    pipeline *local, *p;
    uint64_t id = 0;
    int rc = pipeline_local(&local, b->e, PREFILL_ONE, NULL, clock_ns(), err);

    if (rc) return rc;
    rc = ring_rig_wire(b->rig, &w, &p, err);
    if (!rc) rc = step(b, local, EMPTY_POS, &id, &one[0], err);
    if (!rc) rc = step(b, p, EMPTY_POS, &id, &ring[0], err);
    for (size_t i = 0; i < t->n && !rc; i++) {
        rc = step(b, local, EMPTY_POS + i, &id, &one[i], err);
        if (!rc) rc = step(b, p, EMPTY_POS + i, &id, &ring[i], err);
        ratio[i] = one[i] / ring[i];
        more[i] = (ring[i] - one[i]) * 1e3 / hops;
    }
    *f = (figures){1e3 / timings_percentile(one, t->n, 50), 1e3 / timings_percentile(ring, t->n, 50),
                   timings_percentile(ratio, t->n, 50), timings_percentile(more, t->n, 50)};
    local->ops->free(local);
    return rc;
}

static int run_apart(bench *b, const test_case *t, figures *f, pr_err *err)
{
    int rc = run_base(b, t, &f->base, err);

    if (!rc) rc = run_ring(b, t, &f->ring, err);
    f->ratio = f->ring / f->base;
    f->hop = NAN;
    return rc;
}

static int measure(bench *b, const test_case *t, pr_err *err)
{
    double base[BENCH_MAX_REPS], ring[BENCH_MAX_REPS], ratio[BENCH_MAX_REPS], hop[BENCH_MAX_REPS];
    int rc = PR_OK;

    for (size_t i = 0; i < b->o->reps && !rc; i++) {
        figures f = {NAN, NAN, NAN, NAN};
        rc = t->test == TEST_HOP ? run_hop(b, t, &f.hop, err)
             : is_in_turn(t)     ? run_in_turn(b, t, &f, err)
                                 : run_apart(b, t, &f, err);
        base[i] = f.base;
        ring[i] = f.ring;
        ratio[i] = f.ratio;
        hop[i] = f.hop;
    }
    return rc ? rc : write_row(b, t, base, ring, ratio, hop, err);
}

/* --- the planner's split ----------------------------------------------------------------------------------
 */
static int one_process(bench *b, pr_err *err)
{
    const engine_options eo = {.isa = b->o->isa,
                               .n_threads = 1,
                               .kv = KV_F16,
                               .n_pages = RING_BENCH_SEQUENCES * PAGES,
                               .max_tokens = CHUNK,
                               .max_out = RING_BENCH_SEQUENCES};

    engine_free(b->e);
    b->e = NULL;
    return engine_new(&b->e, b->m, &eo, err);
}

/* Milliseconds of a layer and of the output for n sequences, the least of some. */
static void measure_parts(bench *b, size_t n, double *layer_ms, double *out_ms)
{
    lot *l = &b->lot[0];
    float *hidden = calloc(n * b->m->hp.n_embd, sizeof *hidden);

    *layer_ms = *out_ms = INFINITY;
    make_decoding(b, l, 0, n, 1);
    for (int i = 0; i < 5 && hidden; i++) {
        uint64_t start = clock_ns();
        double ms;
        engine_window(b->e, 0, &l->mb.b, hidden, NULL);
        ms = clock_ms_since(start) / b->m->hp.n_layers;
        if (ms < *layer_ms) *layer_ms = ms;
        start = clock_ns();
        engine_project(b->e, hidden, l->out, n);
        ms = clock_ms_since(start);
        if (ms < *out_ms) *out_ms = ms;
    }
    free(hidden);
}

/* What `prima plan` decides for so many equal devices and the objective throughput, from what a layer and the
 * output take here. */
static int plan_split(bench *b, uint32_t devices, pr_err *err)
{
    problem *p = calloc(1, sizeof *p);
    solution *s = calloc(1, sizeof *s);
    double layer_ms, out_ms;
    char layers[64];
    int rc = PR_OK;

    if (!p || !s) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    if (!rc) {
        measure_parts(b, RING_BENCH_SEQUENCES / devices, &layer_ms, &out_ms);
        *p = (problem){.n_layers = b->m->hp.n_layers,
                       .layer_bytes = 1,
                       .n_devices = devices,
                       .min_rounds = 1,
                       .max_rounds = 1,
                       .throughput = true,
                       .in_flight = devices};
        for (uint32_t i = 0; i < devices; i++)
            p->device[i] = (problem_device){.cpu_ms = layer_ms,
                                            .out_ms = out_ms,
                                            .ram_bytes = 1e12,
                                            .fixed_layers = -1,
                                            .fixed_gpu_layers = -1};
        rc = dp_solve(p, s, err);
    }
    if (!rc) {
        for (uint32_t i = 0; i < devices; i++) b->planned[devices][i] = s->best.device[i].layers;
        print_layers(layers, sizeof layers, b->planned[devices], devices);
        log_info("planned for %u devices: %s (a layer %.2f ms, the output %.2f ms)", devices, layers,
                 layer_ms, out_ms);
    }
    free(p);
    free(s);
    return rc;
}

/* --- the suite
 * ----------------------------------------------------------------------------------------------
 */
static bool same_rig(const test_case *a, const test_case *b)
{
    return a->devices == b->devices && a->rounds == b->rounds && a->split == b->split && a->elem == b->elem;
}

/* The workers are started first: what this process has loaded by then they would have to copy. */
static int new_rig(bench *b, const test_case *t, pr_err *err)
{
    ring_shape shape = {.devices = t->devices, .rounds = t->rounds, .elem = t->elem};
    uint32_t even[RING_BENCH_DEVICES];
    int rc;

    engine_free(b->e);
    b->e = NULL;
    ring_rig_free(b->rig);
    b->rig = NULL;
    memcpy(shape.layers, layers_of(b, t, even), t->devices * sizeof *shape.layers);
    rc = ring_rig_new(&b->rig, b->m, b->o->isa, &shape, err);
    return rc ? rc : one_process(b, err);
}

static bool is_wanted(const bench *b, const test_case *t)
{
    char name[16];
    return !b->o->only || !strcmp(b->o->only, name_test(name, t));
}

static int all_cases(bench *b, pr_err *err)
{
    const test_case *last = NULL;
    int rc = one_process(b, err);

    for (uint32_t n = 2; n <= 4 && !rc; n += 2) rc = plan_split(b, n, err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !rc; i++) {
        const test_case *t = &cases[i];
        if (!is_wanted(b, t)) continue;
        if (!last || !same_rig(last, t)) rc = new_rig(b, t, err);
        if (!rc) rc = measure(b, t, err);
        last = t;
    }
    ring_rig_free(b->rig);
    engine_free(b->e);
    return rc;
}

static int suite(const ring_options_given *o, const model *m, pr_err *err)
{
    bench *b = calloc(1, sizeof *b);
    char path[4096];
    int rc, rc2;

    if (!b || !(b->lot = calloc(RING_BENCH_DEPTH, sizeof *b->lot))) {
        free(b);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    b->o = o;
    b->m = m;
    for (size_t i = 0; i < RING_BENCH_DEPTH; i++) fill_tokens(&b->lot[i], vocab_size(m->vocab));
    for (size_t i = 0; i < RING_BENCH_SEQUENCES * PAGES; i++) b->pages[i] = (int32_t)i;
    mkdir(o->output, 0755);
    snprintf(path, sizeof path, "%s/ring.csv", o->output);
    rc = ring_peers_read(&b->peers, o->peers, err);
    if (!rc && !(rc = csv_open(&b->csv, path, ring_header, false, err))) {
        rc = all_cases(b, err);
        rc2 = csv_close(b->csv, rc ? NULL : err);
        rc = rc ? rc : rc2;
    }
    free(b->lot);
    free(b);
    return rc;
}

int bench_ring_suite(int argc, char **argv, pr_err *err)
{
    ring_options_given o = {
        .output = "results", .synth = "llama-1.1b:q4_k_m", .peers = "datasets/peers/ring.yaml", .reps = 7};
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o.output, "DIR", 0, 0, "folder of ring.csv, made anew (results)"},
        {"model", 'm', OPT_STRING, &o.model, "FILE", 0, 0, "the model to measure"},
        {"synth", 0, OPT_STRING, &o.synth, "SPEC", 0, 0, "instead: a random model (llama-1.1b:q4_k_m)"},
        {"reps", 'r', OPT_COUNT, &o.reps, "N", 1, BENCH_MAX_REPS, "pairs of each row; medians count (7)"},
        {"only", 0, OPT_STRING, &o.only, "NAME", 0, 0, "one test: hop, tg64, tg24, tg10, pp512 (all)"},
        {"isa", 0, OPT_STRING, &o.isa, "NAME", 0, 0, "ref, avx2, avx512 or neon (the best of this CPU)"},
        {"peers", 0, OPT_STRING, &o.peers, "FILE", 0, 0,
         "what others have measured (datasets/peers/ring.yaml)"},
        {0}};
    const opt_spec spec = {
        "[options]",
        "A ring of single-thread processes on this machine against one such process: writes "
        "DIR/ring.csv.\nNeeds a core for each device, and memory for the model twice.",
        table, 0, 0};
    int first, rc = options_parse(&spec, argc, argv, &first, err);
    char path[4096];
    model m = {0};

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if ((rc = bench_find_model(o.model, o.model ? NULL : o.synth, path, err)) ||
        (rc = model_open(&m, path, err)))
        return rc;
    rc = suite(&o, &m, err);
    model_close(&m);
    return rc;
}
