/* results/machine.txt: what the figures beside it were measured on. */
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/pool.h"
#include "src/bench.h"
#include "src/cmd.h"
#include "src/probe.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int bench_machine(const char *folder, pr_err *err)
{
    char text[2048], date[CLOCK_RFC3339_BYTES], path[4096];
    int n_threads = pool_default_threads();
    double one = probe_read_gb_per_s(1, err), all = probe_read_gb_per_s(n_threads, err);
    profile *p = calloc(1, sizeof *p);

    if (!p) return pr_fail(err, PR_ERESOURCE, "out of memory");
    probe_machine(p, n_threads);
    clock_rfc3339(date);
    snprintf(text, sizeof text,
             "measured_at %s\nbuild %s\nos %s\ncpu_model %s\nthreads %d\nisa %s\nram_total_bytes %llu\n"
             "read_1_thread_gb_per_s %.3f\nread_%d_threads_gb_per_s %.3f\n",
             date, prima_version, p->os, p->cpu_model, n_threads, p->isa,
             (unsigned long long)p->ram_total_bytes, one, n_threads, all);
    free(p);
    mkdir(folder, 0755);
    snprintf(path, sizeof path, "%s/machine.txt", folder);
    return file_write_atomic(path, text, strlen(text), err);
}
