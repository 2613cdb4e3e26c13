/* How fast the links are. All of them together: a frame as large as one of a pass goes round the ring, and no
 * device computes anything. Each by itself: hidden states go one way, and the devices' clocks differ by more
 * than a hop takes, so every device asks the next one for echoes, on a connection of its own (net/probe.h).
 */
#include "src/base/clock.h"
#include "src/run/ring_impl.h"
#include <stdlib.h>

enum { MAX_LAPS = 51 };
static const double MEASURE_S = 1;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int ring_measure(ring *r, uint32_t rows, double *ms, pr_err *err)
{
    uint64_t enough = sock_deadline(MEASURE_S);
    double lap[MAX_LAPS];
    size_t n = 0;
    int rc;

    if ((rc = ring_walk(r, rows, sock_deadline(r->sizes.connect_s), err))) return rc; /* warms up */
    do {
        uint64_t start = clock_ns();
        if ((rc = ring_walk(r, rows, sock_deadline(r->sizes.connect_s), err))) return rc;
        lap[n++] = clock_ms_since(start);
    } while (n < MAX_LAPS && clock_ns() < enough);
    qsort(lap, n, sizeof *lap, by_size);
    *ms = lap[n / 2];
    return PR_OK;
}

/* The head's own link. */
static int measure_first(ring *r, probe_figures *out, pr_err *err)
{
    uint64_t deadline = sock_deadline(r->sizes.peer_s);
    sock_addr to;
    channel *c;
    sock s;
    int rc;

    ring_address(r, 1 % r->n, &to);
    if ((rc = sock_connect(&s, &to, &r->so, false, deadline, err)) ||
        (rc = channel_open(&c, &s, CHANNEL_CLIENT, &r->sec, deadline, err)))
        return rc;
    rc = probe_ask(out, c, &PROBE_IN_A_RING, err);
    channel_close(c);
    return rc;
}

int ring_measure_link(ring *r, size_t from, double *rtt_ms, double *bytes_per_s, pr_err *err)
{
    char next[SOCK_NAME_BYTES];
    probe_figures got;
    sock_addr to;
    int rc;

    if (from) {
        ring_address(r, (from + 1) % r->n, &to);
        sock_addr_print(next, &to);
        return peer_measure_link(r->p[from], next, rtt_ms, bytes_per_s, err);
    }
    if ((rc = measure_first(r, &got, err))) return rc;
    *rtt_ms = got.rtt_ms;
    *bytes_per_s = got.out_bytes_per_s;
    return PR_OK;
}
