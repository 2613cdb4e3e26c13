/* A device in a run: its engine, loaded once, and its place in the ring, which may be made several times
 * (after another device was lost). Head and workers alike. */
#ifndef PRIMA_RUN_DEVICE_H
#define PRIMA_RUN_DEVICE_H
#include "src/model/model.h"
#include "src/run/job.h"
#include "src/run/stage.h"

typedef struct {
    const char *isa;        /* NULL = the best of this CPU */
    int n_threads;          /* 0 = as the plan says, else all */
    size_t depth;           /* head: micro-batches on their way at once */
    const char *pack_dir;   /* NULL: CACHE/packs */
    disk_read_options disk; /* how streamed weights are read */
} device_options;

typedef struct device device;

/* Reads the weights; j and m are borrowed. PR_ERESOURCE: what is missing (also: more than the plan's budget);
 * PR_EMISMATCH: the model is not the plan's. */
int device_new(device **out, const job *j, const model *m, const device_options *o, pr_err *err);
void device_free(device *d); /* and leaves the ring */

/* Joins the ring of this session: frames come from the device before and go to the next one. The channels are
 * the device's from here on, also after an error. */
int device_join(device *d, uint64_t session, channel *from, channel *to, pr_err *err);
/* Leaves it: `why` ends what waits (stage_serve returns it). Call it from the thread that computes, or when
 * that has ended; device_break from any. */
void device_part(device *d);
void device_break(device *d, const pr_err *why);

engine *device_engine(device *d);
stage *device_stage(device *d);
mailbox *device_mailbox(device *d);  /* of the ring joined */
parcels *device_outgoing(device *d); /* head */
const wire_limits *device_limits(const device *d);
/* Over all rings; any thread. */
link_counts device_received(device *d);
link_counts device_sent(device *d);

#endif
