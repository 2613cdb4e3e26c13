/* See disk_reader.h. Threads take the next block from a shared counter, so that together they read in order
 * with n_threads requests under way. */
#include "src/disk_reader.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SAMPLES = 1 << 16 };

typedef struct {
    int fd;
    uint64_t bs_bytes, n_blocks;
    uint8_t *buffer; /* [n_threads][bs_bytes] */
    uint64_t start_ns, for_ns;
    atomic_uint_fast64_t next, bytes, n_samples;
    atomic_int error; /* errno of the first read that failed */
    float *sample_us;
} reader;

static void read_item(void *arg, size_t first, size_t end, int thread)
{
    reader *r = arg;
    uint8_t *buffer = r->buffer + (size_t)thread * r->bs_bytes;
    (void)first;
    (void)end;

    while (clock_ns() - r->start_ns < r->for_ns && !atomic_load(&r->error)) {
        uint64_t block = atomic_fetch_add(&r->next, 1) % r->n_blocks, begin = clock_ns(), sample;
        ssize_t got = pread(r->fd, buffer, r->bs_bytes, (off_t)(block * r->bs_bytes));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            atomic_store(&r->error, got < 0 ? errno : EIO);
            return;
        }
        atomic_fetch_add(&r->bytes, (uint64_t)got);
        sample = atomic_fetch_add(&r->n_samples, 1);
        if (sample < MAX_SAMPLES) r->sample_us[sample] = (float)((double)(clock_ns() - begin) / 1e3);
    }
}

/* Open past the cache; when that or the first read is refused, the usual way with an empty cache. */
static int open_file(const char *path, uint8_t *buffer, uint64_t bs_bytes, bool *direct)
{
    int fd = -1;

    *direct = false;
#ifdef O_DIRECT
    fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    *direct = fd >= 0 && pread(fd, buffer, bs_bytes, 0) > 0;
    if (fd >= 0 && !*direct) close(fd);
    if (*direct) return fd;
#else
    (void)buffer;
    (void)bs_bytes;
#endif
    fd = open(path, O_RDONLY | O_CLOEXEC);
#if defined(F_NOCACHE)
    *direct = fd >= 0 && fcntl(fd, F_NOCACHE, 1) == 0;
#elif defined(POSIX_FADV_DONTNEED)
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#endif
    return fd;
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int run(profile_disk *out, reader *r, const char *path, int n_threads, pr_err *err)
{
    pool *p = NULL;
    size_t n;
    double s;
    int rc = pool_new(&p, n_threads, err);

    if (rc) return rc;
    r->start_ns = clock_ns();
    pool_run(p, (size_t)n_threads, 1, read_item, r);
    s = clock_ms_since(r->start_ns) / 1e3;
    pool_free(p);
    if ((errno = atomic_load(&r->error))) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", path);
    n = atomic_load(&r->n_samples) < MAX_SAMPLES ? atomic_load(&r->n_samples) : MAX_SAMPLES;
    if (!n) return pr_fail(err, PR_ERESOURCE, "%s: no block came within %.1f s", path, s);
    qsort(r->sample_us, n, sizeof *r->sample_us, rising);
    out->read_bytes_per_s = (double)atomic_load(&r->bytes) / s;
    out->iops = (double)atomic_load(&r->n_samples) / s;
    out->clat_p50_us = (double)r->sample_us[n / 2];
    out->clat_p99_us = (double)r->sample_us[n * 99 / 100];
    return PR_OK;
}

int disk_read(profile_disk *out, const char *path, uint64_t bs_bytes, int n_threads, double seconds,
              pr_err *err)
{
    reader r = {.fd = -1, .bs_bytes = bs_bytes, .for_ns = (uint64_t)(seconds * 1e9)};
    mem_region buffers = {0};
    struct stat st;
    int rc = PR_OK;

    *out = (profile_disk){
        .pattern = "seq", .engine = "pread", .bs_bytes = bs_bytes, .iodepth = (uint32_t)n_threads, .reps = 1};
    r.sample_us = malloc(MAX_SAMPLES * sizeof *r.sample_us);
    if (!r.sample_us || mem_region_new(&buffers, bs_bytes * (size_t)n_threads))
        rc = pr_fail(err, PR_ERESOURCE, "out of memory to read %s", path);
    r.buffer = buffers.p;
    if (!rc) {
        r.fd = open_file(path, r.buffer, bs_bytes, &out->direct);
        if (r.fd < 0 || fstat(r.fd, &st)) rc = pr_fail_errno(err, PR_ERESOURCE, "%s: opening", path);
    }
    if (!rc) {
        r.n_blocks = (uint64_t)st.st_size / bs_bytes;
        rc = r.n_blocks ? run(out, &r, path, n_threads, err)
                        : pr_fail(err, PR_ERESOURCE, "%s: smaller than a block of %llu bytes", path,
                                  (unsigned long long)bs_bytes);
    }
    if (r.fd >= 0) close(r.fd);
    mem_region_free(&buffers);
    free(r.sample_us);
    return rc;
}
