/* Any bytes as a stream of frames, under limits that the first bytes choose: every frame is refused, or
 * within the limits and written again as it was read. */
#include "net/frame.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { LIMITS_BYTES = 6, MOST_BYTES = 60000 /* what a socket takes without a reader */ };

static void must(bool ok)
{
    if (!ok) abort();
}

static void check(const frame *f, const frame_limits *limits, const uint8_t *header)
{
    uint8_t again[FRAME_HEADER_BYTES];

    must(f->payload_bytes <= limits->max_payload_bytes);
    must(f->type && f->type < FRAME_TYPES_END && (limits->types >> f->type & 1));
    must(f->elem ? f->rows && f->cols : !f->rows && !f->cols);
    must((uint64_t)frame_matrix_bytes(f->elem, f->rows, f->cols) + f->extra == f->payload_bytes);
    frame_encode(again, f);
    must(!memcmp(again, header, sizeof again));
}

static void read_all(channel *c, const uint8_t *stream, size_t n, const frame_limits *limits)
{
    uint8_t *payload = malloc(limits->max_payload_bytes + 1u); /* exact but for the zero case */
    pr_err err = {0};
    size_t at = 0;
    frame f;
    int rc;

    must(payload != NULL);
    while (!(rc = frame_recv(c, &f, payload, limits, sock_deadline(5), &err))) {
        must(at + FRAME_HEADER_BYTES + f.payload_bytes <= n);
        check(&f, limits, stream + at);
        must(!f.payload_bytes || !memcmp(payload, stream + at + FRAME_HEADER_BYTES, f.payload_bytes));
        at += FRAME_HEADER_BYTES + f.payload_bytes;
    }
    must((rc == PR_EPEER || rc == PR_EMISMATCH) && *err.msg);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    frame_limits limits;
    sock s = {.is_loopback = true, .peer = "fuzz"};
    const security plain = {0};
    channel *c;
    int fd[2];

    if (n < LIMITS_BYTES || n > MOST_BYTES) return 0;
    limits = (frame_limits){(uint32_t)(data[0] | data[1] << 8),
                            (uint32_t)(data[2] | data[3] << 8 | data[4] << 16)};
    data += LIMITS_BYTES;
    n -= LIMITS_BYTES;
    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    must(n == 0 || write(fd[1], data, n) == (ssize_t)n);
    close(fd[1]);
    s.fd = fd[0];
    must(!channel_open(&c, &s, CHANNEL_SERVER, &plain, sock_deadline(5), NULL));
    read_all(c, data, n, &limits);
    channel_close(c);
    return 0;
}
