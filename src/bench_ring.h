/* The parts of suite `ring` (bench_ring.c): what is computed, a ring of processes on this machine, links that
 * take their time, what others have measured, and the rows. */
#ifndef PRIMA_BENCH_RING_H
#define PRIMA_BENCH_RING_H
#include "src/base/csv.h"
#include "src/bench.h"
#include "src/model/model.h"
#include "src/run/engine.h"
#include "src/run/job.h"
#include "src/run/pipeline.h"
#include "src/run/stage.h"

enum {
    RING_BENCH_DEVICES = 8,
    RING_BENCH_DEPTH = 16,
    RING_BENCH_SEQUENCES = 16, /* that a split is planned for */
    RING_BENCH_MOST = 32,      /* that decode together at most */
    RING_BENCH_CTX = 576,
    RING_BENCH_PAGES = RING_BENCH_MOST * (RING_BENCH_CTX / KV_PAGE),
    RING_BENCH_CHUNK = 512 /* tokens of a micro-batch at most */
};

/* --- micro-batches that go round (bench_ring_lots.c) -----------------------------------------------------
 */
/* n tokens of each of the sequences, which are shared evenly among the micro-batches in flight; or a prompt
 * of n tokens in chunks. */
typedef struct {
    bool prompt;
    uint32_t n, sequences, in_flight, chunk;
} ring_load;

/* The micro-batches and their arrays. */
typedef struct ring_lots ring_lots;
int ring_lots_new(ring_lots **out, const hparams *hp, pr_err *err);
void ring_lots_free(ring_lots *l); /* NULL is fine */
/* Tokens a second: decoding from the moment when every micro-batch has been round once, a prompt from its
 * first byte. A micro-batch of decoding goes round once before anything is timed. */
int ring_lots_run(ring_lots *l, pipeline *p, const ring_load *load, double *tps, pr_err *err);
/* Token i of one sequence, in milliseconds. */
int ring_lots_token(ring_lots *l, pipeline *p, size_t i, double *ms, pr_err *err);
/* All micro-batches of the load through the windows of one device, one after the other as if each frame were
 * there when it is wanted; at the head also embedding and logits. */
int ring_lots_alone(ring_lots *l, engine *e, bool is_head, size_t n_windows, const ring_load *load,
                    pr_err *err);
/* One token of each of n sequences; valid until the next call. */
const batch *ring_lots_batch(ring_lots *l, size_t n);

/* --- a ring of processes (bench_ring_rig.c) ------------------------------------------------------------ */
typedef struct {
    uint32_t devices, rounds;
    uint32_t layers[RING_BENCH_DEVICES]; /* of each device, dealt out over the rounds as a plan does */
    frame_elem elem;
    uint64_t vram_bytes; /* 0: on the CPU. Else all layers, and the head's output, on this machine's one GPU,
                            of which each device may take so many bytes */
    int gpu;
} ring_shape;

/* The text of a plan for it, the caller's to free; greeting_s: how long devices wait for each other
 * (bench_ring_plan.c). */
int ring_shape_plan(const ring_shape *s, const model *m, double greeting_s, char **text, size_t *n_bytes,
                    pr_err *err);

/* How the devices are connected; the weights stay where they are. */
typedef struct {
    bool secure;     /* TLS with a key of this run's, else plain */
    double delay_ms; /* one way, of every link */
    bool empty;      /* devices without layers: for ring_rig_hop_us */
    size_t depth, chunk_tokens;
} ring_wiring;

typedef struct ring_rig ring_rig;

/* Starts a process for each worker, loads all, one thread each. Call it while this process has one thread. */
int ring_rig_new(ring_rig **out, const model *m, const char *isa, const ring_shape *shape, pr_err *err);
void ring_rig_free(ring_rig *r); /* ends the processes; NULL is fine */
/* Connects the devices in another way. *pipe is the ring's until the next call; NULL when empty. */
int ring_rig_wire(ring_rig *r, const ring_wiring *w, pipeline **pipe, pr_err *err);
/* The same devices and no ring: each computes all micro-batches of the load with its own layers, at the same
 * time as the others, and waits for none. Tokens a second, by the device that takes longest: with these
 * layers no ring of these processes is faster. Takes the ring apart. */
int ring_rig_apart(ring_rig *r, const ring_load *load, double *tps, pr_err *err);
/* The head's. */
engine_facts ring_rig_facts(const ring_rig *r);
/* Microseconds from the end of computing on a device to its beginning on the next, of all hidden states since
 * the last ring_rig_wire: the median. One micro-batch in flight, or waiting for others counts too. Takes the
 * ring apart. */
int ring_rig_link_us(ring_rig *r, double *us, pr_err *err);
/* Microseconds of a hop: n laps of one hidden state round an empty ring. */
int ring_rig_hop_us(ring_rig *r, size_t n, double *us, pr_err *err);

/* --- what the devices did and when (bench_ring_links.c) --------------------------------------------------
 */
typedef struct {
    span *s;
    size_t n, cap;
} ring_spans;
int ring_spans_take(ring_spans *all, stage *s, pr_err *err); /* adds those of this device */
bool ring_spans_send(int fd, const ring_spans *all);
int ring_spans_recv(int fd, ring_spans *all, pr_err *err); /* adds those of a worker */
/* ring_rig_link_us, from spans of all devices that began since then; they are put in another order. */
int ring_spans_link_us(ring_spans *all, uint64_t since_ns, double *us, pr_err *err);
void ring_spans_clear(ring_spans *all);

/* --- a link that takes its time (bench_ring_relay.c) ---------------------------------------------------- */
typedef struct ring_relay ring_relay;
/* Waits for one connection on a port of its own, connects to to_port, and hands on what comes from either
 * side delay_ms later, as fast as it comes. */
int ring_relay_start(ring_relay **out, uint16_t to_port, double delay_ms, pr_err *err);
uint16_t ring_relay_port(const ring_relay *r);
void ring_relay_stop(ring_relay *r); /* NULL is fine */

/* --- what others have measured (bench_ring_peers.c) ----------------------------------------------------- */
enum { RING_PEERS_MAX = 64 };
typedef struct {
    char tool[16], test[8]; /* "decode", "prompt" */
    uint32_t devices, rounds;
    double delay_ms, one_ms, ring_ms; /* a token, in one process and in the ring */
} ring_peer;
typedef struct {
    ring_peer peer[RING_PEERS_MAX];
    size_t n;
} ring_peers;
int ring_peers_read(ring_peers *out, const char *path, pr_err *err);
/* Rate in the ring over rate in one process; NaN when this tool was not measured like that. */
double ring_peers_ratio(const ring_peers *p, const char *tool, const char *test, uint32_t devices,
                        uint32_t rounds, double delay_ms);

/* --- the planner's split (bench_ring_split.c) ------------------------------------------------------------
 */
/* Layers of each of n equal devices as `prima plan` decides for the objective throughput, from what a layer
 * and the output take on e, which has all layers. */
int ring_split_planned(uint32_t layers[RING_BENCH_DEVICES], uint32_t n, engine *e, const hparams *hp,
                       ring_lots *lots, pr_err *err);

/* --- rows (bench_ring_rows.c) ------------------------------------------------------------------------------
 */
typedef enum { RING_DECODE, RING_PROMPT, RING_HOP } ring_test;
typedef enum { SPLIT_PLANNED, SPLIT_EVEN } ring_split;

typedef struct {
    uint32_t devices, rounds;
    ring_split split;
    frame_elem elem;
    ring_test test;
    uint32_t n; /* tokens of each sequence; laps */
    uint32_t sequences, in_flight, chunk;
    double delay_ms;
    bool secure;
} ring_case;

/* Of one repetition; NAN: not measured. */
typedef enum {
    FIGURE_BASE, /* tokens a second of what the ring is compared with */
    FIGURE_RING,
    FIGURE_RATIO,      /* of the two */
    FIGURE_HOP,        /* us */
    FIGURE_LINK,       /* us: ring_rig_link_us */
    FIGURE_CEILING,    /* ring_rig_apart */
    FIGURE_OF_CEILING, /* the ring over it */
    FIGURES
} ring_figure;

typedef struct {
    const char *isa;
    const hparams *hp;
    const uint32_t *layers; /* of each device */
    const ring_peers *peers;
    size_t reps;
    /* ring_gpu.csv: */
    const char *gpu_name; /* NULL: ring.csv */
    uint64_t vram_bytes, head_vram_bytes;
} ring_setting;

extern const char ring_header[], ring_gpu_header[];
void ring_case_name(char out[16], const ring_case *c); /* "tg10" */
bool ring_case_has_delay(const ring_case *c);
/* The row and a line in the log; sorts the figures. */
int ring_row(csv *file, const ring_case *c, const ring_setting *s, double figure[FIGURES][BENCH_MAX_REPS],
             pr_err *err);

#endif
