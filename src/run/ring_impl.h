/* What the files of the head's ring share: ring.c makes it, ring_mend.c mends it. */
#ifndef PRIMA_RUN_RING_IMPL_H
#define PRIMA_RUN_RING_IMPL_H
#include "net/door.h"
#include "net/probe.h"
#include "src/run/peer.h"
#include "src/run/ring.h"
#include "src/run/ring_report.h"
#include <stdatomic.h>

struct ring {
    const ring_options *o;
    ring_onlookers by; /* set under watch.mutex */
    const char *isa;   /* of this device */
    char warned_isa[RING_ISA_BYTES];
    job_sizes sizes;
    char *plan_text; /* of the plan that runs: the user's, or one made without a lost device */
    size_t plan_bytes;
    job *j;    /* its head */
    device *d; /* this device's part of it */
    size_t n;  /* devices */
    peer **p;  /* [n]; [0] is NULL: ourselves */
    ship_source *source;
    launched **launched;
    peer_watch watch;
    pthread_mutex_t peers_mutex; /* of p and n, for the thread of beats */
    security sec;
    sock_options so;
    door *door;
    probe_desk *desk; /* answers the last device when it measures its link to us */
    pthread_t accepting, beating;
    bool has_accepting, has_beating;
    atomic_bool over;
    _Atomic uint64_t session;
    channel *joined; /* from the last device, of joined_session; under watch.mutex */
    uint64_t joined_session;
    uint32_t restarts;
    wire_limits limits;
    report_mark *mark; /* [n] */
    /* Devices of the user's plan that the ring goes on without (ring_return.c). */
    struct gone *gone; /* a list, under peers_mutex */
    pthread_t returning;
    bool has_returning;
    atomic_bool returned; /* one of them is ready to join */
};

/* A device that is waited for. Once `ready` the thread that waits does not touch it any more. */
typedef struct gone {
    char name[33];
    peer *p;
    launched *l;
    bool ready; /* it has loaded its layers of the plan with all that are there */
    struct gone *next;
} gone;

/* ring.c */
peer_terms ring_terms(const ring *r);
void ring_address(const ring *r, size_t i, sock_addr *a); /* where device i listens */
int ring_launch(const ring *r, const plan_device *d, launched **out, uint64_t deadline_ns, pr_err *err);
int ring_greet(ring *r, size_t i, uint64_t deadline_ns, pr_err *err); /* start or find it */
int ring_send_job(ring *r, size_t i, pr_err *err);
int ring_await_ready(ring *r, size_t i, pr_err *err);
/* All of them, to the end; an error that is worse than a lost device is told before one. */
int ring_await_all(ring *r, pr_err *err);
int ring_load_head(ring *r, pr_err *err);
int ring_form(ring *r, pr_err *err); /* of devices that are all ready */
/* The token goes round, with so many rows of hidden states (stage_walk). */
int ring_walk(ring *r, uint32_t rows, uint64_t deadline_ns, pr_err *err);

/* ring_rows.c: rows of what the devices have done. A table that cannot be written is PR_ERESOURCE. */
int ring_rows(ring *r, pr_err *err); /* as far as their last beats have said */
/* Until now: everybody who is ready is asked, and has so long to answer. */
int ring_rows_to_date(ring *r, double within_s, pr_err *err);

/* ring_isa.c */
void ring_isa(const ring *r, char out[RING_ISA_BYTES]);
void ring_warn_of_mix(ring *r); /* once for each mix */

/* ring_mend.c: the ring has broken for this reason. PR_OK: it runs again. */
int ring_mend(ring *r, const pr_err *why, pr_err *err);
/* Can every device do what this plan wants of it? PR_EINFEASIBLE. */
int ring_check_plan(const ring *r, const char *text, size_t n, pr_err *err);
/* Another plan, which has been checked; takes over the text. */
int ring_adopt(ring *r, char *text, size_t n, pr_err *err);

/* ring_return.c */
/* The ring goes on without it: wait for it from now on. peers_mutex is held. */
void ring_miss(ring *r, const char *name);
int ring_take_back(ring *r, pr_err *err); /* those that are ready join, on a plan with them */
void ring_stop_waiting(ring *r);          /* the end */

#endif
