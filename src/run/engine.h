/* A model that computes: the windows of this device, the head, and their work buffers. tokens in, logits out.
 */
#ifndef PRIMA_RUN_ENGINE_H
#define PRIMA_RUN_ENGINE_H
#include "src/model/forward.h"
#include "src/model/model.h"

typedef struct {
    const char *isa; /* "ref" | "avx2" | "avx512" | "neon"; NULL = the best of this CPU */
    int n_threads;   /* 0 = pool_default_threads() */
    kv_type kv;
    size_t n_pages;     /* KV pages, numbered 0 .. n_pages - 1 */
    size_t max_tokens;  /* of a batch */
    size_t max_out;     /* rows of logits of a batch */
    uint32_t n_windows; /* layers are cut in this many windows of nearly equal size; 1 = all in one */
} engine_options;

typedef struct engine engine;

/* Reads the weights. m must outlive it. PR_EUSAGE (isa, kv type), PR_ERESOURCE (memory; names what is
 * missing). */
int engine_new(engine **out, const model *m, const engine_options *o, pr_err *err);
void engine_free(engine *e);

/* Bytes that engine_new will take. */
typedef struct {
    uint64_t weights, kv, buffers, total;
} engine_memory;
engine_memory engine_need(const model *m, const engine_options *o);

/* What engine_new would refuse before it reads anything: an instruction set this CPU does not have, too
 * little memory. *isa (may be NULL) is the instruction set that will run. */
int engine_check(const model *m, const engine_options *o, const char **isa, pr_err *err);

/* Logits of b->out[i] at engine_logits(e, i), valid until the next call. n_out <= max_out. */
void engine_forward(engine *e, const batch *b);
const float *engine_logits(const engine *e, size_t i);

typedef struct {
    size_t weights_bytes, kv_bytes, buffer_bytes;
    const char *pages; /* "2 MiB (madvise)" or "4 KiB" */
    const char *isa;
    int n_threads;
    double load_s;
} engine_facts;
engine_facts engine_about(const engine *e);

#endif
