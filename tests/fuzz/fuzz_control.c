/* Any bytes from the other side of a control connection: messages with a type, bulk as long as announced,
 * jobs that are refused or inside their limits; then an error and the end. */
#include "src/run/control.h"
#include "src/run/job.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_INPUT = 60000 /* fits into a socket's buffer */ };

static void must(bool ok)
{
    if (!ok) abort();
}

/* One connection for all inputs (its buffers are large); fd[1] is the other side. An input ends in silence.
 */
static control *connection(int fd[2])
{
    static const security plain = {.insecure = true};
    sock s = {.is_loopback = true, .peer = "fuzz"};
    control *k;
    channel *c;

    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    s.fd = fd[0];
    fcntl(s.fd, F_SETFL, O_NONBLOCK);
    must(!channel_open(&c, &s, CHANNEL_SERVER, &plain, SOCK_NO_DEADLINE, NULL));
    must(!control_new(&k, c, 0, NULL));
    return k;
}

static int take(void *arg, const void *bulk, size_t n, pr_err *err)
{
    size_t *left = arg;
    uint8_t sum = 0;

    (void)err;
    must(n > 0 && n <= *left && n <= CONTROL_BULK_BYTES);
    for (size_t i = 0; i < n; i++) sum += ((const uint8_t *)bulk)[i];
    *left -= n;
    return sum == 255 ? PR_ERESOURCE : PR_OK;
}

static void read_job(const json_t *message)
{
    pr_err err = {0};
    job *j;

    if (job_from_json(&j, message, &err)) {
        must(err.code && *err.msg);
        return;
    }
    must(j->rank > 0 && j->rank < j->plan->n_devices && j->sizes.max_tokens <= j->sizes.merge_tokens);
    must(j->sizes.peer_s > 0 && j->sizes.heartbeat_s > 0 && j->sizes.connect_s > 0);
    job_free(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static control *k;
    static int fd[2];
    char rest[4096];
    pr_err err = {0};
    json_t *message;
    int rc;

    if (n > MAX_INPUT) return 0;
    if (!k) k = connection(fd);
    must(write(fd[1], data, n) == (ssize_t)n);
    while (!(rc = control_recv(k, &message, &err))) {
        must(json_is_object(message) && control_type(message) && control_is(message, control_type(message)));
        if (control_is(message, "job")) read_job(message);
        if (control_is(message, "have")) {
            json_int_t bytes = json_integer_value(json_object_get(message, "bytes"));
            size_t left = bytes > 0 ? (size_t)bytes : 0;
            rc = control_recv_bulk(k, left, take, &left, &err);
            must(rc || left == 0);
        }
        json_decref(message);
        if (rc) break;
    }
    must(rc == PR_ERESOURCE || ((rc == PR_EPEER || rc == PR_EMISMATCH) && *err.msg));
    while (read(fd[0], rest, sizeof rest) > 0) {}
    return 0;
}
