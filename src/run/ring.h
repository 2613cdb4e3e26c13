/* The head's side of a run on several devices: starts or finds the workers, gives them their jobs, makes the
 * ring, notices when a device is lost, and makes the ring again: with the device when it comes back, else
 * without it on the plan's fallback. */
#ifndef PRIMA_RUN_RING_H
#define PRIMA_RUN_RING_H
#include "src/model/model.h"
#include "src/run/device.h"
#include "src/run/launch.h"
#include "src/run/pipeline_ring.h"
#include "src/run/progress.h"
#include "src/run/trace.h"

typedef struct {
    const char *plan_text; /* of the plan file, n bytes */
    size_t plan_bytes;
    const model *m;
    const model_facts *facts;  /* of it: for a plan without a lost device */
    job_sizes sizes;           /* but token, which is made here */
    size_t depth, max_prefill; /* micro-batches on their way; tokens of prompts in one */
    device_options device;     /* this device's */
    const cluster_key *key;    /* NULL: plain */
    bool insecure;
    const char *version, *self; /* of prima; this binary */
    uint32_t restarts;          /* times that lost devices are started or waited for */
    wake *stop;                 /* ends all waits */
    bool trace;                 /* spans are wanted */
    uint64_t start_ns;
} ring_options;

/* Who looks on; each may be NULL. */
typedef struct {
    timings *t;
    trace *trace;
    progress *progress;
} ring_onlookers;

typedef struct ring ring;

/* All workers started or found, and greeted: what they compute with is known, nothing is loaded. PR_EPEER,
 * PR_EAUTH, PR_EMISMATCH, PR_ERESOURCE with the name of the device. *o must outlive it. */
int ring_new(ring **out, const ring_options *o, pr_err *err);
/* Everything loaded, the ring made and walked once. Errors as above. Once. */
int ring_load(ring *r, const ring_onlookers *by, pr_err *err);
void ring_free(ring *r); /* tells the workers to stop; ends those that were started */

/* Sends rows of hidden states round the ring, nothing is computed, again and again for about a second at
 * most. ms: the median time. Only before the pipeline is made. */
int ring_measure(ring *r, uint32_t rows, double *ms, pr_err *err);

/* The link from a device to the next one: round trip of a small frame, and bytes a second of large ones;
 * about half a second. Only before the pipeline is made. */
int ring_measure_link(ring *r, size_t from, double *rtt_ms, double *bytes_per_s, pr_err *err);

/* The pipeline over it; free it before the ring. */
int ring_pipeline(pipeline **out, ring *r, pr_err *err);

enum { RING_ISA_BYTES = 32 };
typedef struct {
    size_t n_devices;
    uint32_t restarts; /* so far */
    uint64_t weights_bytes;
    char isa[RING_ISA_BYTES]; /* of all devices: "avx2", or "avx2+neon" when they differ */
} ring_facts;
ring_facts ring_about(const ring *r);

#endif
