/* Any bytes from a peer that does not hold the key, to either side of a handshake: refused, never let in. The
 * first byte chooses the side. */
#include "net/secure.h"
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST_BYTES = 60000 };

static void must(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const cluster_key key = {{1, 2, 3}, "0123456789abcdef"};
    const security sec = {.key = &key};
    sock s = {.peer = "fuzz"};
    channel *c;
    pr_err err = {0};
    int fd[2], rc;

    if (n < 1 || n > MOST_BYTES) return 0;
    signal(SIGPIPE, SIG_IGN);
    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
    must(n == 1 || write(fd[1], data + 1, n - 1) == (ssize_t)n - 1);
    shutdown(fd[1], SHUT_WR);
    s.fd = fd[0];
    rc = channel_open(&c, &s, data[0] & 1 ? CHANNEL_CLIENT : CHANNEL_SERVER, &sec, sock_deadline(5), &err);
    must((rc == PR_EAUTH || rc == PR_EPEER) && *err.msg && !strchr(err.msg, '\n') && !c && s.fd == -1);
    close(fd[1]);
    return 0;
}
