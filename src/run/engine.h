/* One device's part of a model, ready to compute: its windows of layers with their KV cache, the head (where
 * it is one), threads and work buffers. A device that has everything takes tokens in and gives logits out; in
 * a ring each window is called on its own. */
#ifndef PRIMA_RUN_ENGINE_H
#define PRIMA_RUN_ENGINE_H
#include "src/model/forward.h"
#include "src/model/model.h"
#include "src/model/residency.h"

typedef struct {
    uint32_t first, end; /* layers [first, end); first == end: none */
} layer_range;

typedef struct {
    const char *isa; /* "ref" | "avx2" | "avx512" | "neon"; NULL = the best of this CPU */
    int n_threads;   /* 0 = pool_default_threads() */
    kv_type kv;
    size_t n_pages;            /* KV pages, numbered 0 .. n_pages - 1 */
    size_t max_tokens;         /* of a batch */
    size_t max_out;            /* rows of logits of a batch */
    const layer_range *window; /* [n_windows], one for each round, rising; NULL: all layers, cut in n_windows
                                * windows of nearly equal size (0 and 1: all in one) */
    uint32_t n_windows;
    bool is_worker; /* neither embedding nor output projection here; max_out is 0 */
    /* Weights that do not fit (residency.h). */
    const uint32_t *streamed; /* [n_windows] pieces of each window that are read in every pass; NULL: none */
    uint32_t buffer_pieces;   /* places of the read buffer, >= 2 where something is streamed */
    stream_kind stream;
    disk_read_options disk;
    const char *pack_dir;     /* NULL: CACHE/packs */
    const volatile int *stop; /* ends the building of packs; NULL: nothing does */
} engine_options;

typedef struct engine engine;

/* Reads the weights. m must outlive it; `window` is copied. PR_EUSAGE (isa, kv type), PR_ERESOURCE (memory;
 * names what is missing), PR_EINTEGRITY (a tensor is not in the file: gguf_holes.h). */
int engine_new(engine **out, const model *m, const engine_options *o, pr_err *err);
void engine_free(engine *e);

/* Bytes that engine_new will take. */
typedef struct {
    uint64_t weights, kv, buffers, total; /* buffers: with the read buffer */
    uint64_t streamed;                    /* not in memory: read in every pass */
} engine_memory;
engine_memory engine_need(const model *m, const engine_options *o);

/* Raise streamed[] (of o->n_windows; o->streamed is set to it) until engine_need is at most `budget` bytes,
 * as little as possible and by equal parts of the windows' layers. o->buffer_pieces stands already; it is
 * lowered where every piece is streamed and that is not enough (all places are as large as the largest
 * piece).
 * PR_ERESOURCE: too little even when every piece is streamed; says how much is missing. */
int engine_fit(const model *m, engine_options *o, uint32_t *streamed, uint64_t budget, pr_err *err);

/* What engine_new would refuse before it loads anything: an instruction set this CPU does not have, too
 * little memory, a part of the model where other layers are needed. *isa (may be NULL) is the instruction set
 * that will run. */
int engine_check(const model *m, const engine_options *o, const char **isa, pr_err *err);
/* The first of these alone. */
int engine_isa(const char *name, const char **isa, pr_err *err);

/* Everything in a row: embedding, all windows, logits of b->out. Only with a head. n_out <= max_out. Fails
 * only where weights are streamed and cannot be read. */
int engine_forward(engine *e, const batch *b, pr_err *err);
/* Its parts. hidden is [n_tokens][n_embd] f32; a window works in place, an empty one does nothing. */
void engine_embed(engine *e, const batch *b, float *hidden);
int engine_window(engine *e, size_t window, const batch *b, float *hidden, pr_err *err);
void engine_project(engine *e, const float *hidden, const int32_t *rows, size_t n_rows);
/* Logits of the i-th row of the last projection: n_vocab floats, valid until the next one. Row i begins
 * engine_logits_stride floats after row i - 1. */
const float *engine_logits(const engine *e, size_t i);
size_t engine_logits_stride(const engine *e);

typedef struct {
    size_t weights_bytes, kv_bytes, buffer_bytes;
    uint64_t streamed_bytes; /* read in every pass */
    const char *pages;       /* "2 MiB (madvise)" or "4 KiB" */
    const char *isa;
    int n_threads;
    double load_s;
} engine_facts;
engine_facts engine_about(const engine *e);
/* NULL where nothing is streamed. */
residency *engine_residency(const engine *e);

#endif
