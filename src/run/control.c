/* Control messages; see control.h. */
#include "src/run/control.h"
#include "src/base/clock.h"
#include "src/run/text.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct control {
    channel *c;
    pthread_mutex_t mutex; /* of writing */
    _Atomic double peer_s;
    uint8_t *room; /* for writing: header and a piece of bulk */
    uint8_t *in;   /* for reading: CONTROL_MAX_BYTES, touched as far as messages are long */
};

int control_new(control **out, channel *c, double peer_s, pr_err *err)
{
    control *k = calloc(1, sizeof *k);

    if (k) {
        k->room = malloc(FRAME_HEADER_BYTES + CONTROL_BULK_BYTES);
        k->in = malloc(CONTROL_MAX_BYTES);
    }
    if (!k || !k->room || !k->in) {
        if (k) {
            free(k->room);
            free(k->in);
        }
        free(k);
        channel_close(c);
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    }
    k->c = c;
    k->peer_s = peer_s;
    pthread_mutex_init(&k->mutex, NULL);
    *out = k;
    return PR_OK;
}

void control_close(control *k)
{
    if (!k) return;
    channel_close(k->c);
    pthread_mutex_destroy(&k->mutex);
    free(k->room);
    free(k->in);
    free(k);
}

void control_shutdown(control *k)
{
    channel_shutdown(k->c);
}

const char *control_peer(const control *k)
{
    return channel_peer(k->c);
}

void control_set_silence(control *k, double peer_s)
{
    k->peer_s = peer_s;
}

/* --- sending ------------------------------------------------------------------------------------------- */
/* The mutex is held. */
static int send_piece(control *k, uint16_t type, const void *data, size_t n, pr_err *err)
{
    frame f = {.type = type, .extra = (uint32_t)n, .payload_bytes = (uint32_t)n};
    uint8_t *room = k->room;
    int rc;

    if (n > CONTROL_BULK_BYTES && !(room = malloc(FRAME_HEADER_BYTES + n)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    memcpy(room + FRAME_HEADER_BYTES, data, n);
    rc = frame_send(k->c, room, &f, sock_deadline(k->peer_s), err);
    if (room != k->room) free(room);
    return rc;
}

/* The mutex is held. Takes over the message. */
static int send_message(control *k, json_t *message, pr_err *err)
{
    char *text = message ? json_line(message) : NULL;
    size_t n = text ? strlen(text) : 0;
    int rc;

    json_decref(message);
    if (!text) return pr_fail(err, PR_ERESOURCE, "out of memory");
    rc = n > CONTROL_MAX_BYTES ? pr_fail(err, PR_EINTERNAL, "a control message of %zu bytes", n)
                               : send_piece(k, FRAME_CONTROL, text, n, err);
    free(text);
    return rc;
}

int control_send_bulk(control *k, json_t *message, const void *data, size_t n, pr_err *err)
{
    int rc;

    pthread_mutex_lock(&k->mutex);
    rc = send_message(k, message, err);
    for (size_t at = 0; at < n && !rc; at += CONTROL_BULK_BYTES) {
        size_t now = n - at < CONTROL_BULK_BYTES ? n - at : CONTROL_BULK_BYTES;
        rc = send_piece(k, FRAME_BULK, (const uint8_t *)data + at, now, err);
    }
    pthread_mutex_unlock(&k->mutex);
    return rc;
}

void control_try_send(control *k, json_t *message)
{
    if (pthread_mutex_trylock(&k->mutex)) {
        json_decref(message);
        return;
    }
    if (channel_has_room(k->c)) send_message(k, message, NULL);
    else json_decref(message);
    pthread_mutex_unlock(&k->mutex);
}

int control_send(control *k, json_t *message, pr_err *err)
{
    return control_send_bulk(k, message, NULL, 0, err);
}

int control_send_fail(control *k, const pr_err *why, uint64_t session, pr_err *err)
{
    json_t *m = json_pack("{s:s, s:I, s:o}", "type", "fail", "code", (json_int_t)why->code, "message",
                          text_json(why->msg, strlen(why->msg)));

    if (m && session) json_object_set_new(m, "session", json_integer((json_int_t)session));
    return control_send(k, m, err);
}

/* --- receiving ----------------------------------------------------------------------------------------- */
int control_recv(control *k, json_t **message, pr_err *err)
{
    const frame_limits limits = {CONTROL_MAX_BYTES, FRAME_BIT(FRAME_CONTROL)};
    frame f;
    int rc = frame_recv(k->c, &f, k->in, &limits, sock_deadline(k->peer_s), err);

    if (rc) return rc;
    *message = json_parse((const char *)k->in, f.payload_bytes, err);
    if (*message && control_type(*message)) return PR_OK;
    json_decref(*message);
    *message = NULL;
    return pr_fail(err, PR_EPEER, "%s: a control message that is none", control_peer(k));
}

int control_recv_bulk(control *k, size_t n, int (*take)(void *arg, const void *data, size_t n, pr_err *err),
                      void *arg, pr_err *err)
{
    const frame_limits limits = {CONTROL_BULK_BYTES, FRAME_BIT(FRAME_BULK)};
    int rc = PR_OK;

    while (n && !rc) {
        frame f;
        if ((rc = frame_recv(k->c, &f, k->in, &limits, sock_deadline(k->peer_s), err))) return rc;
        if (!f.payload_bytes || f.payload_bytes > n)
            return pr_fail(err, PR_EPEER, "%s: %u bytes of bulk, expected at most %zu", control_peer(k),
                           f.payload_bytes, n);
        rc = take(arg, k->in, f.payload_bytes, err);
        n -= f.payload_bytes;
    }
    return rc;
}

const char *control_type(const json_t *message)
{
    return json_string_value(json_object_get(message, "type"));
}

bool control_is(const json_t *message, const char *type)
{
    const char *t = control_type(message);
    return t && strcmp(t, type) == 0;
}
