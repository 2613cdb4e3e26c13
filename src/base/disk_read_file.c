/* Opening a file past the page cache. File systems refuse that in two ways: at open (EINVAL), or only at the
 * first read, so one block is read to see. What is read through the cache is dropped behind, so that a model
 * that is read in circles does not push everything else out of memory. */
#include "src/base/disk_read_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef O_DIRECT
static bool first_read_works(int fd)
{
    void *p = NULL;
    ssize_t got;

    if ((errno = posix_memalign(&p, DISK_READ_ALIGN, DISK_READ_ALIGN))) return false;
    do got = pread(fd, p, DISK_READ_ALIGN, 0);
    while (got < 0 && errno == EINTR);
    free(p);
    return got >= 0;
}
#endif

/* A descriptor that goes past the cache, or -1 with errno. */
static int open_direct(const char *path)
{
    int fd, e;
#if defined(O_DIRECT)
    fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || first_read_works(fd)) return fd;
#elif defined(F_NOCACHE)
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_NOCACHE, 1) != -1) return fd;
#else
    errno = ENOTSUP;
    return -1;
#endif
    e = errno;
    close(fd);
    errno = e;
    return -1;
}

int disk_file_open(disk_file *f, const char *path, disk_read_mode mode, char *why, size_t n, pr_err *err)
{
    struct stat st;

    *f = (disk_file){.fd = -1};
    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be opened", path);
    if (!S_ISREG(st.st_mode)) return pr_fail(err, PR_ERESOURCE, "%s: expected a file", path);
    if (mode == DISK_READ_DIRECT) {
        f->fd = open_direct(path);
        f->direct = f->fd >= 0;
        if (!f->direct) snprintf(why, n, "not past the page cache: %s", strerror(errno));
    }
    if (f->fd < 0) f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be opened", path);
    if (fstat(f->fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be looked at", path);
    f->size = (uint64_t)st.st_size;
    return PR_OK;
}

void disk_file_close(disk_file *f)
{
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

void disk_file_drop(const disk_file *f, uint64_t at, uint64_t n)
{
#ifdef POSIX_FADV_DONTNEED
    if (!f->direct) posix_fadvise(f->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
#else
    (void)f;
    (void)at;
    (void)n;
#endif
}
