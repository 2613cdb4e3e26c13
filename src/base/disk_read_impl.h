/* Between disk_read.c, which cuts requests in blocks and judges what came of them, and its parts: the file,
 * and the two engines, which carry out one read at a time for each block and know nothing else. */
#ifndef PRIMA_BASE_DISK_READ_IMPL_H
#define PRIMA_BASE_DISK_READ_IMPL_H
#include "src/base/disk_read.h"

/* --- the file (disk_read_file.c) -------------------------------------------------------------- */
typedef struct {
    int fd;
    bool direct;
    uint64_t size; /* when it was opened */
} disk_file;

/* Past the page cache, or, with the reason in why[n], through it. */
int disk_file_open(disk_file *f, const char *path, disk_read_mode mode, char *why, size_t n, pr_err *err);
void disk_file_close(disk_file *f);
/* Through the cache: these bytes are not needed in it any more. */
void disk_file_drop(const disk_file *f, uint64_t at, uint64_t n);

/* --- engines (disk_read_uring.c, disk_read_pread.c) -------------------------------------------- */
typedef struct {
    unsigned block; /* < depth: what the result is of */
    void *dst;
    uint64_t at;
    size_t n;
} disk_piece;

typedef struct {
    unsigned block;
    int res; /* bytes, or -errno */
} disk_result;

typedef struct {
    disk_read_engine name;
    void (*start)(void *engine, const disk_piece *p); /* no block twice at once */
    void (*kick)(void *engine);                       /* after one or more starts */
    /* What has ended, at most max; waits for the first until deadline_ns (clock_ns), a wake or a signal. */
    size_t (*reap)(void *engine, disk_result *out, size_t max, uint64_t deadline_ns);
    void (*wake)(void *engine); /* any thread */
    void (*free)(void *engine); /* when nothing is on its way */
} disk_engine;

typedef struct {
    int fd;
    unsigned depth;
    bool idle;
} disk_engine_options;

/* NULL, with the reason in why[n], where this system does not give us one. */
const disk_engine *disk_uring_new(void **out, const disk_engine_options *o, char *why, size_t n);
const disk_engine *disk_pread_new(void **out, const disk_engine_options *o, char *why, size_t n);

/* The idle class in the numbers of ioprio_set(2), which io_uring has as well. */
enum { DISK_IDLE_CLASS = 3 << 13 };

#endif
