/* Timing CSVs (conventions 11): one row a request, one a device and interval, one a run. */
#ifndef PRIMA_RUN_TIMINGS_H
#define PRIMA_RUN_TIMINGS_H
#include "src/run/host.h"
#include "src/run/output.h"

typedef struct timings timings;

typedef struct {
    const char *build, *model, *quant, *plan_sha256;
    size_t n_devices, slots;
} timings_run_facts;

/* phase "prefill", "decode" or "mixed" is decided by the steps of the interval. */
typedef struct {
    int rank;
    const char *device, *phase;
    double interval_start_ms, wall_ms, compute_cpu_ms, compute_gpu_ms, disk_wait_ms, send_wait_ms,
        recv_wait_ms, disk_busy_ms;
    uint64_t disk_read_bytes, net_tx_bytes, net_rx_bytes, passes, tokens, gpu_mem_peak_bytes;
    double predicted_pass_ms, measured_pass_ms; /* NaN = not applicable */
    const host_row *host; /* NULL: of this process and machine, since the last such row */
} timings_device_row;

/* PATH.csv -> PATH.csv, PATH.devices.csv, PATH.run.csv (an extension .csv is cut off first). resume: append
 * to existing files. */
int timings_open(timings **out, const char *path, const char *run_id, bool resume, pr_err *err);
int timings_request(timings *t, const request *r, const completion *c, const request_times *times,
                    pr_err *err); /* c NULL: an error */
/* other_ms is filled in here. */
int timings_device(timings *t, const timings_device_row *row, pr_err *err);
/* Writes the run row from all requests seen (f NULL: none, the run failed), and closes. load_s: reading
 * weights; wall_s: everything. t NULL is fine. */
int timings_close(timings *t, const timings_run_facts *f, double load_s, double wall_s,
                  double weight_read_bytes_per_token, int restarts, pr_err *err);

/* Linear-interpolation percentile (p in 0..100) of v[n]; sorts v. NaN when n == 0. */
double timings_percentile(double *v, size_t n, double p);

#endif
