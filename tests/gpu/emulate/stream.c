/* Streams, events and graphs of the emulated runtime. A stream is a list of things to do, which are done when
 * somebody waits for them. */
#include "tests/gpu/emulate/emulate.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum { OP_LAUNCH, OP_COPY, OP_SET, OP_RECORD, OP_WAIT, OP_GRAPH } op_kind;

typedef struct op {
    struct op *next;
    op_kind kind;
    emu_launch launch;
    struct { /* rows of width bytes */
        char *to;
        const char *from;
        size_t to_pitch, from_pitch, width, height;
        int value;
    } copy;
    cudaEvent_t event;
    unsigned long number; /* of the event's record */
    cudaGraphExec_t graph;
} op;

struct emu_stream {
    op *first, **end;
    int gpu;
    unsigned flags;
    bool runs;           /* something of it runs: events that wait in circles */
    cudaGraph_t capture; /* while it is captured: things to do go there */
    struct emu_stream *next;
};
struct emu_event {
    cudaStream_t stream;
    unsigned long recorded, done;
    unsigned flags;
    double ms;
};
struct emu_graph {
    op *first, **end;
    int users;
    bool is_invalid;
};
struct emu_graph_exec {
    cudaGraph_t graph;
};

static cudaStream_t streams; /* all */

/* --- running -------------------------------------------------------------------------------------------- */
static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void trace(const op *o, double ms)
{
    const emu_launch *l = &o->launch;

    if (o->kind == OP_LAUNCH)
        fprintf(stderr, "emulated GPU: %9.3f ms %s grid %u %u %u block %u %u %u shared %zu\n", ms,
                emu_name(l->kernel), l->grid.x, l->grid.y, l->grid.z, l->block.x, l->block.y, l->block.z,
                l->shared_bytes);
    else if (o->kind == OP_COPY || o->kind == OP_SET)
        fprintf(stderr, "emulated GPU: %9.3f ms %s %zu bytes\n", ms, o->kind == OP_COPY ? "copy" : "set",
                o->copy.width * o->copy.height);
}

static void run_until(cudaStream_t s, cudaEvent_t e, unsigned long number);

static void run(const op *o)
{
    double begin = now_ms();

    switch (o->kind) {
    case OP_LAUNCH: emu_run(&o->launch); break;
    case OP_COPY:
        for (size_t i = 0; i < o->copy.height; i++)
            memmove(o->copy.to + i * o->copy.to_pitch, o->copy.from + i * o->copy.from_pitch, o->copy.width);
        break;
    case OP_SET: memset(o->copy.to, o->copy.value, o->copy.width); break;
    case OP_RECORD:
        o->event->done = o->number;
        o->event->ms = begin;
        break;
    case OP_WAIT: run_until(o->event->stream, o->event, o->number); break;
    case OP_GRAPH:
        for (const op *in = o->graph->graph->first; in; in = in->next) run(in);
        break;
    }
    if (emu_is_traced()) trace(o, now_ms() - begin);
}

static void op_free(op *o)
{
    if (o->kind == OP_LAUNCH) free(o->launch.args);
    free(o);
}

/* The next thing of s; false: there is none. */
static bool run_one(cudaStream_t s)
{
    op *o = s->first;

    if (!o || s->runs) return false;
    s->runs = true;
    emu_vram_begin();
    run(o);
    emu_vram_end();
    s->runs = false;
    if (!(s->first = o->next)) s->end = &s->first;
    op_free(o);
    return true;
}

static void run_all(cudaStream_t s)
{
    emu_vram_begin();
    while (run_one(s)) continue;
    emu_vram_end();
}

static void run_until(cudaStream_t s, cudaEvent_t e, unsigned long number)
{
    while (e->done < number && run_one(s)) continue;
    if (e->done < number) emu_die("streams wait for each other's events");
}

void emu_finish(bool all)
{
    for (cudaStream_t s = streams; s; s = s->next) {
        if (all || s->flags != cudaStreamNonBlocking) run_all(s);
    }
}

bool emu_is_capturing(void)
{
    bool any = false;

    for (cudaStream_t s = streams; s; s = s->next) {
        if (s->capture) any = s->capture->is_invalid = true;
    }
    return any;
}

/* --- things to do -----------------------------------------------------------------------------------------
 */
/* Behind the others of s, or of the graph that it is captured to; at once where s is NULL. */
static cudaError_t add(cudaStream_t s, const op *what)
{
    op ***end = s && s->capture ? &s->capture->end : s ? &s->end : NULL;
    op *o;

    if (!s && emu_is_capturing()) return cudaErrorStreamCaptureUnsupported;
    if (!(o = malloc(sizeof *o))) return cudaErrorMemoryAllocation;
    *o = *what;
    o->next = NULL;
    if (s) {
        **end = o;
        *end = &o->next;
        return cudaSuccess;
    }
    emu_finish(false);
    emu_vram_begin();
    run(o);
    emu_vram_end();
    op_free(o);
    return cudaSuccess;
}

/* Whether these are the places that a copy of this kind goes between. */
static bool is_place(const void *p, size_t bytes, bool vram)
{
    if (vram) return emu_is_vram(p, bytes, -1);
    return !emu_is_vram(p, 0, -1) || emu_is_pinned(p, bytes);
}

static cudaError_t add_copy(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                            size_t height, enum cudaMemcpyKind kind, cudaStream_t s)
{
    op o = {.kind = OP_COPY, .copy = {dst, src, dst_pitch, src_pitch, width, height, 0}};

    if (!width || !height) return cudaSuccess;
    if (height > 1 && (width > dst_pitch || width > src_pitch)) return cudaErrorInvalidValue;
    const size_t dst_bytes = (height - 1) * dst_pitch + width, src_bytes = (height - 1) * src_pitch + width;
    const bool to_vram = kind == cudaMemcpyDefault
                             ? emu_is_vram(dst, 0, -1)
                             : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_vram = kind == cudaMemcpyDefault
                               ? emu_is_vram(src, 0, -1)
                               : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (!is_place(dst, dst_bytes, to_vram) || !is_place(src, src_bytes, from_vram))
        return cudaErrorInvalidValue;
    return add(s, &o);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(add_copy(dst, bytes, src, bytes, bytes, 1, kind, s));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(dst, src, bytes, kind, NULL);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t s)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(add_copy(dst, dst_pitch, src, src_pitch, width, height, kind, s));
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    op o = {.kind = OP_SET, .copy = {p, NULL, bytes, 0, bytes, 1, value}};

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!bytes) return emu_leave(cudaSuccess);
    return emu_leave(emu_is_vram(p, bytes, -1) ? add(s, &o) : cudaErrorInvalidValue);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    return cudaMemsetAsync(p, value, bytes, NULL);
}

static bool is_launchable(const emu_launch *l)
{
    const emu_index *b = &l->block, *g = &l->grid;

    return b->x && b->y && b->z && (uint64_t)b->x * b->y * b->z <= EMU_MAX_THREADS && b->x <= 1024 &&
           b->y <= 1024 && b->z <= 64 && g->x && g->y && g->z && g->x <= INT32_MAX && g->y <= 65535 &&
           g->z <= 65535;
}

static cudaError_t check_launch(const emu_launch *l, const void *const pointers[], size_t n_pointers,
                                cudaStream_t s)
{
    const int gpu = s ? s->gpu : emu_gpu();

    if (gpu != emu_gpu()) return cudaErrorInvalidResourceHandle;
    if (!is_launchable(l)) return cudaErrorInvalidConfiguration;
    if (l->shared_bytes > emu_shared_allowed(l->kernel)) return cudaErrorInvalidValue;
    for (size_t i = 0; i < n_pointers; i++) {
        if (pointers[i] && !emu_is_vram(pointers[i], 0, gpu) && !emu_is_pinned(pointers[i], 0))
            emu_die("%s: argument %zu, %p, is no memory of this GPU", emu_name(l->kernel), i, pointers[i]);
    }
    return cudaSuccess;
}

cudaError_t emu_launch_kernel(const emu_launch *l, const void *const pointers[], size_t n_pointers,
                              cudaStream_t s)
{
    op o = {.kind = OP_LAUNCH, .launch = *l};
    cudaError_t e;

    if (emu_enter("cudaLaunchKernel")) e = emu_failure();
    else if ((e = check_launch(l, pointers, n_pointers, s)) == cudaSuccess) e = add(s, &o);
    if (e != cudaSuccess) free(l->args);
    return emu_leave(e);
}

/* --- streams ------------------------------------------------------------------------------------------- */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    cudaStream_t s;

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!(s = calloc(1, sizeof *s))) return emu_leave(cudaErrorMemoryAllocation);
    s->end = &s->first;
    s->gpu = emu_gpu();
    s->flags = flags;
    s->next = streams;
    streams = s;
    *out = s;
    return emu_leave(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!s || s->capture) return emu_leave(cudaErrorInvalidResourceHandle);
    run_all(s);
    for (cudaStream_t *at = &streams; *at; at = &(*at)->next) {
        if (*at != s) continue;
        *at = s->next;
        break;
    }
    free(s);
    return emu_leave(cudaSuccess);
}

/* Waiting while something is captured is an error, which the capture does not survive. */
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if ((!s || s->capture) && emu_is_capturing()) return emu_leave(cudaErrorStreamCaptureUnsupported);
    if (s) run_all(s);
    else emu_finish(false);
    return emu_leave(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (emu_is_capturing()) return emu_leave(cudaErrorStreamCaptureUnsupported);
    emu_finish(true);
    return emu_leave(cudaSuccess);
}

/* Every question brings it one thing further, so that asking again and again comes to an end. */
cudaError_t cudaStreamQuery(cudaStream_t s)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!s) emu_finish(false);
    else run_one(s);
    if (!s || !s->first) return emu_leave(cudaSuccess);
    emu_leave(cudaSuccess);
    return cudaErrorNotReady; /* which is no error */
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    op o = {.kind = OP_WAIT, .event = e, .number = e->recorded};

    (void)flags;
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!s || s->capture) return emu_leave(cudaErrorStreamCaptureUnsupported);
    return emu_leave(e->recorded ? add(s, &o) : cudaSuccess);
}

/* --- events --------------------------------------------------------------------------------------------- */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!(*out = calloc(1, sizeof **out))) return emu_leave(cudaErrorMemoryAllocation);
    (*out)->flags = flags;
    return emu_leave(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, cudaEventDefault);
}

/* Gone also when it fails, as the runtime's are: nobody can try again. */
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    bool fails = emu_enter(__func__);

    if (!e) return emu_leave(cudaErrorInvalidResourceHandle);
    emu_finish(true);
    free(e);
    return emu_leave(fails ? emu_failure() : cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    op o = {.kind = OP_RECORD, .event = e};

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (s && s->capture) return emu_leave(cudaErrorStreamCaptureUnsupported);
    o.number = ++e->recorded;
    e->stream = s;
    return emu_leave(add(s, &o));
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (e->done < e->recorded) run_until(e->stream, e, e->recorded);
    return emu_leave(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (e->done < e->recorded) run_one(e->stream);
    emu_leave(cudaSuccess);
    return e->done < e->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if ((from->flags | to->flags) & cudaEventDisableTiming || !from->recorded || !to->recorded)
        return emu_leave(cudaErrorInvalidResourceHandle);
    if (from->done < from->recorded || to->done < to->recorded) return emu_leave(cudaErrorNotReady);
    *ms = (float)(to->ms - from->ms);
    return emu_leave(cudaSuccess);
}

/* --- graphs --------------------------------------------------------------------------------------------- */
static void graph_release(cudaGraph_t g)
{
    if (--g->users) return;
    for (op *o = g->first, *next; o; o = next) {
        next = o->next;
        op_free(o);
    }
    free(g);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    (void)mode;
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!s) return emu_leave(cudaErrorStreamCaptureUnsupported);
    if (s->capture) return emu_leave(cudaErrorIllegalState);
    if (!(s->capture = calloc(1, sizeof *s->capture))) return emu_leave(cudaErrorMemoryAllocation);
    s->capture->end = &s->capture->first;
    s->capture->users = 1;
    return emu_leave(cudaSuccess);
}

/* Ends the capture in every case. */
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    cudaGraph_t g;
    bool fails = emu_enter(__func__);

    *out = NULL;
    if (!s || !(g = s->capture)) return emu_leave(cudaErrorIllegalState);
    s->capture = NULL;
    if (!fails && !g->is_invalid) {
        *out = g;
        return emu_leave(cudaSuccess);
    }
    graph_release(g);
    return emu_leave(fails ? emu_failure() : cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags)
{
    (void)flags;
    *out = NULL;
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (!(*out = calloc(1, sizeof **out))) return emu_leave(cudaErrorMemoryAllocation);
    (*out)->graph = g;
    g->users++;
    return emu_leave(cudaSuccess);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t g, unsigned long long flags)
{
    return cudaGraphInstantiate(out, g, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t g, cudaStream_t s)
{
    (void)g, (void)s;
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    return emu_leave(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s)
{
    op o = {.kind = OP_GRAPH, .graph = g};

    if (emu_enter(__func__)) return emu_leave(emu_failure());
    if (s && s->capture) return emu_leave(cudaErrorStreamCaptureUnsupported);
    return emu_leave(add(s, &o));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    emu_finish(true); /* it may still have to run */
    graph_release(g->graph);
    free(g);
    return emu_leave(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    if (emu_enter(__func__)) return emu_leave(emu_failure());
    graph_release(g);
    return emu_leave(cudaSuccess);
}
