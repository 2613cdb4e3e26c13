/* Reading extents of a file ahead of their use: past the page cache where the file system allows it, many
 * requests at once, never on the thread that computes.
 *
 * Engines: io_uring (Linux, where the kernel and its policy allow it), else a small pool of threads with
 * pread. Direct (O_DIRECT; macOS: F_NOCACHE), else buffered with the pages dropped behind. What was obtained
 * is said once in the log, and in disk_read_about. */
#ifndef PRIMA_BASE_DISK_READ_H
#define PRIMA_BASE_DISK_READ_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DISK_READ_ALIGN =
        4096, /* of offset, length and memory of a request; the file's end may cut the last one */
    DISK_READ_MAX_BLOCK = 64 << 20,
    DISK_READ_MAX_DEPTH = 128
};

typedef enum { DISK_READ_AUTO, DISK_READ_URING, DISK_READ_PREAD } disk_read_engine;
typedef enum { DISK_READ_DIRECT, DISK_READ_BUFFERED } disk_read_mode;

typedef struct {
    disk_read_engine engine; /* URING falls back to PREAD where it is refused */
    disk_read_mode mode;     /* DIRECT falls back to BUFFERED where it is refused */
    size_t block_bytes;      /* a request is cut in blocks of this size (a power of two from 4096 to
                                DISK_READ_MAX_BLOCK; 0: 1 MiB) */
    unsigned depth;          /* blocks on their way at once (0: 16) */
    uint64_t limit_bytes_s;  /* 0: as fast as it goes */
    bool idle;               /* idle I/O class, where the system has classes */
} disk_read_options;

/* "uring direct 1048576 16", as a plan has it; a limit and the idle class are left out and left alone. false,
 * and *o as it was: not such words. */
#define DISK_READ_WORDS_BYTES 48
void disk_read_words(const disk_read_options *o, char out[DISK_READ_WORDS_BYTES]);
bool disk_read_parse(disk_read_options *o, const char *words);

typedef struct disk_read disk_read;
/* PR_ERESOURCE names file and reason; PR_EUSAGE: options out of range. */
int disk_read_open(disk_read **out, const char *path, const disk_read_options *o, pr_err *err);
/* Waits for the blocks that are on their way; requests that have not ended are given up. NULL is allowed. */
void disk_read_close(disk_read *d);

/* Ask for bytes [at, at + n) into dst; requests are worked on in the order in which they come, and end in any
 * order. Up to disk_read_room() requests may be open: submitted, and not yet returned by disk_read_wait. One
 * thread submits and waits; new blocks are started in these two calls, so between them the disk has at most
 * `depth` of them. Memory behind the file's end is zeroed. PR_EINTEGRITY: not in the file as it was when it
 * was opened. */
int disk_read_submit(disk_read *d, uint64_t tag, uint64_t at, size_t n, void *dst, pr_err *err);
/* The next request that has ended; blocks (at most timeout_s when >= 0). *tag is its tag. PR_ERESOURCE: that
 * request failed (file, offset, reason; PR_EINTEGRITY: the file is shorter), and nothing writes to its memory
 * any more. */
typedef enum { DISK_READ_DONE, DISK_READ_TIMEOUT, DISK_READ_FAILED } disk_read_end;
disk_read_end disk_read_wait(disk_read *d, double timeout_s, uint64_t *tag, pr_err *err);
/* Ends a disk_read_wait from another thread: it, or the next one when there is none, returns
 * DISK_READ_TIMEOUT at once. */
void disk_read_wake(disk_read *d);
size_t disk_read_room(const disk_read *d);

typedef struct {
    disk_read_engine engine; /* what it is: never AUTO */
    disk_read_mode mode;
    unsigned depth;
    size_t block_bytes;
    uint64_t bytes, requests; /* of requests that are done */
    double busy_s;            /* with at least one request under way */
    char why[160];            /* what was asked for and not obtained, "" when nothing */
} disk_read_facts;
disk_read_facts disk_read_about(disk_read *d); /* any thread */

#endif
