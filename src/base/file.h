/* Whole files and durable writes. */
#ifndef PRIMA_BASE_FILE_H
#define PRIMA_BASE_FILE_H
#include "src/base/err.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Read a file of at most max bytes ("-" is stdin) into *text, NUL-terminated (not counted in *n);
 * the caller frees. PR_ERESOURCE when it cannot be read, PR_EUSAGE when it is larger. */
int file_slurp(char **text, size_t *n, const char *path, size_t max, pr_err *err);

/* Write a whole file: temporary in the same directory, fsync, rename, fsync of the directory; an existing
 * file keeps its mode, a symbolic link its place. Into what is no regular file (/dev/stdout, a pipe) it just
 * writes. */
int file_write_atomic(const char *path, const void *data, size_t n, pr_err *err);

/* What has been written is on the disk, and what it takes to read it again; file_sync_all: its times and mode
 * as well. macOS's own fsync ends at the drive's cache. -1 with errno. */
int file_sync(int fd);
int file_sync_all(int fd);

/* write(2) until all is written or an error; retries EINTR. */
int file_write_all(int fd, const void *data, size_t n, const char *path, pr_err *err);

/* When its bytes were changed last, in nanoseconds since 1970. */
int64_t file_written_ns(const struct stat *st);

#endif
