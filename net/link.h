/* Links of the ring: frames to the next device, frames from the one before.
 *
 * A parcel is a frame with its bytes; parcels are made once and go round: free -> filled by the thread that
 * reads the link -> mailbox -> computed -> handed to the link out -> free again. So memory is bounded, and a
 * device that is slow stops reading, which stops the one before it (TCP carries that back). Two parcels may
 * wait in a mailbox. The caller writes a frame as far as it goes without waiting; a thread writes the rest of
 * a large one, so that a slow link does not hold up computing.
 *
 * Who waits for a frame reads it: on a mailbox that a link fills, an empty one is waited for at the socket
 * itself, so that a hidden state wakes one thread and not two. The link's own thread reads while the taker is
 * busy with something else.
 *
 * There are no deadlines here: a device may compute for as long as it must, and whether it is alive is told
 * by heartbeats elsewhere. Breaking a mailbox ends every wait. */
#ifndef PRIMA_NET_LINK_H
#define PRIMA_NET_LINK_H
#include "net/frame.h"

typedef struct parcel {
    frame f;
    uint8_t *room;    /* FRAME_HEADER_BYTES, then the payload */
    uint8_t *payload; /* 64-byte aligned */
    uint64_t arrived_ns;
    size_t written; /* link_out: bytes of header and payload that are through */
    struct parcel *next;
    struct parcels *home;
} parcel;

/* --- free parcels ---------------------------------------------------------------------------------- */
typedef struct parcels parcels;
int parcels_new(parcels **out, size_t n, size_t max_payload_bytes, pr_err *err);
/* Waits for one; NULL after parcels_break. */
parcel *parcels_take(parcels *p);
parcel *parcels_try(parcels *p); /* NULL: none is free */
void parcel_free(parcel *x);     /* back to where it is from */
void parcels_break(parcels *p);  /* takers return */
void parcels_delete(parcels *p); /* all parcels are back or will not be used again; NULL is fine */

/* --- filled parcels -------------------------------------------------------------------------------- */
typedef struct mailbox mailbox;
int mailbox_new(mailbox **out, pr_err *err);
void mailbox_put(mailbox *m, parcel *x);
/* One taker at a time. The oldest parcel; NULL when the deadline has passed (PR_OK) or the mailbox is broken
 * (its error). Parcels that are there are given out first. */
int mailbox_take(mailbox *m, uint64_t deadline_ns, parcel **out, pr_err *err);
/* The next parcel if it is there and like(arg, parcel) holds; NULL otherwise. Never waits. */
parcel *mailbox_take_if(mailbox *m, bool (*like)(const void *arg, const parcel *x), const void *arg);
/* Ends all waits, now and later, with this error; the first one stays. */
void mailbox_break(mailbox *m, const pr_err *why);
/* Makes one wait return at once with PR_OK and no parcel. */
void mailbox_nudge(mailbox *m);
void mailbox_delete(mailbox *m); /* frees the parcels in it; NULL is fine */

/* --- links ------------------------------------------------------------------------------------------- */
typedef struct {
    uint64_t frames, bytes; /* payload and headers */
    double wait_ms;         /* out: the caller waited for the link */
} link_counts;

/* Frames of these types are read into parcels of p and put into m: by m's taker when it waits, else by a
 * thread. A mailbox has one link. When the channel fails,
 * m is broken with its error ("link from NAME: ..."). The channel stays the caller's: shut it down before
 * link_in_stop. */
typedef struct link_in link_in;
int link_in_start(link_in **out, channel *c, const char *from, const frame_limits *limits, parcels *p,
                  mailbox *m, pr_err *err);
link_counts link_in_counts(const link_in *l);
void link_in_stop(link_in *l); /* joins the thread; nobody takes from m any more; NULL is fine */

/* Sends parcels in order and frees them. Errors break m. */
typedef struct link_out link_out;
int link_out_start(link_out **out, channel *c, const char *to, mailbox *m, pr_err *err);
/* x->f says what to send; x is the link's from here on. Returns at once, or after the time that a small
 * frame takes. One caller at a time. */
void link_out_send(link_out *l, parcel *x);
/* Told of every frame that was written, and when, by the thread that did it, one after the other. Before the
 * first link_out_send. */
typedef void link_sent(void *arg, const frame *f, uint64_t start_ns, uint64_t end_ns);
void link_out_watch(link_out *l, link_sent *sent, void *arg);
link_counts link_out_counts(const link_out *l);
void link_out_stop(link_out *l);

#endif
