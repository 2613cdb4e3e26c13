/* TLS over a non-blocking socket.
 *
 * An SSL object may be used by one thread at a time, so each of its calls is made under the channel's lock;
 * as the socket never blocks, the lock is held for the work on one record (16 KiB, some microseconds), and
 * every wait is outside of it. A reader asleep in poll does not hold up the writer. */
#include "net/secure.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CIPHERS         "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
#define IDENTITY_PREFIX "prima/1:"
enum { IDENTITY_BYTES = 64, KEY_FILE_PATH_BYTES = 4096 };
#define REKEY_BYTES ((uint64_t)1 << 36) /* 2^22 full records; RFC 8446 5.5 allows AES-GCM 2^24.5 */

struct channel {
    sock s;
    SSL *ssl; /* NULL: plain */
    channel_role role;
    pthread_mutex_t lock;
    bool broken;                       /* under the lock: no goodbye any more */
    uint64_t rekey_bytes, since_rekey; /* the writer's */
    char offered[IDENTITY_BYTES];      /* the identity of a client, made printable */
    const cluster_key *key;            /* during the handshake only */
};

/* --- the pre-shared key ------------------------------------------------------------------------------- */
static void print_identity(char out[IDENTITY_BYTES], const cluster_key *k)
{
    snprintf(out, IDENTITY_BYTES, IDENTITY_PREFIX "%s", k->id);
}

/* The key in the form in which OpenSSL takes it: a session of a cipher with the hash of the key. */
static SSL_SESSION *session_of(SSL *ssl, const cluster_key *k)
{
    static const unsigned char aes_128_gcm_sha256[2] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();

    if (session && cipher && SSL_SESSION_set1_master_key(session, k->psk, sizeof k->psk) &&
        SSL_SESSION_set_cipher(session, cipher) && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static int offer_key(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *n, SSL_SESSION **session)
{
    channel *c = SSL_get_app_data(ssl);

    *session = NULL;
    if (md && !EVP_MD_is_a(md, "SHA256")) return 1; /* asked again for a hash that is not ours: no key */
    print_identity(c->offered, c->key);
    *id = (const unsigned char *)c->offered; /* must outlive this call */
    *n = strlen(c->offered);
    *session = session_of(ssl, c->key);
    return *session != NULL;
}

/* Returning 1 without a session refuses in the ordinary way: no certificate either, so the handshake fails.
 */
static int find_key(SSL *ssl, const unsigned char *id, size_t n, SSL_SESSION **session)
{
    channel *c = SSL_get_app_data(ssl);
    char ours[IDENTITY_BYTES];
    size_t kept = n < IDENTITY_BYTES - 1 ? n : IDENTITY_BYTES - 1;

    *session = NULL;
    for (size_t i = 0; i < kept; i++) c->offered[i] = (char)(id[i] > 32 && id[i] < 127 ? id[i] : '?');
    c->offered[kept] = 0;
    print_identity(ours, c->key);
    if (n != strlen(ours) || memcmp(id, ours, n)) return 1;
    *session = session_of(ssl, c->key);
    return *session != NULL;
}

static SSL_CTX *context_new(channel_role role)
{
    SSL_CTX *ctx = SSL_CTX_new(role == CHANNEL_SERVER ? TLS_server_method() : TLS_client_method());
    bool ok = ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
              SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) && SSL_CTX_set_ciphersuites(ctx, CIPHERS) &&
              SSL_CTX_set_num_tickets(ctx, 0);

    if (!ok) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* A server that shows a certificate instead of the key is refused: none is trusted. */
    if (role == CHANNEL_CLIENT) SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One system call takes a record, header and body. */
    SSL_CTX_set_read_ahead(ctx, 1);
    if (role == CHANNEL_SERVER) SSL_CTX_set_psk_find_session_callback(ctx, find_key);
    else SSL_CTX_set_psk_use_session_callback(ctx, offer_key);
    return ctx;
}

int security_read(security *out, cluster_key *key, const char *key_file, bool insecure, pr_err *err)
{
    char path[KEY_FILE_PATH_BYTES];
    int rc;

    *out = (security){.insecure = insecure};
    *key = (cluster_key){{0}, {0}};
    if (insecure) return PR_OK;
    if ((rc = key_path(path, sizeof path, key_file, err)) || (rc = key_read(key, path, err))) return rc;
    out->key = key;
    return PR_OK;
}

/* --- errors ------------------------------------------------------------------------------------------------
 */
static const char *library_reason(unsigned long e)
{
    const char *text = e ? ERR_reason_error_string(e) : NULL;

    return text ? text : "no reason given";
}

/* The client's side: a server with another key answers the unknown identity with an alert. */
static int refused_by_server(const channel *c, unsigned long e, pr_err *err)
{
    int reason = ERR_GET_REASON(e);

    if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_BAD_RECORD_TYPE)
        return pr_fail(err, PR_EAUTH,
                       "%s: does not speak TLS; is it a prima worker, and was it started with "
                       "--insecure?",
                       c->s.peer);
    return pr_fail(err, PR_EAUTH, "%s: refused our key %s (%s); both devices need the same key file",
                   c->s.peer, c->key->id, library_reason(e));
}

static int refused_client(const channel *c, unsigned long e, pr_err *err)
{
    if (*c->offered)
        return pr_fail(err, PR_EAUTH,
                       "%s: refused, it offers \"%s\" and our key is %s (%s); both devices need the "
                       "same key file",
                       c->s.peer, c->offered, c->key->id, library_reason(e));
    return pr_fail(err, PR_EAUTH, "%s: refused, it does not hold the cluster's key (%s)", c->s.peer,
                   library_reason(e));
}

static int handshake_failed(const channel *c, int kind, int error, pr_err *err)
{
    unsigned long e = ERR_peek_error();

    if (kind == SSL_ERROR_SSL && ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        kind = SSL_ERROR_SYSCALL;
        error = 0;
    }
    if (kind == SSL_ERROR_SYSCALL && error && error != ECONNRESET && error != EPIPE)
        return sock_fail(&c->s, error, err);
    if (kind == SSL_ERROR_SYSCALL)
        return pr_fail(err, PR_EPEER, "%s: closed the connection before it proved to hold the key%s",
                       c->s.peer, c->role == CHANNEL_CLIENT ? "; was it started with --insecure?" : "");
    return c->role == CHANNEL_SERVER ? refused_client(c, e, err) : refused_by_server(c, e, err);
}

static int transfer_failed(const channel *c, int kind, int error, pr_err *err)
{
    unsigned long e = ERR_peek_error();

    if (kind == SSL_ERROR_ZERO_RETURN)
        return pr_fail(err, PR_EPEER, "%s: the peer closed the connection", c->s.peer);
    if (kind == SSL_ERROR_SYSCALL && error) return sock_fail(&c->s, error, err);
    if (ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING) kind = SSL_ERROR_SYSCALL;
    if (kind == SSL_ERROR_SYSCALL)
        return pr_fail(err, PR_EPEER, "%s: the connection was cut; has the program there ended?", c->s.peer);
    return pr_fail(err, PR_EPEER, "%s: damaged or forged data (%s); connection closed", c->s.peer,
                   library_reason(e));
}

/* --- opening -----------------------------------------------------------------------------------------------
 */
/* "Reused" is OpenSSL's word for: by the pre-shared key. Without one there is no success, but this is the one
 * line that everything rests on. */
static int check_key_was_used(const channel *c, pr_err *err)
{
    if (SSL_session_reused(c->ssl) && SSL_version(c->ssl) == TLS1_3_VERSION) return PR_OK;
    return pr_fail(err, PR_EAUTH, "%s: did not prove to hold the cluster's key", c->s.peer);
}

int channel_handshake_now(channel *c, short *events, pr_err *err)
{
    int rc, kind, error;

    *events = 0;
    if (!c->ssl) return PR_OK;
    ERR_clear_error();
    errno = 0;
    if ((rc = SSL_do_handshake(c->ssl)) == 1) rc = check_key_was_used(c, err);
    else {
        error = errno;
        kind = SSL_get_error(c->ssl, rc);
        rc = PR_OK;
        if (kind == SSL_ERROR_WANT_READ) *events = POLLIN;
        else if (kind == SSL_ERROR_WANT_WRITE) *events = POLLOUT;
        else rc = handshake_failed(c, kind, error, err);
    }
    if (rc) c->broken = true;
    if (rc || !*events) c->key = NULL;
    return rc;
}

static int start_tls(channel *c, pr_err *err)
{
    SSL_CTX *ctx = context_new(c->role);

    if (ctx) c->ssl = SSL_new(ctx);
    SSL_CTX_free(ctx); /* the SSL holds it */
    if (!c->ssl || !SSL_set_fd(c->ssl, c->s.fd) || !SSL_set_app_data(c->ssl, c))
        return pr_fail(err, PR_ERESOURCE, "TLS 1.3 cannot be set up (%s)", library_reason(ERR_peek_error()));
    if (c->role == CHANNEL_SERVER) SSL_set_accept_state(c->ssl);
    else SSL_set_connect_state(c->ssl);
    return PR_OK;
}

int channel_begin(channel **out, sock *s, channel_role role, const security *sec, pr_err *err)
{
    channel *c = calloc(1, sizeof *c);
    int rc = PR_OK;

    *out = NULL;
    if (!c || pthread_mutex_init(&c->lock, NULL)) {
        free(c);
        sock_close(s);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    c->s = *s;
    s->fd = -1;
    c->role = role;
    c->key = sec->key;
    c->rekey_bytes = sec->rekey_bytes ? sec->rekey_bytes : REKEY_BYTES;
    if (sec->key) rc = start_tls(c, err);
    else if (!sec->insecure && !c->s.is_loopback)
        rc = pr_fail(err, PR_EAUTH,
                     "%s: without a key only this machine itself is spoken to; make a key with "
                     "`prima keygen`, or spell out --insecure",
                     c->s.peer);
    if (rc) channel_close(c);
    else *out = c;
    return rc;
}

int channel_open(channel **out, sock *s, channel_role role, const security *sec, uint64_t deadline_ns,
                 pr_err *err)
{
    short events = 0;
    channel *c;
    int rc = channel_begin(&c, s, role, sec, err);

    *out = NULL;
    if (rc) return rc;
    while (!(rc = channel_handshake_now(c, &events, err)) && events)
        if ((rc = sock_wait(&c->s, events, deadline_ns, err))) break;
    if (rc) {
        c->broken = true; /* in the middle of a handshake there is no goodbye */
        channel_close(c);
        return rc;
    }
    *out = c;
    return PR_OK;
}

/* --- transfers ---------------------------------------------------------------------------------------------
 */
/* What an SSL call that did not succeed asks for: the poll event to wait for, or 0 and *rc. Under the lock.
 */
static short after_ssl_call(channel *c, int *rc, pr_err *err)
{
    int error = errno, kind = SSL_get_error(c->ssl, 0);

    if (kind == SSL_ERROR_WANT_READ) return POLLIN;
    if (kind == SSL_ERROR_WANT_WRITE) return POLLOUT;
    c->broken = true;
    *rc = transfer_failed(c, kind, error, err);
    return 0;
}

/* One piece, at most a record: *done bytes are through, or *events is what to wait for, or an error. */
static int read_piece(channel *c, void *data, size_t n, size_t *done, short *events, pr_err *err)
{
    int rc = PR_OK;

    *done = 0;
    pthread_mutex_lock(&c->lock);
    ERR_clear_error();
    errno = 0;
    if (!SSL_read_ex(c->ssl, data, n, done)) *events = after_ssl_call(c, &rc, err);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static int write_piece(channel *c, const void *data, size_t n, size_t *done, short *events, pr_err *err)
{
    int rc = PR_OK;

    *done = 0;
    pthread_mutex_lock(&c->lock);
    ERR_clear_error();
    errno = 0;
    if (!SSL_write_ex(c->ssl, data, n, done)) *events = after_ssl_call(c, &rc, err);
    c->since_rekey += *done;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* Between two writes; while a record is half sent the library refuses, and the next write comes here again.
 * The peer is not asked to change its keys in turn: then its
 * reader would have to write. */
static void rekey_when_due(channel *c)
{
    pthread_mutex_lock(&c->lock);
    if (c->since_rekey >= c->rekey_bytes && SSL_key_update(c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
        c->since_rekey = 0;
    pthread_mutex_unlock(&c->lock);
}

/* A record, or its beginning, may have come with the one before. */
static bool has_pending(channel *c)
{
    bool yes;

    if (!c->ssl) return false;
    pthread_mutex_lock(&c->lock);
    yes = SSL_has_pending(c->ssl);
    pthread_mutex_unlock(&c->lock);
    return yes;
}

channel_event channel_await(channel *c, int bell, uint64_t deadline_ns)
{
    if (has_pending(c)) return CHANNEL_INPUT;
    switch (sock_wait_input(&c->s, bell, deadline_ns)) {
    case 0: return CHANNEL_LATE;
    case 1: return CHANNEL_INPUT;
    default: return CHANNEL_BELL;
    }
}

int channel_read(channel *c, void *data, size_t n, uint64_t deadline_ns, pr_err *err)
{
    uint8_t *at = data;
    int rc = PR_OK;

    if (!c->ssl) return sock_read(&c->s, data, n, deadline_ns, err);
    for (size_t left = n, done; left && !rc; left -= done, at += done) {
        short events = 0;
        rc = read_piece(c, at, left, &done, &events, err);
        if (!rc && !done) rc = sock_wait(&c->s, events, deadline_ns, err);
    }
    return rc;
}

int channel_read_now(channel *c, void *data, size_t n, size_t *done, pr_err *err)
{
    int rc = PR_OK;

    *done = 0;
    if (!c->ssl) return sock_read_now(&c->s, data, n, done, err);
    for (size_t piece = 1; *done < n && piece && !rc; *done += piece) {
        short events = 0;
        rc = read_piece(c, (uint8_t *)data + *done, n - *done, &piece, &events, err);
    }
    return rc;
}

int channel_write_now(channel *c, const void *data, size_t n, size_t *done, pr_err *err)
{
    int rc = PR_OK;

    *done = 0;
    if (!c->ssl) return sock_write_now(&c->s, data, n, done, err);
    rekey_when_due(c);
    for (size_t piece = 1; *done < n && piece && !rc; *done += piece) {
        short events = 0;
        rc = write_piece(c, (const uint8_t *)data + *done, n - *done, &piece, &events, err);
    }
    return rc;
}

int channel_write(channel *c, const void *data, size_t n, uint64_t deadline_ns, pr_err *err)
{
    const uint8_t *at = data;
    int rc = PR_OK;

    if (!c->ssl) return sock_write(&c->s, data, n, deadline_ns, err);
    rekey_when_due(c);
    for (size_t left = n, done; left && !rc; left -= done, at += done) {
        short events = 0;
        rc = write_piece(c, at, left, &done, &events, err);
        if (!rc && !done) rc = sock_wait(&c->s, events, deadline_ns, err);
    }
    return rc;
}

/* --- about it, and its end
 * ----------------------------------------------------------------------------------- */
int channel_fd(const channel *c)
{
    return c->s.fd;
}

const char *channel_peer(const channel *c)
{
    return c->s.peer;
}

bool channel_is_secure(const channel *c)
{
    return c->ssl != NULL;
}

const char *channel_cipher(const channel *c)
{
    return c->ssl ? SSL_CIPHER_get_name(SSL_get_current_cipher(c->ssl)) : "plain";
}

bool channel_has_room(const channel *c)
{
    return sock_wait(&c->s, POLLOUT, 0, NULL) == PR_OK;
}

void channel_shutdown(channel *c)
{
    sock_shutdown(&c->s);
}

void channel_close(channel *c)
{
    if (!c) return;
    if (c->ssl && !c->broken && SSL_is_init_finished(c->ssl))
        SSL_shutdown(c->ssl); /* one record, or nothing */
    ERR_clear_error();
    SSL_free(c->ssl);
    sock_close(&c->s);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
