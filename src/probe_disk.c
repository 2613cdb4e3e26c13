/* The disk under a file: fio's patterns, and the reader of the runtime, whose figures plans use. Sequential
 * blocks are how the runtime streams layers; random ones of 4 KiB are how an operating system brings mapped
 * pages back. A pattern's time is divided among its repetitions.
 *
 * Which engine, way past or through the page cache, block size and depth is best is different from disk to
 * disk. All are tried for a moment; the best of each engine and way is then measured as long as fio's
 * patterns are. Both go round and round, so that a disk that others use now and then is slow for all of them.
 *
 * What lies below the operating system may keep what was read: the cache of a drive, the host of a virtual
 * disk. Nothing switches that off, but a second look at the same blocks shows it, and then the note says so.
 */
#include "src/base/log.h"
#include "src/disk_best.h"
#include "src/disk_rate.h"
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
    unsigned depth;
} cuts[] = {{SEQ_BYTES, 1}, {SEQ_BYTES, 16}, {4 * SEQ_BYTES, 4}, {8 * SEQ_BYTES, 2}};
enum { N_CUTS = sizeof cuts / sizeof *cuts, N_KINDS = 4 /* engines x modes */ };
static const double TRY_SHARE = 2; /* of the time of one pattern, for trying all ways */
/* Through the page cache a block is copied once more and takes memory from others while it is there: that
 * must be worth it. */
static const double CLEARLY = 1.15;

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
typedef struct {
    disk_read_options o;
    bool absent; /* not to be had here */
    profile_disk rep[REPS];
} way;

/* Engines and modes in the order of preference, N_CUTS ways of each. */
static size_t list_ways(way out[N_KINDS * N_CUTS], uint64_t file_bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < N_KINDS * N_CUTS; i++) {
        uint64_t bs_bytes = block_bytes(cuts[i % N_CUTS].bs_bytes, file_bytes);
        out[n++] = (way){.o = {.engine = i / N_CUTS / 2 ? DISK_READ_PREAD : DISK_READ_URING,
                               .mode = i / N_CUTS % 2 ? DISK_READ_BUFFERED : DISK_READ_DIRECT,
                               .block_bytes = (size_t)bs_bytes,
                               .depth = cuts[i % N_CUTS].depth}};
    }
    return n;
}

/* One repetition, from *at on, which moves on: no way reads what another one has just brought into a cache.
 */
static int measure_way(way *w, size_t rep, const char *path, double seconds, uint64_t *at, pr_err *err)
{
    disk_read_facts got;
    disk_rate *r;
    int rc;

    if (w->absent) return PR_OK;
    if ((rc = disk_rate_open(&r, path, &w->o, err))) return rc;
    got = disk_rate_about(r);
    w->absent = got.engine != w->o.engine || got.mode != w->o.mode;
    if (!w->absent) {
        disk_rate_seek(r, *at);
        rc = disk_rate_run(r, seconds, 0, &w->rep[rep], err);
        *at = disk_rate_at(r);
    }
    disk_rate_close(r);
    return rc;
}

static int measure_ways(way *w, size_t n, const char *what, const char *path, double seconds, uint64_t *at,
                        pr_err *err)
{
    for (size_t rep = 0; rep < REPS; rep++)
        for (size_t i = 0; i < n; i++) {
            int rc;
            log_progress("disk: prima, %s (%zu of %zu)", what, rep * n + i + 1, n * REPS);
            if ((rc = measure_way(&w[i], rep, path, seconds / REPS, at, err))) return rc;
        }
    return PR_OK;
}

/* The fastest of each engine and mode that there is; returns how many. */
static size_t choose_ways(way *w, size_t n)
{
    size_t n_chosen = 0;

    for (size_t kind = 0; kind < n; kind += N_CUTS) {
        const way *best = NULL;
        double most = 0;
        for (size_t i = kind; i < kind + N_CUTS; i++) {
            double rate = w[i].absent ? 0 : fio_median(w[i].rep, REPS).read_bytes_per_s;
            if (rate <= most) continue;
            most = rate;
            best = &w[i];
        }
        if (best) w[n_chosen++] = *best;
    }
    return n_chosen;
}

/* Into the profile, where plans take the fastest. */
static void keep_worthwhile(profile *p, way *w, size_t n)
{
    double past = 0; /* the page cache */

    for (size_t i = 0; i < n; i++) {
        profile_disk d = fio_median(w[i].rep, REPS);
        if (d.direct && d.read_bytes_per_s > past) past = d.read_bytes_per_s;
    }
    for (size_t i = 0; i < n; i++) {
        profile_disk d = fio_median(w[i].rep, REPS);
        if (d.direct || d.read_bytes_per_s >= CLEARLY * past) p->disk[p->n_disk++] = d;
        else
            log_info("disk: %.0f MB/s with %s through the page cache, %.0f MB/s past it: left out",
                     d.read_bytes_per_s / 1e6, d.engine, past / 1e6);
    }
}

static int with_reader(profile *p, const char *path, uint64_t file_bytes, double seconds, pr_err *err)
{
    way w[N_KINDS * N_CUTS];
    size_t n = list_ways(w, file_bytes);
    uint64_t at = 0;
    int rc = measure_ways(w, n, "all ways", path, TRY_SHARE * seconds / (double)n, &at, err);

    if (rc) return rc;
    n = choose_ways(w, n);
    if ((rc = measure_ways(w, n, "the best", path, seconds, &at, err))) return rc;
    keep_worthwhile(p, w, n);
    return PR_OK;
}

/* Before all else: blocks that this command has not read yet, and the same again. */
static int look_for_cache(profile *p, const char *path, double seconds, pr_err *err)
{
    const disk_read_options o = {.block_bytes = SEQ_BYTES, .depth = 8};
    profile_disk first, second = {0};
    disk_rate *r;
    int rc = disk_rate_open(&r, path, &o, err);

    if (rc) return rc;
    log_progress("disk: the same blocks twice");
    rc = disk_rate_run(r, seconds / 2, 0, &first, err);
    if (!rc) {
        uint64_t n = disk_rate_blocks(r);
        disk_rate_seek(r, 0);
        rc = disk_rate_run(r, seconds / 2, n, &second, err);
    }
    disk_rate_close(r);
    if (rc || !first.direct || second.read_bytes_per_s < CACHED * first.read_bytes_per_s) return rc;
    log_warn("the disk's second answer came faster than its first (%.0f, %.0f MB/s): below the operating "
             "system there is a cache, and a model larger than it will be read more slowly",
             second.read_bytes_per_s / 1e6, first.read_bytes_per_s / 1e6);
    probe_note(p, "blocks read again came faster (%.0f, then %.0f MB/s): a drive's or a host's cache helps",
               first.read_bytes_per_s / 1e6, second.read_bytes_per_s / 1e6);
    return PR_OK;
}

static bool any_direct(const profile *p)
{
    disk_read_options o;

    for (size_t i = 0; i < p->n_disk; i++)
        if (disk_options_of(&o, &p->disk[i]) && o.mode == DISK_READ_DIRECT) return true;
    return false;
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
    if (!any_direct(p)) probe_note(p, "disk measured through the page cache: O_DIRECT was refused");
    return PR_OK;
}
