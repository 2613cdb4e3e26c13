/* fio's JSON; see fio.h. Format: fio's documentation, "JSON output" (fio 3). The rate is bw_bytes: `bw` is in
 * KiB/s and says so nowhere. */
#include "src/fio.h"
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 256 };
#define MAX_RATE 1e15 /* bytes/s and nanoseconds beyond this are nonsense, */
#define MAX_IOPS 1e12 /* and so many operations a second */

typedef struct {
    profile_disk d;
    json_int_t group;
} job_figures;

static bool same_kind(const profile_disk *a, const profile_disk *b)
{
    return !strcmp(a->pattern, b->pattern) && a->bs_bytes == b->bs_bytes && a->iodepth == b->iodepth &&
           a->direct == b->direct && !strcmp(a->engine, b->engine);
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const profile_disk *)a)->read_bytes_per_s, y = ((const profile_disk *)b)->read_bytes_per_s;
    return (x > y) - (x < y);
}

profile_disk fio_median(profile_disk *rep, size_t n)
{
    profile_disk d;

    qsort(rep, n, sizeof *rep, by_rate);
    d = rep[(n - 1) / 2];
    d.reps = (uint32_t)n;
    d.spread_pct = 100 * (rep[n - 1].read_bytes_per_s - rep[0].read_bytes_per_s) / d.read_bytes_per_s;
    return d;
}

/* Text from outside as plain ASCII without blanks: it goes into a file. */
static void copy_plain(char *out, size_t n, const char *text)
{
    size_t k = 0;

    for (; text && *text && k + 1 < n; text++)
        if (*text > 0x20 && *text < 0x7F) out[k++] = *text;
    out[k] = 0;
}

/* --- one job ------------------------------------------------------------------------------------- */
/* An option of the job, or of all jobs, by either of its names; NULL when fio's default is in force. */
static const char *option(const json_t *root, const json_t *job, const char *name, const char *alias)
{
    const json_t *places[] = {json_object_get(job, "job options"), json_object_get(root, "global options")};

    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_object_get(places[i], name);
        if (!v) v = json_object_get(places[i], alias);
        if (v) return json_is_string(v) ? json_string_value(v) : "?";
    }
    return NULL;
}

/* "4k", "1M", "1MiB", "4096", "1M,4k,4k" (read, write, trim); fio counts a k as 1024. 0: not understood. */
static uint64_t block_bytes(const char *text)
{
    char *unit;
    uint64_t v = isdigit((unsigned char)*text) ? strtoull(text, &unit, 10) : 0;

    if (!v || v > (uint64_t)1 << 30) return 0;
    switch (tolower((unsigned char)*unit)) {
    case 0:
    case ',':
    case 'b': break;
    case 'k': v <<= 10; break;
    case 'm': v <<= 20; break;
    case 'g': v <<= 30; break;
    default: return 0;
    }
    return v <= (uint64_t)1 << 30 ? v : 0;
}

static int job_kind(profile_disk *d, const json_t *root, const json_t *job, size_t i, pr_err *err)
{
    const char *rw = option(root, job, "rw", "readwrite"), *bs = option(root, job, "bs", "blocksize");
    const char *depth = option(root, job, "iodepth", "iodepth"),
               *direct = option(root, job, "direct", "direct");
    const char *engine = option(root, job, "ioengine", "ioengine");
    unsigned long n = depth ? strtoul(depth, NULL, 10) : 1;

    if (!json_is_object(json_object_get(job, "job options")) &&
        !json_is_object(json_object_get(root, "global options")))
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: \"job options\" is missing: what was measured?", i);
    if (rw && strcmp(rw, "read") && strcmp(rw, "randread"))
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: rw=%.20s: expected read or randread", i, rw);
    d->bs_bytes = bs ? block_bytes(bs) : 4096;
    if (!d->bs_bytes)
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: bs=%.20s: expected one size up to 1g", i, bs);
    if (n < 1 || n > 65536)
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: iodepth=%.20s: expected 1 to 65536", i, depth);
    d->iodepth = (uint32_t)n;
    d->direct = direct && strcmp(direct, "0") != 0;
    snprintf(d->pattern, sizeof d->pattern, "%s", rw && !strcmp(rw, "randread") ? "rand" : "seq");
    copy_plain(d->engine, sizeof d->engine, engine ? engine : "psync");
    if (!*d->engine) return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: ioengine is empty", i);
    return PR_OK;
}

/* The number at `key` of o, from min to max. */
static int number(double *out, const json_t *o, const char *key, double min, double max, size_t i,
                  pr_err *err)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_number(v))
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu].read: number %s is missing (fio 3 or newer is needed)",
                       i, key);
    *out = json_number_value(v);
    if (!(*out >= min && *out <= max))
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu].read: %s is %g: expected %g to %g", i, key, *out, min,
                       max);
    return PR_OK;
}

static int job_rates(profile_disk *d, const json_t *job, size_t i, pr_err *err)
{
    const json_t *read = json_object_get(job, "read"), *error = json_object_get(job, "error");
    const json_t *percentile = json_object_get(json_object_get(read, "clat_ns"), "percentile");
    double p50 = 0, p99 = 0;
    int rc;

    if (!json_is_integer(error)) return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: error is missing", i);
    if (json_integer_value(error))
        return pr_fail(err, PR_EINTEGRITY, "jobs[%zu]: fio reports error %lld", i,
                       (long long)json_integer_value(error));
    /* Nothing read is a failure, not a slow disk. */
    if ((rc = number(&d->read_bytes_per_s, read, "bw_bytes", 1, MAX_RATE, i, err)) ||
        (rc = number(&d->iops, read, "iops", 0, MAX_IOPS, i, err)))
        return rc;
    /* fio leaves them out when it was told to, and when no read both began and ended in a short run. */
    if (percentile && ((rc = number(&p50, percentile, "50.000000", 0, MAX_RATE, i, err)) ||
                       (rc = number(&p99, percentile, "99.000000", 0, MAX_RATE, i, err))))
        return rc;
    d->clat_p50_us = p50 / 1e3;
    d->clat_p99_us = p99 / 1e3;
    d->reps = 1;
    return PR_OK;
}

static int read_job(job_figures *f, const json_t *root, const json_t *job, size_t i, pr_err *err)
{
    const json_t *group = json_object_get(job, "groupid");
    int rc;

    *f = (job_figures){.group = json_integer_value(group)};
    if ((rc = job_rates(&f->d, job, i, err))) return rc;
    return job_kind(&f->d, root, job, i, err);
}

/* --- many jobs -------------------------------------------------------------------------------------- */
/* Jobs that ran side by side become one: rates add up, of the latencies the worst stays. */
static int join_groups(job_figures *f, size_t *n, pr_err *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < *n; i++) {
        profile_disk *d = kept ? &f[kept - 1].d : NULL, *more = &f[i].d;
        if (!d || f[kept - 1].group != f[i].group) {
            f[kept++] = f[i];
            continue;
        }
        if (!same_kind(d, more))
            return pr_fail(err, PR_EINTEGRITY,
                           "jobs[%zu]: ran at the same time as a job of another kind: give "
                           "each job `stonewall`",
                           i);
        d->read_bytes_per_s += more->read_bytes_per_s;
        d->iops += more->iops;
        if (more->clat_p50_us > d->clat_p50_us) d->clat_p50_us = more->clat_p50_us;
        if (more->clat_p99_us > d->clat_p99_us) d->clat_p99_us = more->clat_p99_us;
    }
    *n = kept;
    return PR_OK;
}

/* Jobs of one kind in different groups are repetitions. */
static int join_repetitions(profile_disk *out, size_t *n_out, job_figures *f, size_t n, pr_err *err)
{
    profile_disk rep[MAX_JOBS];

    *n_out = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_rep = 0;
        if (!f[i].d.reps) continue; /* is in an earlier one */
        if (*n_out == PROFILE_MAX_DISK)
            return pr_fail(err, PR_EINTEGRITY, "more than %d kinds of job", PROFILE_MAX_DISK);
        for (size_t k = i; k < n; k++) {
            if (!f[k].d.reps || !same_kind(&f[i].d, &f[k].d)) continue;
            rep[n_rep++] = f[k].d;
            if (k > i) f[k].d.reps = 0;
        }
        out[(*n_out)++] = fio_median(rep, n_rep);
    }
    return PR_OK;
}

static int read_jobs(profile_disk *out, size_t *n, const json_t *root, pr_err *err)
{
    const json_t *jobs = json_object_get(root, "jobs");
    size_t n_jobs = json_array_size(jobs);
    job_figures f[MAX_JOBS];
    int rc;

    if (!json_is_array(jobs) || !n_jobs || n_jobs > MAX_JOBS)
        return pr_fail(err, PR_EINTEGRITY, "no \"jobs\" in it, or more than %d", MAX_JOBS);
    for (size_t i = 0; i < n_jobs; i++)
        if ((rc = read_job(&f[i], root, json_array_get(jobs, i), i, err))) return rc;
    if ((rc = join_groups(f, &n_jobs, err))) return rc;
    return join_repetitions(out, n, f, n_jobs, err);
}

int fio_parse(profile_disk out[PROFILE_MAX_DISK], size_t *n, char version[FIO_VERSION_BYTES],
              const char *text, size_t n_bytes, pr_err *err)
{
    const char *start = n_bytes ? memchr(text, '{', n_bytes) : NULL;
    json_error_t e;
    json_t *root;
    int rc;

    if (!start)
        return pr_fail(err, PR_EINTEGRITY, "not the output of fio --output-format=json: no '{' in it");
    /* What fio prints after its object (messages of jobs) is of no interest. */
    root = json_loadb(start, n_bytes - (size_t)(start - text), JSON_DISABLE_EOF_CHECK, &e);
    if (!root)
        return pr_fail(err, PR_EINTEGRITY, "not the output of fio --output-format=json: line %d: %.100s",
                       e.line, e.text);
    rc = read_jobs(out, n, root, err);
    if (!rc) copy_plain(version, FIO_VERSION_BYTES, json_string_value(json_object_get(root, "fio version")));
    json_decref(root);
    return rc;
}
