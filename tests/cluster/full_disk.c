/* A disk that fills while a pack is written: this library stands before the C library's pwrite (LD_PRELOAD).
 *
 * Files called layers.pack take FULL_DISK_AFTER bytes in all, whole blocks of 4 KiB, then ENOSPC, as a file
 * system behaves that finds its blocks when they are written (delayed allocation, quotas, copy on write):
 * what has been reserved before does not help. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096 };

static _Atomic long long written;

static int is_pack(int fd)
{
    char link[64], path[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, "/layers.pack") != NULL;
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t at)
{
    const char *after = getenv("FULL_DISK_AFTER");
    long long room;

    if (!after || !is_pack(fd)) return syscall(SYS_pwrite64, fd, p, n, at);
    room = (atoll(after) - written) / BLOCK_BYTES * BLOCK_BYTES;
    if (room <= 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t put = syscall(SYS_pwrite64, fd, p, n < (size_t)room ? n : (size_t)room, at);
    if (put > 0) written += put;
    return put;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return pwrite64(fd, p, n, at);
}
