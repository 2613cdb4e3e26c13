/* The disk under a file: fio's patterns, or our own reader's. Sequential blocks of 1 MiB are how the runtime
 * streams layers; random ones of 4 KiB are how an operating system brings mapped pages back. A pattern's time
 * is divided among its repetitions. */
#include "src/base/log.h"
#include "src/disk_reader.h"
#include "src/fio.h"
#include "src/probe.h"
#include <stdio.h>
#include <sys/stat.h>

enum { REPS = 3, START_S = 15 /* what fio may take to begin and to end */ };
#define SEQ_BYTES   ((uint64_t)1 << 20)
#define RAND_BYTES  ((uint64_t)4 << 10)
#define SMALL_BYTES ((uint64_t)64 << 20)

static const struct {
    bool random;
    uint32_t iodepth;
} patterns[] = {{false, 1}, {false, 8}, {false, 32}, {true, 1}, {true, 32}};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

static const int reader_threads[] = {1, 8};

/* The repetitions of one pattern. */
static int fio_pattern(profile_disk *out, profile *p, const fio_job *job, pr_err *err)
{
    profile_disk rep[REPS];
    int rc;

    for (size_t i = 0; i < REPS; i++) {
        log_progress("disk: %s, depth %u (%zu of %d)", job->random ? "random" : "sequential", job->iodepth,
                     i + 1, REPS);
        if ((rc = fio_run(&rep[i], p->fio_version, job, err))) return rc;
    }
    *out = fio_median(rep, REPS);
    return PR_OK;
}

/* All patterns; the file system may refuse to go past its cache (tmpfs, overlay): then through it. */
static int with_fio(profile *p, const char *path, uint64_t seq_bytes, double seconds, pr_err *err)
{
    double each = seconds / REPS, ramp = each / 5 < 2 ? each / 5 : 2;
    bool direct = true;

    for (size_t i = 0; i < N_PATTERNS; i++) {
        fio_job job = {.path = path,
                       .random = patterns[i].random,
                       .direct = direct,
                       .bs_bytes = patterns[i].random ? RAND_BYTES : seq_bytes,
                       .iodepth = patterns[i].iodepth,
                       .runtime_s = each - ramp,
                       .ramp_s = ramp,
                       .timeout_s = each + START_S};
        int rc = fio_pattern(&p->disk[i], p, &job, err);
        if (rc == PR_EINTEGRITY && i == 0) {
            job.direct = direct = false;
            rc = fio_pattern(&p->disk[i], p, &job, err);
        }
        if (rc) return rc;
    }
    p->n_disk = N_PATTERNS;
    return PR_OK;
}

/* The first run only wakes the disk up. */
static int reader_pattern(profile_disk *out, const char *path, uint64_t bs_bytes, int n_threads,
                          double seconds, pr_err *err)
{
    profile_disk rep[REPS + 1];

    for (size_t i = 0; i <= REPS; i++) {
        int rc;
        log_progress("disk: %d threads (%zu of %d)", n_threads, i + 1, REPS + 1);
        if ((rc = disk_read(&rep[i], path, bs_bytes, n_threads, seconds / (REPS + 1), err))) return rc;
    }
    *out = fio_median(rep + 1, REPS);
    return PR_OK;
}

static int with_reader(profile *p, const char *path, uint64_t bs_bytes, double seconds, pr_err *err)
{
    for (size_t i = 0; i < sizeof reader_threads / sizeof *reader_threads; i++) {
        int rc = reader_pattern(&p->disk[i], path, bs_bytes, reader_threads[i], seconds, err);
        if (rc) return rc;
        p->n_disk = i + 1;
    }
    return PR_OK;
}

/* fio may say anything; the note goes into a file and stays plain ASCII. */
static void note_no_fio(profile *p, const pr_err *why)
{
    log_warn("measuring the disk without fio (apt install fio): %s", why->msg);
    snprintf(p->note, sizeof p->note, "disk measured without fio: apt install fio (%.150s)", why->msg);
    for (char *c = p->note; *c; c++)
        if (*c < 0x20 || *c > 0x7E) *c = '?';
}

int probe_disk(profile *p, const char *path, double seconds, pr_err *err)
{
    uint64_t seq_bytes = SEQ_BYTES;
    struct stat st;
    pr_err why;
    int rc = PR_OK;

    if (stat(path, &st)) return pr_fail_errno(err, PR_ERESOURCE, "%s: cannot be looked at", path);
    if ((uint64_t)st.st_size < RAND_BYTES)
        return pr_fail(err, PR_EUSAGE, "%s: %lld bytes are too few to measure a disk", path,
                       (long long)st.st_size);
    if ((uint64_t)st.st_size < SMALL_BYTES)
        log_warn("%s is small: what is measured may be a cache of the disk", path);
    while (seq_bytes > (uint64_t)st.st_size) seq_bytes /= 2;
    if (with_fio(p, path, seq_bytes, seconds, &why)) {
        p->fio_version[0] = 0;
        note_no_fio(p, &why);
        rc = with_reader(p, path, seq_bytes, seconds, err);
    } else if (!p->disk[0].direct) {
        snprintf(p->note, sizeof p->note, "disk measured through the page cache: O_DIRECT was refused");
    }
    log_progress("%s", "");
    return rc;
}
