/* Reading a file from several threads to see how fast it comes: what measures a disk where fio does not. */
#ifndef PRIMA_DISK_READER_H
#define PRIMA_DISK_READER_H
#include "planner/profile.h"
#include "src/base/err.h"

/* Blocks of bs_bytes (a power of two >= 4096, at most the file's size) in order, again from the start at the
 * end, by n_threads threads for `seconds`; past the page cache (O_DIRECT, F_NOCACHE) where the file system
 * allows it: out->direct. PR_ERESOURCE names file and system call. */
int disk_read(profile_disk *out, const char *path, uint64_t bs_bytes, int n_threads, double seconds,
              pr_err *err);

#endif
