/* How fast the runtime's reader (src/base/disk_read.h) reads a file in order: what a profile says of a disk.
 */
#ifndef PRIMA_DISK_RATE_H
#define PRIMA_DISK_RATE_H
#include "planner/profile.h"
#include "src/base/disk_read.h"

typedef struct disk_rate disk_rate;

/* The file has at least one block. What the page cache has of it is dropped where it would be read through
 * the cache. PR_ERESOURCE names file and system call. */
int disk_rate_open(disk_rate **out, const char *path, const disk_read_options *o, pr_err *err);
void disk_rate_close(disk_rate *r); /* NULL is allowed */
disk_read_facts disk_rate_about(disk_rate *r);

/* Read whole blocks on from where the last run stopped, at the file's end again from its beginning, for
 * `seconds` or max_blocks (0: any number), whichever is less. Blocks until done; one run at a time. */
int disk_rate_run(disk_rate *r, double seconds, uint64_t max_blocks, profile_disk *out, pr_err *err);
/* The next run begins at the block with this byte of the file, or, behind the last one, at the first; where
 * the next run would begin; how many blocks the last run has read. */
void disk_rate_seek(disk_rate *r, uint64_t at);
uint64_t disk_rate_at(const disk_rate *r);
uint64_t disk_rate_blocks(const disk_rate *r);

#endif
