/* The three timing tables. A row is written when its request, interval or run is over; for the percentiles of
 * the run two numbers of every request are kept. */
#include "src/run/timings.h"
#include "src/base/clock.h"
#include "src/base/csv.h"
#include "src/base/mem.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define REQUEST_COLUMNS                                                                                      \
    "schema,run_id,custom_id,status,finish_reason,error_code,slot,prompt_tokens,completion_tokens,start_ms," \
    "queue_ms,"                                                                                              \
    "ttft_ms,tpot_ms,itl_p50_ms,itl_p95_ms,itl_p99_ms,itl_max_ms,e2e_ms,prefill_tps,decode_tps"
#define DEVICE_COLUMNS                                                                                       \
    "schema,run_id,rank,device,phase,interval_start_ms,wall_ms,compute_cpu_ms,compute_gpu_ms,disk_wait_ms,"  \
    "send_wait_ms,recv_wait_ms,other_ms,disk_busy_ms,disk_read_bytes,net_tx_bytes,net_rx_bytes,passes,"      \
    "tokens,"                                                                                                \
    "rss_peak_bytes,mem_available_min_bytes,mem_pressure_pct,psi_mem_some_pct,major_faults,gpu_mem_peak_"    \
    "bytes,"                                                                                                 \
    "predicted_pass_ms,measured_pass_ms"
#define RUN_COLUMNS                                                                                          \
    "schema,run_id,started_at,build,model,quant,plan_sha256,n_devices,slots,requests_ok,requests_failed,"    \
    "load_s,"                                                                                                \
    "wall_s,prompt_tokens,completion_tokens,output_tps,total_tps,ttft_p50_ms,ttft_p95_ms,ttft_p99_ms,tpot_"  \
    "p50_ms,"                                                                                                \
    "tpot_p95_ms,tpot_p99_ms,weight_read_bytes_per_token,mem_pressure_max_pct,restarts"

/* Values of all requests, for percentiles. */
typedef struct {
    double *v;
    size_t n, cap;
} values;

struct timings {
    csv *requests, *devices, *run;
    char *run_id;
    char started_at[CLOCK_RFC3339_BYTES];
    host_watch host;
    double pressure_pct; /* the highest of all devices and rows */
    size_t n_ok, n_failed;
    uint64_t prompt_tokens, completion_tokens, first_admitted_ns, last_token_ns;
    values ttft_ms, tpot_ms;
};

/* --- files ----------------------------------------------------------------------------------- */

static int open_csv(csv **out, const char *path, const char *suffix, const char *columns, bool resume,
                    pr_err *err)
{
    size_t n = strlen(path);
    char *name = malloc(n + 32);
    int rc;

    if (!name) return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    if (n > 4 && !strcmp(path + n - 4, ".csv")) n -= 4;
    snprintf(name, n + 32, "%.*s%s.csv", (int)n, path, suffix);
    rc = csv_open(out, name, columns, resume, err);
    free(name);
    return rc;
}

static int timings_free(timings *t, pr_err *err)
{
    csv *all[] = {t->requests, t->devices, t->run};
    int rc = PR_OK;

    for (int i = 0; i < 3; i++) {
        int failed = csv_close(all[i], rc ? NULL : err);
        if (!rc) rc = failed;
    }
    free(t->ttft_ms.v);
    free(t->tpot_ms.v);
    free(t->run_id);
    free(t);
    return rc;
}

int timings_open(timings **out, const char *path, const char *run_id, bool resume, pr_err *err)
{
    timings *t = calloc(1, sizeof *t);
    int rc = PR_OK;

    if (!t || !(t->run_id = strdup(run_id))) {
        free(t);
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    rc = open_csv(&t->requests, path, "", REQUEST_COLUMNS, resume, err);
    if (!rc) rc = open_csv(&t->devices, path, ".devices", DEVICE_COLUMNS, resume, err);
    if (!rc) rc = open_csv(&t->run, path, ".run", RUN_COLUMNS, resume, err);
    if (rc) {
        timings_free(t, NULL);
        return rc;
    }
    clock_rfc3339(t->started_at);
    t->host = host_watch_start();
    t->pressure_pct = NAN;
    *out = t;
    return PR_OK;
}

static void put_ms(csv *c, const double *v, size_t n)
{
    for (size_t i = 0; i < n; i++) csv_num(c, v[i], 3);
}

/* --- one row a request ----------------------------------------------------------------------- */

static bool keep(values *a, double v)
{
    if (isnan(v)) return true;
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 256;
        double *bigger = realloc(a->v, cap * sizeof *bigger);
        if (!bigger) return false;
        a->v = bigger;
        a->cap = cap;
    }
    a->v[a->n++] = v;
    return true;
}

static void put_completion(csv *c, const completion *done, const request_times *times,
                           const request_rates *rates)
{
    csv_str(c, "ok");
    csv_str(c, done->finish_reason);
    csv_str(c, NULL);
    csv_int(c, (int64_t)times->slot);
    csv_int(c, (int64_t)times->prompt_tokens);
    csv_int(c, (int64_t)times->completion_tokens);
    put_ms(c,
           (const double[]){rates->start_ms, rates->queue_ms, rates->ttft_ms, rates->tpot_ms,
                            times->itl_p50_ms, times->itl_p95_ms, times->itl_p99_ms, times->itl_max_ms,
                            rates->e2e_ms, rates->prefill_tps, rates->decode_tps},
           11);
}

static void put_failure(csv *c, const request *r)
{
    csv_str(c, "error");
    csv_str(c, NULL);
    csv_str(c, request_code_name(r->error.code));
    for (int i = 0; i < 14; i++) csv_str(c, NULL);
}

/* Add a completion to the sums of the run. */
static bool count(timings *t, const request_times *times, const request_rates *rates)
{
    t->n_ok++;
    t->prompt_tokens += times->prompt_tokens;
    t->completion_tokens += times->completion_tokens;
    if (times->admitted_ns && (!t->first_admitted_ns || times->admitted_ns < t->first_admitted_ns))
        t->first_admitted_ns = times->admitted_ns;
    if (times->last_token_ns > t->last_token_ns) t->last_token_ns = times->last_token_ns;
    return keep(&t->ttft_ms, rates->ttft_ms) && keep(&t->tpot_ms, rates->tpot_ms);
}

int timings_request(timings *t, const request *r, const completion *c, const request_times *times,
                    pr_err *err)
{
    request_rates rates;

    csv_str(t->requests, "prima/timings/1");
    csv_str(t->requests, t->run_id);
    csv_str(t->requests, r->id);
    if (c) {
        rates = request_rates_of(times);
        put_completion(t->requests, c, times, &rates);
        if (!count(t, times, &rates)) return pr_fail(err, PR_ERESOURCE, "timings: out of memory");
    } else {
        put_failure(t->requests, r);
        t->n_failed++;
    }
    host_note(&t->host);
    return csv_row(t->requests, err);
}

/* --- one row a device and interval ------------------------------------------------------------- */

static void put_host(timings *t, const host_row *h)
{
    csv_int(t->devices, (int64_t)h->rss_peak_bytes);
    if (h->available_min_bytes) csv_int(t->devices, (int64_t)h->available_min_bytes);
    else csv_str(t->devices, NULL);
    csv_num(t->devices, h->pressure_pct, 3);
    csv_num(t->devices, h->psi_some_pct, 3);
    csv_int(t->devices, (int64_t)h->major_faults);
    t->pressure_pct = fmax(t->pressure_pct, h->pressure_pct);
}

int timings_device(timings *t, const timings_device_row *row, pr_err *err)
{
    host_row host = row->host ? *row->host : host_take(&t->host);
    double other_ms = row->wall_ms - row->compute_cpu_ms - row->compute_gpu_ms - row->disk_wait_ms -
                      row->send_wait_ms - row->recv_wait_ms;
    csv *c = t->devices;

    csv_str(c, "prima/timings-devices/1");
    csv_str(c, t->run_id);
    csv_int(c, row->rank);
    csv_str(c, row->device);
    csv_str(c, row->phase);
    put_ms(c,
           (const double[]){row->interval_start_ms, row->wall_ms, row->compute_cpu_ms, row->compute_gpu_ms,
                            row->disk_wait_ms, row->send_wait_ms, row->recv_wait_ms,
                            other_ms > 0 ? other_ms : 0, row->disk_busy_ms},
           9);
    csv_int(c, (int64_t)row->disk_read_bytes);
    csv_int(c, (int64_t)row->net_tx_bytes);
    csv_int(c, (int64_t)row->net_rx_bytes);
    csv_int(c, (int64_t)row->passes);
    csv_int(c, (int64_t)row->tokens);
    put_host(t, &host);
    csv_int(c, (int64_t)row->gpu_mem_peak_bytes);
    put_ms(c, (const double[]){row->predicted_pass_ms, row->measured_pass_ms}, 2);
    return csv_row(c, err);
}

/* --- one row a run ----------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double timings_percentile(double *v, size_t n, double p)
{
    double at;
    size_t below;

    if (n == 0) return NAN;
    qsort(v, n, sizeof *v, compare);
    at = p / 100 * (double)(n - 1);
    below = (size_t)at;
    if (below + 1 >= n) return v[n - 1];
    return v[below] + (at - (double)below) * (v[below + 1] - v[below]);
}

static void put_percentiles(csv *c, values *a)
{
    csv_num(c, timings_percentile(a->v, a->n, 50), 3);
    csv_num(c, timings_percentile(a->v, a->n, 95), 3);
    csv_num(c, timings_percentile(a->v, a->n, 99), 3);
}

static int run_row(timings *t, const timings_run_facts *f, double load_s, double wall_s,
                   double weight_read_bytes_per_token, int restarts, pr_err *err)
{
    csv *c = t->run;
    double s = t->last_token_ns > t->first_admitted_ns
                   ? (double)(t->last_token_ns - t->first_admitted_ns) / 1e9
                   : NAN;

    host_row host = host_take(&t->host);
    csv_str(c, "prima/timings-run/1");
    csv_str(c, t->run_id);
    csv_str(c, t->started_at);
    csv_str(c, f->build);
    csv_str(c, f->model);
    csv_str(c, f->quant);
    csv_str(c, f->plan_sha256);
    csv_int(c, (int64_t)f->n_devices);
    csv_int(c, (int64_t)f->slots);
    csv_int(c, (int64_t)t->n_ok);
    csv_int(c, (int64_t)t->n_failed);
    csv_num(c, load_s, 3);
    csv_num(c, wall_s, 3);
    csv_int(c, (int64_t)t->prompt_tokens);
    csv_int(c, (int64_t)t->completion_tokens);
    csv_num(c, (double)t->completion_tokens / s, 3);
    csv_num(c, (double)(t->prompt_tokens + t->completion_tokens) / s, 3);
    put_percentiles(c, &t->ttft_ms);
    put_percentiles(c, &t->tpot_ms);
    csv_num(c, weight_read_bytes_per_token, 0);
    csv_num(c, fmax(t->pressure_pct, host.pressure_pct), 3);
    csv_int(c, restarts);
    return csv_row(c, err);
}

int timings_close(timings *t, const timings_run_facts *f, double load_s, double wall_s,
                  double weight_read_bytes_per_token, int restarts, pr_err *err)
{
    int rc, closed;

    if (!t) return PR_OK;
    rc = f ? run_row(t, f, load_s, wall_s, weight_read_bytes_per_token, restarts, err) : PR_OK;
    closed = timings_free(t, rc ? NULL : err);
    return rc ? rc : closed;
}
