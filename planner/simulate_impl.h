/* What the simulator is made of: simulate_setup.c builds, simulate.c plays the ring, simulate_window.c a
 * window, simulate_steady.c sees when nothing new can happen, simulate_trace.c draws. */
#ifndef PRIMA_PLANNER_SIMULATE_IMPL_H
#define PRIMA_PLANNER_SIMULATE_IMPL_H
#include "planner/simulate.h"

enum { LINK_FRAMES = 2, NOBODY = -1 };
/* BUSY: with a window or the output projection, also while it waits for its disk. */
typedef enum { IDLE, BUSY, SEND_WAIT, N_STATES } compute_state;
typedef enum { COMPUTE, LINK, N_CLOCKS } clock_kind;
typedef enum { LANE_COMPUTE, LANE_DISK, LANE_LINK, N_LANES } trace_lane;

typedef struct {
    uint32_t gpu_layers;
    uint32_t resident, streamed; /* CPU pieces */
} sim_window;

typedef struct {
    double busy_ms, disk_wait_ms, send_wait_ms, idle_ms, read_bytes, send_ms;
} totals;

/* How a device stands at the end of a pass. */
typedef struct {
    uint64_t counts; /* a hash of what is counted */
    double clock_ms[N_CLOCKS], free_bytes, left_bytes;
} sim_mark;

/* A device's job with a micro-batch: the output projection when it is back at the head, then the window. */
typedef enum { JOB_OUTPUT, JOB_WINDOW, JOB_DONE } job_step;

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
    job_step step;
    double until, busy_ms, wait_ms; /* BUSY: its end, and what it consists of */
    double read_before;             /* BUSY: read_bytes as it began */
    bool *inbox;                    /* [most in flight] */
    /* disk, accounted for until read_since: while BUSY until the end of that */
    bool streams;
    double free_bytes, left_bytes; /* of the buffer; of the piece being read */
    double read_since, read_bytes;
    uint32_t ready;      /* pieces in the buffer that are not yet used */
    double read_started; /* for the trace; NAN: not reading */
    /* link: frames on the way, the oldest first; places taken by them and by those that arrived but wait */
    uint32_t on_link, credit_used;
    uint32_t link_batch[LINK_FRAMES];
    totals sum, at_warm;
    sim_mark mark;
    totals at_mark, at_last; /* and at the mark before */
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
    uint64_t n_left;                            /* need not be played: they are like the last one */
    double ttft_ms, decode_began_ms, first_ms, warm_ms;
    double mark_ms, last_ms;
    uint64_t places_at_mark; /* a hash of where the micro-batches are */
    bool trace_comma;
} sim;

/* Checks problem, assignment and options, and makes everything that does not move; the heap holds all clocks,
 * none running. s is zeroed; clear it also after an error. */
int sim_init(sim *s, const problem *p, const assignment *a, const sim_options *o, pr_err *err);
void sim_clear(sim *s);

/* The disk of n until a time, at this share of its rate; s->now does not matter. */
void disk_advance(sim *s, node *n, double to_ms, double share);
/* Plays a window that begins now, the disk accounted for, to its end, which is returned; fills in busy_ms and
 * wait_ms. */
double window_play(sim *s, node *n, const sim_window *w, double gpu_ms, double piece_ms);

/* What n did until now; half-way through a job its times are taken in proportion. */
void take_totals(sim *s, node *n, totals *t);
/* Marks the end of a pass of every micro-batch; true: the ring stands as at the last mark, of last_ms. */
bool steady_since_last(sim *s);

/* Chrome trace: nothing happens without o->trace. */
void trace_begin(sim *s);
void trace_span(sim *s, const node *n, trace_lane lane, const char *what, double from_ms, double to_ms);
const char *busy_name(const sim *s);
int trace_end(const sim *s, pr_err *err);

#endif
