/* prima bench: one suite of measurements at a time, each into results/SUITE.csv. A suite with options of its
 * own must come first on the command line. */
#include "src/base/pool.h"
#include "src/bench.h"
#include "src/cmd.h"
#include "src/options.h"
#include <stdio.h>
#include <string.h>

/* Suites with options of their own. */
static struct {
    const char *name;
    char title[16]; /* what their messages begin with */
    int (*run)(int argc, char **argv, pr_err *err);
} suites[] = {{"kernels", "bench kernels", bench_kernels},
              {"memory", "bench memory", bench_memory},
              {"planner", "bench planner", bench_planner},
              {"ring", "bench ring", bench_ring_suite}};

int cmd_bench(int argc, char **argv, pr_err *err)
{
    char all_cores[16];
    bench_options o = {.output = "results",
                       .kv_type = "f16",
                       .sequences = "1",
                       .prompts = "512",
                       .generates = "128",
                       .device = "CPU",
                       .reps = 3};
    const opt table[] = {
        {"output", 'o', OPT_STRING, &o.output, "DIR", 0, 0,
         "folder of the CSV files; rows are added (results)"},
        {"model", 'm', OPT_STRING, &o.model, "FILE", 0, 0,
         "the model to measure (with --synth: where to keep it)"},
        {"synth", 0, OPT_STRING, &o.synth, "SPEC", 0, 0,
         "make and measure a random model, e.g. llama-1.1b:q4_k_m"},
        {"prompt", 'p', OPT_STRING, &o.prompts, "N,...", 0, 0, "prefill lengths, 0 = none (512)"},
        {"generate", 'n', OPT_STRING, &o.generates, "N,...", 0, 0, "tokens to decode, 0 = none (128)"},
        {"threads", 't', OPT_STRING, &o.threads, "N,...", 0, 0, "numbers of threads (one a core)"},
        {"sequences", 0, OPT_STRING, &o.sequences, "N,...", 0, 0, "sequences that decode together (1)"},
        {"depth", 'd', OPT_COUNT, &o.depth, "N", 0, 1 << 20,
         "tokens that are in the KV cache beforehand (0)"},
        {"reps", 'r', OPT_COUNT, &o.reps, "N", 1, BENCH_MAX_REPS,
         "repetitions after one warm-up; the median counts (3)"},
        {"device", 0, OPT_STRING, &o.device, "CPU|GPU", 0, 0, "where the layers are (CPU)"},
        {"gpu-layers", 0, OPT_STRING, &o.gpu_layers, "N", 0, 0,
         "of the model's layers the first N on the GPU, or all, with the output projection (0; with --device "
         "GPU all)"},
        {"gpu", 0, OPT_COUNT, &o.gpu, "INDEX", 0, 255, "which GPU, as nvidia-smi counts them (0)"},
        {"isa", 0, OPT_STRING, &o.isa, "NAME", 0, 0, "ref, avx2, avx512 or neon (the best of this CPU)"},
        {"kv-type", 0, OPT_STRING, &o.kv_type, "TYPE", 0, 0, "f16, q8_0 or f32 KV cache (f16)"},
        {0}};
    const opt_spec spec = {"decode [options]",
                           "Measures prefill and decode of a model on this machine: adds rows to "
                           "DIR/decode.csv, writes DIR/machine.txt.\nOther suites: prima bench "
                           "kernels --help, and so for memory, planner and ring.",
                           table, 1, 1};
    int first, rc;

    for (size_t i = 0; argc > 1 && i < sizeof suites / sizeof *suites; i++) {
        if (strcmp(argv[1], suites[i].name)) continue;
        argv[1] = suites[i].title;
        return suites[i].run(argc - 1, argv + 1, err);
    }
    snprintf(all_cores, sizeof all_cores, "%d", pool_default_threads());
    o.threads = all_cores;
    rc = options_parse(&spec, argc, argv, &first, err);
    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (strcmp(argv[first], "decode"))
        return pr_fail(err, PR_EUSAGE, "bench %s: expected decode, kernels, memory, planner or ring",
                       argv[first]);
    rc = bench_machine(o.output, err);
    return rc ? rc : bench_decode(&o, err);
}
