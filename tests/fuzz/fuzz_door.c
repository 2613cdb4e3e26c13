/* Strangers at a door, as a script tells: many at once, who say any bytes, begin a handshake and stop, leave,
 * reset, or hold the key and misbehave. Who does not hold the key is never let in; what is let in is within
 * the limits; and somebody with the key who comes from elsewhere, in the middle of it or afterwards, always
 * gets in, with what he has said. Nothing is left open.
 *
 * The first byte: bit 0, no key (plain); bit 1, greetings end after a millisecond. Then steps: a byte that
 * says what (below) and a byte that says who, for some a length and bytes. All in one thread. */
#include "net/door.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    STRANGERS = 40,
    ADDRESSES = 3,
    HEADS_ADDRESS = 9,
    MOST_STEPS = 400,
    MOST_TURNS = 20000,
    PIECE_BYTES = 36
};
enum {
    COME,
    SAY,
    LEAVE,
    RESET,
    FINISH,
    TURN,
    COME_WITH_KEY,
    SHAKE,
    SAY_IN_TLS,
    SAY_FRAME,
    HEAD_COMES,
    CROWD,
    STEPS
};
static const char GREETING[] = "{\"type\":\"hello\"}";

/* fd: of a stranger without the key, c: of one with it; neither: not there. */
typedef struct {
    int fd;
    channel *c;
    bool shaken;
} visitor;

typedef struct {
    const uint8_t *at, *end;
    door_options o;
    security sec;
    door *d;
    struct sockaddr_in to;
    visitor v[STRANGERS], head;
    bool head_is_in, is_hasty;
    size_t head_has_said; /* bytes of its frame */
} scene;

static const cluster_key key = {{1, 2, 3}, "0123456789abcdef"};
static const sock_options plain_options;

static void must(bool ok)
{
    if (!ok) abort();
}

static uint8_t take(scene *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

/* --- coming -------------------------------------------------------------------------------------------- */
/* From 127.0.0.`last` where the system has it. Closing is a reset: no port stays taken. */
static int come(const scene *s, uint8_t last)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000u + last)};
    const struct linger at_once = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    must(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
#ifdef IP_BIND_ADDRESS_NO_PORT
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
#endif
    (void)yes;
    bind(fd, (const struct sockaddr *)&from, sizeof from);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (const struct sockaddr *)&s->to, sizeof s->to);
    return fd;
}

static void come_with_key(const scene *s, visitor *v, uint8_t last)
{
    sock k = {.fd = come(s, last), .is_loopback = true, .peer = "door"};

    must(!channel_begin(&v->c, &k, CHANNEL_CLIENT, &s->sec, NULL));
    v->shaken = false;
}

static void leave(visitor *v)
{
    if (v->fd >= 0) close(v->fd);
    channel_close(v->c);
    *v = (visitor){.fd = -1};
}

/* --- who comes in ----------------------------------------------------------------------------------------
 */
static void check_guest(scene *s, const door_guest *g)
{
    const frame *f = &g->f;

    must(channel_is_secure(g->c) == !(s->sec.key == NULL));
    must(f->type < FRAME_TYPES_END && (s->o.limits.types >> f->type & 1));
    must(f->payload_bytes <= s->o.limits.max_payload_bytes);
    if (!strncmp(channel_peer(g->c), "127.0.0.9:", 10)) {
        must(f->payload_bytes == sizeof GREETING && !memcmp(g->payload, GREETING, sizeof GREETING));
        s->head_is_in = true;
    }
    channel_close(g->c);
}

/* The door looks; true: somebody came in. */
static bool turn(scene *s)
{
    door_guest g;
    pr_err err = {0};
    int rc = door_next(s->d, &g, 0, &err);

    must(rc == PR_OK || (rc == PR_EPEER && *err.msg));
    if (!rc) check_guest(s, &g);
    return !rc;
}

static bool shake(visitor *v)
{
    short events = 0;

    if (!v->c || v->shaken) return false;
    if (channel_handshake_now(v->c, &events, NULL)) leave(v);
    else v->shaken = !events;
    return v->shaken;
}

/* --- saying ----------------------------------------------------------------------------------------------
 */
static void say(visitor *v, const uint8_t *bytes, size_t n)
{
    size_t done;

    if (v->fd >= 0) send(v->fd, bytes, n, 0);
    else if (v->shaken) channel_write_now(v->c, bytes, n, &done, NULL);
}

static void say_from_script(scene *s, visitor *v)
{
    size_t n = take(s) * (size_t)16 + 1, left = (size_t)(s->end - s->at);

    if (n > left) n = left;
    say(v, s->at, n);
    s->at += n;
}

/* A header that is right but for what the script says, and a part of its payload. */
static void say_frame(scene *s, visitor *v)
{
    uint8_t room[FRAME_HEADER_BYTES + 255] = {0};
    frame f = {.type = take(s) % 16, .elem = take(s) % 5, .extra = (uint32_t)take(s) * 20};
    size_t some;

    f.rows = f.elem ? take(s) : 0;
    f.cols = f.elem ? take(s) : 0;
    f.payload_bytes = f.extra + frame_matrix_bytes(f.elem, f.rows, f.cols);
    frame_encode(room, &f);
    some = take(s);
    say(v, room, some % (sizeof room + 1));
}

/* As it goes: the handshake, then one frame in pieces. */
static void head_goes_on(scene *s)
{
    uint8_t room[FRAME_HEADER_BYTES + sizeof GREETING];
    frame f = {.type = FRAME_CONTROL, .extra = sizeof GREETING, .payload_bytes = sizeof GREETING};
    size_t done = 0, left = sizeof room - s->head_has_said;

    if (!s->head.c || !left) return;
    if (!s->head.shaken && !shake(&s->head)) {
        must(s->head.c || s->is_hasty);
        return;
    }
    frame_encode(room, &f);
    memcpy(room + FRAME_HEADER_BYTES, GREETING, sizeof GREETING);
    must(!channel_write_now(s->head.c, room + s->head_has_said, left < PIECE_BYTES ? left : PIECE_BYTES,
                            &done, NULL) ||
         s->is_hasty);
    s->head_has_said += done;
}

static void head_comes(scene *s)
{
    if (!s->head.c && !s->head_is_in) come_with_key(s, &s->head, HEADS_ADDRESS);
}

/* --- the script ------------------------------------------------------------------------------------------
 */
static void step(scene *s)
{
    uint8_t what = take(s) % STEPS, who = take(s);
    visitor *v = &s->v[who % STRANGERS];
    bool here = v->fd >= 0 || v->c;

    switch (what) {
    case COME:
        if (!here) v->fd = come(s, (uint8_t)(1 + who % ADDRESSES));
        break;
    case COME_WITH_KEY:
        if (!here) come_with_key(s, v, (uint8_t)(1 + who % ADDRESSES));
        break;
    case CROWD:
        for (size_t i = 0; i < STRANGERS; i++)
            if (s->v[i].fd < 0 && !s->v[i].c) s->v[i].fd = come(s, (uint8_t)(1 + who % ADDRESSES));
        break;
    case SAY:
    case SAY_IN_TLS: say_from_script(s, v); break;
    case SAY_FRAME: say_frame(s, v); break;
    case SHAKE: shake(v); break;
    case LEAVE: /* the end of the stream, and not a word more */
    case FINISH:
        if (v->fd >= 0) shutdown(v->fd, what == LEAVE ? SHUT_RDWR : SHUT_WR);
        else if (v->c) channel_shutdown(v->c);
        break;
    case RESET: leave(v); break;
    case HEAD_COMES: head_comes(s); break;
    default: turn(s);
    }
    head_goes_on(s);
}

/* Whoever still stands there stays while the head gets in. */
static void let_head_in(scene *s)
{
    head_comes(s);
    for (int i = 0; i < MOST_TURNS && !s->head_is_in; i++) {
        head_goes_on(s);
        if (!turn(s) && !s->head_is_in && i > 100) usleep(100);
    }
    must(s->head_is_in);
}

/* Nobody stays longer than a greeting may take. */
static void wait_until_all_are_out(scene *s)
{
    for (size_t i = 0; i < STRANGERS; i++) {
        struct pollfd p = {.fd = s->v[i].c ? channel_fd(s->v[i].c) : s->v[i].fd, .events = POLLIN | POLLHUP};
        char byte;
        for (int turns = 0; p.fd >= 0 && turns < MOST_TURNS; turns++) {
            turn(s);
            poll(&p, 1, 0);
            if (p.revents && recv(p.fd, &byte, 1, 0) <= 0) break;
            if (!p.revents) usleep(100);
            must(turns < MOST_TURNS - 1);
        }
    }
}

/* A descriptor that was left open makes the next number larger. */
static int next_fd(void)
{
    int fd = dup(0);

    must(fd >= 0);
    close(fd);
    return fd;
}

static void open_scene(scene *s, uint8_t flags)
{
    const sock_addr at = {.host = "127.0.0.1"};

    s->is_hasty = flags & 2;
    s->sec = (security){.key = flags & 1 ? NULL : &key};
    s->o = (door_options){
        .so = &plain_options,
        .sec = &s->sec,
        .greeting_s = s->is_hasty ? 1e-3 : 30,
        .limits = {1000, FRAME_BIT(FRAME_CONTROL) | FRAME_BIT(FRAME_JOIN) | FRAME_BIT(FRAME_ECHO)}};
    must(!door_open(&s->d, &at, &s->o, NULL));
    s->to = (struct sockaddr_in){.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(strrchr(door_address(s->d), ':') + 1))};
    for (size_t i = 0; i < STRANGERS; i++) s->v[i].fd = -1;
    s->head.fd = -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    scene s = {.at = data, .end = data + n};
    int before = next_fd();

    signal(SIGPIPE, SIG_IGN);
    log_setup(&(log_options){.level = LOG_ERROR});
    open_scene(&s, take(&s));
    for (int i = 0; i < MOST_STEPS && s.at < s.end; i++) step(&s);
    if (s.is_hasty) wait_until_all_are_out(&s);
    else let_head_in(&s);
    for (size_t i = 0; i < STRANGERS; i++) leave(&s.v[i]);
    leave(&s.head);
    door_close(s.d);
    must(next_fd() == before);
    return 0;
}
