/* A problem's assignment played through, event by event: compute, disk, link, micro-batches in flight. A
 * second opinion on problem.h's closed formula: it shares the problem's figures, not its formula. Of the
 * assignment it takes the decisions only: rounds, layers, gpu_layers, buffer_bytes. */
#ifndef PRIMA_PLANNER_SIMULATE_H
#define PRIMA_PLANNER_SIMULATE_H
#include "planner/problem.h"
#include "src/base/err.h"
#include <stdio.h>

/* One device's share of a pass. busy + disk_wait + send_wait + idle = pass_ms: what its compute did. The
 * other three lie over that. */
typedef struct {
    double busy_ms, disk_wait_ms, send_wait_ms, idle_ms; /* send_wait: two frames on the link already */
    double disk_busy_ms, send_ms;                        /* disk reading, link sending */
    double read_bytes;
} sim_device;

typedef struct {
    double pass_ms; /* steady state: time per pass (latency) or between finished micro-batches (throughput) */
    double first_ms;    /* when the first pass was finished, caches cold but pinned layers loaded */
    uint32_t in_flight; /* as played: the asked number, or as many as the links of this ring can hold */
    size_t n_devices;
    sim_device device[PROBLEM_MAX_DEVICES]; /* per pass (per finished micro-batch), steady state */
} sim_result;

typedef struct {
    uint32_t passes;    /* of each micro-batch, at least 3; the first third is warm-up */
    uint32_t in_flight; /* micro-batches, at least 1; 1 = latency */
    uint32_t pieces;    /* parts of a layer that are resident or streamed, and waited for, on their own:
                         * 0 and 1 = whole layers */
    bool spread;        /* inside a window: false = GPU, resident, streamed last (halda.md 7.4);
                         * true = GPU, then resident and streamed parts in turn */
    FILE *trace;        /* Chrome trace JSON, or NULL */
} sim_options;

/* PR_EUSAGE: options or layers that make no sense. PR_EINFEASIBLE names the device that lacks memory or a
 * disk: also one whose RAM for weights holds no whole part, which the closed formula does not see.
 * PR_ERESOURCE: memory, or writing the trace. */
int simulate(const problem *p, const assignment *a, const sim_options *o, sim_result *r, pr_err *err);

#endif
