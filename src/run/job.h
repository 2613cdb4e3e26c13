/* What one device has to do in a run: its place in the plan and the sizes that the head has chosen. The head
 * makes it for every device; a worker gets it as a message and checks it. */
#ifndef PRIMA_RUN_JOB_H
#define PRIMA_RUN_JOB_H
#include "planner/plan.h"
#include "src/base/json.h"
#include "src/run/engine.h"
#include "src/run/wire.h"

enum { JOB_TOKEN_BYTES = 33 };

/* The same for all devices of a run. */
typedef struct {
    char token[JOB_TOKEN_BYTES]; /* random: data connections of this run name it */
    uint32_t max_tokens;         /* of a micro-batch */
    uint32_t merge_tokens;       /* computed together on a device, >= max_tokens */
    uint32_t max_out;            /* rows of logits of a micro-batch: slots */
    uint32_t n_pages;            /* KV pages of every device */
    frame_elem elem;             /* hidden states on the wire */
    bool trace;                  /* spans are kept (spans.h) */
    stream_kind stream;          /* how weights that do not fit are read */
    double heartbeat_s, peer_s, connect_s;
} job_sizes;

typedef struct {
    job_sizes sizes;
    plan *plan; /* owned */
    uint32_t rank;
    layer_range *window;       /* [plan->rounds] layers of this device in each round */
    uint32_t *streamed;        /* [plan->rounds] pieces of them that are read in every pass */
    engine_gpu_part *gpu_part; /* [n_gpu_parts] those on GPUs */
    size_t n_gpu_parts;
    kv_type kv;
} job;

/* plan_text: of a plan file. PR_EMISMATCH: the plan asks for what no build like this can do (says what). */
int job_new(job **out, const char *plan_text, size_t n, uint32_t rank, const job_sizes *sizes, pr_err *err);
void job_free(job *j);
/* Asked where the job is to be done: PR_EMISMATCH when it needs a GPU and there is none (says why). */
int job_check_gpus(const job *j, pr_err *err);
bool job_is_same(const job *a, const job *b);

/* As a message to a worker, and back, with job_check_gpus: PR_EPEER when a field is missing or out of range.
 * Caller decrefs. */
json_t *job_to_json(const char *plan_text, size_t n, uint32_t rank, const job_sizes *sizes);
int job_from_json(job **out, const json_t *message, pr_err *err);

wire_limits job_limits(const job *j, const hparams *hp);
const plan_device *job_device(const job *j);

/* Opens a data connection to the next device: who we are, and of which run. */
int job_send_join(const job *j, channel *c, uint64_t session, uint64_t deadline_ns, pr_err *err);

#endif
