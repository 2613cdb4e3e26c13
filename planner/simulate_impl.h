/* What the simulator is made of: simulate_setup.c builds it, simulate.c plays it. */
#ifndef PRIMA_PLANNER_SIMULATE_IMPL_H
#define PRIMA_PLANNER_SIMULATE_IMPL_H
#include "planner/simulate.h"

enum { LINK_FRAMES = 2, NOBODY = -1 };
typedef enum { IDLE, BUSY, DISK_WAIT, SEND_WAIT, N_STATES } compute_state;
typedef enum { COMPUTE, DISK, LINK, N_CLOCKS } clock_kind;

typedef struct {
    double gpu_ms;
    uint32_t resident, streamed; /* CPU pieces */
} sim_window;

typedef struct {
    double state_ms[N_STATES], read_bytes, send_ms;
} totals;

typedef struct {
    const problem_device *d;
    sim_window *window; /* [rounds] */
    double piece_ms;
    int next; /* device after it in the ring, of those with layers */
    bool active;
    /* compute */
    compute_state state;
    double since;
    uint64_t visit; /* how many frames it has served */
    uint32_t batch; /* being served, or held until the link has room */
    uint32_t step;
    bool *inbox; /* [in_flight] */
    /* disk */
    bool streams;
    double free_bytes, left_bytes; /* of the buffer; of the piece being read */
    double rate, read_since, planned_bytes;
    uint32_t ready;
    double read_started; /* for the trace; NAN: not reading */
    /* link: frames sent and not yet taken, the oldest first; the first `arrived` of them are over there */
    uint32_t on_link, credit_used;
    uint32_t link_batch[LINK_FRAMES];
    totals sum, at_warm;
} node;

typedef struct {
    uint32_t round;
    bool wants_output;
    int sender; /* whose link it takes a place of; NOBODY */
    int to;
} micro_batch;

typedef struct {
    const problem *p;
    const sim_options *o;
    uint32_t rounds, pieces, n_batches;
    double piece_bytes;
    size_t n_nodes;
    node *node;
    micro_batch *batch;
    int first, last; /* active devices */
    double now;
    double *clock; /* [n_nodes * N_CLOCKS] */
    size_t *heap, *place;
    uint64_t n_done, n_warm, n_total;
    double first_ms, warm_ms;
    bool trace_comma;
} sim;

/* Checks problem, assignment and options, and makes everything that does not move; the heap holds all clocks,
 * none running. s is zeroed; clear it also after an error. */
int sim_init(sim *s, const problem *p, const assignment *a, const sim_options *o, pr_err *err);
void sim_clear(sim *s);

#endif
