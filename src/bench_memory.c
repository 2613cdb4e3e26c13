/* Suite `memory`: time of a decoding step when only a part of the weights may stay in memory.
 *
 * Each row is a process of its own in a memory control group (bench_cage.h) that holds what the row allows:
 * it packs (once for all), loads, and decodes. Just before and just after, the disk's own rate is measured on
 * the same file by fio (else by the runtime's reader), past the page cache: disks that are shared do not keep
 * theirs. A step cannot take less than its computing takes with all weights in memory, nor than the disk
 * needs for what must be read. `mapped` divides the weights as `streamed` does and leaves the reading of what
 * does not fit to the page cache. */
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/bench.h"
#include "src/bench_cage.h"
#include "src/cmd.h"
#include "src/disk_rate.h"
#include "src/fio.h"
#include "src/options.h"
#include "src/run/engine.h"
#include "src/run/timings.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_SLOTS = 64, BUFFER_PIECES = 4, MAX_LIMITS = 16 };
/* Of a process, beside what the engine counts: code, libraries, stacks, the vocabulary. */
static const uint64_t PROCESS_BYTES = 64 << 20;

typedef enum { RESIDENT, MAPPED, STREAMED, MODES } mode;
static const char *const mode_name[] = {"resident", "mapped", "streamed"};

typedef struct {
    const char *output, *model, *synth, *limits, *sequences, *pack_dir;
    size_t threads, passes;
    double probe_s;
} given;

typedef struct {
    mode mode;
    double limit_pct;
    size_t slots;
} test_case;

/* Bytes a second of the disk; the limit of a row is their mean. */
typedef struct {
    const char *by;
    double before, after;
} disk_rates;

/* What a child sends through its pipe. */
typedef struct {
    bool ok;
    double median_ms, min_ms, max_ms, stall_ms, load_s;
    uint64_t read_bytes; /* of a step */
    uint64_t streamed_bytes, rss_peak_bytes;
    disk_read_facts disk;
    char error[PR_MSG_BYTES];
} outcome;

typedef struct {
    const given *g;
    const char *path;
    uint64_t weights_bytes;
    csv *csv;
    double compute_ms[MAX_SLOTS + 1]; /* of a step with all weights in memory, by sequences; 0: not known */
} bench;

/* --- one process -----------------------------------------------------------------------------------------
 */
typedef struct {
    model m;
    engine *e;
    uint32_t streamed;
    int32_t token[MAX_SLOTS], out[MAX_SLOTS], page[MAX_SLOTS];
    batch_run run[MAX_SLOTS];
} rig;

static int rig_open(rig *r, const bench *b, const test_case *t, uint64_t memory, pr_err *err)
{
    engine_options eo = {.n_threads = (int)b->g->threads,
                         .kv = KV_F16,
                         .n_pages = t->slots,
                         .max_tokens = t->slots,
                         .max_out = t->slots,
                         .n_windows = 1,
                         .buffer_pieces = BUFFER_PIECES,
                         .stream = t->mode == MAPPED ? STREAM_MAP : STREAM_READ,
                         .pack_dir = b->g->pack_dir};
    int rc = model_open(&r->m, b->path, err);

    if (!rc && t->mode != RESIDENT) rc = engine_fit(&r->m, &eo, &r->streamed, memory, err);
    return rc ? rc : engine_new(&r->e, &r->m, &eo, err);
}

/* Step number `pos` of all sequences. */
static int step(rig *r, size_t n, size_t pos, pr_err *err)
{
    batch b = {.n_tokens = n, .token = r->token, .n_runs = n, .run = r->run, .n_out = n, .out = r->out};

    for (size_t i = 0; i < n; i++) {
        r->page[i] = r->out[i] = (int32_t)i;
        r->token[i] = (int32_t)((pos * 31 + i * 7919 + 3) % vocab_size(r->m.vocab));
        r->run[i] = (batch_run){.first = i, .n = 1, .pos = pos, .pages = &r->page[i]};
    }
    return engine_forward(r->e, &b, err);
}

static int decode(outcome *x, rig *r, const bench *b, const test_case *t, pr_err *err)
{
    double ms[KV_PAGE];
    size_t n = b->g->passes;
    residency *res = engine_residency(r->e);
    residency_counts was, is;
    int rc = step(r, t->slots, 0, err);

    if (!rc) rc = step(r, t->slots, 1, err);
    was = res ? residency_about(res) : (residency_counts){0};
    for (size_t i = 0; i < n && !rc; i++) {
        uint64_t start = clock_ns();
        rc = step(r, t->slots, i + 2, err);
        ms[i] = clock_ms_since(start);
    }
    if (rc) return rc;
    is = res ? residency_about(res) : was;
    x->median_ms = timings_percentile(ms, n, 50);
    x->min_ms = ms[0];
    x->max_ms = ms[n - 1];
    x->stall_ms = (is.stream.stall_ms - was.stream.stall_ms) / (double)n;
    x->read_bytes = (is.stream.read_bytes - was.stream.read_bytes) / n;
    x->streamed_bytes = is.pass_bytes;
    if (res) x->disk = residency_disk(res);
    return PR_OK;
}

static int child(outcome *x, const bench *b, const test_case *t, uint64_t memory, pr_err *err)
{
    rig *r = calloc(1, sizeof *r);
    int rc = r ? rig_open(r, b, t, memory, err) : pr_fail(err, PR_ERESOURCE, "out of memory");

    if (!rc) {
        x->load_s = engine_about(r->e).load_s;
        rc = decode(x, r, b, t, err);
    }
    x->rss_peak_bytes = mem_rss_peak_bytes();
    return rc;
}

static void child_main(int fd, const bench *b, const test_case *t, uint64_t memory, const bench_cage *cage)
{
    outcome x = {0};
    pr_err err = {0};

    if (cage && !bench_cage_enter(cage)) snprintf(x.error, sizeof x.error, "cannot enter the control group");
    else if (child(&x, b, t, memory, &err)) snprintf(x.error, sizeof x.error, "%s", err.msg);
    else x.ok = true;
    _exit(write(fd, &x, sizeof x) == (ssize_t)sizeof x ? 0 : 1);
}

static int run_child(outcome *x, const bench *b, const test_case *t, uint64_t memory, const bench_cage *cage,
                     pr_err *err)
{
    int fd[2], status;
    ssize_t got;
    pid_t pid;

    if (pipe(fd) || (pid = fork()) < 0) return pr_fail_errno(err, PR_ERESOURCE, "cannot start a process");
    if (pid == 0) {
        close(fd[0]);
        child_main(fd[1], b, t, memory, cage);
    }
    close(fd[1]);
    got = read(fd[0], x, sizeof *x);
    close(fd[0]);
    waitpid(pid, &status, 0);
    if (got != (ssize_t)sizeof *x) {
        *x = (outcome){0};
        snprintf(x->error, sizeof x->error,
                 WIFSIGNALED(status) ? "killed by signal %d" : "ended with status %d",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return PR_OK;
}

/* --- the disk, in the same minute ------------------------------------------------------------------------
 */
static double disk_rate_now(const bench *b, const char *path, const char **by)
{
    const fio_job job = {.path = path,
                         .direct = true,
                         .bs_bytes = 1 << 20,
                         .iodepth = 16,
                         .runtime_s = b->g->probe_s,
                         .timeout_s = b->g->probe_s + 30};
    const disk_read_options o = {0};
    char version[FIO_VERSION_BYTES];
    profile_disk d = {0};
    disk_rate *r;

    *by = "fio";
    if (fio_installed(version) && fio_run(&d, version, &job, NULL) == PR_OK) return d.read_bytes_per_s;
    *by = "reader";
    if (disk_rate_open(&r, path, &o, NULL)) return NAN;
    if (disk_rate_run(r, b->g->probe_s, 0, &d, NULL)) d.read_bytes_per_s = NAN;
    disk_rate_close(r);
    return d.read_bytes_per_s;
}

/* --- rows ------------------------------------------------------------------------------------------------
 */
static const char header[] =
    "schema,build,threads,model_bytes,mode,limit_pct,memory_bytes,held_by,sequences,steps,median_ms,"
    "min_ms,max_ms,tokens_per_s,stall_ms,read_bytes_per_step,read_bytes_per_token,streamed_bytes,disk_limit_"
    "by,"
    "disk_before_bytes_per_s,disk_after_bytes_per_s,disk_limit_bytes_per_s,compute_ms,floor_ms,over_floor,"
    "peak_bytes,load_s,reader,error";

static const char *reader_name(const test_case *t, const outcome *x)
{
    bool uring = x->disk.engine == DISK_READ_URING, direct = x->disk.mode == DISK_READ_DIRECT;

    if (!x->ok || !x->streamed_bytes) return "";
    if (t->mode == MAPPED) return "page cache";
    return uring ? direct ? "uring direct" : "uring buffered" : direct ? "pread direct" : "pread buffered";
}

static int write_row(bench *b, const test_case *t, uint64_t memory, const char *held_by, uint64_t peak,
                     const outcome *x, const disk_rates *d, pr_err *err)
{
    double compute = b->compute_ms[t->slots] > 0 ? b->compute_ms[t->slots] : NAN,
           rate = (d->before + d->after) / 2, floor = fmax(compute, (double)x->streamed_bytes / rate * 1e3);
    csv *c = b->csv;

    csv_str(c, "prima/bench-memory/1");
    csv_str(c, prima_version);
    csv_int(c, (int64_t)b->g->threads);
    csv_int(c, (int64_t)b->weights_bytes);
    csv_str(c, mode_name[t->mode]);
    csv_num(c, t->limit_pct, 0);
    csv_int(c, (int64_t)memory);
    csv_str(c, held_by);
    csv_int(c, (int64_t)t->slots);
    csv_int(c, (int64_t)b->g->passes);
    csv_num(c, x->ok ? x->median_ms : NAN, 3);
    csv_num(c, x->ok ? x->min_ms : NAN, 3);
    csv_num(c, x->ok ? x->max_ms : NAN, 3);
    csv_num(c, x->ok ? (double)t->slots / x->median_ms * 1e3 : NAN, 3);
    csv_num(c, x->ok ? x->stall_ms : NAN, 3);
    csv_num(c, x->ok && t->mode != MAPPED ? (double)x->read_bytes : NAN, 0);
    csv_num(c, x->ok && t->mode != MAPPED ? (double)x->read_bytes / (double)t->slots : NAN, 0);
    csv_num(c, x->ok ? (double)x->streamed_bytes : NAN, 0);
    csv_str(c, d->by);
    csv_num(c, d->before, 0);
    csv_num(c, d->after, 0);
    csv_num(c, rate, 0);
    csv_num(c, compute, 3);
    csv_num(c, floor, 3);
    csv_num(c, x->ok ? x->median_ms / floor : NAN, 3);
    csv_int(c, (int64_t)peak);
    csv_num(c, x->ok ? x->load_s : NAN, 3);
    csv_str(c, reader_name(t, x));
    csv_str(c, x->error);
    if (x->ok)
        log_info(
            "%-8s %3.0f %% of the weights, %2zu sequences: %.0f ms a step, %.2f tokens/s, %.2f x the floor",
            mode_name[t->mode], t->limit_pct, t->slots, x->median_ms, (double)t->slots / x->median_ms * 1e3,
            x->median_ms / floor);
    else log_warn("%s %.0f %%, %zu sequences: %s", mode_name[t->mode], t->limit_pct, t->slots, x->error);
    return csv_row(c, err);
}

static int measure(bench *b, const test_case *t, const char *pack, pr_err *err)
{
    uint64_t memory = (uint64_t)((double)b->weights_bytes * t->limit_pct / 100), peak;
    bench_cage cage;
    char why[160];
    bool caged = t->mode != RESIDENT && bench_cage_make(&cage, memory + PROCESS_BYTES, why);
    disk_rates d;
    outcome x;
    int rc;

    d.before = disk_rate_now(b, pack, &d.by);
    rc = run_child(&x, b, t, memory, caged ? &cage : NULL, err);
    d.after = disk_rate_now(b, pack, &d.by);
    peak = caged ? bench_cage_peak(&cage) : x.rss_peak_bytes;
    if (caged) bench_cage_remove(&cage);
    else if (t->mode != RESIDENT) log_warn("%s: the limit is the engine's own", why);
    if (rc) return rc;
    if (x.ok && t->mode == RESIDENT) b->compute_ms[t->slots] = x.median_ms;
    return write_row(b, t, memory, caged ? cage.v2 ? "cgroup v2" : "cgroup v1" : "engine", peak, &x, &d, err);
}

/* --- the suite -------------------------------------------------------------------------------------------
 */
static size_t parse_list(double *out, size_t max, const char *text)
{
    size_t n = 0;
    char *end;

    for (const char *at = text; *at && n < max; at = *end ? end + 1 : end) {
        out[n] = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(out[n] > 0)) return 0;
        n++;
    }
    return n;
}

/* The pack, built before anything is timed; its path is where the disk is measured. */
static int build_pack(bench *b, char *path, size_t n, pr_err *err)
{
    pool *p = NULL;
    model m = {0};
    pack_file *f = NULL;
    uint32_t first = 0;
    int rc;

    if ((rc = model_open(&m, b->path, err))) return rc;
    b->weights_bytes = weights_need_bytes(&m.hp, 0, m.hp.n_layers) + hparams_output_bytes(&m.hp);
    if (!(rc = pool_new(&p, (int)b->g->threads, err)))
        rc = pack_file_open(&f, &m, &first, &m.hp.n_layers, 1,
                            &(pack_file_options){.dir = b->g->pack_dir, .label = "packing"}, p, NULL, err);
    if (!rc) snprintf(path, n, "%s", pack_file_path(f));
    pack_file_close(f);
    pool_free(p);
    model_close(&m);
    return rc;
}

static int suite(bench *b, const char *pack, pr_err *err)
{
    double limits[MAX_LIMITS], slots[MAX_LIMITS];
    size_t n_limits = parse_list(limits, MAX_LIMITS, b->g->limits),
           n_slots = parse_list(slots, MAX_LIMITS, b->g->sequences);
    int rc = PR_OK;

    if (!n_limits || !n_slots)
        return pr_fail(err, PR_EUSAGE,
                       "--limits and --sequences: expected numbers above 0 separated by commas");
    for (size_t s = 0; s < n_slots; s++) {
        if (slots[s] > MAX_SLOTS) return pr_fail(err, PR_EUSAGE, "--sequences: at most %d", MAX_SLOTS);
        test_case t = {RESIDENT, 100, (size_t)slots[s]};
        if (!rc) rc = measure(b, &t, pack, err);
        for (size_t i = 0; i < n_limits * 2 && !rc; i++) {
            t = (test_case){i % 2 ? MAPPED : STREAMED, limits[i / 2], (size_t)slots[s]};
            rc = measure(b, &t, pack, err);
        }
    }
    return rc;
}

int bench_memory(int argc, char **argv, pr_err *err)
{
    given g = {.output = "results",
               .limits = "100,75,50,35,25",
               .sequences = "1,16",
               .threads = (size_t)pool_default_threads(),
               .passes = 8,
               .probe_s = 2};
    const opt table[] = {
        {"output", 'o', OPT_STRING, &g.output, "DIR", 0, 0,
         "folder of memory.csv, which is made anew (results)"},
        {"model", 'm', OPT_STRING, &g.model, "FILE", 0, 0,
         "the model to measure (with --synth: where to keep it)"},
        {"synth", 0, OPT_STRING, &g.synth, "SPEC", 0, 0, "make and measure a random model (llama-8b:q4_k_m)"},
        {"limits", 0, OPT_STRING, &g.limits, "PCT,...", 0, 0,
         "memory in hundredths of the weights (100,75,50,35,25)"},
        {"sequences", 0, OPT_STRING, &g.sequences, "N,...", 0, 0, "sequences that decode together (1,16)"},
        {"steps", 'n', OPT_COUNT, &g.passes, "N", 3, KV_PAGE - 2,
         "decoding steps, after two that do not count (8)"},
        {"threads", 't', OPT_COUNT, &g.threads, "N", 1, POOL_MAX_THREADS, "threads (one a core)"},
        {"disk-time", 0, OPT_DURATION, &g.probe_s, "TIME", 0.1, 60,
         "how long the disk is measured before and after each row (2s)"},
        {"pack-dir", 0, OPT_STRING, &g.pack_dir, "DIR", 0, 0, "where packs are kept (PRIMA_CACHE/packs)"},
        {0}};
    const opt_spec spec = {
        "[options]",
        "Measures decoding with a part of the weights in memory, in a memory control "
        "group where root may make\none, against the disk's own rate: writes DIR/memory.csv.",
        table, 0, 0};
    char path[4096], pack[4096], csv_path[4096];
    bench *b;
    int first, rc = options_parse(&spec, argc, argv, &first, err), rc2;

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (!g.model && !g.synth) g.synth = "llama-8b:q4_k_m";
    if ((rc = bench_find_model(g.model, g.synth, path, err))) return rc;
    if (!(b = calloc(1, sizeof *b))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *b = (bench){.g = &g, .path = path};
    mkdir(g.output, 0755);
    snprintf(csv_path, sizeof csv_path, "%s/memory.csv", g.output);
    if (!(rc = build_pack(b, pack, sizeof pack, err)) &&
        !(rc = csv_open(&b->csv, csv_path, header, false, err))) {
        rc = suite(b, pack, err);
        rc2 = csv_close(b->csv, rc ? NULL : err);
        rc = rc ? rc : rc2;
    }
    free(b);
    return rc;
}
