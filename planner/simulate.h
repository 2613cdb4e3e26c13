/* A problem's assignment played through, event by event: compute, disk, link, micro-batches in flight, and a
 * prompt's chunks before them. A second opinion on problem.h's closed formula: it shares the problem's
 * figures, not its formula. Of the assignment it takes the decisions only: rounds, layers, gpu_layers,
 * streamed_pieces, buffer_bytes. What is played, and where it differs from the formula: simulate.c. */
#ifndef PRIMA_PLANNER_SIMULATE_H
#define PRIMA_PLANNER_SIMULATE_H
#include "planner/problem.h"
#include "src/base/err.h"
#include <stdio.h>

/* One device's share of a decode pass. busy + disk_wait + send_wait + idle = pass_ms: what its compute did.
 * The other three lie over that. */
typedef struct {
    double busy_ms, disk_wait_ms, send_wait_ms, idle_ms; /* send_wait: two frames on the link already */
    double disk_busy_ms, send_ms;                        /* disk reading, link sending */
    double read_bytes;
} sim_device;

typedef struct {
    double pass_ms; /* steady state: time per pass (latency) or between finished micro-batches (throughput) */
    double first_ms;    /* how long the first decode pass took, without a prompt from an idle ring */
    double ttft_ms;     /* of the prompt, from an idle ring to its output projection; 0 without one */
    double prefill_tps; /* tokens of the prompt by that time; 0 without one */
    uint32_t in_flight; /* as played: the asked number, or as many as the links of this ring can hold */
    uint64_t n_events;
    size_t n_devices;
    sim_device device[PROBLEM_MAX_DEVICES]; /* per pass (per finished micro-batch), steady state */
} sim_result;

typedef struct {
    uint32_t passes;        /* of each micro-batch, at least 3; the first third is warm-up */
    uint32_t in_flight;     /* micro-batches, at least 1; 1 = latency */
    uint32_t prompt_tokens; /* a prompt of so many tokens goes first, alone; 0 = none */
    FILE *trace;            /* Chrome trace JSON, or NULL */
} sim_options;

/* PR_EUSAGE: options or layers that make no sense, a prompt where the problem has no figures for one.
 * PR_EINFEASIBLE names the device that lacks memory or a disk. PR_ERESOURCE: memory, or writing the trace. */
int simulate(const problem *p, const assignment *a, const sim_options *o, sim_result *r, pr_err *err);

#endif
