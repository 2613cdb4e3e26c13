/* Two ends of a connection over loopback in one process, for tests. In a header: the plain programs use it
 * too, which have no Criterion; what fails ends the process with a message. */
#ifndef PRIMA_TESTS_PAIR_H
#define PRIMA_TESTS_PAIR_H
#include "net/secure.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const sock_options pair_no_options = {0};

static inline void pair_must(int rc, const pr_err *err, const char *what)
{
    if (!rc) return;
    fprintf(stderr, "%s: %s\n", what, err->msg);
    exit(1);
}

static inline sock_addr pair_addr(const char *text)
{
    sock_addr a;
    pr_err err = {0};

    pair_must(sock_addr_parse(&a, text, true, &err), &err, text);
    return a;
}

/* A listener on a free port of 127.0.0.1 and the address to reach it. */
static inline sock_addr pair_listen(sock_listener *l)
{
    const sock_addr any = pair_addr("127.0.0.1:0");
    pr_err err = {0};

    pair_must(sock_listen(l, &any, &pair_no_options, &err), &err, "listen");
    return pair_addr(l->address);
}

static inline void pair_socks(sock *client, sock *server)
{
    sock_listener l;
    sock_addr to = pair_listen(&l);
    pr_err err = {0};

    pair_must(sock_connect(client, &to, &pair_no_options, false, sock_deadline(5), &err), &err, "connect");
    pair_must(sock_accept(server, &l, sock_deadline(5), &err), &err, "accept");
    sock_listener_close(&l);
}

/* One side of a handshake, in a thread of its own. */
typedef struct {
    sock s;
    channel_role role;
    security sec;
    double seconds;
    channel *c;
    int rc;
    pr_err err;
} pair_end;

static inline void *pair_end_open(void *arg)
{
    pair_end *e = arg;
    e->rc = channel_open(&e->c, &e->s, e->role, &e->sec, sock_deadline(e->seconds), &e->err);
    return NULL;
}

/* Both handshakes at once; the outcome is in the ends. */
static inline void pair_open(pair_end *client, pair_end *server, const security *cs, const security *ss)
{
    pthread_t t;

    *client = (pair_end){.role = CHANNEL_CLIENT, .sec = *cs, .seconds = 5};
    *server = (pair_end){.role = CHANNEL_SERVER, .sec = *ss, .seconds = 5};
    pair_socks(&client->s, &server->s);
    if (pthread_create(&t, NULL, pair_end_open, server)) exit(1);
    pair_end_open(client);
    pthread_join(t, NULL);
}

static inline void pair_close(pair_end *client, pair_end *server)
{
    channel_close(client->c);
    channel_close(server->c);
    client->c = server->c = NULL;
}

static inline cluster_key pair_key(uint8_t seed)
{
    cluster_key k;

    memset(k.psk, seed, sizeof k.psk);
    snprintf(k.id, sizeof k.id, "%016x", seed);
    return k;
}

#endif
