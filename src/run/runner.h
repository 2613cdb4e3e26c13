/* The job: requests in, completions and timings out, until all are done or somebody stops it. */
#ifndef PRIMA_RUN_RUNNER_H
#define PRIMA_RUN_RUNNER_H
#include "src/run/output.h"
#include "src/run/pipeline.h"
#include <signal.h>

typedef struct {
    const model *m;
    pipeline *pipe;
    prompts *p;
    output *o;
    timings *t;         /* NULL: none wanted */
    progress *progress; /* for the status line */
    size_t slots, n_pages;
    uint64_t start_ns;                     /* of the run: times of requests count from here */
    double grace_s;                        /* after a signal, running requests may finish this long */
    const volatile sig_atomic_t *stop;     /* the signal that asked to stop, 0 = none */
    const volatile sig_atomic_t *stop_now; /* set by a second signal */
    bool warn_greedy;                      /* this model tends to loop when greedy: say so once */
} runner_options;

typedef struct {
    size_t n_ok, n_failed; /* in this run */
    size_t prompt_tokens, completion_tokens, cached_tokens;
    size_t passes; /* micro-batches computed */
    double wall_s; /* first admission to last completion */
} runner_result;

/* PR_OK; PR_EINTERRUPTED after a signal (what was finished is on disk); PR_ERESOURCE (disk, memory). */
int runner_run(const runner_options *o, runner_result *result, pr_err *err);

#endif
