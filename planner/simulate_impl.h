/* What the simulator is made of: simulate_setup.c builds, simulate.c plays, simulate_trace.c draws it. */
#ifndef PRIMA_PLANNER_SIMULATE_IMPL_H
#define PRIMA_PLANNER_SIMULATE_IMPL_H
#include "planner/simulate.h"

enum { LINK_FRAMES = 2, NOBODY = -1 };
typedef enum { IDLE, BUSY, DISK_WAIT, SEND_WAIT, N_STATES } compute_state;
typedef enum { COMPUTE, DISK, LINK, N_CLOCKS } clock_kind;

typedef struct {
    uint32_t gpu_layers;
    uint32_t resident, streamed; /* CPU pieces */
} sim_window;

typedef struct {
    double state_ms[N_STATES], read_bytes, send_ms;
} totals;

typedef struct {
    const problem_device *d;
    sim_window *window; /* [rounds] */
    int next;           /* device after it in the ring, of those with layers */
    bool active;
    /* compute */
    compute_state state;
    double since;
    uint64_t pass; /* with round and slot: whose frame it serves next */
    uint32_t round, slot;
    uint32_t batch; /* being served, or held until the link has room */
    uint32_t step;
    bool *inbox; /* [most in flight] */
    /* disk */
    bool streams;
    double free_bytes, left_bytes; /* of the buffer; of the piece being read */
    double rate, read_since, planned_bytes;
    uint32_t ready;      /* pieces in the buffer that are not yet used */
    double read_started; /* for the trace; NAN: not reading */
    /* link: frames on the way, the oldest first; places taken by them and by those that arrived but wait */
    uint32_t on_link, credit_used;
    uint32_t link_batch[LINK_FRAMES];
    totals sum, at_warm;
} node;

/* A micro-batch, or the place in the ring that a prompt's chunks take one after the other. */
typedef struct {
    uint32_t round, chunk;
    bool is_back; /* at the head, or on its way to it, with all rounds done */
    int sender;   /* whose link it takes a place of; NOBODY */
    int to;
} micro_batch;

typedef struct {
    const problem *p;
    const sim_options *o;
    uint32_t rounds, pieces;
    uint32_t n_chunks, chunks_in_flight, batches_in_flight;
    bool prefill;       /* the prompt is being played */
    uint32_t n_batches; /* in flight now */
    double piece_bytes;
    size_t n_nodes;
    node *node;
    micro_batch *batch;
    int first, last; /* active devices */
    double now;
    double *clock; /* [n_nodes * N_CLOCKS] */
    size_t *heap, *place;
    uint64_t n_events, n_done, n_warm, n_total; /* passes */
    double ttft_ms, decode_began_ms, first_ms, warm_ms;
    bool trace_comma;
} sim;

/* Checks problem, assignment and options, and makes everything that does not move; the heap holds all clocks,
 * none running. s is zeroed; clear it also after an error. */
int sim_init(sim *s, const problem *p, const assignment *a, const sim_options *o, pr_err *err);
void sim_clear(sim *s);

/* Chrome trace: nothing happens without o->trace. A span ends now. */
void trace_begin(sim *s);
void trace_span(sim *s, const node *n, clock_kind lane, const char *what, double from_ms);
int trace_end(const sim *s, pr_err *err);

#endif
