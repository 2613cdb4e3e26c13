/* See disk_reader.h. Threads take the next block from a shared counter, so that together they read in order
 * with n_threads requests under way.
 *
 * Each thread reads into whole huge pages of its own. In 4 KiB pages a block of 1 MiB is a request of 256
 * scattered pieces, and on a virtual disk, which pays for each piece, that alone made reading three times
 * slower (1.2 instead of 3.8 GB/s). */
#include "src/disk_reader.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SAMPLES = 1 << 16 };
#define SLOT_ALIGN ((size_t)2 << 20)

struct disk_reader {
    int fd;
    bool direct;
    char path[4096]; /* for messages */
    uint64_t bs_bytes, n_blocks;
    pool *threads;
    mem_region buffers; /* a slot for each thread */
    size_t slot_bytes;
    float *sample_us;
    uint64_t first; /* block that the next run begins with */
    /* of the run under way */
    uint64_t start_ns, for_ns, max_blocks;
    atomic_uint_fast64_t taken, bytes, n_samples;
    atomic_int error; /* errno of the first read that failed */
};

/* --- opening ---------------------------------------------------------------------------------------- */
/* Open past the cache; when that or the first read is refused, the usual way with an empty cache. */
static int open_file(disk_reader *r)
{
#ifdef O_DIRECT
    r->fd = open(r->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    r->direct = r->fd >= 0 && pread(r->fd, r->buffers.p, r->bs_bytes, 0) > 0;
    if (r->direct) return r->fd;
    if (r->fd >= 0) close(r->fd);
#endif
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
#if defined(F_NOCACHE)
    r->direct = r->fd >= 0 && fcntl(r->fd, F_NOCACHE, 1) == 0;
#elif defined(POSIX_FADV_DONTNEED)
    if (r->fd >= 0) posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
#endif
    return r->fd;
}

static int prepare(disk_reader *r, int n_threads, pr_err *err)
{
    struct stat st;
    int rc = pool_new(&r->threads, n_threads, err);

    if (rc) return rc;
    r->slot_bytes = MEM_ALIGN_UP((size_t)r->bs_bytes, SLOT_ALIGN);
    r->sample_us = malloc(MAX_SAMPLES * sizeof *r->sample_us);
    if (!r->sample_us || mem_region_new(&r->buffers, r->slot_bytes * (size_t)n_threads))
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory to read it", r->path);
    memset(r->buffers.p, 1, r->buffers.n); /* the pages are there before the clock runs */
    if (open_file(r) < 0 || fstat(r->fd, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s", r->path);
    if (!S_ISREG(st.st_mode)) return pr_fail(err, PR_ERESOURCE, "%s: expected a file", r->path);
    r->n_blocks = (uint64_t)st.st_size / r->bs_bytes;
    if (!r->n_blocks)
        return pr_fail(err, PR_ERESOURCE, "%s: smaller than a block of %llu bytes", r->path,
                       (unsigned long long)r->bs_bytes);
    return PR_OK;
}

int disk_reader_open(disk_reader **out, const char *path, uint64_t bs_bytes, int n_threads, pr_err *err)
{
    disk_reader *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    r->fd = -1;
    r->bs_bytes = bs_bytes;
    if ((size_t)snprintf(r->path, sizeof r->path, "%s", path) >= sizeof r->path)
        rc = pr_fail(err, PR_ERESOURCE, "the path of the file to read is too long");
    else rc = prepare(r, n_threads, err);
    if (rc) disk_reader_close(r);
    else *out = r;
    return rc;
}

void disk_reader_close(disk_reader *r)
{
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    pool_free(r->threads);
    mem_region_free(&r->buffers);
    free(r->sample_us);
    free(r);
}

/* --- reading ---------------------------------------------------------------------------------------- */
/* On a busy machine the time may be over before the first thread runs: something is read all the same. */
static bool goes_on(disk_reader *r)
{
    if (atomic_load(&r->error)) return false;
    return clock_ns() - r->start_ns < r->for_ns || !atomic_load(&r->n_samples);
}

static void read_item(void *arg, size_t first, size_t end, int thread)
{
    disk_reader *r = arg;
    uint8_t *slot = (uint8_t *)r->buffers.p + (size_t)thread * r->slot_bytes;
    (void)first;
    (void)end;

    while (goes_on(r)) {
        uint64_t taken = atomic_fetch_add(&r->taken, 1), begin = clock_ns(), sample;
        uint64_t block = (r->first + taken) % r->n_blocks;
        ssize_t got;
        if (r->max_blocks && taken >= r->max_blocks) return;
        do got = pread(r->fd, slot, r->bs_bytes, (off_t)(block * r->bs_bytes));
        while (got < 0 && errno == EINTR);
        if (got <= 0) {
            atomic_store(&r->error, got < 0 ? errno : EIO);
            return;
        }
        atomic_fetch_add(&r->bytes, (uint64_t)got);
        sample = atomic_fetch_add(&r->n_samples, 1);
        if (sample < MAX_SAMPLES) r->sample_us[sample] = (float)((double)(clock_ns() - begin) / 1e3);
    }
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int figures(disk_reader *r, double s, profile_disk *out, pr_err *err)
{
    uint64_t n_read = atomic_load(&r->n_samples);
    size_t n = n_read < MAX_SAMPLES ? n_read : MAX_SAMPLES;

    if ((errno = atomic_load(&r->error))) return pr_fail_errno(err, PR_ERESOURCE, "%s: reading", r->path);
    if (!n) return pr_fail(err, PR_ERESOURCE, "%s: no block came within %.1f s", r->path, s);
    qsort(r->sample_us, n, sizeof *r->sample_us, rising);
    *out = (profile_disk){.pattern = "seq",
                          .engine = DISK_READER_ENGINE,
                          .bs_bytes = r->bs_bytes,
                          .iodepth = (uint32_t)pool_threads(r->threads),
                          .direct = r->direct,
                          .read_bytes_per_s = (double)atomic_load(&r->bytes) / s,
                          .iops = (double)n_read / s,
                          .clat_p50_us = (double)r->sample_us[n / 2],
                          .clat_p99_us = (double)r->sample_us[n * 99 / 100],
                          .reps = 1};
    return PR_OK;
}

int disk_reader_run(disk_reader *r, double seconds, uint64_t max_blocks, profile_disk *out, pr_err *err)
{
    double s;

    r->for_ns = (uint64_t)(seconds * 1e9);
    r->max_blocks = max_blocks;
    atomic_store(&r->taken, 0);
    atomic_store(&r->bytes, 0);
    atomic_store(&r->n_samples, 0);
    atomic_store(&r->error, 0);
    r->start_ns = clock_ns();
    pool_run(r->threads, (size_t)pool_threads(r->threads), 1, read_item, r);
    s = clock_ms_since(r->start_ns) / 1e3;
    r->first = (r->first + atomic_load(&r->n_samples)) % r->n_blocks;
    return figures(r, s, out, err);
}

void disk_reader_seek(disk_reader *r, uint64_t block)
{
    r->first = block % r->n_blocks;
}

uint64_t disk_reader_blocks(const disk_reader *r)
{
    return atomic_load(&r->n_samples);
}
