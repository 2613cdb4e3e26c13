/* TCP ports for processes that a test starts. */
#ifndef PRIMA_TESTS_FREE_PORTS_H
#define PRIMA_TESTS_FREE_PORTS_H
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT_BLOCKS = 191 };

/* A hundred ports that are this process's own, by a lock that ends with it: tests run beside each other, also
 * those of other checkouts. Where nothing can be locked, most likely its own. */
static inline unsigned port_block(void)
{
    static unsigned block = PORT_BLOCKS;

    for (unsigned i = 0; i < PORT_BLOCKS && block == PORT_BLOCKS; i++) {
        char path[64];
        unsigned candidate = ((unsigned)getpid() + i) % PORT_BLOCKS;
        int fd;
        snprintf(path, sizeof path, "/tmp/prima-test-ports-%u", candidate);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB)) block = candidate; /* the lock stays */
        else if (fd >= 0) close(fd);
    }
    if (block == PORT_BLOCKS) block = (unsigned)getpid() % PORT_BLOCKS;
    return block;
}

/* n different ports on which nobody listens at 127.0.0.1, below those that the system gives to connections:
 * there, somebody may sit at any moment. */
static inline void free_ports(uint16_t *port, size_t n)
{
    static unsigned next;

    for (size_t i = 0; i < n;) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
        port[i] = (uint16_t)(12000 + port_block() * 100 + next++ % 100);
        a.sin_port = htons(port[i]);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0) i++;
        close(fd);
    }
}

#endif
