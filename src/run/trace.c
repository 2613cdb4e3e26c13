/* The trace file; see trace.h. Spans are written as they come: a run of days keeps nothing in memory. A
 * device's clock is corrected with the best guess at that time; when a better one moves its spans back, a
 * span begins where the one before it has ended (by less than the error that is stated). */
#include "src/run/trace.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 256, NAME_BYTES = 64, BUFFER_BYTES = 1 << 16 };
static const uint64_t MAX_BYTES = (uint64_t)1 << 30; /* more than the viewers take */

typedef enum { LANE_COMPUTE, LANE_WAIT, LANE_SEND, LANE_READ, LANES } lane;
static const char *const lane_name[LANES] = {"compute", "wait", "send", "read"};
static const lane lane_of[SPAN_KINDS] = {
    [SPAN_WINDOW] = LANE_COMPUTE, [SPAN_EMBED] = LANE_COMPUTE, [SPAN_LOGITS] = LANE_COMPUTE,
    [SPAN_WAIT] = LANE_WAIT,      [SPAN_SEND] = LANE_SEND,     [SPAN_READ] = LANE_READ};

/* Who computes is also who waits: the two never overlap, however the clock is corrected in between. */
static const lane thread_of[LANES] = {[LANE_COMPUTE] = LANE_COMPUTE,
                                      [LANE_WAIT] = LANE_COMPUTE,
                                      [LANE_SEND] = LANE_SEND,
                                      [LANE_READ] = LANE_READ};

typedef struct {
    char name[NAME_BYTES];
    int64_t end_ns[LANES]; /* of the last span of the lane's thread, by thread_of */
    clock_guess clock;     /* as it is stated */
    uint64_t lost;
} traced;

struct trace {
    pthread_mutex_t mutex;
    FILE *f;
    char *path;
    uint64_t start_ns, n_events;
    bool stopped; /* nothing more is written */
    traced device[MAX_DEVICES];
    size_t n_devices;
};

int trace_open(trace **out, const char *path, pr_err *err)
{
    trace *t = calloc(1, sizeof *t);

    if (!t || !(t->path = strdup(path))) {
        free(t);
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory", path);
    }
    if (!(t->f = fopen(path, "we"))) {
        int rc = pr_fail_errno(err, PR_ERESOURCE, "%s", path);
        free(t->path);
        free(t);
        return rc;
    }
    setvbuf(t->f, NULL, _IOFBF, BUFFER_BYTES);
    pthread_mutex_init(&t->mutex, NULL);
    t->start_ns = clock_ns();
    fputc('[', t->f);
    *out = t;
    return PR_OK;
}

/* --- events; the mutex is held ---------------------------------------------------------------------------
 */
/* Viewers know processes and threads by numbers of their own, and 0 is special. */
static size_t pid_of(const trace *t, const traced *d)
{
    return (size_t)(d - t->device) + 1;
}

static size_t tid_of(const trace *t, const traced *d, lane l)
{
    return 1000 * pid_of(t, d) + l + 1;
}

static void begin_event(trace *t, const traced *d, const char *phase, lane l)
{
    fprintf(t->f, "%s\n{\"ph\":\"%s\",\"pid\":%zu,\"tid\":%zu", t->n_events++ ? "," : "", phase, pid_of(t, d),
            tid_of(t, d, l));
}

static void put_meta(trace *t, const traced *d, lane l, const char *what, const char *key, json_t *value)
{
    json_t *args = json_pack("{s:o}", key, value);
    char *text = args ? json_line(args) : NULL;

    if (text) {
        begin_event(t, d, "M", l);
        fprintf(t->f, ",\"name\":\"%s\",\"args\":%s}", what, text);
    }
    free(text);
    json_decref(args);
}

/* NULL: no more room for devices. */
static traced *find(trace *t, const char *name)
{
    traced *d;

    for (size_t i = 0; i < t->n_devices; i++) {
        if (!strcmp(t->device[i].name, name)) return &t->device[i];
    }
    if (t->n_devices == MAX_DEVICES) return NULL;
    d = &t->device[t->n_devices++];
    *d = (traced){.clock = {0, UINT64_MAX}};
    snprintf(d->name, sizeof d->name, "%s", name);
    put_meta(t, d, LANE_COMPUTE, "process_name", "name", json_string(d->name));
    put_meta(t, d, LANE_COMPUTE, "process_sort_index", "sort_index", json_integer((json_int_t)t->n_devices));
    for (lane l = 0; l < LANES; l++) {
        put_meta(t, d, l, "thread_name", "name", json_string(lane_name[l]));
        put_meta(t, d, l, "thread_sort_index", "sort_index", json_integer(l));
    }
    return d;
}

static void put_us(FILE *f, const char *key, int64_t ns)
{
    fprintf(f, ",\"%s\":%lld.%03lld", key, (long long)(ns / 1000), (long long)(ns % 1000));
}

/* Not negative: put_us prints no sign of fractions. */
static int64_t at(const trace *t, const traced *d, uint64_t theirs_ns)
{
    int64_t ns = (int64_t)(theirs_ns - (uint64_t)d->clock.offset_ns - t->start_ns);
    return ns > 0 ? ns : 0;
}

static void put_instant(trace *t, const traced *d, const char *name, int64_t at_ns)
{
    begin_event(t, d, "i", LANE_COMPUTE);
    put_us(t->f, "ts", at_ns);
    fprintf(t->f, ",\"s\":\"p\",\"name\":\"%s\",\"args\":{", name);
}

static void put_clock(trace *t, const traced *d, int64_t at_ns)
{
    put_instant(t, d, "clock", at_ns);
    fprintf(t->f, "\"offset_us\":%.3f,\"error_us\":%.3f}}", (double)d->clock.offset_ns / 1e3,
            (double)d->clock.error_ns / 1e3);
}

static void put_name(FILE *f, const span *s)
{
    static const char *const name[SPAN_KINDS] = {[SPAN_EMBED] = "embed",
                                                 [SPAN_LOGITS] = "logits",
                                                 [SPAN_WAIT] = "wait",
                                                 [SPAN_SEND] = "send",
                                                 [SPAN_READ] = "read"};

    if (s->kind == SPAN_WINDOW) fprintf(f, ",\"name\":\"layers %u-%u\"", s->first, s->end - 1);
    else fprintf(f, ",\"name\":\"%s\"", name[s->kind]);
}

static void put_span(trace *t, traced *d, const span *s)
{
    lane l = lane_of[s->kind];
    int64_t start = at(t, d, s->start_ns), end = at(t, d, s->end_ns), *last = &d->end_ns[thread_of[l]];

    if (start < *last) start = *last;
    if (end < start) end = start;
    *last = end;
    begin_event(t, d, "X", l);
    put_us(t->f, "ts", start);
    put_us(t->f, "dur", end - start);
    fprintf(t->f, ",\"cat\":\"%s\"", lane_name[l]);
    put_name(t->f, s);
    if (s->kind == SPAN_READ) {
        fprintf(t->f, ",\"args\":{\"bytes\":%llu}}", (unsigned long long)s->more);
        return;
    }
    fprintf(t->f, ",\"args\":{\"round\":%u,\"tokens\":%u,\"micro_batches\":[%llu", s->round, s->tokens,
            (unsigned long long)s->batch);
    for (unsigned i = 0; i < SPAN_MORE_BITS; i++) {
        if (s->more >> i & 1) fprintf(t->f, ",%llu", (unsigned long long)(s->batch + 1 + i));
    }
    fprintf(t->f, "]}}");
}

static void stop(trace *t, const char *why)
{
    log_warn("%s: the trace ends here: %s", t->path, why);
    t->stopped = true;
}

/* A guess grows old with every message: the error is stated a little larger than it is, so that it holds for
 * a while. */
static bool is_news(const clock_guess *stated, const clock_guess *now)
{
    return now->offset_ns != stated->offset_ns || now->error_ns > stated->error_ns ||
           now->error_ns < stated->error_ns / 2;
}

static void add(trace *t, traced *d, const span *s, size_t n, uint64_t dropped, clock_guess clock)
{
    if (n && is_news(&d->clock, &clock)) {
        d->clock = (clock_guess){clock.offset_ns, clock.error_ns + clock.error_ns / 4};
        put_clock(t, d, at(t, d, s[0].start_ns));
    }
    if (dropped) {
        d->lost += dropped;
        put_instant(t, d, "spans lost", n ? at(t, d, s[0].start_ns) : d->end_ns[LANE_COMPUTE]);
        fprintf(t->f, "\"count\":%llu}}", (unsigned long long)dropped);
    }
    for (size_t i = 0; i < n; i++) put_span(t, d, &s[i]);
    if (fflush(t->f) || ferror(t->f)) stop(t, "it cannot be written");
    else if ((uint64_t)ftello(t->f) > MAX_BYTES) stop(t, "it has reached 1 GiB");
}

void trace_device(trace *t, const char *device)
{
    pthread_mutex_lock(&t->mutex);
    if (!t->stopped) find(t, device);
    pthread_mutex_unlock(&t->mutex);
}

void trace_add(trace *t, const char *device, const span *s, size_t n, uint64_t dropped, clock_guess clock)
{
    traced *d;

    if (!n && !dropped) return;
    pthread_mutex_lock(&t->mutex);
    if (!t->stopped && (d = find(t, device))) {
        bool is_known = clock.error_ns != UINT64_MAX;
        add(t, d, s, is_known ? n : 0, dropped + (is_known ? 0 : n), clock);
    }
    pthread_mutex_unlock(&t->mutex);
}

int trace_close(trace *t, pr_err *err)
{
    int rc = PR_OK;

    if (!t) return PR_OK;
    for (size_t i = 0; i < t->n_devices; i++) {
        if (t->device[i].lost)
            log_warn("%s: %llu spans of %s are lost", t->path, (unsigned long long)t->device[i].lost,
                     t->device[i].name);
    }
    fputs("\n]\n", t->f);
    if (ferror(t->f) | fclose(t->f)) rc = pr_fail(err, PR_ERESOURCE, "%s: cannot be written", t->path);
    pthread_mutex_destroy(&t->mutex);
    free(t->path);
    free(t);
    return rc;
}
