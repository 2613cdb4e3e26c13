/* A device's measured profile: JSON, versioned, units in every key (conventions 6 and halda.md 1.3, 7.7). */
#ifndef PRIMA_PLANNER_PROFILE_H
#define PRIMA_PLANNER_PROFILE_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROFILE_MAX_COMPUTE = 512,
    PROFILE_MAX_DISK = 32,
    PROFILE_MAX_NET = 64,
    PROFILE_MAX_GPUS = 8,
    PROFILE_MAX_THREADS = 64
};

/* Products of one weight type for a batch of tokens on real shapes: 1e9 multiply-adds x 2 a second. gpu -1 =
 * CPU. */
typedef struct {
    char type[12];
    int gpu;
    uint32_t batch;
    double gflops, spread_pct;
} profile_compute;
typedef struct {
    char pattern[8], engine[24];
    uint64_t bs_bytes;
    uint32_t iodepth;
    bool direct;
    double read_bytes_per_s, iops, clat_p50_us, clat_p99_us, spread_pct;
    uint32_t reps;
} profile_disk;
typedef struct {
    char peer[33];
    double bytes_per_s, rtt_ms;
} profile_net;
typedef struct {
    char name[64];
    uint64_t vram_total_bytes, vram_free_bytes;
    double mem_bytes_per_s, h2d_bytes_per_s, d2h_bytes_per_s, tflops_f16;
} profile_gpu;

typedef struct {
    char device[33], host[256], os[32], kernel[128], cpu_model[128], isa[16], prima_version[64],
        measured_at[32], fio_version[32], model[128];
    char note[256]; /* "assumed: ..." or "disk measured without fio: apt install fio" */
    uint32_t cores_physical, threads, numa_nodes;
    uint64_t ram_total_bytes, ram_available_bytes;
    size_t n_compute, n_disk, n_net, n_gpus, n_mem;
    double mem_bytes_per_s[PROFILE_MAX_THREADS]; /* [i]: with i + 1 threads */
    profile_compute compute[PROFILE_MAX_COMPUTE];
    profile_disk disk[PROFILE_MAX_DISK];
    profile_net net[PROFILE_MAX_NET];
    profile_gpu gpu[PROFILE_MAX_GPUS];
    char sha256[65]; /* of the file's bytes, when read from one */
} profile;

int profile_read(profile **out, const char *path,
                 pr_err *err); /* PR_EUSAGE names file and field; other major versions refused */
int profile_parse(profile **out, const char *text, size_t n, pr_err *err);
int profile_write(const profile *p, const char *path,
                  pr_err *err); /* whole file, atomically; reading it back gives the same */
void profile_free(profile *p);
/* gflops of a type and batch: measured, or interpolated between batches (log-log); a type that was not
 * measured takes the nearest by bits a weight; NAN when nothing was measured for that gpu (-1 = CPU). */
double profile_gflops(const profile *p, int gpu, const char *type, uint32_t batch);
/* Best sequential read rate of the disk as the runtime reads; 0 when none was measured. */
double profile_disk_bytes_per_s(const profile *p);

#endif
