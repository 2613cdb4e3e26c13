/* TCP sockets under deadlines: addresses, listening, connecting, exact reads and writes.
 *
 * Deadlines are absolute, in nanoseconds of clock_ns(), so that the steps of one exchange share one. A wait
 * also ends when the socket's `wake` is raised by another thread or a signal handler. Errors name the peer:
 * PR_EPEER (lost, refused, late), PR_EINTERRUPTED (woken), PR_EUSAGE (an address that makes no sense),
 * PR_ERESOURCE (the port is taken, no descriptors). After an error in the middle of a read or write the
 * stream is out of step: close it. The process ignores SIGPIPE (main does). */
#ifndef PRIMA_NET_SOCK_H
#define PRIMA_NET_SOCK_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pollfd;
#define SOCK_NO_DEADLINE                                                                                     \
    UINT64_MAX /* for waits that only a wake ends, like a server's for its next client                       \
                */
uint64_t sock_deadline(double seconds_from_now);

/* --- wake: end waits from elsewhere ---------------------------------------------------------------- */
/* Once raised it stays raised: every wait with it, now and later, returns PR_EINTERRUPTED. */
typedef struct {
    int fd[2]; /* a pipe; nobody reads it */
} wake;
int wake_init(wake *w, pr_err *err);
void wake_raise(const wake *w); /* from any thread or a signal handler */
void wake_clear(wake *w);

/* --- addresses --------------------------------------------------------------------------------------- */
enum { SOCK_HOST_BYTES = 256, SOCK_NAME_BYTES = SOCK_HOST_BYTES + 8 };
typedef struct {
    char host[SOCK_HOST_BYTES]; /* name, v4, or v6 without brackets */
    uint16_t port;
} sock_addr;
/* "desk.local:9700", "192.168.1.2:9700", "[fe80::1%eth0]:9700". Port 0 only where `listening`. PR_EUSAGE. */
int sock_addr_parse(sock_addr *out, const char *text, bool listening, pr_err *err);
void sock_addr_print(char out[SOCK_NAME_BYTES], const sock_addr *a);

/* --- connections --------------------------------------------------------------------------------------- */
typedef struct {
    int fd;                     /* non-blocking, close-on-exec; -1 = closed */
    const wake *wake;           /* or NULL */
    bool is_loopback;           /* the peer is on this machine */
    char peer[SOCK_NAME_BYTES]; /* for messages: the address as given, or where it came from */
} sock;

typedef struct {
    const wake *wake;       /* or NULL; outlives the sockets */
    unsigned lost_after_ms; /* bytes sent but not acknowledged for so long: the peer is lost (Linux); 0 =
                               as the system has it */
} sock_options;

/* Connect, trying every address of the name. With `retry` a refusal or an unreachable host is tried again
 * until the deadline (a worker may start later than we do). A name that is looked up in the DNS can take
 * the resolver's own time on top. */
int sock_connect(sock *out, const sock_addr *to, const sock_options *o, bool retry, uint64_t deadline_ns,
                 pr_err *err);

typedef struct {
    int fd;
    const sock_options *options;
    char address[SOCK_NAME_BYTES]; /* the port that was chosen, when 0 was asked for */
    bool is_loopback;              /* only this machine can reach it */
} sock_listener;
/* On this address only. The options are kept by reference. */
int sock_listen(sock_listener *out, const sock_addr *at, const sock_options *o, pr_err *err);
int sock_accept(sock *out, const sock_listener *l, uint64_t deadline_ns, pr_err *err);
void sock_listener_close(sock_listener *l); /* also after a failed sock_listen; twice is fine */

/* All n bytes or an error. One thread may read while another writes. */
int sock_read(sock *s, void *data, size_t n, uint64_t deadline_ns, pr_err *err);
int sock_write(sock *s, const void *data, size_t n, uint64_t deadline_ns, pr_err *err);
/* As much as goes without waiting: *done bytes. The peer's end is PR_EPEER. */
int sock_read_now(sock *s, void *data, size_t n, size_t *done, pr_err *err);
int sock_write_now(sock *s, const void *data, size_t n, size_t *done, pr_err *err);
/* Until poll(2) reports one of `events` (or an error on the socket, which the next call then meets). */
int sock_wait(const sock *s, short events, uint64_t deadline_ns, pr_err *err);
/* Until there is something to read on the socket (bytes, an end, or a raised wake: 1), on `bell` (a
 * descriptor, or -1: 2), or the deadline has passed (0); to the microsecond where the system can. Never
 * fails: what is wrong, the next read says. */
int sock_wait_input(const sock *s, int bell, uint64_t deadline_ns);
/* poll(2) until an absolute deadline, to the microsecond where the system can. */
int sock_poll(struct pollfd *p, size_t n, uint64_t deadline_ns);
/* What a failed call on this socket means (errno), as an error that says what to do. */
int sock_fail(const sock *s, int error, pr_err *err);
/* From any thread: waits on this socket end, its peer sees the end of the stream. The descriptor stays. */
void sock_shutdown(const sock *s);
void sock_close(sock *s); /* twice is fine */

#endif
