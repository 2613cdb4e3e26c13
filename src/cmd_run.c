/* prima run: a model (or a plan) and a file of prompts in, completions and timings out. */
#include "src/base/clock.h"
#include "src/base/hash.h"
#include "src/base/log.h"
#include "src/cmd.h"
#include "src/options.h"
#include "src/run/runner.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *output, *timings, *isa, *kv_type, *chat_template;
    bool resume, retry_errors, force_resume, ordered, fsync_each, dry_run, lenient, strict;
    size_t slots, ctx, micro_batch, threads, max_tokens;
    uint64_t seed;
    double grace_s;
    const char *model_path, *prompts_path;
    kv_type kv;
} run_options;

/* Everything a run holds; torn down in one place. */
typedef struct {
    run_options o;
    model m;
    prompts *p;
    output *out;
    timings *t;
    engine *e;
    json_t *manifest, *info;
    const char *isa; /* that will run */
    size_t n_failed; /* error records in the output, over all runs of it */
    char plan_sha256[HASH_HEX_BYTES];
    size_t n_ctx, n_pages;
} job;

static volatile sig_atomic_t computing, stop_signal, stop_now;

/* Before the first pass there is nothing to finish, and reading the prompts or the weights may take minutes:
 * out at once. What is on disk then is what --resume expects. */
static void on_signal(int sig)
{
    if (!computing) _exit(128 + sig);
    if (stop_signal) stop_now = 1;
    stop_signal = sig;
}

static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};

    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* --- options ---------------------------------------------------------------------------------------- */
static int parse(run_options *o, int argc, char **argv, pr_err *err)
{
    const char *fsync_mode = "1s";
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o->output, "FILE", 0, 0,
         "completions, one JSON line a request (- = stdout)"},
        {"timings", 0, OPT_STRING, &o->timings, "FILE.csv", 0, 0,
         "timing tables: FILE.csv, FILE.devices.csv, FILE.run.csv"},
        {"resume", 0, OPT_FLAG, &o->resume, NULL, 0, 0, "go on with an interrupted job"},
        {"retry-errors", 0, OPT_FLAG, &o->retry_errors, NULL, 0, 0,
         "with --resume: try failed requests again"},
        {"force-resume", 0, OPT_FLAG, &o->force_resume, NULL, 0, 0,
         "with --resume: even if input, model or options have changed"},
        {"ordered", 0, OPT_FLAG, &o->ordered, NULL, 0, 0, "write completions in input order"},
        {"fsync", 0, OPT_STRING, &fsync_mode, "1s|each", 0, 0,
         "make lines durable every second, or each at once (1s)"},
        {"dry-run", 0, OPT_FLAG, &o->dry_run, NULL, 0, 0, "check prompts and memory, compute nothing"},
        {"slots", 0, OPT_COUNT, &o->slots, "N", 1, 1024, "sequences that decode together (16)"},
        {"ctx", 0, OPT_COUNT, &o->ctx, "N", 0, 1 << 24,
         "tokens of a sequence, prompt and completion (the model's, at most 4096)"},
        {"micro-batch", 0, OPT_COUNT, &o->micro_batch, "N", 1, 8192, "most tokens computed at once (256)"},
        {"threads", 't', OPT_COUNT, &o->threads, "N", 0, POOL_MAX_THREADS, "threads (one a core)"},
        {"isa", 0, OPT_STRING, &o->isa, "NAME", 0, 0, "ref, avx2, avx512 or neon (the best of this CPU)"},
        {"kv-type", 0, OPT_STRING, &o->kv_type, "TYPE", 0, 0, "f16, q8_0 or f32 KV cache (f16)"},
        {"max-tokens", 0, OPT_COUNT, &o->max_tokens, "N", 0, 1 << 24,
         "at most N completion tokens a request (0 = as the request says)"},
        {"seed", 0, OPT_SEED, &o->seed, "N", 0, 0,
         "seed of the run; a request's own is made of it and its id (0)"},
        {"chat-template", 0, OPT_STRING, &o->chat_template, "NAME", 0, 0,
         "chatml, llama2, llama3, deepseek-r1, mistral-v1, mistral-v3, mistral-v7 (the model's)"},
        {"lenient", 0, OPT_FLAG, &o->lenient, NULL, 0, 0, "ignore unknown keys in requests"},
        {"strict-input", 0, OPT_FLAG, &o->strict, NULL, 0, 0, "refuse the file when a line is bad"},
        {"grace", 0, OPT_DURATION, &o->grace_s, "TIME", 0, 0,
         "after SIGINT or SIGTERM let running requests finish this long (10s)"},
        {0}};
    const opt_spec spec = {
        "MODEL.gguf PROMPTS.jsonl [options]",
        "Answers every line of PROMPTS.jsonl (- = stdin) with the model. Exit status 0: all requests\n"
        "succeeded; 3: finished, some failed; 130 or 143: interrupted, --resume goes on.",
        table, 2, 2};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc;
    o->model_path = argv[first];
    o->prompts_path = argv[first + 1];
    o->fsync_each = strcmp(fsync_mode, "each") == 0;
    if (!o->fsync_each && strcmp(fsync_mode, "1s"))
        return pr_fail(err, PR_EUSAGE, "--fsync %s: expected 1s or each", fsync_mode);
    if (!kv_type_parse(o->kv_type, &o->kv))
        return pr_fail(err, PR_EUSAGE, "--kv-type %s: expected f16, q8_0 or f32", o->kv_type);
    if (o->chat_template && chat_by_name(o->chat_template) == CHAT_UNKNOWN)
        return pr_fail(err, PR_EUSAGE, "--chat-template %s: unknown (see prima run --help)",
                       o->chat_template);
    return PR_OK;
}

/* --- steps of a job ------------------------------------------------------------------------------------ */
static int open_model(job *j, pr_err *err)
{
    int rc = model_open(&j->m, j->o.model_path, err);
    size_t train = j->m.hp.n_ctx_train, most = train < 4096 ? train : 4096;

    if (rc) return rc;
    if (j->o.chat_template) j->m.chat = chat_by_name(j->o.chat_template);
    j->n_ctx = j->o.ctx ? j->o.ctx : most;
    if (j->n_ctx > train)
        log_warn("--ctx %zu is longer than the %zu tokens the model was trained for", j->n_ctx, train);
    log_info("model %s: %s %s, %u layers, %s vocabulary of %u tokens, chat template %s", j->m.hp.name,
             model_arch_name(j->m.hp.arch), j->m.hp.quant, j->m.hp.n_layers, vocab_describe(j->m.vocab),
             vocab_size(j->m.vocab),
             j->m.chat == CHAT_UNKNOWN ? (j->m.has_chat_template ? "unknown" : "none")
                                       : chat_name(j->m.chat));
    return PR_OK;
}

/* No more slots than requests, and no more KV pages than the longest of them could fill. */
static void size_slots(job *j)
{
    size_t n = prompts_count(j->p) - prompts_bad(j->p), longest = prompts_longest(j->p);

    if (j->o.slots > n) j->o.slots = n ? n : 1;
    if (j->o.micro_batch < j->o.slots) j->o.micro_batch = j->o.slots;
    j->n_pages = j->o.slots * ((longest + KV_PAGE - 1) / KV_PAGE);
}

static int open_prompts(job *j, pr_err *err)
{
    prompts_options po = {.vocab = j->m.vocab,
                          .chat = j->m.chat,
                          .n_ctx = j->n_ctx,
                          .seed = j->o.seed,
                          .max_tokens = j->o.max_tokens,
                          .lenient = j->o.lenient,
                          .strict = j->o.strict};
    int rc = prompts_open(&j->p, j->o.prompts_path, &po, err);

    if (rc) return rc;
    size_slots(j);
    log_info("%s: %zu requests (%zu bad), %zu prompt tokens", j->o.prompts_path, prompts_count(j->p),
             prompts_bad(j->p), prompts_total_tokens(j->p));
    return PR_OK;
}

static engine_options engine_options_of(const job *j)
{
    return (engine_options){.isa = j->o.isa,
                            .n_threads = (int)j->o.threads,
                            .kv = j->o.kv,
                            .n_pages = j->n_pages,
                            .max_tokens = j->o.micro_batch,
                            .max_out = j->o.slots,
                            .n_windows = 1};
}

/* What must agree for --resume: whatever decides the bytes of a completion. Slots, threads and batch sizes do
 * not. */
static int make_manifest(job *j, pr_err *err)
{
    const run_options *o = &j->o;
    char plan[256];

    snprintf(plan, sizeof plan, "one device; layers 0..%u in ram; ctx %zu; kv %s", j->m.hp.n_layers, j->n_ctx,
             kv_type_name(o->kv));
    hash_sha256_hex(plan, strlen(plan), j->plan_sha256);
    j->manifest =
        json_pack("{s:s, s:s, s:{s:I, s:I, s:I, s:s, s:s, s:s, s:b}}", "plan_sha256", j->plan_sha256,
                  "model_header_sha256", j->m.header_sha256, "options", "ctx", (json_int_t)j->n_ctx, "seed",
                  (json_int_t)o->seed, "max_tokens", (json_int_t)o->max_tokens, "kv_type",
                  kv_type_name(o->kv), "isa", j->isa, "chat_template",
                  j->m.chat == CHAT_UNKNOWN ? "none" : chat_name(j->m.chat), "lenient", o->lenient);
    j->info = json_pack("{s:s}", "prima_version", prima_version);
    return j->manifest && j->info ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory");
}

static int open_output(job *j, pr_err *err)
{
    output_options oo = {.path = j->o.output,
                         .input_path = j->o.prompts_path,
                         .model_name = j->m.hp.name,
                         .resume = j->o.resume,
                         .retry_errors = j->o.retry_errors,
                         .force_resume = j->o.force_resume,
                         .ordered = j->o.ordered,
                         .fsync_each = j->o.fsync_each,
                         .manifest = j->manifest,
                         .info = j->info,
                         .vocab = j->m.vocab};
    int rc = output_open(&j->out, &oo, j->p, err);

    if (!rc && j->o.timings) rc = timings_open(&j->t, j->o.timings, output_run_id(j->out), j->o.resume, err);
    return rc;
}

static int load(job *j, pr_err *err)
{
    engine_options eo = engine_options_of(j);
    int rc = engine_new(&j->e, &j->m, &eo, err);
    engine_facts f;

    if (rc) return rc;
    f = engine_about(j->e);
    log_info("ready in %.2f s: %s, %d threads, weights %.1f MiB on pages of %s, KV cache %.1f MiB, buffers "
             "%.1f MiB",
             f.load_s, f.isa, f.n_threads, (double)f.weights_bytes / 0x1p20, f.pages,
             (double)f.kv_bytes / 0x1p20, (double)f.buffer_bytes / 0x1p20);
    return PR_OK;
}

/* QwQ and the R1 distillations are known to repeat themselves without sampling. */
static bool loops_when_greedy(const model *m)
{
    return m->chat == CHAT_DEEPSEEK_R1 || strcasestr(m->hp.name, "qwq") ||
           strcasestr(m->hp.name, "r1-distill") || strcasestr(m->hp.name, "r1 distill");
}

static void report(const job *j, const runner_result *r)
{
    log_info("%zu completions, %zu errors; %zu prompt tokens (%zu shared), %zu completion tokens in %.2f s: "
             "%.1f tokens/s",
             output_count_ok(j->out), output_count_failed(j->out), r->prompt_tokens, r->cached_tokens,
             r->completion_tokens, r->wall_s, r->wall_s > 0 ? (double)r->completion_tokens / r->wall_s : 0.0);
}

static int compute(job *j, pr_err *err)
{
    runner_options ro = {.m = &j->m,
                         .e = j->e,
                         .p = j->p,
                         .o = j->out,
                         .t = j->t,
                         .slots = j->o.slots,
                         .micro_batch = j->o.micro_batch,
                         .n_pages = j->n_pages,
                         .grace_s = j->o.grace_s,
                         .stop = &stop_signal,
                         .stop_now = &stop_now,
                         .warn_greedy = loops_when_greedy(&j->m)};
    timings_run_facts facts = {.build = prima_version,
                               .model = j->m.hp.name,
                               .quant = j->m.hp.quant,
                               .plan_sha256 = j->plan_sha256,
                               .n_devices = 1,
                               .slots = j->o.slots};
    runner_result result;
    engine_facts f = engine_about(j->e);
    double per_token;
    int rc, rc2;

    computing = 1;
    rc = runner_run(&ro, &result, err);
    report(j, &result);
    j->n_failed = output_count_failed(j->out);
    per_token = result.completion_tokens
                    ? (double)f.weights_bytes * (double)result.passes / (double)result.completion_tokens
                    : NAN;
    rc2 = timings_close(j->t, &facts, f.load_s, result.wall_s, per_token, 0, rc ? NULL : err);
    j->t = NULL;
    if (!rc) rc = rc2;
    rc2 = output_close(j->out, rc ? NULL : err);
    j->out = NULL;
    if (!rc) rc = rc2;
    return rc;
}

static int dry_run(const job *j, pr_err *err)
{
    engine_options eo = engine_options_of(j);
    int rc;

    for (size_t i = 0; i < prompts_count(j->p); i++) {
        request r = {0};
        if ((rc = prompts_get(j->p, i, &r, err))) return rc;
        if (r.error.code != REQ_OK)
            log_warn("line %zu (%s): %s: %s", r.line, r.id, request_code_name(r.error.code), r.error.message);
        request_clear(&r);
    }
    log_info("memory: %.1f MiB needed, %.1f MiB available", (double)engine_need(&j->m, &eo).total / 0x1p20,
             (double)mem_available_bytes() / 0x1p20);
    if ((rc = engine_check(&j->m, &eo, NULL, err))) return rc;
    return prompts_bad(j->p) ? pr_fail(err, PR_EPARTIAL, "%zu of %zu lines cannot run", prompts_bad(j->p),
                                       prompts_count(j->p))
                             : PR_OK;
}

static int run_job(job *j, pr_err *err)
{
    engine_options eo;
    int rc;

    catch_signals();
    if ((rc = open_model(j, err)) || (rc = open_prompts(j, err))) return rc;
    if (j->o.dry_run) return dry_run(j, err);
    eo = engine_options_of(j);
    if ((rc = engine_check(&j->m, &eo, &j->isa, err)) || (rc = make_manifest(j, err)) ||
        (rc = open_output(j, err)))
        return rc;
    if ((rc = load(j, err)) || (rc = compute(j, err))) return rc;
    return j->n_failed
               ? pr_fail(err, PR_EPARTIAL, "%zu of %zu requests failed: see the error records in the output",
                         j->n_failed, prompts_count(j->p))
               : PR_OK;
}

static void job_clear(job *j)
{
    timings_close(j->t, NULL, 0, 0, 0, 0, NULL);
    output_close(j->out, NULL);
    engine_free(j->e);
    prompts_close(j->p);
    json_decref(j->manifest);
    json_decref(j->info);
    model_close(&j->m);
}

int cmd_run(int argc, char **argv, pr_err *err)
{
    job j = {.o = {.output = "-", .kv_type = "f16", .slots = 16, .micro_batch = 256, .grace_s = 10}};
    int rc = parse(&j.o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    rc = run_job(&j, err);
    job_clear(&j);
    return rc;
}
