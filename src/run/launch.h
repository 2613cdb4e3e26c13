/* How `prima run` gets its workers. For each device, the first of these that applies:
 *
 *   1. a worker listens there already (by hand, by systemd);
 *   2. `ssh` is given: OpenSSH starts one there, `ssh ... [USER@]SSH prima worker --stdio`;
 *   3. the host is this machine: this program is started once more;
 *   4. else we wait for a worker, and say how to start one.
 *
 * A worker that we start is told what it must know on its standard input (launch_order.h) and leaves when
 * that ends: when we stop it, or die. What it logs comes through our log, as "[NAME] ...", at its own level.
 * Whether a worker is the right one is found out later, by who connects to it. */
#ifndef PRIMA_RUN_LAUNCH_H
#define PRIMA_RUN_LAUNCH_H
#include "net/secure.h"

typedef struct {
    const char *name;        /* of the device */
    const char *host;        /* where its worker listens, for all devices of the ring */
    uint16_t port;           /* 0: a free one, for tests (ways 2 and 3) */
    const char *ssh, *user;  /* for OpenSSH; NULL or "": not given */
    const char *isa, *model; /* for the worker; NULL or "": its choice, the plan's path */
    int threads;             /* 0 = all */
    const security *sec;     /* of the ring; the key goes to a worker that we start */
    const char *self;        /* this program; NULL: what runs now, where the system can tell (Linux) */
    const wake *stop;        /* ends the wait; or NULL */
} launch_options;

typedef struct launched launched;

/* A worker that listens. Any thread; several devices can be launched at once. PR_EPEER: not there before the
 * deadline, or its machine cannot be reached; PR_EAUTH, PR_ERESOURCE (port in use), PR_EMISMATCH, ...: how
 * the worker itself ended, with its last message. To start a device again, launch_stop the old worker first:
 * one that hangs still seems to listen. */
int launch_worker(launched **out, const launch_options *o, uint64_t deadline_ns, pr_err *err);

bool launch_is_ours(const launched *l);        /* we have started it (ways 2 and 3) */
const char *launch_address(const launched *l); /* HOST:PORT */
bool launch_running(const launched *l);        /* always true for a worker that is not ours */
/* PR_OK while it runs, else how it ended: as for launch_worker. One caller at a time, not beside launch_stop.
 */
int launch_check(launched *l, pr_err *err);
/* Tells our worker to leave, waits grace_s, ends it by force, frees. Nothing is left behind. PR_OK: it has
 * left by itself, or was not ours; PR_EPEER: by force; else how it ended. NULL is fine. */
int launch_stop(launched *l, double grace_s);

#endif
