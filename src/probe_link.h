/* The link to a neighbour, measured over the channel that a ring will use: `prima profile --link` asks,
 * `prima worker`, with --probe or without, answers. */
#ifndef PRIMA_PROBE_LINK_H
#define PRIMA_PROBE_LINK_H
#include "net/probe.h"
#include "src/base/err.h"
#include <stdbool.h>

enum { LINK_PEER_BYTES = 33 };

typedef struct {
    const char *address; /* HOST:PORT of the probe worker; NULL = no link is measured */
    const char
        *peer; /* what cluster.yaml calls it; NULL = the host of the address, where that can be a name */
    const char *key_file; /* see security_read */
    bool insecure;
} link_options;

/* What can be refused before anything is measured: address and name. */
int link_options_check(const link_options *o, pr_err *err);
/* About 3 s in all (a link below 1 Mbit/s takes longer, at most 40 s). */
int probe_link(probe_figures *out, const link_options *o, pr_err *err);
/* Measure, and put the figures into the profile at `path` under the peer's name: the slower of the two
 * directions, because a ring sends one way and which way is the planner's choice. */
int probe_link_into(const char *path, const link_options *o, pr_err *err);

#endif
