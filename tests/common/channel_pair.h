/* Two ends of a connection on loopback in one process, plain or under TLS with a key of the tests' own. */
#ifndef PRIMA_TESTS_CHANNEL_PAIR_H
#define PRIMA_TESTS_CHANNEL_PAIR_H
#include "net/secure.h"
#include <pthread.h>

typedef struct {
    sock s;
    channel *c;
    security sec;
} pair_server;

static inline void *pair_serve(void *arg)
{
    pair_server *p = arg;
    channel_open(&p->c, &p->s, CHANNEL_SERVER, &p->sec, sock_deadline(5), NULL);
    return NULL;
}

/* PR_OK, or nothing is open. */
static inline int channel_pair(channel **client, channel **server, bool secure, pr_err *err)
{
    static const sock_options so = {.lost_after_ms = 0};
    static const cluster_key key = {.psk = {1, 2, 3}, .id = "0123456789abcdef"};
    pair_server p = {.sec = {.key = secure ? &key : NULL}};
    sock_addr at = {.host = "127.0.0.1"};
    sock_listener l;
    pthread_t thread;
    sock s;
    int rc;

    *client = *server = NULL;
    if ((rc = sock_listen(&l, &at, &so, err))) return rc;
    if ((rc = sock_addr_parse(&at, l.address, false, err)) ||
        (rc = sock_connect(&s, &at, &so, false, sock_deadline(5), err)) ||
        (rc = sock_accept(&p.s, &l, sock_deadline(5), err))) {
        sock_listener_close(&l);
        return rc;
    }
    sock_listener_close(&l);
    if (pthread_create(&thread, NULL, pair_serve, &p)) return pr_fail(err, PR_ERESOURCE, "no thread");
    rc = channel_open(client, &s, CHANNEL_CLIENT, &p.sec, sock_deadline(5), err);
    pthread_join(thread, NULL);
    *server = p.c;
    if (!rc && !p.c) {
        channel_close(*client);
        rc = pr_fail(err, PR_EPEER, "the server's side could not be opened");
    }
    return rc;
}

#endif
