/* Streamed pieces under ThreadSanitizer: some threads use a pass's pieces while the reader fills the buffer
 * and another thread looks at the counts. Prints TAP. */
#include "src/model/stream.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { USERS = 3, PIECES = 20, PIECE_BYTES = 9000, LAPS = 60 };

static stream *s;
static uint8_t bytes[PIECES * PIECE_BYTES];
static stream_piece piece[PIECES];
static atomic_bool over, wrong;

typedef struct {
    size_t window, first;
} part;

static const size_t first_of[] = {0, 13, PIECES};

static void *use(void *arg)
{
    const part *x = arg;
    size_t n = first_of[x->window + 1] - first_of[x->window];

    for (size_t i = x->first; i < n; i += USERS) {
        const stream_piece *p = &piece[first_of[x->window] + i];
        const uint8_t *b = stream_wait(s, i);
        if (!b || memcmp(b, bytes + p->at, p->n)) atomic_store(&wrong, true);
        stream_done(s, i);
    }
    return NULL;
}

static void *look(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        stream_counts c = stream_about(s);
        if (c.wasted_bytes > c.read_bytes || stream_disk(s).bytes > (uint64_t)1 << 40)
            atomic_store(&wrong, true);
        usleep(200);
    }
    return NULL;
}

static void lap(size_t window)
{
    pthread_t t[USERS];
    part x[USERS];

    stream_begin(s, window);
    for (size_t i = 0; i < USERS; i++) {
        x[i] = (part){window, i};
        pthread_create(&t[i], NULL, use, &x[i]);
    }
    for (size_t i = 0; i < USERS; i++) pthread_join(t[i], NULL);
    stream_end(s, window);
}

int main(void)
{
    char path[] = "build/tsan-stream-XXXXXX";
    stream_options o = {.n_windows = 2, .first = first_of, .piece = piece, .n_slots = 2};
    int fd = mkstemp(path);
    pthread_t looker;
    pr_err err;

    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < PIECES; i++) piece[i] = (stream_piece){i * PIECE_BYTES, PIECE_BYTES};
    printf("1..1\n");
    if (fd < 0 || write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes || stream_new(&s, path, &o, &err)) {
        printf("not ok 1 - cannot begin: %s\n", fd < 0 ? "no file" : err.msg);
        return 1;
    }
    close(fd);
    unlink(path);
    pthread_create(&looker, NULL, look, NULL);
    for (size_t i = 0; i < LAPS; i++) lap(i % 7 == 6 ? 0 : i % 2);
    atomic_store(&over, true);
    pthread_join(looker, NULL);
    stream_free(s);
    printf("%s 1 - pieces are whole, whoever uses them\n", atomic_load(&wrong) ? "not ok" : "ok");
    return atomic_load(&wrong);
}
