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
    PROFILE_MAX_OVERLAP = 8,
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
/* Computing and reading at the same time: what each keeps of its rate alone, and theta, made of the two: the
 * share of its own compute during which the disk may run (halda.md 7.1; src/probe_overlap.c has the
 * definition). The median of reps; spread_pct = 100 x (largest - smallest) theta. */
typedef struct {
    uint32_t batch;
    double theta, compute_share, disk_share; /* 0..1 */
    double spread_pct;
    uint32_t reps;
} profile_overlap;
typedef struct {
    char peer[33];
    double bytes_per_s, rtt_ms;
} profile_net;
typedef struct {
    char name[64];
    uint64_t vram_total_bytes, vram_free_bytes;
    double mem_bytes_per_s, h2d_bytes_per_s, d2h_bytes_per_s, copy_latency_us, tflops_f16; /* 0: unknown */
    double spread_pct; /* of the rate that varied most */
} profile_gpu;

typedef struct {
    char device[33], host[256], os[32], kernel[128], cpu_model[128], isa[16], prima_version[64],
        measured_at[32], fio_version[32], model[128],
        disk_name[128]; /* file system and drive that disk[] was measured on */
    char note[512];     /* "assumed: ..." or "disk measured without fio: apt install fio" */
    uint32_t cores_physical, threads, numa_nodes;
    uint64_t ram_total_bytes, ram_available_bytes;
    size_t n_compute, n_disk, n_overlap, n_net, n_gpus, n_mem;
    double mem_bytes_per_s[PROFILE_MAX_THREADS]; /* [i]: with i + 1 threads; median of 5 */
    double mem_spread_pct;                       /* of the one that varied most */
    profile_compute compute[PROFILE_MAX_COMPUTE];
    profile_disk disk[PROFILE_MAX_DISK];
    profile_overlap overlap[PROFILE_MAX_OVERLAP];
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
/* Measured with the runtime's own reader: an engine whose name begins with "prima-". */
bool profile_disk_is_ours(const profile_disk *d);
/* The sequential measurement that plans use: of the runtime's own reader, whichever of its engines is
 * fastest, else past the page cache (fio), else what there is; the fastest of them. NULL when none was
 * measured. Its rate, or 0. */
const profile_disk *profile_disk_used(const profile *p);
double profile_disk_bytes_per_s(const profile *p);
/* theta, 0..1, at the measured batch nearest to this one; -1 when it was not measured. */
double profile_theta(const profile *p, uint32_t batch);

#endif
