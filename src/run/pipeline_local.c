/* The pipeline of one device: a micro-batch is computed when its result is asked for. */
#include "src/base/clock.h"
#include "src/run/pipeline.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { ROW_MS = 1000 };

/* What was done since the last row of timings. */
typedef struct {
    uint64_t since_ns, passes, tokens, prefill_tokens;
    double compute_ms;
} interval;

typedef struct {
    pipeline base; /* first: the caller's pointer is ours */
    engine *e;
    timings *t;
    uint64_t start_ns;
    micro_batch *waiting;
    interval v;
    double compute_s; /* since the beginning */
    uint32_t n_layers;
    progress *progress;    /* NULL: none */
    trace *trace;          /* NULL: none */
    pthread_mutex_t mutex; /* of spans */
    span_log spans;        /* since the last row, for it */
    residency_counts was;  /* what had been streamed until then */
    double gpu_was_ms;     /* and how long GPUs had been at work */
} local;

static const char *phase_of(const interval *v)
{
    return v->prefill_tokens == 0 ? "decode" : v->prefill_tokens == v->tokens ? "prefill" : "mixed";
}

static void give_spans(local *l)
{
    span x[SPANS_MAX];
    uint64_t dropped;
    size_t n;

    do {
        pthread_mutex_lock(&l->mutex);
        n = span_log_take(&l->spans, x, SPANS_MAX, &dropped);
        pthread_mutex_unlock(&l->mutex);
        trace_add(l->trace, "local", x, n, dropped, (clock_guess){0, 0});
    } while (n == SPANS_MAX);
}

static int report(pipeline *p, pr_err *err)
{
    local *l = (local *)p;
    const interval *v = &l->v;
    residency *r = engine_residency(l->e);
    residency_counts is = r ? residency_about(r) : (residency_counts){0};
    double stall_ms = is.stream.stall_ms - l->was.stream.stall_ms, gpu_all_ms = engine_gpu_busy_ms(l->e),
           gpu_ms = gpu_all_ms - l->gpu_was_ms;
    uint64_t now = clock_ns();
    timings_device_row row = {.rank = 0,
                              .device = "local",
                              .phase = phase_of(v),
                              .interval_start_ms = (double)(v->since_ns - l->start_ns) / 1e6,
                              .wall_ms = (double)(now - v->since_ns) / 1e6,
                              .compute_cpu_ms = fmax(0, v->compute_ms - stall_ms - gpu_ms),
                              .compute_gpu_ms = gpu_ms,
                              .disk_wait_ms = stall_ms,
                              .disk_busy_ms = (is.busy_s - l->was.busy_s) * 1e3,
                              .disk_read_bytes = is.stream.read_bytes - l->was.stream.read_bytes,
                              .passes = v->passes,
                              .tokens = v->tokens,
                              .gpu_mem_peak_bytes = engine_about(l->e).gpu.total,
                              .predicted_pass_ms = NAN,
                              .measured_pass_ms = v->passes ? v->compute_ms / (double)v->passes : NAN};
    int rc = l->t && v->passes ? timings_device(l->t, &row, err) : PR_OK;

    progress_note_device(l->progress, "local",
                         &(progress_device){.at_ns = now,
                                            .compute_s = l->compute_s - is.stream.stall_ms / 1e3,
                                            .disk_s = is.stream.stall_ms / 1e3,
                                            .disk_bytes = is.stream.read_bytes});
    if (l->trace) give_spans(l);
    l->v = (interval){.since_ns = now};
    l->was = is;
    l->gpu_was_ms = gpu_all_ms;
    return rc;
}

static int submit(pipeline *p, micro_batch *mb, pr_err *err)
{
    (void)err;
    mb->start_ns = clock_ns();
    ((local *)p)->waiting = mb;
    return PR_OK;
}

static void note_read(void *arg, uint64_t start_ns, uint64_t end_ns, size_t bytes)
{
    local *l = arg;

    pthread_mutex_lock(&l->mutex);
    span_log_add(&l->spans,
                 &(span){.kind = SPAN_READ, .more = bytes, .start_ns = start_ns, .end_ns = end_ns});
    pthread_mutex_unlock(&l->mutex);
}

static void keep_span(local *l, const micro_batch *mb)
{
    pthread_mutex_lock(&l->mutex);
    span_log_add(&l->spans, &(span){.kind = SPAN_WINDOW,
                                    .batch = mb->id,
                                    .tokens = (uint32_t)mb->b.n_tokens,
                                    .end = l->n_layers,
                                    .start_ns = mb->start_ns,
                                    .end_ns = mb->end_ns});
    pthread_mutex_unlock(&l->mutex);
}

static int next(pipeline *p, pipe_event *event, micro_batch **done, pr_err *err)
{
    local *l = (local *)p;
    micro_batch *mb = l->waiting;
    int rc = engine_forward(l->e, &mb->b, err);

    if (rc) return rc;
    l->waiting = NULL;
    mb->end_ns = clock_ns();
    mb->logits = engine_logits(l->e, 0);
    mb->logits_stride = engine_logits_stride(l->e);
    l->v.passes++;
    l->v.tokens += mb->b.n_tokens;
    l->v.prefill_tokens += mb->n_prefill;
    l->v.compute_ms += (double)(mb->end_ns - mb->start_ns) / 1e6;
    l->compute_s += (double)(mb->end_ns - mb->start_ns) / 1e9;
    if (l->trace) keep_span(l, mb);
    *done = mb;
    *event = PIPE_DONE;
    return mb->end_ns - l->v.since_ns >= ROW_MS * 1000000ull ? report(p, err) : PR_OK;
}

static void free_local(pipeline *p)
{
    local *l = (local *)p;

    if (l->trace && engine_residency(l->e)) residency_watch(engine_residency(l->e), NULL, NULL);
    pthread_mutex_destroy(&l->mutex);
    span_log_clear(&l->spans);
    free(l);
}

int pipeline_local(pipeline **out, engine *e, size_t max_tokens, timings *t, uint64_t start_ns, pr_err *err)
{
    static const pipeline_ops ops = {submit, next, report, free_local};
    engine_facts f = engine_about(e);
    local *l = calloc(1, sizeof *l);

    if (!l) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *l =
        (local){.base = {&ops, 1, max_tokens, max_tokens, f.weights_bytes + f.gpu.weights + f.streamed_bytes},
                .e = e,
                .t = t,
                .start_ns = start_ns,
                .v = {.since_ns = start_ns}};
    pthread_mutex_init(&l->mutex, NULL);
    *out = &l->base;
    return PR_OK;
}

int pipeline_local_watch(pipeline *p, uint32_t n_layers, trace *t, progress *g, pr_err *err)
{
    local *l = (local *)p;

    l->progress = g;
    progress_note_up(g, "local", true);
    if (!t) return PR_OK;
    l->trace = t;
    l->n_layers = n_layers;
    if (span_log_init(&l->spans, SPAN_LOG_CAP, err)) return PR_ERESOURCE;
    if (engine_residency(l->e)) residency_watch(engine_residency(l->e), note_read, l);
    return PR_OK;
}
