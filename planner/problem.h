/* The planning problem in numbers: what is left of devices and model once profiles are read (cost.h makes
 * it). halda.md 7.1, where the symbols in brackets come from. Times in ms, sizes in bytes; device 0 is the
 * head; ring order = array order. */
#ifndef PRIMA_PLANNER_PROBLEM_H
#define PRIMA_PLANNER_PROBLEM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROBLEM_MAX_DEVICES = 64, PROBLEM_MAX_ROUNDS = 32 };

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
    double disk_bytes_per_ms; /* [s] of the runtime's reader; 0 = nothing may be streamed on this device */
    double theta;             /* [theta] share of its own compute during which its disk may run, 0..1 */
    int fixed_layers, fixed_gpu_layers; /* pinned by the user; -1 = free */
    char name[33];                      /* for messages; "" = "device 2" */
} problem_device;

typedef struct {
    uint32_t n_layers;     /* [L] */
    double layer_bytes;    /* [b] mean */
    double kv_layer_bytes; /* [kv] of all slots at full context, one layer */
    size_t n_devices;      /* [M] */
    problem_device device[PROBLEM_MAX_DEVICES];
    uint32_t max_rounds; /* k = 1 .. max_rounds are tried */
    bool throughput; /* false: time of one pass with one micro-batch in flight (latency). true: time between
                      * micro-batches with enough of them in flight: the busiest device decides (halda.md 7.6)
                      */
} problem;

typedef struct {
    uint32_t layers, gpu_layers; /* [l, g] */
    double compute_ms;           /* [C] per pass, without the output projection */
    double stall_ms;             /* exposed disk time per pass */
    double disk_ms;              /* [X/s] total disk time per pass */
    double net_ms;               /* hops per pass */
    double excess_bytes;         /* [E] of its CPU layers that do not fit */
    double buffer_bytes;         /* [S] cyclic read buffer */
    double read_bytes;           /* [X] read from disk per pass */
} assignment_device;

/* What decides pass_ms. SUM only for latency, COMPUTE and NET only for throughput. */
typedef enum { BOUND_SUM, BOUND_DISK, BOUND_COMPUTE, BOUND_NET } assignment_bound;

typedef struct {
    uint32_t rounds; /* [k] */
    size_t n_devices;
    assignment_device device[PROBLEM_MAX_DEVICES];
    double pass_ms; /* [T]: time per token (latency), or between micro-batches (throughput) */
    assignment_bound bound;
    size_t bound_device; /* which device's disk or compute, when bound is not BOUND_SUM */
} assignment;

/* Fill in times and bytes of a for its rounds, layers and gpu_layers by the model of halda.md 7.1: one active
 * device: no hop. Returns false when it is infeasible (layers do not add up, RAM, VRAM, nothing to stream
 * from, pins). This is the only place where the model stands; DP, brute force and the tests call it or its
 * pieces. The first device that lacks bytes goes to *lacking_device, how many to *missing (0: memory is not
 * the reason); both may be NULL. */
bool assignment_evaluate(const problem *p, assignment *a, size_t *lacking_device, double *missing);

/* The pieces for one device: false = infeasible.
 *   latency     cost_ms adds up over the devices (the output projection is added to the sum once), bound_ms
 * is the device's own steady-state disk limit: T = max(sum of costs, largest bound) throughput  cost_ms is
 * the largest of its compute (the head's with the output projection) and its hops; T = max over the devices
 * of cost_ms and bound_ms */
typedef struct {
    double cost_ms, bound_ms;
    assignment_device detail;
} device_cost;
bool problem_device_cost(const problem *p, size_t device, uint32_t rounds, uint32_t layers,
                         uint32_t gpu_layers, bool alone, device_cost *out);

typedef enum { BUDGET_RAM, BUDGET_VRAM } problem_budget;
/* Bytes that device lacks to hold these layers, and in which budget; 0 = they fit. Pins are not looked at. */
double problem_missing_bytes(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers,
                             problem_budget *budget);

#endif
