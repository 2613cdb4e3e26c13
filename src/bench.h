/* The suites of `prima bench`: one file each, tied together by cmd_bench.c. */
#ifndef PRIMA_BENCH_H
#define PRIMA_BENCH_H
#include "src/base/err.h"
#include <stddef.h>

enum { BENCH_MAX_REPS = 64 };

typedef struct {
    const char *output, *model, *synth, *isa, *kv_type, *threads, *sequences, *prompts, *generates;
    size_t reps, depth;
    const char *device, *gpu_layers; /* "CPU" or "GPU"; NULL: none, and with GPU all */
    size_t gpu;                      /* which one */
} bench_options;                     /* lists are "1,2,4" */

/* FOLDER/machine.txt: processor, memory, read rates. */
int bench_machine(const char *folder, pr_err *err);
/* Prefill and decode rates of a model, appended to OUTPUT/decode.csv (columns: results/README.md). */
int bench_decode(const bench_options *o, pr_err *err);
/* The suite with its own options; argv[0] is its name. Writes OUTPUT/planner*.csv (columns:
 * results/README.md). */
int bench_planner(int argc, char **argv, pr_err *err);
/* The same: products of this machine beside its limits. Writes OUTPUT/kernels.csv. */
int bench_kernels(int argc, char **argv, pr_err *err);
/* The same: a ring of processes against one process. Writes OUTPUT/ring.csv. */
int bench_ring_suite(int argc, char **argv, pr_err *err);
/* The same: decoding with a part of the weights in memory. Writes OUTPUT/memory.csv. */
int bench_memory(int argc, char **argv, pr_err *err);

/* The file that is measured: `model`, or the synthetic one (either may be NULL), made once, as `model` or in
 * the cache folder. */
int bench_find_model(const char *model, const char *synth, char path[4096], pr_err *err);

#endif
