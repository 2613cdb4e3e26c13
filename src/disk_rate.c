/* See disk_rate.h. As many requests of one block as the reader has on their way at once: the disk has the
 * same queue as under the runtime's large requests, and each block's time is seen.
 *
 * Blocks go into whole huge pages, as the runtime's do. In 4 KiB pages a block of 1 MiB is a request of 256
 * scattered pieces, and on a virtual disk, which pays for each piece, that alone made reading three times
 * slower (1.2 instead of 3.8 GB/s). */
#include "src/disk_rate.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/disk_best.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SAMPLES = 1 << 16 };

struct disk_rate {
    disk_read *reader;
    disk_read_facts about;
    mem_region memory; /* a block for each request on its way */
    float *sample_us;
    uint64_t n_blocks, next; /* of the file; the next to read */
    /* of the last run */
    uint64_t n_read, start_ns, for_ns, max_blocks;
    uint64_t begun_ns[DISK_READ_MAX_DEPTH]; /* of the block in each place */
};

static void drop_cached(const char *path)
{
#ifdef POSIX_FADV_DONTNEED
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
#else
    (void)path;
#endif
}

static int prepare(disk_rate *r, const char *path, const disk_read_options *o, pr_err *err)
{
    struct stat st;
    int rc = disk_read_open(&r->reader, path, o, err);

    if (rc) return rc;
    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be looked at", path);
    r->about = disk_read_about(r->reader);
    r->n_blocks = (uint64_t)st.st_size / r->about.block_bytes;
    if (!r->n_blocks)
        return pr_fail(err, PR_ERESOURCE, "%s: smaller than a block of %zu bytes", path,
                       r->about.block_bytes);
    r->sample_us = malloc(MAX_SAMPLES * sizeof *r->sample_us);
    if (!r->sample_us || mem_region_new(&r->memory, r->about.block_bytes * r->about.depth))
        return pr_fail(err, PR_ERESOURCE, "%s: out of memory to read it", path);
    memset(r->memory.p, 1, r->memory.n); /* the pages are there before the clock runs */
    if (r->about.mode == DISK_READ_BUFFERED) drop_cached(path);
    return PR_OK;
}

int disk_rate_open(disk_rate **out, const char *path, const disk_read_options *o, pr_err *err)
{
    disk_rate *r = calloc(1, sizeof *r);
    int rc;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if ((rc = prepare(r, path, o, err))) disk_rate_close(r);
    else *out = r;
    return rc;
}

void disk_rate_close(disk_rate *r)
{
    if (!r) return;
    disk_read_close(r->reader); /* before its memory */
    mem_region_free(&r->memory);
    free(r->sample_us);
    free(r);
}

disk_read_facts disk_rate_about(disk_rate *r)
{
    return disk_read_about(r->reader);
}

void disk_rate_seek(disk_rate *r, uint64_t at)
{
    r->next = at / r->about.block_bytes % r->n_blocks;
}

uint64_t disk_rate_at(const disk_rate *r)
{
    return r->next * r->about.block_bytes;
}

uint64_t disk_rate_blocks(const disk_rate *r)
{
    return r->n_read;
}

/* --- a run ---------------------------------------------------------------------------------------------- */
static int begin_block(disk_rate *r, unsigned place, pr_err *err)
{
    size_t n = r->about.block_bytes;
    uint64_t at = r->next * n;

    r->next = (r->next + 1) % r->n_blocks;
    r->begun_ns[place] = clock_ns();
    return disk_read_submit(r->reader, place, at, n, (uint8_t *)r->memory.p + place * n, err);
}

/* Every place is filled anew as soon as its block is there. *open: requests that have not ended. */
static int read_blocks(disk_rate *r, unsigned *open, pr_err *err)
{
    uint64_t begun = 0, place;
    int rc = PR_OK;

    while (*open < r->about.depth && (!r->max_blocks || begun < r->max_blocks) && !rc)
        if (!(rc = begin_block(r, (unsigned)begun++, err))) ++*open;
    while (*open && !rc) {
        if (disk_read_wait(r->reader, -1, &place, err) == DISK_READ_FAILED)
            rc = err ? err->code : PR_ERESOURCE;
        --*open;
        if (rc) break;
        if (r->n_read < MAX_SAMPLES)
            r->sample_us[r->n_read] = (float)(clock_ms_since(r->begun_ns[place]) * 1e3);
        r->n_read++;
        if (clock_ns() - r->start_ns >= r->for_ns || (r->max_blocks && begun == r->max_blocks)) continue;
        begun++;
        if (!(rc = begin_block(r, (unsigned)place, err))) ++*open;
    }
    return rc;
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static profile_disk figures(disk_rate *r, double s)
{
    size_t n = r->n_read < MAX_SAMPLES ? (size_t)r->n_read : MAX_SAMPLES;
    profile_disk d = {.pattern = "seq",
                      .bs_bytes = r->about.block_bytes,
                      .iodepth = r->about.depth,
                      .direct = r->about.mode == DISK_READ_DIRECT,
                      .read_bytes_per_s = (double)r->n_read * (double)r->about.block_bytes / s,
                      .iops = (double)r->n_read / s,
                      .reps = 1};

    snprintf(d.engine, sizeof d.engine, "%s", disk_engine_name(r->about.engine));
    qsort(r->sample_us, n, sizeof *r->sample_us, rising);
    d.clat_p50_us = (double)r->sample_us[n / 2];
    d.clat_p99_us = (double)r->sample_us[n * 99 / 100];
    return d;
}

int disk_rate_run(disk_rate *r, double seconds, uint64_t max_blocks, profile_disk *out, pr_err *err)
{
    unsigned open = 0;
    uint64_t place;
    int rc;

    r->for_ns = (uint64_t)(seconds * 1e9);
    r->max_blocks = max_blocks;
    r->n_read = 0;
    r->start_ns = clock_ns();
    rc = read_blocks(r, &open, err);
    if (!rc) *out = figures(r, clock_ms_since(r->start_ns) / 1e3);
    for (; open; open--) disk_read_wait(r->reader, -1, &place, NULL); /* after an error: the rest */
    return rc;
}
