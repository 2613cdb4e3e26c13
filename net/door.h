/* A door: where a device listens, and whoever connects is greeted: a handshake, and a first frame that says
 * what the connection is for. Many at once, in the thread that calls door_next, and none is waited for: a
 * stranger who says nothing keeps nobody else out. Each has a few seconds; when all places are taken, the
 * address that has most of them gives one up, so that none keeps another out.
 *
 * Who is not let in is told once in the log, but no more lines than somebody can read. One thread. */
#ifndef PRIMA_NET_DOOR_H
#define PRIMA_NET_DOOR_H
#include "net/frame.h"

enum { DOOR_PLACES = 32, DOOR_MAX_PAYLOAD_BYTES = 4096 };

typedef struct {
    const sock_options *so; /* all three are kept by reference */
    const security *sec;
    double greeting_s;   /* from connecting until the first frame is there */
    frame_limits limits; /* of that frame; at most DOOR_MAX_PAYLOAD_BYTES */
} door_options;

/* Somebody who may come in. The channel is the taker's; the payload stays until the next call. */
typedef struct {
    channel *c;
    frame f;
    const uint8_t *payload;
} door_guest;

typedef struct door door;
/* PR_ERESOURCE: the port is taken. */
int door_open(door **out, const sock_addr *at, const door_options *o, pr_err *err);
const char *door_address(const door *d); /* with the port that was chosen, when 0 was asked for */
/* PR_OK: a guest. PR_EPEER: none came before the deadline. PR_EINTERRUPTED: woken. Nothing that a stranger
 * does ends it, and a lack of descriptors or memory does not either. */
int door_next(door *d, door_guest *out, uint64_t deadline_ns, pr_err *err);
/* For a guest whom the taker has sent away: told like those that did not come so far. */
void door_tell(door *d, const pr_err *why);
void door_close(door *d); /* NULL is fine */

#endif
