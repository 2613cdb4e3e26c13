/* The planning problem in numbers: what is left of devices and model once profiles are read (cost.h makes
 * it). halda.md 7.1, where the symbols in brackets come from. Times in ms, sizes in bytes; device 0 is the
 * head; ring order = array order. */
#ifndef PRIMA_PLANNER_PROBLEM_H
#define PRIMA_PLANNER_PROBLEM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stream_memo;

enum { PROBLEM_MAX_DEVICES = 256, PROBLEM_MAX_ROUNDS = 32, PROBLEM_PIECES = 8 };

typedef struct {
    double cpu_ms;           /* [alphaC] one layer on the CPU, for the micro-batch of the problem */
    double gpu_ms;           /* [alphaG] one layer on the GPU; ignored when vram_bytes is 0 */
    double out_ms;           /* [C_out] output projection if this device is the head */
    double hop_ms;           /* [t] handing one micro-batch's hidden state to the next device */
    double ram_bytes;        /* [avail] what prima may use, reserve already taken off */
    double cpu_buffer_bytes; /* [c_cpu] taken when the device has at least one CPU layer */
    double head_bytes; /* [io] taken when it is the head: embedding row cache, output projection, logits */
    double vram_bytes; /* 0 = no GPU */
    double gpu_buffer_bytes;  /* [c_gpu] taken when it has at least one GPU layer */
    double gpu_output_bytes;  /* not 0: as head it has the output projection on its GPU; vram_bytes and
                               * head_bytes are without these, out_ms is the GPU's */
    double disk_bytes_per_ms; /* [s] of the runtime's reader; 0 = nothing may be streamed on this device */
    double theta;             /* [theta] share of its own compute during which its disk may run, 0..1 */
    int fixed_layers, fixed_gpu_layers; /* pinned by the user; -1 = free */
    /* The same for a chunk of a prompt (problem.prefill_tokens), which the simulator and the time to the
     * first token use; 0 = not known. */
    double prefill_cpu_ms, prefill_gpu_ms, prefill_hop_ms;
    char name[33]; /* for messages; "" = "device 2" */
} problem_device;

typedef struct {
    uint32_t n_layers;  /* [L] */
    double layer_bytes; /* [b] mean */
    uint32_t pieces; /* [Q] parts of a layer, equal in size, each of which is resident or streamed, read and
                      * waited for as one: what the runtime does (PROBLEM_PIECES). 0 = any number of bytes
                      * and as many windows as rounds: the idealisation of halda.md 7.1 */
    uint32_t prefill_tokens; /* tokens of a chunk of a prompt; 0 = prefill is not known */
    double kv_layer_bytes;   /* [kv] of all slots at full context, one layer */
    size_t n_devices;        /* [M] */
    problem_device device[PROBLEM_MAX_DEVICES];
    uint32_t min_rounds, max_rounds; /* k that are tried; min_rounds 0 counts as 1 */
    bool throughput; /* false: time of one pass with one micro-batch in flight (latency). true: time between
                      * finished micro-batches with in_flight of them in the ring (halda.md 7.6) */
    uint32_t in_flight;       /* [F] throughput only: micro-batches in the ring at a time, ceil(slots /
                               * micro-batch). 0 = so many that only the busiest device counts */
    struct stream_memo *memo; /* borrowed (stream.h); NULL: the same answers, later */
} problem;

/* What streams (pieces > 0). q = layer_bytes / pieces, n = pieces x CPU layers, room = floor(A / q).
 *
 * n <= room: everything is resident. Else the device needs a disk and room >= 2: one piece is computed while
 * the next is read (with one, reading and computing would take turns; such a device gets no CPU layers).
 *
 * B pieces of room are the read buffer, 2 <= B <= room (with one window 2: a larger one would read more and
 * hide nothing behind the other devices), and room - B pieces are resident. The others are read in every pass
 *
 *     X = n - (room - B)
 *
 * spread over the w = min(k, CPU layers) windows, but never more than a window has (problem_streamed):
 *
 *     x_r = floor((r+1) X / w) - floor(r X / w)
 *
 * Inside a window of n_r pieces streamed ones come in turn with resident ones: the first is number
 * ceil(n_r / x_r), the last is the last. The window begins with a full buffer, so the disk goes on when the
 * first one is computed. The x_r - B pieces that are not there then hide behind theta of the compute until
 * the last one is needed:
 *
 *     stall = sum of max(0, (x_r - B) q / s - theta (n_r - ceil(n_r / x_r) - 1) alphaC / pieces)
 *
 * This is never less than max(0, u q / s - theta C), u = sum of max(0, x_r - B): halda.md 7.1. The disk works
 * X q / s a pass, and not in (1 - theta) C of it.
 *
 * A larger B never has a longer stall, and always reads more: the smallest B without a stall is the largest
 * that can be worth it. Every micro-batch reads for itself: to read once for all sequences, make the
 * micro-batch as large as the slots (search.h tries that). */
typedef struct {
    /* Decisions. The rest is what assignment_evaluate makes of them. */
    uint32_t layers, gpu_layers; /* [l, g] */
    uint32_t buffer_pieces;      /* [B]; 0 = the model chooses, and writes here what it chose. Stays 0 where
                                  * nothing is streamed and where problem.pieces is 0. Whoever changes layers
                                  * of an evaluated assignment sets it to 0 */

    double compute_ms;        /* [C] per pass, without the output projection */
    double stall_ms;          /* exposed disk time per pass */
    double disk_ms;           /* [X/s] total disk time per pass */
    double net_ms;            /* hops per pass */
    double excess_bytes;      /* [E] of its CPU layers that do not fit */
    double buffer_bytes;      /* [S] cyclic read buffer: B q */
    uint32_t streamed_pieces; /* [X] in pieces; 0 when problem.pieces is 0 */
    double read_bytes;        /* [X] read from disk per pass: X q */
} assignment_device;

/* What decides pass_ms. COMPUTE and NET only for throughput. */
typedef enum { BOUND_SUM, BOUND_DISK, BOUND_COMPUTE, BOUND_NET } assignment_bound;

typedef struct {
    uint32_t rounds; /* [k], a decision too */
    size_t n_devices;
    assignment_device device[PROBLEM_MAX_DEVICES];
    double pass_ms; /* [T]: time per token (latency), or between micro-batches (throughput) */
    assignment_bound bound;
    size_t bound_device; /* which device's disk, compute or link, when bound is not BOUND_SUM */
} assignment;

/* Fill in times and bytes of a for its decisions: T = max(weight (out_ms + sum of costs), largest bound) over
 * the devices' problem_device_cost. Buffers that are 0 are chosen so that T is least. Returns false when it
 * is infeasible (layers do not add up, RAM, VRAM, nothing to stream from, a buffer that is too small or
 * large, pins). This is the only place where the model stands; DP, brute force and the tests call it or its
 * pieces. The first device that lacks bytes goes to *lacking_device, how many to *missing (0: memory is not
 * the reason); both may be NULL. */
bool assignment_evaluate(const problem *p, assignment *a, size_t *lacking_device, double *missing);

/* The k that are tried: at most as many as layers, and PROBLEM_MAX_ROUNDS. */
uint32_t problem_first_rounds(const problem *p);
uint32_t problem_last_rounds(const problem *p);

/* Weight of the sum in T: 1 for latency, 1 / in_flight for throughput, 0 when so many are in flight that the
 * sum does not matter. */
double problem_sum_weight(const problem *p);

/* One device.
 *   cost_ms   its part of the sum: compute, stall, hops. The output projection is added to the sum once.
 *   bound_ms  no pass (throughput: micro-batch) takes less: its disk; for throughput also its compute, the
 *             head's with the output projection, and its hops.
 * Hops: a device with layers sends k times a pass. A head without layers sends once (the embeddings). `alone`
 * says that no other device has layers: then the head with them sends nothing, another device once (the last
 * hidden state, to the head). */
typedef struct {
    double cost_ms, bound_ms;
    assignment_device detail;
} device_cost;
/* With the largest buffer that can be worth it: the least cost, and of the bounds that go with it the least.
 * false = infeasible. */
bool problem_device_cost(const problem *p, size_t device, uint32_t rounds, uint32_t layers,
                         uint32_t gpu_layers, bool alone, device_cost *out);
/* The same with a buffer of that many pieces; false when it is no buffer for what c streams. Per piece less
 * bound_ms falls by q / s (never below a bound that is not the disk's). */
bool problem_set_buffer(const problem *p, size_t device, uint32_t rounds, uint32_t buffer_pieces,
                        device_cost *c);

/* [x_r] of a round, when `done` pieces are streamed in the rounds before: as even over the rounds with CPU
 * layers as these hold them. Round r has floor((r+1) c / k) - floor(r c / k) of c CPU layers, and of the GPU
 * layers likewise. */
uint32_t problem_streamed(uint32_t pieces, uint32_t rounds, uint32_t cpu_layers, uint32_t streamed,
                          uint32_t round, uint32_t done);

/* No plan takes less in which the device has these layers, for its compute and its disk. Quick, and most are
 * out by this. Fewer GPU layers take longer where the GPU is not slower than the CPU. */
double problem_least_ms(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers);

/* With more layers than this every plan takes longer than limit_ms, for the same reason. */
uint32_t problem_most_layers(const problem *p, size_t device, double limit_ms);

typedef enum { BUDGET_RAM, BUDGET_VRAM } problem_budget;
/* Bytes that device lacks to hold these layers, and in which budget; 0 = they fit. Pins are not looked at. */
double problem_missing_bytes(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers,
                             problem_budget *budget);
/* RAM with which the device holds just so many pieces of its CPU layers. */
double problem_ram_for(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers,
                       uint32_t pieces);
/* As many layers as the device's VRAM holds. */
uint32_t problem_max_gpu_layers(const problem *p, size_t device);
/* Of two feasible numbers of GPU layers none smaller than this one is better: for each option of the smaller,
 * with its read buffer, this one has an option that is not worse in cost and not in bound. True when the GPU
 * is not slower than the CPU and more than one layer, or none, stays with the CPU.
 *
 * Why. A layer more on the GPU costs no more compute, and leaves as many resident pieces (more by its KV
 * cache), so that PROBLEM_PIECES pieces less are read; that much the buffer may grow without reading more.
 * What computing hides grows less too, but
 *  - where a piece is read in no more time than computing one hides, there is no stall at all: of n pieces x
 *    streamed, (x - B) r <= (n - ceil(n/x) - 1) h since B >= 2, r <= h and x + ceil(n/x) <= n + 1;
 *  - else, with a buffer that is at most a layer larger, the stall does not grow: not derived, but tried for
 * all layers, rounds, resident pieces and buffers up to 16 layers at the rates where a window begins to wait,
 *    between which it is linear (test_reach.c: up to 9, and at random up to 80).
 * With one CPU layer left there is one window, whose buffer is the least: that may wait where two did not. */
bool problem_gpu_settles(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers);
/* The GPU is not slower than the CPU. */
bool problem_gpu_is_fast(const problem *p, size_t device);

#endif
