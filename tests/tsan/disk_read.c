/* The reader of extents under ThreadSanitizer: one thread submits and waits, another wakes it and asks for
 * figures; what arrives is plain memory that the pool's threads wrote. Prints TAP. */
#include "src/base/disk_read.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N_BLOCKS = 64, BLOCK = 16384, N_ROUNDS = 60 };

static disk_read *reader;
static atomic_bool ending;

static void *disturb(void *arg)
{
    while (!atomic_load(&ending)) {
        disk_read_facts f = disk_read_about(reader);
        if (f.busy_s < 0) return NULL;
        disk_read_wake(reader);
        nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    }
    return arg;
}

/* Every block of the file is full of its number. */
static int make_file(char *path)
{
    static unsigned char block[BLOCK];
    int fd = mkstemp(path), right = fd >= 0;

    for (int i = 0; i < N_BLOCKS && right; i++) {
        memset(block, i, sizeof block);
        right = write(fd, block, sizeof block) == BLOCK;
    }
    if (fd >= 0) close(fd);
    return right;
}

static int read_round(unsigned char *p)
{
    int right = 1;

    for (uint64_t i = 0; i < N_BLOCKS; i++)
        right &= !disk_read_submit(reader, i, i * BLOCK, BLOCK, p + i * BLOCK, NULL);
    for (int n = 0; n < N_BLOCKS && right;) {
        uint64_t tag = 0;
        disk_read_end end = disk_read_wait(reader, -1, &tag, NULL);
        if (end == DISK_READ_TIMEOUT) continue;
        right &= end == DISK_READ_DONE && p[tag * BLOCK] == tag && p[tag * BLOCK + BLOCK - 1] == tag;
        n++;
    }
    return right;
}

static int reads_are_right(const char *path, disk_read_options o)
{
    void *p = NULL;
    pthread_t thread;
    int right = !posix_memalign(&p, DISK_READ_ALIGN, (size_t)N_BLOCKS * BLOCK);

    if (!right || disk_read_open(&reader, path, &o, NULL)) return 0;
    atomic_store(&ending, false);
    right = !pthread_create(&thread, NULL, disturb, &ending);
    for (int round = 0; round < N_ROUNDS && right; round++) right = read_round(p);
    atomic_store(&ending, true);
    pthread_join(thread, NULL);
    disk_read_submit(reader, 0, 0, (size_t)N_BLOCKS * BLOCK, p, NULL); /* on its way when closed */
    disk_read_close(reader);
    memset(p, 1, (size_t)N_BLOCKS * BLOCK);
    free(p);
    return right;
}

int main(void)
{
    static const disk_read_options ways[] = {{.engine = DISK_READ_PREAD, .block_bytes = 8192, .depth = 4},
                                             {.engine = DISK_READ_PREAD, .mode = DISK_READ_BUFFERED},
                                             {.engine = DISK_READ_URING, .block_bytes = 8192}};
    char path[] = "/tmp/prima-tsan-XXXXXX";
    int failed = !make_file(path);

    printf("1..3\n");
    for (int i = 0; i < 3; i++) {
        int right = !failed && reads_are_right(path, ways[i]);
        printf("%s %d - way %d\n", right ? "ok" : "not ok", i + 1, i);
        failed |= !right;
    }
    unlink(path);
    return failed;
}
