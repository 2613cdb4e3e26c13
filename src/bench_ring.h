/* The parts of suite `ring` (bench_ring.c): a ring of processes on this machine, links that take their time,
 * and what others have measured. */
#ifndef PRIMA_BENCH_RING_H
#define PRIMA_BENCH_RING_H
#include "src/model/model.h"
#include "src/run/engine.h"
#include "src/run/job.h"
#include "src/run/pipeline.h"

enum { RING_BENCH_DEVICES = 8, RING_BENCH_DEPTH = 16, RING_BENCH_SEQUENCES = 16, RING_BENCH_CTX = 576 };

/* --- a ring of processes (bench_ring_rig.c) ------------------------------------------------------------ */
typedef struct {
    uint32_t devices, rounds;
    uint32_t layers[RING_BENCH_DEVICES]; /* of each device, dealt out over the rounds as a plan does */
    frame_elem elem;
} ring_shape;

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
/* Microseconds of a hop: n laps of one hidden state round an empty ring. */
int ring_rig_hop_us(ring_rig *r, size_t n, double *us, pr_err *err);

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

#endif
