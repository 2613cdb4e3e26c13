/* What head and worker say to each other beside hidden states: one connection between the head and each
 * worker (a star), JSON objects in frames FRAME_CONTROL, bulk in frames FRAME_BULK. Either side sends
 * something at least every `beat` seconds; silence for `peer` seconds means that the other side is lost.
 *
 *   worker -> head                              head -> worker
 *   hello  {prima, isa, ram_bytes}              hello  {prima, isa}: isa when one is asked for
 *                                               job    see job.h: load this
 *   need   {header, tensors, held}              have, bulk, had: see ship.h
 *   ready  {weights_bytes, load_s}
 *                                               ring   {session, next: "HOST:PORT"}: join it
 *   ringed {session}
 *                                               measure {next: "HOST:PORT"}: the link to that device
 *   measured {rtt_ms, bytes_per_s} or {message}
 *   beat   {batch, layer, counts ..., answer}   beat   {answer}: true = answer with one at once
 *   pong   {sent_ns, clock_ns}                  beat   {sent_ns}: answer with this and your clock at once
 *   spans  {dropped, spans}: see spans.h
 *   fail   {code, message, session}             part   {}: leave the ring, keep the weights
 *   parted {}
 *   bye    {}                                   stop   {}: the run is over
 *
 * Every message has a "type". What a message must hold is checked by who reads it. */
#ifndef PRIMA_RUN_CONTROL_H
#define PRIMA_RUN_CONTROL_H
#include "net/frame.h"
#include "src/base/json.h"

enum { CONTROL_MAX_BYTES = 16 << 20, CONTROL_BULK_BYTES = 1 << 20 };

typedef struct control control;
/* Takes over c, also after an error. */
int control_new(control **out, channel *c, double peer_s, pr_err *err);
void control_close(control *k);
void control_shutdown(control *k); /* from any thread: ends what waits */
const char *control_peer(const control *k);
void control_set_silence(control *k, double peer_s);

/* Any thread. message is taken over (decref'ed), NULL is "out of memory". */
int control_send(control *k, json_t *message, pr_err *err);
/* The same with n bytes of bulk behind it, which nothing else comes between. */
int control_send_bulk(control *k, json_t *message, const void *data, size_t n, pr_err *err);
/* A short message that may as well be left out: nothing is sent while another thread is sending, or while the
 * other end is behind with reading. Never waits. */
void control_try_send(control *k, json_t *message);

/* "fail" with this error, whose text may be any bytes; session 0: none is named. */
int control_send_fail(control *k, const pr_err *why, uint64_t session, pr_err *err);

/* One thread. The next message, an object with a text "type"; beats too. Caller decrefs. PR_EPEER: lost,
 * silent, or not a message. */
int control_recv(control *k, json_t **message, pr_err *err);
/* The bulk that the last message announced, n bytes in pieces of at most CONTROL_BULK_BYTES. */
int control_recv_bulk(control *k, size_t n, int (*take)(void *arg, const void *data, size_t n, pr_err *err),
                      void *arg, pr_err *err);

const char *control_type(const json_t *message);
bool control_is(const json_t *message, const char *type);

#endif
