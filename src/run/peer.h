/* The head's view of one worker: a control connection with a thread that reads it, and what it has said. */
#ifndef PRIMA_RUN_PEER_H
#define PRIMA_RUN_PEER_H
#include "src/run/control.h"
#include "src/run/host.h"
#include "src/run/ship.h"
#include "src/run/trace.h"
#include <pthread.h>

/* Shared by all peers of a ring: one mutex for what they say, and a way to wake who computes. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* A worker is lost (session 0), or a ring has failed there. */
    void (*alarm)(void *arg, uint64_t session, const pr_err *why);
    void *arg;
    trace *trace; /* where spans go; NULL: none are expected. Under the mutex */
} peer_watch;
void peer_watch_init(peer_watch *w, void (*alarm)(void *arg, uint64_t session, const pr_err *why), void *arg);
void peer_watch_clear(peer_watch *w);

typedef enum { PEER_LOST, PEER_GREETED, PEER_READY } peer_state;

/* What a beat has said; all since the worker has loaded. */
typedef struct {
    uint64_t batch, passes, tokens, prefill_tokens, merged, rx_bytes, tx_bytes, disk_bytes;
    uint64_t clock_ns, since_ns; /* its own; when it began to count */
    uint32_t layer;
    double compute_ms, gpu_ms, wait_ms, send_wait_ms, disk_wait_ms, disk_busy_ms;
    uint64_t gpu_bytes;
    host_row host; /* since the look before: peer_take_host */
} peer_beat;

typedef struct {
    peer_state state;
    pr_err why;      /* PEER_LOST: what happened */
    uint64_t ringed; /* the last ring that it has joined */
    uint64_t failed; /* the last ring that it could not join, or that broke there, ... */
    pr_err failure;  /* ... and why */
    bool parted;     /* has left the ring, after peer_part */
    uint64_t weights_bytes;
    char isa[16]; /* that it computes with: one that we know */
    double load_s;
    peer_beat beat;
    uint64_t beats;   /* that have come */
    uint64_t answers; /* of them: to peer_ask */
    uint64_t pongs;
    uint64_t measures;          /* answers to peer_measure_link */
    double rtt_ms, bytes_per_s; /* what the last one said; rtt_ms 0: ... */
    char not_measured[160];     /* ... why there are none */
} peer_facts;

typedef struct peer peer;
/* source: tensors are taken from there when the worker needs some. */
int peer_new(peer **out, const char *name, peer_watch *w, ship_source *source, pr_err *err);
void peer_free(peer *p); /* and closes the connection */

/* What both must agree on. */
typedef struct {
    const char *version; /* of prima */
    const char *isa;     /* that it shall compute with; NULL: its choice */
} peer_terms;
/* Connects and greets. PR_EMISMATCH: another version of prima, or it was started for another instruction set;
 * PR_EUSAGE: its CPU has not got it; PR_ERESOURCE: it serves another run. */
int peer_connect(peer *p, const sock_addr *to, const sock_options *so, const security *sec,
                 const peer_terms *terms, double peer_s, uint64_t deadline_ns, pr_err *err);
void peer_disconnect(peer *p); /* PEER_LOST from here on */

int peer_job(peer *p, json_t *message, pr_err *err); /* peer_facts.state becomes PEER_READY in time */
int peer_join(peer *p, uint64_t session, const char *next, pr_err *err);
void peer_part(peer *p);
void peer_stop(peer *p);
void peer_beat_now(peer *p); /* lets it know that we live; never waits */
void peer_ask(peer *p);      /* for a beat at once; not beside peer_connect and peer_disconnect */
void peer_ping(peer *p);     /* for its clock; never waits */
/* Some pings, each answered or given up: how far its clock is from ours. */
void peer_measure_clock(peer *p);
/* The link from it to the device that listens there: round trip and rate (net/probe.h). PR_EPEER. */
int peer_measure_link(peer *p, const char *next, double *rtt_ms, double *bytes_per_s, pr_err *err);
/* The machine's figures of all beats since the last call. */
host_row peer_take_host(peer *p);

peer_facts peer_about(peer *p);
/* Waits until done(facts, arg) or the worker is lost (its error) or the deadline has passed (PR_EPEER, "NAME:
 * WHAT takes longer than ..."). */
int peer_wait(peer *p, bool (*done)(const peer_facts *f, uint64_t arg), uint64_t arg, const char *what,
              uint64_t deadline_ns, pr_err *err);

/* Of p[1] ... p[n - 1], all of this watch; n may be 1. Until all are in ring `session`; PR_EPEER as soon as
 * one is lost, its own error as soon as one could not join it. */
int peers_wait_ring(peer_watch *w, peer *const *p, size_t n, uint64_t session, uint64_t deadline_ns,
                    pr_err *err);
/* The first that is lost; 0: none is, until the deadline. */
size_t peers_wait_lost(peer_watch *w, peer *const *p, size_t n, uint64_t deadline_ns);
/* While it is not part of the ring nobody is alarmed when it is lost. */
void peer_set_member(peer *p, bool member);
const char *peer_name(const peer *p);

#endif
