/* A channel: a connection to a peer that holds the cluster's key (TLS 1.3 with an external pre-shared key),
 * or plain where that is allowed. Whoever uses a channel cannot tell the two apart, save by
 * channel_is_secure.
 *
 * Key agreement (ECDHE, so that a key that leaks later opens no recorded traffic), authentication of both
 * sides and encryption are OpenSSL's. No certificates, tickets, resumption or early data. The identity sent
 * in the clear is "prima/1:" and the key's id: two keys are told apart by name in the error message.
 *
 * Threads: one may read while one other writes; channel_shutdown comes from any thread; channel_close when
 * the others have left. After an error nothing more can be read or written: close. */
#ifndef PRIMA_NET_SECURE_H
#define PRIMA_NET_SECURE_H
#include "net/key.h"
#include "net/sock.h"
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const cluster_key *key; /* NULL: plain, refused for a peer on another machine ... */
    bool insecure;          /* ... unless the user has spelled this out */
    uint64_t
        rekey_bytes; /* a writer changes keys after so many bytes; 0 = 64 GiB, far below AES-GCM's limit */
} security;

/* What a command's options say: the key of key_file (NULL: its usual place, see key_path) in *key, which the
 * caller clears; no key at all when `insecure`. */
int security_read(security *out, cluster_key *key, const char *key_file, bool insecure, pr_err *err);

typedef enum { CHANNEL_CLIENT, CHANNEL_SERVER } channel_role;
typedef struct channel channel;

/* Make a connected socket a channel (handshake, under the deadline). The socket is the channel's from here
 * on, and closed when this fails: PR_EAUTH when the peer holds no key, or another, or does not speak TLS;
 * PR_EPEER when it is silent or goes away. The key is not needed afterwards. */
int channel_open(channel **out, sock *s, channel_role role, const security *sec, uint64_t deadline_ns,
                 pr_err *err);
/* The same in steps, for one thread that greets many peers. channel_begin never waits; the key must stay
 * until the handshake is done. channel_handshake_now goes as far as it can without waiting: *events is 0 when
 * it is done, else what poll(2) has to report on channel_fd before the next call. After an error:
 * channel_close. */
int channel_begin(channel **out, sock *s, channel_role role, const security *sec, pr_err *err);
int channel_handshake_now(channel *c, short *events, pr_err *err);
int channel_fd(const channel *c);
/* As much as is there, at most n bytes: *done. Less than n: wait for POLLIN. */
int channel_read_now(channel *c, void *data, size_t n, size_t *done, pr_err *err);

int channel_read(channel *c, void *data, size_t n, uint64_t deadline_ns, pr_err *err);
int channel_write(channel *c, const void *data, size_t n, uint64_t deadline_ns, pr_err *err);
/* As much of it as goes without waiting: *done bytes. The rest must follow, with channel_write. */
int channel_write_now(channel *c, const void *data, size_t n, size_t *done, pr_err *err);
/* Waits until there is something to read (bytes, an end, or a wake, which the next read then reports), until
 * `bell` (a descriptor; -1: none) can be read, or the deadline. By the thread that reads. */
typedef enum { CHANNEL_INPUT, CHANNEL_BELL, CHANNEL_LATE } channel_event;
channel_event channel_await(channel *c, int bell, uint64_t deadline_ns);
/* A short write would not wait now. */
bool channel_has_room(const channel *c);
const char *channel_peer(const channel *c);
bool channel_is_secure(const channel *c);
/* "TLS_AES_128_GCM_SHA256" or "plain", for logs. */
const char *channel_cipher(const channel *c);
void channel_shutdown(channel *c);
void channel_close(channel *c); /* says goodbye if it can without waiting; NULL is fine */

#endif
