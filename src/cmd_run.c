/* prima run: a model or a plan, and a file of prompts in; completions and timings out. */
#include "kernels/cuda/device.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/base/units.h"
#include "src/cmd.h"
#include "src/model_facts.h"
#include "src/run/depth.h"
#include "src/run/link_table.h"
#include "src/run/metrics.h"
#include "src/run/ring.h"
#include "src/run/runner.h"
#include "src/run_options.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PLAN_BYTES = 16 << 20, DEFAULT_SLOTS = 16, BUFFER_PIECES = 4, RESERVE_BYTES = 1 << 30 };

/* Everything a run holds; torn down in one place. */
typedef struct {
    run_options o;
    char *plan_text; /* NULL: a model on this machine */
    size_t plan_bytes;
    plan *plan;
    model m;
    prompts *p;
    output *out;
    timings *times;
    progress *progress;
    metrics *metrics; /* NULL: not wanted, as: */
    trace *trace;
    engine *e;           /* this machine alone */
    uint32_t *streamed;  /* of each window: pieces that it reads in every pass */
    job *job;            /* this machine alone, with a plan */
    uint32_t gpu_layers; /* without a plan: on the GPU */
    engine_gpu_part gpu_part;
    engine_gpu_cap gpu_cap[CLUSTER_MAX_GPUS];
    ring *ring; /* or with others */
    ring_options ring_options;
    model_facts facts;
    cluster_key key;
    security sec;
    json_t *manifest, *info;
    const char *isa; /* that will run; of a ring: all of them, "avx2+neon" */
    char ring_isa[RING_ISA_BYTES];
    size_t n_failed; /* error records in the output, over all runs of it */
    char plan_sha256[HASH_HEX_BYTES];
    size_t n_ctx, slots, n_pages;
    kv_type kv;
} task;

static volatile sig_atomic_t computing, stop_signal, stop_now;
static unsigned grace_s; /* of a stop, in whole seconds */
static wake stop_waiting;

/* Before the first pass there is nothing to finish, and reading the prompts or the weights may take minutes:
 * out at once. What is on disk then is what --resume expects. */
static void on_signal(int sig)
{
    if (!computing) _exit(128 + sig);
    if (!stop_signal) {
        stop_signal = sig;
        alarm(grace_s);
        return;
    }
    stop_now = 1;
    wake_raise(&stop_waiting);
    if (sig != SIGALRM) stop_signal = sig;
}

/* The runner keeps the grace time between two passes; where it waits for a lost device there are none, so
 * that a second later the waits are ended, as by a second signal. */
static void catch_signals(double seconds)
{
    struct sigaction a = {.sa_handler = on_signal};

    grace_s = (unsigned)fmin(ceil(seconds) + 1, 1e9);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGALRM, &a, NULL);
}

/* --- what is run --------------------------------------------------------------------------------------- */
static int is_model(const char *path, bool *yes, pr_err *err)
{
    char magic[4] = "";
    FILE *f = fopen(path, "rb");

    if (!f) return pr_fail_errno(err, PR_ERESOURCE, "cannot open %s", path);
    *yes = fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
    fclose(f);
    return PR_OK;
}

/* What the plan has decided is not asked again. */
static int check_options(const run_options *o, bool has_plan, pr_err *err)
{
    if (has_plan && (o->slots || o->ctx || o->kv_type))
        return pr_fail(err, PR_EUSAGE,
                       "--slots, --ctx and --kv-type are the plan's: give them to prima plan");
    if (has_plan && o->gpu_layers_text)
        return pr_fail(err, PR_EUSAGE, "--gpu-layers is the plan's: cluster.yaml says which GPUs there are");
    if (!has_plan && (o->model || o->check || o->in_flight || o->elem != FRAME_F32))
        return pr_fail(err, PR_EUSAGE, "--model, --check, --in-flight and --wire go with a plan");
    return PR_OK;
}

/* What no device could do is said before any of them is started. */
static int check_jobs(task *t, pr_err *err)
{
    static const job_sizes any;
    int rc = PR_OK;

    if (t->plan->n_devices == 1) {
        rc = job_new(&t->job, t->plan_text, t->plan_bytes, 0, &any, err);
        return rc ? rc : job_check_gpus(t->job, err);
    }
    for (size_t i = 0; i < t->plan->n_devices && !rc; i++) {
        job *j = NULL;
        rc = job_new(&j, t->plan_text, t->plan_bytes, (uint32_t)i, &any, err);
        if (!rc && i == 0) rc = job_check_gpus(j, err); /* the others are asked when they are there */
        job_free(j);
    }
    return rc;
}

/* The key as the plan says, or none where it says so. */
static int read_key(task *t, pr_err *err)
{
    const plan *p = t->plan;
    char path[4096];
    int rc;

    t->sec = (security){.insecure = p->net.insecure};
    if (!p->net.secure || p->n_devices == 1) return PR_OK;
    if ((rc = key_path(path, sizeof path, p->net.key_file[0] ? p->net.key_file : NULL, err)) ||
        (rc = key_read(&t->key, path, err)))
        return rc;
    t->sec.key = &t->key;
    return PR_OK;
}

static int open_plan(task *t, pr_err *err)
{
    const run_options *o = &t->o;
    bool model_file = false;
    int rc = is_model(o->source, &model_file, err);

    if (rc || (rc = check_options(o, !model_file, err)) || model_file) return rc;
    if ((rc = file_slurp(&t->plan_text, &t->plan_bytes, o->source, MAX_PLAN_BYTES, err))) return rc;
    if (!strstr(t->plan_text, "schema: prima/plan/"))
        return pr_fail(err, PR_EINTEGRITY, "%s: neither a GGUF model nor a plan of prima plan", o->source);
    if ((rc = plan_parse(&t->plan, t->plan_text, t->plan_bytes, o->source, err))) return rc;
    if (!kv_type_parse(t->plan->kv_type, &t->kv))
        return pr_fail(err, PR_EMISMATCH, "%s: KV type '%s' is not known", o->source, t->plan->kv_type);
    snprintf(t->plan_sha256, sizeof t->plan_sha256, "%s", t->plan->plan_sha256);
    if (!t->o.threads) t->o.threads = t->plan->device[0].threads;
    return (rc = check_jobs(t, err)) ? rc : read_key(t, err);
}

static const char *model_path(const task *t)
{
    if (!t->plan) return t->o.source;
    return t->o.model ? t->o.model : t->plan->device[0].model;
}

static int check_model(const task *t, pr_err *err)
{
    if (!t->plan || strcmp(t->plan->model.header_sha256, t->m.header_sha256) == 0) return PR_OK;
    return pr_fail(err, PR_EMISMATCH,
                   "%s is not the model of the plan (%s %s): plan again, or give it with --model",
                   model_path(t), t->plan->model.name, t->plan->model.quant);
}

static int open_model(task *t, pr_err *err)
{
    size_t train, most;
    int rc;

    if (!model_path(t)[0])
        return pr_fail(err, PR_EUSAGE,
                       "the plan names no model file for the head: give it with --model FILE");
    if ((rc = model_open(&t->m, model_path(t), err)) || (rc = check_model(t, err))) return rc;
    train = t->m.hp.n_ctx_train;
    most = train < 4096 ? train : 4096;
    if (t->o.chat_template) t->m.chat = chat_by_name(t->o.chat_template);
    t->n_ctx = t->plan ? t->plan->ctx : t->o.ctx ? t->o.ctx : most;
    t->slots = t->plan ? t->plan->slots : t->o.slots ? t->o.slots : DEFAULT_SLOTS;
    if (t->n_ctx > train)
        log_warn("a context of %zu is longer than the %zu tokens the model was trained for", t->n_ctx, train);
    log_info("model %s: %s %s, %u layers, %s vocabulary of %u tokens, chat template %s", t->m.hp.name,
             model_arch_name(t->m.hp.arch), t->m.hp.quant, t->m.hp.n_layers, vocab_describe(t->m.vocab),
             vocab_size(t->m.vocab),
             t->m.chat == CHAT_UNKNOWN ? (t->m.has_chat_template ? "unknown" : "none")
                                       : chat_name(t->m.chat));
    return PR_OK;
}

/* No more slots than requests, and no more KV pages than the longest of them could fill. Without prompts as
 * much as the plan allows. */
static void size_slots(task *t)
{
    size_t n = t->p ? prompts_count(t->p) - prompts_bad(t->p) : t->slots,
           longest = t->p ? prompts_longest(t->p) : t->n_ctx;

    if (t->slots > n) t->slots = n ? n : 1;
    if (t->o.micro_batch < t->slots) t->o.micro_batch = t->slots;
    t->n_pages = t->slots * ((longest + KV_PAGE - 1) / KV_PAGE);
    if (!t->n_pages) t->n_pages = 1;
}

static int open_prompts(task *t, pr_err *err)
{
    prompts_options po = {.vocab = t->m.vocab,
                          .chat = t->m.chat,
                          .n_ctx = t->n_ctx,
                          .seed = t->o.seed,
                          .max_tokens = t->o.max_tokens,
                          .lenient = t->o.lenient,
                          .strict = t->o.strict};
    int rc = t->o.prompts_path ? prompts_open(&t->p, t->o.prompts_path, &po, err) : PR_OK;

    if (rc) return rc;
    size_slots(t);
    if (!t->p) return PR_OK;
    log_info("%s: %zu requests (%zu bad), %zu prompt tokens", t->o.prompts_path, prompts_count(t->p),
             prompts_bad(t->p), prompts_total_tokens(t->p));
    return PR_OK;
}

static disk_read_options disk_options_of(const task *t)
{
    return (disk_read_options){.limit_bytes_s = t->o.disk_limit, .idle = t->o.disk_limit > 0};
}

/* The windows of a plan, and what of them is on GPUs. */
static void take_plan(task *t, engine_options *eo)
{
    const plan_device *d = &t->plan->device[0];

    eo->window = t->job->window;
    eo->n_windows = t->plan->rounds;
    eo->gpu_part = t->job->gpu_part;
    eo->n_gpu_parts = t->job->n_gpu_parts;
    eo->output_on_gpu = d->output_on_gpu;
    eo->output_gpu = eo->n_gpu_parts ? eo->gpu_part[0].gpu : 0;
    for (size_t i = 0; i < d->n_gpus; i++)
        t->gpu_cap[i] = (engine_gpu_cap){(int)d->gpu[i].index, d->gpu[i].vram_bytes};
    eo->gpu_cap = t->gpu_cap;
    eo->n_gpu_caps = d->n_gpus;
}

static engine_options engine_options_of(task *t)
{
    engine_options eo = {.isa = t->o.isa,
                         .n_threads =
                             (int)(t->o.threads || !t->plan ? t->o.threads : t->plan->device[0].threads),
                         .kv = t->kv,
                         .n_pages = t->n_pages,
                         .max_tokens = t->o.micro_batch,
                         .max_out = t->slots,
                         .max_runs = t->slots,
                         .max_positions = t->n_ctx};

    t->gpu_cap[0] = (engine_gpu_cap){(int)t->o.gpu, t->o.vram};
    eo.gpu_cap = t->gpu_cap;
    eo.n_gpu_caps = t->o.vram > 0;
    if (t->job) take_plan(t, &eo);
    else if (t->gpu_layers) engine_use_gpu(&t->m, &eo, (int)t->o.gpu, &t->gpu_part, t->gpu_layers);
    return eo;
}

/* How many layers the GPU gets, where no plan says so. */
static int choose_gpu(task *t, pr_err *err)
{
    uint32_t n_layers = t->m.hp.n_layers;
    pr_err why = {0};

    if (t->o.gpu_auto) {
        engine_options eo = engine_options_of(t);
        t->gpu_layers = engine_fit_gpu(&t->m, &eo, (int)t->o.gpu, &t->gpu_part, &why);
        if (!t->gpu_layers) log_warn("--gpu-layers auto: all layers run on the CPU: %s", why.msg);
        return PR_OK;
    }
    if (t->o.gpu_layers != SIZE_MAX && t->o.gpu_layers > n_layers)
        return pr_fail(err, PR_EUSAGE, "--gpu-layers %zu: the model has %u", t->o.gpu_layers, n_layers);
    t->gpu_layers = t->o.gpu_layers < n_layers ? (uint32_t)t->o.gpu_layers : n_layers;
    return PR_OK;
}

/* What one device has, and what of the weights it must then read in every pass. A plan has decided both. */
static int fit_memory(task *t, engine_options *eo, pr_err *err)
{
    const plan_device *d = t->plan ? &t->plan->device[0] : NULL;
    uint64_t have = d ? d->bytes.budget_ram : t->o.memory ? t->o.memory : mem_available_bytes();
    char need[UNITS_TEXT_BYTES], given[UNITS_TEXT_BYTES];

    /* Who streams leaves something to the others: it will stay for hours. */
    if (!d && !t->o.memory && engine_need(&t->m, eo).total > have)
        have -= have / 10 < RESERVE_BYTES ? have / 10 : RESERVE_BYTES;
    if (!t->streamed) t->streamed = calloc(t->job ? t->plan->rounds : 1, sizeof *t->streamed);
    if (!t->streamed) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (t->job) memcpy(t->streamed, t->job->streamed, t->plan->rounds * sizeof *t->streamed);
    else *t->streamed = 0;
    eo->buffer_pieces = d && d->buffer_pieces ? d->buffer_pieces : BUFFER_PIECES;
    eo->stream = t->o.stream;
    eo->disk = disk_options_of(t);
    if (d && *d->reader && !disk_read_parse(&eo->disk, d->reader))
        log_warn("the plan's reader '%s' is not known here", d->reader);
    eo->pack_dir = t->o.pack_dir;
    if (t->o.resident && engine_need(&t->m, eo).total > have && t->o.memory)
        return pr_fail(err, PR_ERESOURCE, "%s are needed, --memory is %s",
                       units_text(need, engine_need(&t->m, eo).total), units_text(given, have));
    return t->o.resident || !have ? PR_OK : engine_fit(&t->m, eo, t->streamed, have, err);
}

static bool is_ring(const task *t)
{
    return t->plan && t->plan->n_devices > 1;
}

/* --- output -------------------------------------------------------------------------------------------- */
static json_t *name_gpu(const task *t)
{
    gpu_info info = {.name = ""};

    gpu_describe(&info, (int)t->o.gpu, NULL);
    return json_sprintf("%u of %u layers on %s", t->gpu_layers, t->m.hp.n_layers, info.name);
}

static bool plan_uses_gpus(const plan *p)
{
    bool any = false;

    for (size_t i = 0; p && i < p->n_devices; i++) {
        uint32_t gpu_layers;
        plan_device_layers(&p->device[i], &gpu_layers);
        any = any || gpu_layers;
    }
    return any;
}

/* What must agree for --resume: whatever decides the bytes of a completion. Slots, threads and batch sizes do
 * not, nor does the split of layers over devices, as long as exact hidden states pass between them and all
 * compute with one instruction set. */
static int make_manifest(task *t, pr_err *err)
{
    const run_options *o = &t->o;
    char what[256];

    if (!t->plan) {
        snprintf(what, sizeof what, "one device; layers 0..%u in ram; ctx %zu; kv %s", t->m.hp.n_layers,
                 t->n_ctx, kv_type_name(t->kv));
        hash_sha256_hex(what, strlen(what), t->plan_sha256);
    }
    t->manifest = json_pack(
        "{s:s, s:{s:I, s:I, s:I, s:s, s:s, s:s, s:b, s:s}}", "model_header_sha256", t->m.header_sha256,
        "options", "ctx", (json_int_t)t->n_ctx, "seed", (json_int_t)o->seed, "max_tokens",
        (json_int_t)o->max_tokens, "kv_type", kv_type_name(t->kv), "isa", t->isa, "chat_template",
        t->m.chat == CHAT_UNKNOWN ? "none" : chat_name(t->m.chat), "lenient", o->lenient, "wire", o->wire);
    t->info = json_pack("{s:s, s:s}", "prima_version", prima_version, "plan_sha256", t->plan_sha256);
    if (t->manifest && t->gpu_layers)
        json_object_set_new(json_object_get(t->manifest, "options"), "gpu", name_gpu(t));
    if (t->manifest && (o->elem != FRAME_F32 || strchr(t->isa, '+') || plan_uses_gpus(t->plan)))
        json_object_set_new(t->manifest, "plan_sha256", json_string(t->plan_sha256));
    return t->manifest && t->info ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

static int open_output(task *t, pr_err *err)
{
    output_options oo = {.path = t->o.output,
                         .input_path = t->o.prompts_path,
                         .model_name = t->m.hp.name,
                         .resume = t->o.resume,
                         .retry_errors = t->o.retry_errors,
                         .force_resume = t->o.force_resume,
                         .ordered = t->o.ordered,
                         .fsync_each = t->o.fsync_each,
                         .manifest = t->manifest,
                         .info = t->info,
                         .vocab = t->m.vocab};
    int rc = output_open(&t->out, &oo, t->p, err);

    if (!rc && t->o.timings)
        rc = timings_open(&t->times, t->o.timings, output_run_id(t->out), t->o.resume, err);
    return rc;
}

/* Who looks on. */
static int open_watch(task *t, pr_err *err)
{
    int rc = PR_OK;

    if (!(t->progress = progress_new())) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (t->o.trace) rc = trace_open(&t->trace, t->o.trace, err);
    if (!rc && t->o.metrics) rc = metrics_start(&t->metrics, t->o.metrics, t->progress, err);
    return rc;
}

/* A table that could not be written to the end is no reason to fail a job that is done. */
static void close_watch(task *t)
{
    pr_err err = {0};

    if (metrics_stop(t->metrics, &err)) log_warn("%s", err.msg);
    if (trace_close(t->trace, &err)) log_warn("%s", err.msg);
    progress_free(t->progress);
}

/* --- loading ---------------------------------------------------------------------------------------------
 */
static int load_alone(task *t, pr_err *err)
{
    engine_options eo = engine_options_of(t);
    char streamed[UNITS_TEXT_BYTES];
    engine_facts f;
    int rc;

    if ((rc = fit_memory(t, &eo, err)) || (rc = engine_new(&t->e, &t->m, &eo, err))) return rc;
    f = engine_about(t->e);
    log_info("ready in %.2f s: %s, %d threads, weights %.1f MiB on pages of %s, KV cache %.1f MiB, buffers "
             "%.1f MiB",
             f.load_s, f.isa, f.n_threads, (double)f.weights_bytes / 0x1p20, f.pages,
             (double)f.kv_bytes / 0x1p20, (double)f.buffer_bytes / 0x1p20);
    if (f.gpu.total)
        log_info("%s: %u of %u layers%s, weights %.1f MiB, KV cache %.1f MiB, buffers %.1f MiB", f.gpu_name,
                 f.gpu_layers, t->m.hp.n_layers, eo.output_on_gpu ? " and the output projection" : "",
                 (double)f.gpu.weights / 0x1p20, (double)f.gpu.kv / 0x1p20, (double)f.gpu.buffers / 0x1p20);
    if (f.streamed_bytes)
        log_info("%s of weights are read from disk in every pass", units_text(streamed, f.streamed_bytes));
    return PR_OK;
}

/* No more micro-batches than the ring can hold with all its links full: each device has room for four. */
static size_t depth_of(const task *t)
{
    size_t most = 4 * t->plan->n_devices - 1,
           depth = t->o.in_flight ? t->o.in_flight : depth_best(t->plan, t->slots);

    if (depth <= most) return depth;
    if (t->o.in_flight)
        log_warn("--in-flight %zu: a ring of %zu devices holds at most %zu micro-batches at once, so %zu are "
                 "used: give --in-flight %zu or less, or leave it out to have the best number chosen",
                 depth, t->plan->n_devices, most, most, most);
    return most;
}

/* Who is there, and what they compute with. */
static int greet_ring(task *t, uint64_t start_ns, pr_err *err)
{
    const plan *p = t->plan;
    size_t chunk = depth_chunk(p);
    int rc = model_facts_read(&t->facts, model_path(t), err);

    if (rc) return rc;
    t->ring_options = (ring_options){.plan_text = t->plan_text,
                                     .plan_bytes = t->plan_bytes,
                                     .m = &t->m,
                                     .facts = &t->facts,
                                     .sizes = {.max_tokens = (uint32_t)t->o.micro_batch,
                                               .merge_tokens = (uint32_t)t->o.micro_batch,
                                               .max_out = (uint32_t)t->slots,
                                               .n_pages = (uint32_t)t->n_pages,
                                               .elem = t->o.elem,
                                               .stream = t->o.stream,
                                               .heartbeat_s = p->net.heartbeat_s,
                                               .peer_s = p->net.peer_s,
                                               .connect_s = p->net.connect_s},
                                     .depth = depth_of(t),
                                     .max_prefill = t->o.micro_batch < chunk ? t->o.micro_batch : chunk,
                                     .device = {.isa = t->o.isa,
                                                .n_threads = (int)t->o.threads,
                                                .pack_dir = t->o.pack_dir,
                                                .disk = disk_options_of(t)},
                                     .key = t->sec.key,
                                     .insecure = t->sec.insecure,
                                     .version = prima_version,
                                     .restarts = (uint32_t)t->o.restarts,
                                     .stop = &stop_waiting,
                                     .trace = t->o.trace != NULL,
                                     .start_ns = start_ns};
    if ((rc = ring_new(&t->ring, &t->ring_options, err))) return rc;
    snprintf(t->ring_isa, sizeof t->ring_isa, "%s", ring_about(t->ring).isa);
    t->isa = t->ring_isa;
    return PR_OK;
}

static int load_ring(task *t, pr_err *err)
{
    const ring_onlookers by = {.t = t->times, .trace = t->trace, .progress = t->progress};
    ring_facts f;
    int rc = ring_load(t->ring, &by, err);

    if (rc) return rc;
    f = ring_about(t->ring);
    log_info("ring of %zu devices ready in %.2f s: %.1f MiB of weights, %s; %zu micro-batches in flight, "
             "prompts in chunks of %zu tokens",
             f.n_devices, clock_ms_since(t->ring_options.start_ns) / 1e3, (double)f.weights_bytes / 0x1p20,
             f.isa, t->ring_options.depth, t->ring_options.max_prefill);
    return PR_OK;
}

static int make_pipeline(task *t, pipeline **out, uint64_t start_ns, pr_err *err)
{
    int rc;

    if (t->ring) return ring_pipeline(out, t->ring, err);
    rc = pipeline_local(out, t->e, t->o.micro_batch, t->times, start_ns, err);
    if (rc || !(rc = pipeline_local_watch(*out, t->m.hp.n_layers, t->trace, t->progress, err))) return rc;
    (*out)->ops->free(*out);
    return rc;
}

/* --- computing -------------------------------------------------------------------------------------------
 */
/* QwQ and the R1 distillations are known to repeat themselves without sampling. */
static bool loops_when_greedy(const model *m)
{
    return m->chat == CHAT_DEEPSEEK_R1 || strcasestr(m->hp.name, "qwq") ||
           strcasestr(m->hp.name, "r1-distill") || strcasestr(m->hp.name, "r1 distill");
}

static void report(const task *t, const runner_result *r)
{
    log_info("%zu completions, %zu errors; %zu prompt tokens (%zu shared), %zu completion tokens in %.2f s: "
             "%.1f tokens/s",
             output_count_ok(t->out), output_count_failed(t->out), r->prompt_tokens, r->cached_tokens,
             r->completion_tokens, r->wall_s, r->wall_s > 0 ? (double)r->completion_tokens / r->wall_s : 0.0);
}

/* Closes the tables and the output whatever has happened; the first error counts. */
static int close_files(task *t, const runner_result *r, const pipeline *pipe, double load_s, int rc,
                       pr_err *err)
{
    timings_run_facts facts = {.build = prima_version,
                               .model = t->m.hp.name,
                               .quant = t->m.hp.quant,
                               .plan_sha256 = t->plan_sha256,
                               .n_devices = t->plan ? t->plan->n_devices : 1,
                               .slots = t->slots};
    double per_token = r->completion_tokens
                           ? (double)pipe->weights_bytes * (double)r->passes / (double)r->completion_tokens
                           : NAN;
    int restarts = t->ring ? (int)ring_about(t->ring).restarts : 0;
    int rc2 = timings_close(t->times, &facts, load_s, r->wall_s, per_token, restarts, rc ? NULL : err);

    t->times = NULL;
    if (!rc) rc = rc2;
    rc2 = output_close(t->out, rc ? NULL : err);
    t->out = NULL;
    return rc ? rc : rc2;
}

static void say_how_to_go_on(const task *t, pr_err *err)
{
    const pr_err why = *err;
    size_t done = output_count_ok(t->out) + output_count_failed(t->out);

    pr_fail(err, why.code, "%s; %zu of %zu requests are done: run again with --resume", why.msg, done,
            prompts_count(t->p));
}

/* Stopped while the ring waited for a device: the runner does not know. */
static bool was_waiting(int rc, const pr_err *err)
{
    return stop_signal && (rc == PR_EINTERRUPTED || rc == -128 - stop_signal) &&
           !strstr(err->msg, "--resume");
}

static int compute(task *t, uint64_t start_ns, double load_s, pr_err *err)
{
    pipeline *pipe;
    runner_result result;
    int rc = make_pipeline(t, &pipe, start_ns, err);

    if (rc) return rc;
    runner_options ro = {.m = &t->m,
                         .pipe = pipe,
                         .p = t->p,
                         .o = t->out,
                         .slots = t->slots,
                         .n_pages = t->n_pages,
                         .t = t->times,
                         .progress = t->progress,
                         .start_ns = start_ns,
                         .grace_s = t->o.grace_s,
                         .stop = &stop_signal,
                         .stop_now = &stop_now,
                         .warn_greedy = loops_when_greedy(&t->m)};
    computing = 1;
    rc = runner_run(&ro, &result, err);
    if (was_waiting(rc, err)) rc = pr_fail(err, (pr_code)(-128 - stop_signal), "stopped by a signal");
    if (rc == PR_EPEER || was_waiting(rc, err)) say_how_to_go_on(t, err);
    report(t, &result);
    t->n_failed = output_count_failed(t->out);
    rc = close_files(t, &result, pipe, load_s, rc, err);
    pipe->ops->free(pipe);
    return rc;
}

static int dry_run(task *t, pr_err *err)
{
    engine_options eo = engine_options_of(t);
    int rc;

    for (size_t i = 0; i < prompts_count(t->p); i++) {
        request r = {0};
        if ((rc = prompts_get(t->p, i, &r, err))) return rc;
        if (r.error.code != REQ_OK)
            log_warn("line %zu (%s): %s: %s", r.line, r.id, request_code_name(r.error.code), r.error.message);
        request_clear(&r);
    }
    if (!is_ring(t)) {
        if ((rc = fit_memory(t, &eo, err))) return rc;
        engine_memory need = engine_need(&t->m, &eo);
        log_info("memory: %.1f MiB needed, %.1f MiB available", (double)need.total / 0x1p20,
                 (double)mem_available_bytes() / 0x1p20);
        if (need.gpu.total) log_info("memory of the GPU: %.1f MiB needed", (double)need.gpu.total / 0x1p20);
        if ((rc = engine_check(&t->m, &eo, NULL, err))) return rc;
    }
    return prompts_bad(t->p) ? pr_fail(err, PR_EPARTIAL, "%zu of %zu lines cannot run", prompts_bad(t->p),
                                       prompts_count(t->p))
                             : PR_OK;
}

/* The instruction set that will run, before anything is read; on this machine alone also the memory. */
static int check_engine(task *t, pr_err *err)
{
    engine_options eo = engine_options_of(t);
    int rc;

    if (is_ring(t)) return engine_isa(t->o.isa, &t->isa, err);
    rc = fit_memory(t, &eo, err);
    return rc ? rc : engine_check(&t->m, &eo, &t->isa, err);
}

/* What the devices compute with, and each link by itself. */
static int measure_links(const task *t, pr_err *err)
{
    const plan *p = t->plan;
    size_t n_embd = t->m.hp.n_embd;
    char row[LINK_ROW_BYTES];
    bool is_off, some_off = false;
    double rtt_ms, bytes_per_s;
    int rc;

    log_info("instruction sets: %s", t->isa);
    link_table_head(row);
    log_info("links: %s", row);
    for (size_t i = 0; i < p->n_devices; i++) {
        if ((rc = ring_measure_link(t->ring, i, &rtt_ms, &bytes_per_s, err))) return rc;
        link_view is = link_measured(p, n_embd, rtt_ms, bytes_per_s), was = link_planned(p, i, n_embd);
        link_table_row(row, p, i, &is, &was, &is_off);
        log_info("links: %s", row);
        some_off = some_off || is_off;
    }
    if (some_off)
        log_warn(
            "links: the plan was made for other links: measure them with `prima profile --link`, or write "
            "them into cluster.yaml (links:), and plan again");
    return PR_OK;
}

/* All of them together: what the plan takes the network for, and what it is. */
static int measure_laps(const task *t, pr_err *err)
{
    const plan *p = t->plan;
    size_t row_bytes = frame_matrix_bytes(t->o.elem, 1, t->m.hp.n_embd);
    uint32_t chunk = (uint32_t)t->ring_options.max_prefill, pass = p->micro_batch;
    double pass_ms, chunk_ms, planned_ms = 0;
    int rc;

    if (pass > t->o.micro_batch) pass = (uint32_t)t->o.micro_batch;
    if ((rc = ring_measure(t->ring, pass, &pass_ms, err)) ||
        (rc = ring_measure(t->ring, chunk, &chunk_ms, err)))
        return rc;
    for (size_t i = 0; i < p->n_devices; i++) planned_ms += p->device[i].net_ms;
    log_info("links: once round the ring takes %.3f ms for a pass (%u tokens, %.1f KiB) and %.3f ms for a "
             "chunk of "
             "a prompt (%u tokens, %.1f KiB), nothing computed",
             pass_ms, pass, (double)(pass * row_bytes) / 1024, chunk_ms, chunk,
             (double)(chunk * row_bytes) / 1024);
    log_info("links: %.3f ms in a pass of %u rounds; the plan counts %.3f ms", pass_ms * p->rounds, p->rounds,
             planned_ms);
    return PR_OK;
}

static int check_ring(const task *t, pr_err *err)
{
    int rc = measure_links(t, err);
    return rc ? rc : measure_laps(t, err);
}

static int run_task(task *t, pr_err *err)
{
    uint64_t start_ns;
    double load_s;
    int rc;

    if ((rc = wake_init(&stop_waiting, err))) return rc;
    catch_signals(t->o.grace_s);
    if ((rc = open_plan(t, err)) || (rc = open_model(t, err)) || (rc = open_prompts(t, err)) ||
        (rc = choose_gpu(t, err)))
        return rc;
    if (t->o.dry_run) return dry_run(t, err);
    if ((rc = check_engine(t, err))) return rc;
    start_ns = clock_ns();
    if (is_ring(t) && (rc = greet_ring(t, start_ns, err))) return rc; /* the manifest names what computes */
    if (!t->o.check &&
        ((rc = make_manifest(t, err)) || (rc = open_output(t, err)) || (rc = open_watch(t, err))))
        return rc;
    if ((rc = is_ring(t) ? load_ring(t, err) : load_alone(t, err)) ||
        (rc = gguf_check_unchanged(t->m.g, err)))
        return rc;
    if (t->o.check) return is_ring(t) ? check_ring(t, err) : PR_OK;
    load_s = clock_ms_since(start_ns) / 1e3;
    if ((rc = compute(t, clock_ns(), load_s, err))) return rc;
    return t->n_failed
               ? pr_fail(err, PR_EPARTIAL, "%zu of %zu requests failed: see the error records in the output",
                         t->n_failed, prompts_count(t->p))
               : PR_OK;
}

static void task_clear(task *t)
{
    timings_close(t->times, NULL, 0, 0, 0, 0, NULL);
    output_close(t->out, NULL);
    ring_free(t->ring); /* its threads look at trace and progress */
    close_watch(t);
    engine_free(t->e);
    prompts_close(t->p);
    json_decref(t->manifest);
    json_decref(t->info);
    model_close(&t->m);
    key_clear(&t->key);
    job_free(t->job);
    plan_free(t->plan);
    free(t->streamed);
    free(t->plan_text);
    wake_clear(&stop_waiting);
}

int cmd_run(int argc, char **argv, pr_err *err)
{
    task t = {.o = {.output = "-",
                    .micro_batch = 256,
                    .restarts = 3,
                    .wire = "f32",
                    .residency = "auto",
                    .grace_s = 10}};
    int rc = run_options_parse(&t.o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    t.kv = t.o.kv;
    rc = run_task(&t, err);
    task_clear(&t);
    return rc;
}
