/* TCP ports for processes that a test starts. */
#ifndef PRIMA_TESTS_FREE_PORTS_H
#define PRIMA_TESTS_FREE_PORTS_H
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

/* n different ports on which nobody listens at 127.0.0.1, below those that the system gives to connections:
 * there, somebody may sit at any moment. Tests run beside each other: each process has a hundred of its own.
 */
static inline void free_ports(uint16_t *port, size_t n)
{
    static unsigned next;

    for (size_t i = 0; i < n;) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
        port[i] = (uint16_t)(12000 + (unsigned)getpid() % 191 * 100 + next++ % 100);
        a.sin_port = htons(port[i]);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0) i++;
        close(fd);
    }
}

#endif
