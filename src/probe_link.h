/* The link to a neighbour, measured over the channel that a ring will use: `prima profile --link` asks,
 * `prima worker --probe` answers. */
#ifndef PRIMA_PROBE_LINK_H
#define PRIMA_PROBE_LINK_H
#include "net/secure.h"
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

typedef struct {
    double rtt_ms, rtt_spread_pct;          /* of a frame without payload: median, (p90 - p10) / median */
    double out_bytes_per_s, in_bytes_per_s; /* frames of 32 KiB, a hidden state of a 70B model; medians */
    double out_spread_pct, in_spread_pct;   /* (largest - least) / median */
} link_figures;

/* What can be refused before anything is measured: address and name. */
int link_options_check(const link_options *o, pr_err *err);
/* About 3 s in all (a link below 1 Mbit/s takes longer, at most 40 s). */
int probe_link(link_figures *out, const link_options *o, pr_err *err);
/* Measure, and put the figures into the profile at `path` under the peer's name: the slower of the two
 * directions, because a ring sends one way and which way is the planner's choice. */
int probe_link_into(const char *path, const link_options *o, pr_err *err);

/* The other side: answer one client until it says goodbye; at most 45 s and LINK_MAX_FRAMES a request. */
enum { LINK_MAX_FRAMES = 1024 };
/* How many frames the burst after one of n frames has; 0 when that one is long enough to tell a rate. */
uint64_t probe_link_next_burst(uint64_t n, double seconds);
int probe_link_answer(channel *c, pr_err *err);

#endif
