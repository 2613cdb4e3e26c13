/* The options of `prima run`. */
#ifndef PRIMA_RUN_OPTIONS_H
#define PRIMA_RUN_OPTIONS_H
#include "net/frame.h"
#include "src/model/kv.h"
#include "src/model/stream.h"
#include "src/options.h"

typedef struct {
    const char *output, *timings, *trace, *metrics, *isa, *kv_type, *chat_template, *model, *wire;
    bool resume, retry_errors, force_resume, ordered, fsync_each, dry_run, lenient, strict, check;
    size_t slots, ctx, micro_batch, threads, max_tokens, restarts,
        in_flight; /* slots, ctx, in_flight 0: not given */
    uint64_t seed;
    double grace_s;
    const char *source;               /* a model or a plan */
    const char *prompts_path;         /* NULL: not given, with --check */
    const char *residency, *pack_dir; /* NULL: CACHE/packs */
    uint64_t memory;                  /* 0: what is available */
    uint64_t disk_limit;              /* bytes a second; 0: none */
    kv_type kv;
    frame_elem elem;
    bool resident;               /* refuse what does not fit */
    const char *gpu_layers_text; /* NULL: not given */
    bool gpu_auto;               /* as many layers on the GPU as fit */
    size_t gpu_layers;           /* else so many; SIZE_MAX: all */
    size_t gpu;                  /* which one */
    uint64_t vram;               /* of its memory; 0: what is free */
    stream_kind stream;
} run_options;

/* OPTIONS_HELP after --help. */
int run_options_parse(run_options *o, int argc, char **argv, pr_err *err);

#endif
