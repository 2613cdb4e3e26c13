/* io_uring: blocks are handed to the kernel, which works on all of them at once; no thread of ours waits for
 * one. Whether it may be used is up to the kernel's age, its settings and the container's policy, so asking
 * is the only way to know. */
#include "src/base/clock.h"
#include "src/base/cond.h"
#include "src/base/disk_read_impl.h"
#include <stdio.h>
/* Android's filter of system calls does not refuse it, but ends the process. */
#if defined(PRIMA_URING) && !defined(__ANDROID__)
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    struct io_uring ring;
    disk_engine_options o;
    int wake_fd;
} uring;

/* There is always room: as many entries as blocks. */
static void start(void *engine, const disk_piece *p)
{
    uring *u = engine;
    struct io_uring_sqe *e = io_uring_get_sqe(&u->ring);

    io_uring_prep_read(e, u->o.fd, p->dst, (unsigned)p->n, p->at);
    if (u->o.idle) e->ioprio = DISK_IDLE_CLASS;
    e->user_data = p->block;
}

/* What the kernel does not take now (it is short of memory, a signal) stays in the ring for the next time. */
static void kick(void *engine)
{
    uring *u = engine;

    if (io_uring_sq_ready(&u->ring)) io_uring_submit(&u->ring);
}

static size_t take(uring *u, disk_result *out, size_t max)
{
    struct io_uring_cqe *done[DISK_READ_MAX_DEPTH];
    unsigned n = io_uring_peek_batch_cqe(&u->ring, done,
                                         max < DISK_READ_MAX_DEPTH ? (unsigned)max : DISK_READ_MAX_DEPTH);

    for (unsigned i = 0; i < n; i++) out[i] = (disk_result){(unsigned)done[i]->user_data, done[i]->res};
    io_uring_cq_advance(&u->ring, n);
    return n;
}

/* How long reap may sleep: less where something could not be handed over. NULL: without end. */
static const struct timespec *sleep_until(uring *u, uint64_t deadline_ns, struct timespec *t)
{
    static const uint64_t RETRY_NS = 1000000;
    uint64_t now = clock_ns(), ns = deadline_ns > now ? deadline_ns - now : 0;

    if (io_uring_sq_ready(&u->ring) && ns > RETRY_NS) ns = RETRY_NS;
    else if (deadline_ns == COND_FOREVER) return NULL;
    *t = (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    return t;
}

/* The ring's descriptor is readable when there is a result. */
static size_t reap(void *engine, disk_result *out, size_t max, uint64_t deadline_ns)
{
    uring *u = engine;
    struct pollfd on[2] = {{.fd = u->ring.ring_fd, .events = POLLIN}, {.fd = u->wake_fd, .events = POLLIN}};
    size_t n = take(u, out, max);
    struct timespec t;
    eventfd_t wakes;

    if (n || clock_ns() >= deadline_ns) return n;
    kick(u);
    if (ppoll(on, 2, sleep_until(u, deadline_ns, &t), NULL) > 0 && on[1].revents)
        eventfd_read(u->wake_fd, &wakes);
    return take(u, out, max);
}

static void wake(void *engine)
{
    uring *u = engine;

    eventfd_write(u->wake_fd, 1);
}

static void free_uring(void *engine)
{
    uring *u = engine;

    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    free(u);
}

static const disk_engine uring_engine = {DISK_READ_URING, start, kick, reap, wake, free_uring};

static const char *reason(int e)
{
    switch (e) {
    case EPERM:
    case EACCES: return "not permitted here (the container's policy or kernel.io_uring_disabled)";
    case ENOSYS: return "this kernel has none, or is too old";
    case ENOMEM: return "too little locked memory allowed (ulimit -l)";
    default: return strerror(e);
    }
}

/* Plain reads came in Linux 5.6, later than the ring; then the ring could be asked what it knows. */
static int knows_reading(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    int known = probe && io_uring_opcode_supported(probe, IORING_OP_READ);

    if (probe) io_uring_free_probe(probe);
    return known;
}

const disk_engine *disk_uring_new(void **out, const disk_engine_options *o, char *why, size_t n)
{
    struct io_uring_params params = {0};
    uring *u = calloc(1, sizeof *u);
    int e;

    if (!u) return NULL;
    u->o = *o;
    if ((u->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        snprintf(why, n, "io_uring: %s", strerror(errno));
        free(u);
        return NULL;
    }
    e = -io_uring_queue_init_params(o->depth, &u->ring, &params);
    if (!e && !knows_reading(&u->ring)) {
        io_uring_queue_exit(&u->ring);
        e = ENOSYS;
    }
    if (e) {
        snprintf(why, n, "io_uring: %s", reason(e));
        close(u->wake_fd);
        free(u);
        return NULL;
    }
    *out = u;
    return &uring_engine;
}

#else

const disk_engine *disk_uring_new(void **out, const disk_engine_options *o, char *why, size_t n)
{
    (void)out;
    (void)o;
#ifdef __linux__
    snprintf(why, n, "io_uring: built without liburing");
#else
    snprintf(why, n, "%s", ""); /* nobody expects it there */
#endif
    return NULL;
}
#endif
