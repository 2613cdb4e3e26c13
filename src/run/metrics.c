/* The metrics file; see metrics.h. */
#include "src/run/metrics.h"
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/file.h"
#include "src/base/log.h"
#include "src/base/thread.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t INTERVAL_NS = 2000000000;

struct metrics {
    char *path;
    progress *p;
    progress_view view; /* too large for a stack */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool over;
};

/* --- the text ------------------------------------------------------------------------------------------ */
static void begin(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Counts as they are, the rest to the microsecond. */
static void put_value(FILE *f, double v)
{
    fprintf(f, v == floor(v) ? " %.0f\n" : " %.6f\n", v);
}

static void put_one(FILE *f, const char *name, const char *type, const char *help, double value)
{
    begin(f, name, type, help);
    fputs(name, f);
    put_value(f, value);
}

static void put_label(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n') fputs("\\n", f);
        else if (*text == '"' || *text == '\\') fprintf(f, "\\%c", *text);
        else fputc(*text, f);
    }
}

static void put_run(FILE *f, const progress_view *v, bool is_active)
{
    const progress_run *r = &v->run;

    put_one(f, "prima_run_active", "gauge", "1 while the run goes on, 0 when it has ended.", is_active);
    begin(f, "prima_requests_total", "counter", "Requests answered in this run.");
    fprintf(f, "prima_requests_total{status=\"ok\"} %zu\nprima_requests_total{status=\"error\"} %zu\n",
            r->n_ok, r->n_failed);
    put_one(f, "prima_requests_left", "gauge", "Requests of the job that have no answer yet.",
            (double)(r->n_all - r->n_done));
    begin(f, "prima_tokens_total", "counter", "Tokens of finished prompts, and of completions, in this run.");
    fprintf(f, "prima_tokens_total{kind=\"prompt\"} %llu\nprima_tokens_total{kind=\"completion\"} %llu\n",
            (unsigned long long)r->prompt_tokens, (unsigned long long)r->completion_tokens);
    put_one(f, "prima_tokens_per_second", "gauge", "Completion tokens a second over the last ten seconds.",
            is_active ? v->tokens_per_s : 0);
    put_one(f, "prima_sequences_running", "gauge", "Sequences that are being computed.",
            is_active ? (double)r->n_running : 0);
    put_one(f, "prima_restarts_total", "counter", "Lost devices that were started or found again.",
            v->restarts);
}

static double get_up(const progress_shown *d)
{
    return d->is_up;
}

static double get_compute(const progress_shown *d)
{
    return d->total.compute_s;
}

static double get_wait(const progress_shown *d)
{
    return d->total.wait_s;
}

static double get_send(const progress_shown *d)
{
    return d->total.send_s;
}

static double get_disk(const progress_shown *d)
{
    return d->total.disk_s;
}

static double get_disk_bytes(const progress_shown *d)
{
    return (double)d->total.disk_bytes;
}

static double get_rx(const progress_shown *d)
{
    return (double)d->total.rx_bytes;
}

static double get_tx(const progress_shown *d)
{
    return (double)d->total.tx_bytes;
}

static void put_devices(FILE *f, const progress_view *v)
{
    static const struct {
        const char *name, *type, *help;
        double (*get)(const progress_shown *d);
    } column[] = {
        {"prima_device_up", "gauge", "1 while the device is there, 0 while it is lost.", get_up},
        {"prima_device_compute_seconds_total", "counter", "Time that the device computed.", get_compute},
        {"prima_device_wait_seconds_total", "counter", "Time that it waited for the device before it.",
         get_wait},
        {"prima_device_send_seconds_total", "counter", "Time that it could not compute because it sent.",
         get_send},
        {"prima_device_disk_wait_seconds_total", "counter", "Time that it waited for streamed weights.",
         get_disk},
        {"prima_device_disk_read_bytes_total", "counter", "Bytes of streamed weights read from its disk.",
         get_disk_bytes},
        {"prima_device_receive_bytes_total", "counter", "Bytes from the device before it.", get_rx},
        {"prima_device_transmit_bytes_total", "counter", "Bytes to the device behind it.", get_tx},
    };

    for (size_t c = 0; c < sizeof column / sizeof *column && v->n_devices; c++) {
        begin(f, column[c].name, column[c].type, column[c].help);
        for (size_t i = 0; i < v->n_devices; i++) {
            fprintf(f, "%s{device=\"", column[c].name);
            put_label(f, v->device[i].name);
            fputs("\"}", f);
            put_value(f, column[c].get(&v->device[i]));
        }
    }
}

char *metrics_text(const progress_view *v, bool is_active)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    bool failed;

    if (!f) return NULL;
    put_run(f, v, is_active);
    put_devices(f, v);
    failed = ferror(f);
    if (fclose(f) == 0 && !failed) return text;
    free(text);
    return NULL;
}

/* --- the file --------------------------------------------------------------------------------------------
 */
static int write_now(metrics *m, bool is_active, pr_err *err)
{
    char *text;
    int rc;

    progress_look(m->p, &m->view);
    if (!(text = metrics_text(&m->view, is_active))) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = file_write_atomic(m->path, text, strlen(text), err);
    free(text);
    return rc;
}

/* A disk that is full for a while is said once. */
static void *keep_writing(void *arg)
{
    metrics *m = arg;
    bool said = false;

    pthread_mutex_lock(&m->mutex);
    while (!m->over) {
        uint64_t at = clock_ns() + INTERVAL_NS;
        pr_err err = {0};
        while (!m->over && clock_ns() < at) cond_wait_until(&m->changed, &m->mutex, at);
        if (m->over || !write_now(m, true, &err)) continue;
        if (!said) log_warn("%s", err.msg);
        said = true;
    }
    pthread_mutex_unlock(&m->mutex);
    return NULL;
}

static void metrics_free(metrics *m)
{
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->mutex);
    free(m->path);
    free(m);
}

int metrics_start(metrics **out, const char *path, progress *p, pr_err *err)
{
    metrics *m = calloc(1, sizeof *m);
    int rc;

    if (!m || !(m->path = strdup(path))) {
        free(m);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    m->p = p;
    pthread_mutex_init(&m->mutex, NULL);
    cond_init(&m->changed);
    rc = write_now(m, true, err);
    if (!rc && thread_start(&m->thread, keep_writing, m))
        rc = pr_fail(err, PR_ERESOURCE, "cannot start a thread");
    if (rc) metrics_free(m);
    else *out = m;
    return rc;
}

int metrics_stop(metrics *m, pr_err *err)
{
    int rc;

    if (!m) return PR_OK;
    pthread_mutex_lock(&m->mutex);
    m->over = true;
    pthread_cond_signal(&m->changed);
    pthread_mutex_unlock(&m->mutex);
    pthread_join(m->thread, NULL);
    rc = write_now(m, false, err);
    metrics_free(m);
    return rc;
}
