/* A link, measured over a channel like a ring's: one end asks, the other answers. Round trips and bursts are
 * timed by one clock, so that two machines whose clocks differ can be told how far apart they are. */
#ifndef PRIMA_NET_PROBE_H
#define PRIMA_NET_PROBE_H
#include "net/frame.h"

typedef struct {
    double rtt_ms, rtt_spread_pct;          /* of a frame without payload: median, (p90 - p10) / median */
    double out_bytes_per_s, in_bytes_per_s; /* frames of 32 KiB, a hidden state of a 70B model; medians */
    double out_spread_pct, in_spread_pct;   /* (largest - least) / median */
} probe_figures;

/* For how long at most, besides what a single step on a slow link takes. */
typedef struct {
    double echoes_s, bursts_s; /* bursts: for each direction */
    bool there_only;           /* the other direction is not measured: in_* are 0 */
} probe_effort;
/* How `prima run --check` measures: about half a second, the way that hidden states go. */
extern const probe_effort PROBE_IN_A_RING;

/* Asks, and says goodbye. PR_EPEER: no answer within 10 s, or one to another question. */
int probe_ask(probe_figures *out, channel *c, const probe_effort *effort, pr_err *err);
/* How many frames the burst after one of n frames has; 0 when that one is long enough to tell a rate. */
uint64_t probe_next_burst(uint64_t n, double seconds);

/* Answers until the other end says goodbye; at most 45 s and PROBE_MAX_FRAMES a request. first: the request
 * that has come already, a FRAME_ECHO without payload: that is how probe_ask begins. */
enum { PROBE_MAX_FRAMES = 1024 };
int probe_answer(channel *c, const frame *first, pr_err *err);

/* Answers in a thread of its own, one asker at a time, so that who accepts connections goes on doing so. */
typedef struct probe_desk probe_desk;
int probe_desk_new(probe_desk **out, pr_err *err);
/* Takes over c. PR_ERESOURCE: another one is being answered. */
int probe_desk_take(probe_desk *d, channel *c, const frame *first, pr_err *err);
void probe_desk_free(probe_desk *d); /* sends the asker away; NULL is fine */

#endif
