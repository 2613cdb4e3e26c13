/* The options of `prima run`; see run_options.h. */
#include "src/run_options.h"
#include "src/base/pool.h"
#include "src/model/chat.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_GPU_LAYERS = 100000 };

static int parse_wire(run_options *o, pr_err *err)
{
    static const struct {
        const char *name;
        frame_elem elem;
    } types[] = {{"f32", FRAME_F32}, {"f16", FRAME_F16}, {"bf16", FRAME_BF16}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(o->wire, types[i].name)) continue;
        o->elem = types[i].elem;
        return PR_OK;
    }
    return pr_fail(err, PR_EUSAGE, "--wire %s: expected f32, f16 or bf16", o->wire);
}

static int parse_residency(run_options *o, pr_err *err)
{
    o->resident = strcmp(o->residency, "resident") == 0;
    if (strcmp(o->residency, "mapped") == 0) o->stream = STREAM_MAP;
    else if (!o->resident && strcmp(o->residency, "auto"))
        return pr_fail(err, PR_EUSAGE, "--residency %s: expected auto, resident or mapped", o->residency);
    return PR_OK;
}

static int parse_gpu(run_options *o, pr_err *err)
{
    const char *text = o->gpu_layers_text;
    char *end;

    if (!text) {
        if (!o->gpu && !o->vram) return PR_OK;
        return pr_fail(err, PR_EUSAGE, "--gpu and --vram go with --gpu-layers");
    }
    o->gpu_auto = strcmp(text, "auto") == 0;
    if (o->gpu_auto) return PR_OK;
    o->gpu_layers = SIZE_MAX;
    if (strcmp(text, "all") == 0) return PR_OK;
    o->gpu_layers = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !*end && o->gpu_layers <= MAX_GPU_LAYERS) return PR_OK;
    return pr_fail(err, PR_EUSAGE, "--gpu-layers %s: expected auto, all, or a number up to %d", text,
                   MAX_GPU_LAYERS);
}

int run_options_parse(run_options *o, int argc, char **argv, pr_err *err)
{
    const char *fsync_mode = "1s";
    int rc, first;
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o->output, "FILE", 0, 0,
         "completions, one JSON line a request (- = stdout)"},
        {"timings", 0, OPT_STRING, &o->timings, "FILE.csv", 0, 0,
         "timing tables: FILE.csv, FILE.devices.csv, FILE.run.csv"},
        {"trace", 0, OPT_STRING, &o->trace, "FILE.json", 0, 0,
         "what every device did when, for chrome://tracing and ui.perfetto.dev (at most 1 GiB)"},
        {"metrics-file", 0, OPT_STRING, &o->metrics, "FILE.prom", 0, 0,
         "where the run stands, in the Prometheus text format, every 2 s"},
        {"resume", 0, OPT_FLAG, &o->resume, NULL, 0, 0, "go on with an interrupted job"},
        {"retry-errors", 0, OPT_FLAG, &o->retry_errors, NULL, 0, 0,
         "with --resume: try failed requests again"},
        {"force-resume", 0, OPT_FLAG, &o->force_resume, NULL, 0, 0,
         "with --resume: even if input, model or options have changed"},
        {"ordered", 0, OPT_FLAG, &o->ordered, NULL, 0, 0, "write completions in input order"},
        {"fsync", 0, OPT_STRING, &fsync_mode, "1s|each", 0, 0,
         "make lines durable every second, or each at once (1s)"},
        {"dry-run", 0, OPT_FLAG, &o->dry_run, NULL, 0, 0, "check prompts and memory, compute nothing"},
        {"slots", 0, OPT_COUNT, &o->slots, "N", 1, 1024, "sequences that decode together (16; the plan's)"},
        {"ctx", 0, OPT_COUNT, &o->ctx, "N", 1, 1 << 24,
         "tokens of a sequence, prompt and completion (the model's, at most 4096; the plan's)"},
        {"micro-batch", 0, OPT_COUNT, &o->micro_batch, "N", 1, 8192, "most tokens computed at once (256)"},
        {"threads", 't', OPT_COUNT, &o->threads, "N", 0, POOL_MAX_THREADS, "threads (one a core)"},
        {"memory", 0, OPT_SIZE, &o->memory, "SIZE", 1 << 20, 0x1p62,
         "of this process; weights beyond it are read from disk in every pass (what is available; the "
         "plan's)"},
        {"residency", 0, OPT_STRING, &o->residency, "HOW", 0, 0,
         "what does not fit: auto reads it ahead, mapped leaves it to the page cache, resident refuses it "
         "(auto)"},
        {"pack-dir", 0, OPT_STRING, &o->pack_dir, "DIR", 0, 0,
         "weights in the order in which they are read from disk (PRIMA_CACHE/packs)"},
        {"disk-limit", 0, OPT_SIZE, &o->disk_limit, "SIZE", 1 << 20, 0x1p62,
         "read at most so many bytes a second here, at low priority (no limit)"},
        {"gpu-layers", 0, OPT_STRING, &o->gpu_layers_text, "N", 0, 0,
         "of the model's layers the first N on the GPU; all, with the output projection; or auto: as many as "
         "fit, none without a GPU (0; the plan's)"},
        {"gpu", 0, OPT_COUNT, &o->gpu, "INDEX", 0, 255,
         "which GPU, as nvidia-smi counts them (0; the plan's)"},
        {"vram", 0, OPT_SIZE, &o->vram, "SIZE", 1 << 20, 0x1p62,
         "of the GPU's memory at most (what is free; the plan's)"},
        {"isa", 0, OPT_STRING, &o->isa, "NAME", 0, 0, "ref, avx2, avx512 or neon (the best of this CPU)"},
        {"kv-type", 0, OPT_STRING, &o->kv_type, "TYPE", 0, 0, "f16, q8_0 or f32 KV cache (f16; the plan's)"},
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
        {"model", 0, OPT_STRING, &o->model, "FILE", 0, 0,
         "with a plan: the model (the plan's path of the head)"},
        {"check", 0, OPT_FLAG, &o->check, NULL, 0, 0,
         "with a plan: start every device, load, send a token round the ring, time it, stop; writes nothing"},
        {"restarts", 0, OPT_COUNT, &o->restarts, "N", 0, 1000000,
         "with a plan: times that lost devices are started again or waited for (3)"},
        {"in-flight", 0, OPT_COUNT, &o->in_flight, "N", 1, 64,
         "with a plan: micro-batches in the ring at once (what is fastest by the plan's figures)"},
        {"wire", 0, OPT_STRING, &o->wire, "TYPE", 0, 0,
         "with a plan: f32, f16 or bf16 hidden states between devices; f32 is exact (f32)"},
        {0}};
    const opt_spec spec = {
        "MODEL.gguf|PLAN.yaml PROMPTS.jsonl [options] | PLAN.yaml --check [options]",
        "Answers every line of PROMPTS.jsonl (- = stdin) with the model on this machine, or on all\n"
        "devices of a plan (prima plan). Exit status 0: all requests succeeded; 3: finished, some failed;\n"
        "130 or 143: interrupted, --resume goes on.",
        table, 1, 2};

    rc = options_parse(&spec, argc, argv, &first, err);
    if (rc) return rc;
    o->source = argv[first];
    o->prompts_path = first + 1 < argc ? argv[first + 1] : NULL;
    if (!o->prompts_path && (!o->check || o->dry_run))
        return pr_fail(err, PR_EUSAGE, "expected: prima run %s PROMPTS.jsonl (see prima run --help)",
                       o->source);
    o->fsync_each = strcmp(fsync_mode, "each") == 0;
    if (!o->fsync_each && strcmp(fsync_mode, "1s"))
        return pr_fail(err, PR_EUSAGE, "--fsync %s: expected 1s or each", fsync_mode);
    if (o->kv_type && !kv_type_parse(o->kv_type, &o->kv))
        return pr_fail(err, PR_EUSAGE, "--kv-type %s: expected f16, q8_0 or f32", o->kv_type);
    if (o->chat_template && chat_by_name(o->chat_template) == CHAT_UNKNOWN)
        return pr_fail(err, PR_EUSAGE, "--chat-template %s: unknown (see prima run --help)",
                       o->chat_template);
    if ((rc = parse_residency(o, err)) || (rc = parse_gpu(o, err))) return rc;
    return parse_wire(o, err);
}
