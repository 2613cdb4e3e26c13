/* A micro-batch on its way between two devices: a frame FRAME_PASS.
 *
 * Its matrix is the hidden states, rows x n_embd, f32 (exact), f16 or bf16. Behind it (`extra` bytes) stands
 * what the rows are, so that a worker keeps no state of sequences:
 *
 *     u32 n_runs, n_tokens
 *     n_runs x { u32 n, pos }               they cover tokens 0 .. n_tokens - 1 in order
 *     page tables of all runs, u32 each     run i has ceil((pos + n) / KV_PAGE) of them
 *     n_out x u32                           tokens whose logits are wanted, rising
 *
 * rows = n_tokens. Behind the last layer rows = n_out, and nothing stands behind them: the other rows are not
 * needed any more, and the head knows which micro-batch it is. In the header:
 * session (which making of the ring), batch (the micro-batch), round and layer (what comes next), rank (the
 * sender). Little endian. Every number is checked against the limits of the job before it is used. */
#ifndef PRIMA_RUN_WIRE_H
#define PRIMA_RUN_WIRE_H
#include "net/link.h"
#include "src/model/batch.h"

/* What a frame may hold at most; the plan and the run decide. */
typedef struct {
    uint32_t n_embd, max_tokens, max_runs, max_out;
    uint32_t n_pages; /* of the KV caches: page numbers are below */
    uint32_t ctx;     /* positions are below */
    frame_elem elem;  /* how hidden states travel */
} wire_limits;

/* Payload bytes of the largest frame. */
size_t wire_max_bytes(const wire_limits *l);

/* A parcel's micro-batch, read. Its arrays belong to the wire_batch; hidden states stay in the parcel. */
typedef struct {
    batch b;          /* token is NULL: only the head knows them */
    batch_run *run;   /* [max_runs] */
    int32_t *pages;   /* page tables of all runs, one behind the other */
    int32_t *out;     /* [max_out] */
    size_t max_table; /* pages of the longest sequence */
} wire_batch;
int wire_batch_init(wire_batch *w, const wire_limits *l, pr_err *err);
void wire_batch_clear(wire_batch *w);

/* Reads x (already received: shape and size of the frame are right) into w. PR_EPEER when it is malformed or
 * beyond the limits. */
int wire_read(wire_batch *w, const wire_limits *l, const parcel *x, pr_err *err);

/* Writes what x is into its header (rows, cols, elem, extra, payload_bytes) and the description behind the
 * hidden states, which begin at x->payload. */
void wire_write(parcel *x, const wire_limits *l, const batch *b);
/* The same behind the last layer: n_rows rows, no description. */
void wire_write_last(parcel *x, const wire_limits *l, size_t n_rows);

/* Hidden states to and from the wire's type, n values. */
void wire_pack(void *dst, const float *src, size_t n, frame_elem elem);
void wire_unpack(float *dst, const void *src, size_t n, frame_elem elem);

#endif
