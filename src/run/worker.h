/* prima worker: waits for a head, loads what the plan gives this device, computes its windows in the ring,
 * and goes back to waiting when the run is over or the head is lost. */
#ifndef PRIMA_RUN_WORKER_H
#define PRIMA_RUN_WORKER_H
#include "net/secure.h"

typedef struct {
    sock_addr listen; /* control and data connections of one run come here */
    security sec;
    const char *version; /* a head of another one is refused */
    const char *isa;     /* NULL = the best of this CPU */
    const char *model;   /* this device's copy of the model; NULL: the plan's path, else shipped and cached */
    int n_threads;       /* 0 = the plan's, else all */
    const char *pack_dir; /* NULL: CACHE/packs */
    uint64_t disk_limit;  /* bytes a second that it reads of streamed weights; 0: no limit */
    bool once;            /* one run, then return (how `prima run` starts workers) */
    void (*listening)(const char *address); /* called once, when connections can come */
} worker_options;

/* Until `stop` is raised: PR_OK. PR_ERESOURCE: the port is taken. With `once`: how the run ended. */
int worker_run(const worker_options *o, wake *stop, pr_err *err);

#endif
