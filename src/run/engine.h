/* One device's part of a model, ready to compute: its windows of layers with their KV cache, the head (where
 * it is one), threads and work buffers. A device that has everything takes tokens in and gives logits out; in
 * a ring each window is called on its own. */
#ifndef PRIMA_RUN_ENGINE_H
#define PRIMA_RUN_ENGINE_H
#include "src/model/forward.h"
#include "src/model/gpu_layers.h"
#include "src/model/model.h"
#include "src/model/residency.h"

typedef struct {
    uint32_t first, end; /* layers [first, end); first == end: none */
} layer_range;

/* Layers of a window on a GPU. They are the window's first; parts of one window follow each other. */
typedef struct {
    uint32_t window;
    int gpu; /* kernels/cuda/device.h */
    uint32_t n_layers;
} engine_gpu_part;
/* The most that may be taken of a GPU's memory. */
typedef struct {
    int gpu;
    uint64_t budget;
} engine_gpu_cap;
enum { ENGINE_MAX_GPUS = 8 };

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
    /* GPUs, at most ENGINE_MAX_GPUS. Streamed pieces are of the layers on the CPU. */
    const engine_gpu_part *gpu_part; /* [n_gpu_parts] by rising window; copied */
    size_t n_gpu_parts;
    bool output_on_gpu; /* the output projection too, on output_gpu; not with is_worker */
    int output_gpu;
    const engine_gpu_cap *gpu_cap; /* [n_gpu_caps]; a GPU without one: what is free */
    size_t n_gpu_caps;
    size_t max_runs, max_positions; /* of a batch, of a sequence; 0: max_tokens, all pages. Only GPUs ask */
} engine_options;

typedef struct engine engine;

/* Reads the weights. m must outlive it; `window` is copied. PR_EUSAGE (isa, kv type, what no GPU can do),
 * PR_ERESOURCE (memory, VRAM; names what is missing; no GPU, and why), PR_EINTEGRITY (a tensor is not in the
 * file: gguf_holes.h). */
int engine_new(engine **out, const model *m, const engine_options *o, pr_err *err);
void engine_free(engine *e);

/* Bytes that engine_new will take. */
typedef struct {
    uint64_t weights, kv, buffers, total; /* RAM; buffers: with the read buffer */
    uint64_t streamed;                    /* not in memory: read in every pass */
    gpu_memory gpu;                       /* VRAM of all GPUs together; zeros where they cannot do it */
} engine_memory;
engine_memory engine_need(const model *m, const engine_options *o);

/* Raise streamed[] (of o->n_windows; o->streamed is set to it) until engine_need is at most `budget` bytes,
 * as little as possible and by equal parts of the windows' layers. o->buffer_pieces stands already; it is
 * lowered where every piece is streamed and that is not enough (all places are as large as the largest
 * piece).
 * PR_ERESOURCE: too little even when every piece is streamed; says how much is missing. */
int engine_fit(const model *m, engine_options *o, uint32_t *streamed, uint64_t budget, pr_err *err);

/* What engine_new would refuse before it loads anything: an instruction set this CPU does not have, too
 * little memory, no GPU where one is needed or more VRAM than its cap, a part of the model where other
 * layers are needed. *isa (may be NULL) is the instruction set
 * that will run. */
int engine_check(const model *m, const engine_options *o, const char **isa, pr_err *err);
/* The first of these alone. */
int engine_isa(const char *name, const char **isa, pr_err *err);

/* At most so many layers on a GPU, by equal parts of the windows: they become o's parts (part: room for
 * n_windows of them, borrowed), and where these are all layers the output projection too, if there is one.
 * Returns how many. */
uint32_t engine_use_gpu(const model *m, engine_options *o, int gpu, engine_gpu_part *part, uint32_t most);
/* The same with the most that fit into its free memory, less a part that the driver and others want, or into
 * its cap where that is less. 0: none, or the GPU or the model cannot; *why says which. */
uint32_t engine_fit_gpu(const model *m, engine_options *o, int gpu, engine_gpu_part *part, pr_err *why);

/* Everything in a row: embedding, all windows, logits of b->out. Only with a head. n_out <= max_out. Fails
 * only where weights are streamed and cannot be read, or a GPU is lost. */
int engine_forward(engine *e, const batch *b, pr_err *err);
/* Its parts. hidden is [n_tokens][n_embd] f32; a window works in place, an empty one does nothing. */
void engine_embed(engine *e, const batch *b, float *hidden);
int engine_window(engine *e, size_t window, const batch *b, float *hidden, pr_err *err);
int engine_project(engine *e, const float *hidden, const int32_t *rows, size_t n_rows, pr_err *err);
/* Logits of the i-th row of the last projection: n_vocab floats, valid until the next one. Row i begins
 * engine_logits_stride floats after row i - 1. */
const float *engine_logits(const engine *e, size_t i);
size_t engine_logits_stride(const engine *e);

typedef struct {
    size_t weights_bytes, kv_bytes, buffer_bytes;
    uint64_t streamed_bytes; /* read in every pass */
    gpu_memory gpu;          /* VRAM taken */
    uint32_t gpu_layers;
    char gpu_name[64]; /* "" without; of the first one */
    const char *pages; /* "2 MiB (madvise)" or "4 KiB" */
    const char *isa;
    int n_threads;
    double load_s;
} engine_facts;
engine_facts engine_about(const engine *e);
/* Since the beginning: how long GPUs were at work. One caller at a time, the one that computes. */
double engine_gpu_busy_ms(const engine *e);
/* A GPU has failed: the engine is only freed, and CUDA in this process may not come back. The same caller. */
bool engine_is_lost(const engine *e);
/* NULL where nothing is streamed. */
residency *engine_residency(const engine *e);

#endif
