/* Suite `ring`: what a ring of processes on this machine costs and gains against the same layers in one
 * process, one thread each.
 *
 * The two are measured in turn, so that what else the machine does hits both, and ratios are taken pair by
 * pair; with one sequence, where a few percent count, token by token. Links with a delay are compared with
 * the same ring without one. Where several micro-batches are on their way without a delay, the same processes
 * also compute their layers without a ring, each for itself: they share memory, caches and clock as a ring
 * does, so that is what this machine leaves to reach.
 *
 * With --vram: the paper's containers, several devices that share one GPU, each with its part of its memory;
 * against all layers in one process on that GPU. */
#include "src/bench_ring.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/options.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PREFILL_ONE = 256, HOPS = 2000, MOST_TOKENS = 64 };

/* Rows of the same devices, rounds, split and wire type follow each other: they share the processes. */
static const ring_case cases[] = {
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_HOP, HOPS, 1, 1, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_HOP, HOPS, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 2, 1, 0, false},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 2, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 3, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 4, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 8, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 32, 2, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 2, 16, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 2, 64, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 2, 128, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 24, 1, 1, 1, 1, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 24, 1, 1, 1, 5, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 2, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 4, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_DECODE, 10, 16, 8, 1, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 2, 32, 20, true},
    {2, 1, SPLIT_PLANNED, FRAME_F32, RING_PROMPT, 512, 1, 8, 32, 20, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 10, 16, 2, 1, 0, true},
    {2, 1, SPLIT_EVEN, FRAME_F32, RING_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F16, RING_DECODE, 64, 1, 1, 1, 0, true},
    {2, 1, SPLIT_PLANNED, FRAME_F16, RING_PROMPT, 512, 1, 2, 32, 0, true},
    {2, 11, SPLIT_EVEN, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, true},
    {2, 11, SPLIT_EVEN, FRAME_F32, RING_DECODE, 24, 1, 1, 1, 1, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, true},
};

/* Devices that share a GPU: one rig for all, since a process that has used CUDA cannot start others that
 * do. */
static const ring_case gpu_cases[] = {
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 64, 1, 1, 1, 0, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 10, 16, 4, 1, 0, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 10, 32, 4, 1, 0, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_DECODE, 10, 32, 8, 1, 0, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_PROMPT, 512, 1, 4, 64, 0, true},
    {4, 1, SPLIT_EVEN, FRAME_F32, RING_PROMPT, 512, 1, 4, 128, 0, true},
};

typedef struct {
    const char *output, *model, *synth, *isa, *peers, *only;
    size_t reps, gpu;
    uint64_t vram;
} ring_options_given;

typedef struct {
    const ring_options_given *o;
    const model *m;
    csv *csv;
    ring_peers peers;
    uint32_t planned[RING_BENCH_DEVICES + 1][RING_BENCH_DEVICES]; /* layers, by number of devices */
    engine *e;                                                    /* one process */
    engine_gpu_part gpu_part;                                     /* its layers, where they are on a GPU */
    ring_rig *rig;
    ring_lots *lots;
} bench;

/* --- a repetition -----------------------------------------------------------------------------------------
 */
static ring_wiring wiring(const ring_case *c)
{
    return (ring_wiring){.secure = c->secure,
                         .delay_ms = c->delay_ms,
                         .empty = c->test == RING_HOP,
                         .depth = c->in_flight,
                         .chunk_tokens = c->chunk};
}

static ring_load load_of(const ring_case *c)
{
    return (ring_load){c->test == RING_PROMPT, c->n, c->sequences, c->in_flight, c->chunk};
}

static int run_ring(bench *b, const ring_case *c, double *tps, pr_err *err)
{
    const ring_wiring w = wiring(c);
    const ring_load load = load_of(c);
    pipeline *p;
    int rc = ring_rig_wire(b->rig, &w, &p, err);

    return rc ? rc : ring_lots_run(b->lots, p, &load, tps, err);
}

static int run_one(bench *b, const ring_case *c, double *tps, pr_err *err)
{
    const ring_load load = load_of(c);
    pipeline *p;
    int rc = pipeline_local(&p, b->e, PREFILL_ONE, NULL, clock_ns(), err);

    if (rc) return rc;
    rc = ring_lots_run(b->lots, p, &load, tps, err);
    p->ops->free(p);
    return rc;
}

/* What it is compared with. */
static int run_base(bench *b, const ring_case *c, double *tps, pr_err *err)
{
    ring_case without = *c;

    without.delay_ms = 0;
    return ring_case_has_delay(c) && c->in_flight > 1 ? run_ring(b, &without, tps, err)
                                                      : run_one(b, c, tps, err);
}

/* With one micro-batch in flight devices take turns, and a delay is no matter of this machine. */
static bool has_ceiling(const ring_case *c)
{
    return c->in_flight > 1 && !ring_case_has_delay(c);
}

static int measure_apart(bench *b, const ring_case *c, double f[FIGURES], pr_err *err)
{
    const ring_load load = load_of(c);
    int rc = run_base(b, c, &f[FIGURE_BASE], err);

    if (!rc) rc = run_ring(b, c, &f[FIGURE_RING], err);
    if (!rc && has_ceiling(c)) rc = ring_rig_apart(b->rig, &load, &f[FIGURE_CEILING], err);
    f[FIGURE_RATIO] = f[FIGURE_RING] / f[FIGURE_BASE];
    f[FIGURE_OF_CEILING] = f[FIGURE_RING] / f[FIGURE_CEILING];
    return rc;
}

/* One sequence: a token in one process, the same token in the ring, and so on. */
static bool is_in_turn(const ring_case *c)
{
    return c->test == RING_DECODE && c->in_flight == 1;
}

static int measure_in_turn(bench *b, const ring_case *c, double f[FIGURES], pr_err *err)
{
    const ring_wiring w = wiring(c);
    double one[MOST_TOKENS + 1], ring[MOST_TOKENS + 1], ratio[MOST_TOKENS], more[MOST_TOKENS],
        hops = (double)c->devices * c->rounds;
    pipeline *local, *p;
    int rc = pipeline_local(&local, b->e, PREFILL_ONE, NULL, clock_ns(), err);

    if (rc) return rc;
    rc = ring_rig_wire(b->rig, &w, &p, err);
    for (size_t i = 0; i <= c->n && !rc; i++) {
        rc = ring_lots_token(b->lots, local, i, &one[i], err);
        if (!rc) rc = ring_lots_token(b->lots, p, i, &ring[i], err);
    }
    for (size_t i = 0; i < c->n && !rc; i++) { /* the first token warms */
        ratio[i] = one[i + 1] / ring[i + 1];
        more[i] = (ring[i + 1] - one[i + 1]) * 1e3 / hops;
    }
    if (!rc) {
        f[FIGURE_BASE] = 1e3 / timings_percentile(one + 1, c->n, 50);
        f[FIGURE_RING] = 1e3 / timings_percentile(ring + 1, c->n, 50);
        f[FIGURE_RATIO] = timings_percentile(ratio, c->n, 50);
        f[FIGURE_HOP] = timings_percentile(more, c->n, 50);
        rc = ring_rig_link_us(b->rig, &f[FIGURE_LINK], err);
    }
    local->ops->free(local);
    return rc;
}

static int measure_hop(bench *b, const ring_case *c, double f[FIGURES], pr_err *err)
{
    const ring_wiring w = wiring(c);
    int rc = ring_rig_wire(b->rig, &w, NULL, err);

    if (!rc) rc = ring_rig_hop_us(b->rig, c->n / 10, &f[FIGURE_HOP], err);
    return rc ? rc : ring_rig_hop_us(b->rig, c->n, &f[FIGURE_HOP], err);
}

/* --- a row
 * -------------------------------------------------------------------------------------------------- */
static const uint32_t *layers_of(const bench *b, const ring_case *c, uint32_t even[RING_BENCH_DEVICES])
{
    uint32_t n = b->m->hp.n_layers;

    if (c->split == SPLIT_PLANNED) return b->planned[c->devices];
    for (uint32_t i = 0; i < c->devices; i++) even[i] = (i + 1) * n / c->devices - i * n / c->devices;
    return even;
}

static int measure(bench *b, const ring_case *c, pr_err *err)
{
    double figure[FIGURES][BENCH_MAX_REPS];
    uint32_t even[RING_BENCH_DEVICES];
    const engine_facts facts = ring_rig_facts(b->rig);
    const ring_setting s = {.isa = facts.isa,
                            .hp = &b->m->hp,
                            .layers = layers_of(b, c, even),
                            .peers = &b->peers,
                            .reps = b->o->reps,
                            .gpu_name = b->o->vram ? facts.gpu_name : NULL,
                            .vram_bytes = b->o->vram,
                            .head_vram_bytes = facts.gpu.total};
    int rc = PR_OK;

    for (size_t i = 0; i < b->o->reps && !rc; i++) {
        double f[FIGURES] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN};
        rc = c->test == RING_HOP ? measure_hop(b, c, f, err)
             : is_in_turn(c)     ? measure_in_turn(b, c, f, err)
                                 : measure_apart(b, c, f, err);
        for (size_t k = 0; k < FIGURES; k++) figure[k][i] = f[k];
    }
    return rc ? rc : ring_row(b->csv, c, &s, figure, err);
}

/* --- the suite
 * ---------------------------------------------------------------------------------------------- */
static int one_process(bench *b, pr_err *err)
{
    engine_options eo = {.isa = b->o->isa,
                         .n_threads = 1,
                         .kv = KV_F16,
                         .n_pages = RING_BENCH_PAGES,
                         .max_tokens = RING_BENCH_CHUNK,
                         .max_out = RING_BENCH_MOST,
                         .max_positions = RING_BENCH_CTX};

    engine_free(b->e);
    b->e = NULL;
    if (b->o->vram) engine_use_gpu(b->m, &eo, (int)b->o->gpu, &b->gpu_part, b->m->hp.n_layers);
    return engine_new(&b->e, b->m, &eo, err);
}

static bool same_rig(const ring_case *a, const ring_case *b)
{
    return a->devices == b->devices && a->rounds == b->rounds && a->split == b->split && a->elem == b->elem;
}

/* The workers are started first: what this process has loaded by then they would have to copy. */
static int new_rig(bench *b, const ring_case *c, pr_err *err)
{
    ring_shape shape = {.devices = c->devices,
                        .rounds = c->rounds,
                        .elem = c->elem,
                        .vram_bytes = b->o->vram,
                        .gpu = (int)b->o->gpu};
    uint32_t even[RING_BENCH_DEVICES];
    int rc;

    engine_free(b->e);
    b->e = NULL;
    ring_rig_free(b->rig);
    b->rig = NULL;
    memcpy(shape.layers, layers_of(b, c, even), c->devices * sizeof *shape.layers);
    rc = ring_rig_new(&b->rig, b->m, b->o->isa, &shape, err);
    return rc ? rc : one_process(b, err);
}

static bool is_wanted(const bench *b, const ring_case *c)
{
    char name[16];

    ring_case_name(name, c);
    return !b->o->only || !strcmp(b->o->only, name);
}

static int run_cases(bench *b, const ring_case *list, size_t n, pr_err *err)
{
    const ring_case *last = NULL;
    int rc = PR_OK;

    for (size_t i = 0; i < n && !rc; i++) {
        const ring_case *c = &list[i];
        if (!is_wanted(b, c)) continue;
        if (!last || !same_rig(last, c)) rc = new_rig(b, c, err);
        if (!rc) rc = measure(b, c, err);
        last = c;
    }
    ring_rig_free(b->rig);
    engine_free(b->e);
    return rc;
}

static int all_cases(bench *b, pr_err *err)
{
    int rc = one_process(b, err);

    for (uint32_t n = 2; n <= 4 && !rc; n += 2)
        rc = ring_split_planned(b->planned[n], n, b->e, &b->m->hp, b->lots, err);
    if (rc) {
        engine_free(b->e);
        return rc;
    }
    return run_cases(b, cases, sizeof cases / sizeof *cases, err);
}

static int suite(const ring_options_given *o, const model *m, pr_err *err)
{
    bench b = {.o = o, .m = m};
    char path[4096];
    int rc, rc2;

    mkdir(o->output, 0755);
    snprintf(path, sizeof path, "%s/%s", o->output, o->vram ? "ring_gpu.csv" : "ring.csv");
    if ((rc = ring_lots_new(&b.lots, &m->hp, err))) return rc;
    if (!o->vram) rc = ring_peers_read(&b.peers, o->peers, err);
    if (!rc && !(rc = csv_open(&b.csv, path, o->vram ? ring_gpu_header : ring_header, false, err))) {
        rc = o->vram ? run_cases(&b, gpu_cases, sizeof gpu_cases / sizeof *gpu_cases, err)
                     : all_cases(&b, err);
        rc2 = csv_close(b.csv, rc ? NULL : err);
        rc = rc ? rc : rc2;
    }
    ring_lots_free(b.lots);
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
        {"vram", 0, OPT_SIZE, &o.vram, "SIZE", 1 << 20, 0x1p62,
         "instead: four devices on one GPU, each with at most so much of its memory; writes ring_gpu.csv"},
        {"gpu", 0, OPT_COUNT, &o.gpu, "N", 0, 255, "which GPU, with --vram (0)"},
        {0}};
    const opt_spec spec = {
        "[options]",
        "A ring of single-thread processes on this machine against one such process: writes "
        "DIR/ring.csv.\nNeeds a core for each device, and memory for the model twice. With --vram 8GiB: four "
        "devices that share\na GPU and have 8 GiB of it each, against one process on that GPU.",
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
