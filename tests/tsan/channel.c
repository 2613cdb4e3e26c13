/* Channels under ThreadSanitizer: on each end one thread reads while another writes, keys change on the way,
 * and at last a third thread cuts the connection under a reader. A race makes the process stop with a report.
 * Prints TAP. (OpenSSL itself is not instrumented: what is seen is our side, and that its calls are one at a
 * time.) */
#include "tests/net/pair.h"
#include <signal.h>
#include <time.h>

enum { BYTES = 200000, ROUNDS = 5 };

static void *write_rounds(void *c)
{
    static const uint8_t data[BYTES];
    pr_err e = {0};

    for (int r = 0; r < ROUNDS; r++)
        pair_must(channel_write(c, data, BYTES, sock_deadline(60), &e), &e, "write");
    return NULL;
}

static void *read_rounds(void *c)
{
    uint8_t *data = malloc(BYTES);
    pr_err e = {0};

    for (int r = 0; data && r < ROUNDS; r++)
        pair_must(channel_read(c, data, BYTES, sock_deadline(60), &e), &e, "read");
    free(data);
    return NULL;
}

static void *read_for_ever(void *c)
{
    uint8_t byte;
    return (void *)(intptr_t)channel_read(c, &byte, 1, SOCK_NO_DEADLINE, NULL);
}

static int works(const security *sec)
{
    pair_end a, b;
    pthread_t t[4];
    void *lost;

    pair_open(&a, &b, sec, sec);
    if (a.rc || b.rc) return 0;
    pthread_create(&t[0], NULL, write_rounds, a.c);
    pthread_create(&t[1], NULL, write_rounds, b.c);
    pthread_create(&t[2], NULL, read_rounds, a.c);
    pthread_create(&t[3], NULL, read_rounds, b.c);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    pthread_create(&t[0], NULL, read_for_ever, a.c);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    channel_shutdown(a.c);
    pthread_join(t[0], &lost);
    pair_close(&a, &b);
    return (intptr_t)lost == PR_EPEER;
}

int main(void)
{
    static const char *const names[] = {"plain", "TLS", "TLS, new keys every 50000 bytes"};
    const cluster_key key = pair_key(3);
    const security secs[] = {{0}, {.key = &key}, {.key = &key, .rekey_bytes = 50000}};
    int failed = 0;

    signal(SIGPIPE, SIG_IGN);
    printf("1..3\n");
    for (int i = 0; i < 3; i++) {
        int right = works(&secs[i]);
        printf("%s %d - %s\n", right ? "ok" : "not ok", i + 1, names[i]);
        failed |= !right;
    }
    return failed;
}
