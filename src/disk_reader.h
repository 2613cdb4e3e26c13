/* The runtime's way to read weights from a file, past the page cache: what measures the disk for a profile.
 * Threads with a request each, blocks in order, buffers on huge pages. */
#ifndef PRIMA_DISK_READER_H
#define PRIMA_DISK_READER_H
#include "planner/profile.h"
#include "src/base/err.h"

/* The engine under which its figures stand in a profile. */
#define DISK_READER_ENGINE "prima-pread"

typedef struct disk_reader disk_reader;

/* Blocks of bs_bytes (a power of two >= 4096, at most the file's size) by n_threads threads. PR_ERESOURCE
 * names file and system call. */
int disk_reader_open(disk_reader **out, const char *path, uint64_t bs_bytes, int n_threads, pr_err *err);
void disk_reader_close(disk_reader *r); /* NULL is allowed */

/* Read on from where the last run stopped, at the file's end again from its beginning, for `seconds` or
 * max_blocks (0: any number), whichever is less. out->direct: past the page cache. Blocks until done; one run
 * at a time. */
int disk_reader_run(disk_reader *r, double seconds, uint64_t max_blocks, profile_disk *out, pr_err *err);
/* The next run begins with this block; what the last one has read, in blocks. */
void disk_reader_seek(disk_reader *r, uint64_t block);
uint64_t disk_reader_blocks(const disk_reader *r);

#endif
