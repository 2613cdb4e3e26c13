/* The disk under a file: fio's patterns, and the reader of the runtime, whose figures plans use. Sequential
 * blocks are how the runtime streams layers; random ones of 4 KiB are how an operating system brings mapped
 * pages back. A pattern's time is divided among its repetitions.
 *
 * What lies below the operating system may keep what was read: the cache of a drive, the host of a virtual
 * disk. Nothing switches that off, but a second look at the same blocks shows it, and then the note says so.
 */
#include "src/base/log.h"
#include "src/disk_reader.h"
#include "src/fio.h"
#include "src/probe.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { REPS = 3, START_S = 15 /* what fio may take to begin and to end */ };
#define SEQ_BYTES   ((uint64_t)1 << 20)
#define RAND_BYTES  ((uint64_t)4 << 10)
#define SMALL_BYTES ((uint64_t)64 << 20)
static const double CACHED = 1.5; /* times faster the second time: a cache helped */

static const struct {
    bool random;
    uint32_t iodepth;
} patterns[] = {{false, 1}, {false, 8}, {false, 32}, {true, 1}, {true, 32}};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

/* A spinning disk wants few large requests, a fast one many. */
static const struct {
    uint64_t bs_bytes;
    int n_threads;
} readers[] = {{SEQ_BYTES, 1}, {SEQ_BYTES, 8}, {4 * SEQ_BYTES, 1}, {4 * SEQ_BYTES, 4}};
enum { N_READERS = sizeof readers / sizeof *readers };

/* The size asked for, or so much less that a small file has four blocks (fio counts none when it has one). */
static uint64_t block_bytes(uint64_t want, uint64_t file_bytes)
{
    while (want > RAND_BYTES && want > file_bytes / 4) want /= 2;
    return want;
}

/* --- fio ---------------------------------------------------------------------------------------------- */
/* The repetitions of one pattern. fio 3.33 at times counts nothing after the ramp time of a small file: each
 * has a second try. */
static int fio_pattern(profile_disk *out, profile *p, const fio_job *job, pr_err *err)
{
    profile_disk rep[REPS];
    int rc;

    for (size_t i = 0; i < REPS; i++) {
        log_progress("disk: fio, %s, depth %u (%zu of %d)", job->random ? "random" : "sequential",
                     job->iodepth, i + 1, REPS);
        rc = fio_run(&rep[i], p->fio_version, job, err);
        if (rc == PR_EINTEGRITY) rc = fio_run(&rep[i], p->fio_version, job, err);
        if (rc) return rc;
    }
    *out = fio_median(rep, REPS);
    return PR_OK;
}

/* All patterns; the file system may refuse to go past its cache (tmpfs, overlay): then through it, and what
 * fio said is in refused. */
static int with_fio(profile *p, const char *path, uint64_t file_bytes, double seconds, char *refused,
                    size_t n_refused, pr_err *err)
{
    double each = seconds / REPS, ramp = each / 5 < 2 ? each / 5 : 2;
    bool direct = true;

    for (size_t i = 0; i < N_PATTERNS; i++) {
        fio_job job = {.path = path,
                       .random = patterns[i].random,
                       .direct = direct,
                       .bs_bytes = patterns[i].random ? RAND_BYTES : block_bytes(SEQ_BYTES, file_bytes),
                       .iodepth = patterns[i].iodepth,
                       .runtime_s = each - ramp,
                       .ramp_s = ramp,
                       .timeout_s = each + START_S};
        int rc = fio_pattern(&p->disk[i], p, &job, err);
        if (rc == PR_EINTEGRITY && i == 0) {
            snprintf(refused, n_refused, "%s", err->msg);
            job.direct = direct = false;
            rc = fio_pattern(&p->disk[i], p, &job, err);
        }
        if (rc) return rc;
    }
    p->n_disk = N_PATTERNS;
    return PR_OK;
}

static void try_fio(profile *p, const char *path, uint64_t file_bytes, double seconds)
{
    char refused[sizeof((pr_err *)0)->msg] = "";
    pr_err why = {0};

    if (!with_fio(p, path, file_bytes, seconds, refused, sizeof refused, &why)) {
        if (*refused) probe_note(p, "fio read through the page cache, past it: %.150s", refused);
        return;
    }
    if (!fio_installed(p->fio_version)) p->fio_version[0] = 0;
    log_warn("measuring the disk without fio (apt install fio): %s", why.msg);
    probe_note(p, "disk measured without fio: apt install fio (%.150s)", why.msg);
}

/* --- our own reader ----------------------------------------------------------------------------------- */
/* The first run only wakes the disk up. */
static int reader_pattern(profile_disk *out, disk_reader *r, int n_threads, double seconds, pr_err *err)
{
    profile_disk rep[REPS + 1];

    for (size_t i = 0; i <= REPS; i++) {
        int rc;
        log_progress("disk: prima, %d threads (%zu of %d)", n_threads, i + 1, REPS + 1);
        if ((rc = disk_reader_run(r, seconds / (REPS + 1), 0, &rep[i], err))) return rc;
    }
    *out = fio_median(rep + 1, REPS);
    return PR_OK;
}

static bool is_measured(const profile *p, uint64_t bs_bytes, int n_threads)
{
    for (size_t i = 0; i < p->n_disk; i++)
        if (p->disk[i].bs_bytes == bs_bytes && (int)p->disk[i].iodepth == n_threads &&
            !strcmp(p->disk[i].engine, DISK_READER_ENGINE))
            return true;
    return false;
}

static int with_reader(profile *p, const char *path, uint64_t file_bytes, double seconds, pr_err *err)
{
    for (size_t i = 0; i < N_READERS; i++) {
        uint64_t bs_bytes = block_bytes(readers[i].bs_bytes, file_bytes);
        disk_reader *r;
        int rc;
        if (is_measured(p, bs_bytes, readers[i].n_threads)) continue; /* a small file */
        if ((rc = disk_reader_open(&r, path, bs_bytes, readers[i].n_threads, err))) return rc;
        rc = reader_pattern(&p->disk[p->n_disk], r, readers[i].n_threads, seconds, err);
        disk_reader_close(r);
        if (rc) return rc;
        p->n_disk++;
    }
    return PR_OK;
}

/* Before all else: blocks that this command has not read yet, and the same again. */
static int look_for_cache(profile *p, const char *path, double seconds, pr_err *err)
{
    profile_disk first, second = {0};
    disk_reader *r;
    int rc = disk_reader_open(&r, path, SEQ_BYTES, 8, err);

    if (rc) return rc;
    log_progress("disk: the same blocks twice");
    rc = disk_reader_run(r, seconds / 2, 0, &first, err);
    if (!rc) {
        uint64_t n = disk_reader_blocks(r);
        disk_reader_seek(r, 0);
        rc = disk_reader_run(r, seconds / 2, n, &second, err);
    }
    disk_reader_close(r);
    if (rc || !first.direct || second.read_bytes_per_s < CACHED * first.read_bytes_per_s) return rc;
    log_warn("the disk's second answer came faster than its first (%.0f, %.0f MB/s): below the operating "
             "system there is a cache, and a model larger than it will be read more slowly",
             second.read_bytes_per_s / 1e6, first.read_bytes_per_s / 1e6);
    probe_note(p, "blocks read again came faster (%.0f, then %.0f MB/s): a drive's or a host's cache helps",
               first.read_bytes_per_s / 1e6, second.read_bytes_per_s / 1e6);
    return PR_OK;
}

int probe_disk(profile *p, const char *path, double seconds, pr_err *err)
{
    uint64_t file_bytes;
    struct stat st;
    int rc = PR_OK;

    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be looked at", path);
    file_bytes = (uint64_t)st.st_size;
    if (file_bytes < RAND_BYTES)
        return pr_fail(err, PR_EUSAGE, "%s: %lld bytes are too few to measure a disk", path,
                       (long long)st.st_size);
    if (file_bytes < SMALL_BYTES) {
        log_warn("%s is small: what is measured may be a cache of the disk", path);
        probe_note(p, "disk measured on a file of %llu bytes: a cache may have answered",
                   (unsigned long long)file_bytes);
    } else rc = look_for_cache(p, path, seconds / 2, err);
    if (!rc) {
        try_fio(p, path, file_bytes, seconds);
        rc = with_reader(p, path, file_bytes, seconds, err);
    }
    log_progress("%s", "");
    if (rc) return rc;
    if (!strncmp(p->disk_name, "tmpfs", 5) || !strncmp(p->disk_name, "ramfs", 5))
        probe_note(p, "disk measured on a file system in memory");
    if (!profile_disk_used(p)->direct)
        probe_note(p, "disk measured through the page cache: O_DIRECT was refused");
    return PR_OK;
}
