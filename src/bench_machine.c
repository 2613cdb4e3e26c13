/* results/machine.txt: what the figures beside it were measured on. */
#include "kernels/kernels.h"
#include "src/base/clock.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/bench.h"
#include "src/cmd.h"
#include "src/probe.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

/* "model name" of /proc/cpuinfo; "unknown" where there is none. */
static void cpu_name(char *out, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(out, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value) continue;
        snprintf(out, n, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (f) fclose(f);
}

int bench_machine(const char *folder, pr_err *err)
{
    char text[2048], cpu[128], date[CLOCK_RFC3339_BYTES], path[4096];
    int n_threads = pool_default_threads();
    double one = probe_read_gb_per_s(1, err), all = probe_read_gb_per_s(n_threads, err);
    kernel_table k;
    struct utsname u;

    kernels_init(&k, cpu_features());
    cpu_name(cpu, sizeof cpu);
    clock_rfc3339(date);
    if (uname(&u)) return pr_fail_errno(err, PR_ERESOURCE, "uname");
    snprintf(text, sizeof text,
             "measured_at %s\nbuild %s\nos %s %s\ncpu_model %s\nthreads %d\nisa %s\nram_total_bytes %llu\n"
             "read_1_thread_gb_per_s %.3f\nread_%d_threads_gb_per_s %.3f\n",
             date, prima_version, u.sysname, u.machine, cpu, n_threads, k.isa,
             (unsigned long long)mem_total_bytes(), one, n_threads, all);
    mkdir(folder, 0755);
    snprintf(path, sizeof path, "%s/machine.txt", folder);
    return file_write_atomic(path, text, strlen(text), err);
}
