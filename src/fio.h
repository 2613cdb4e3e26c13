/* fio, the disk benchmark: calling it and reading its JSON. fio is a program of the user's ($PRIMA_FIO, "fio"
 * by default), so nothing that it prints is trusted. */
#ifndef PRIMA_FIO_H
#define PRIMA_FIO_H
#include "planner/profile.h"
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FIO_MAX_BYTES = 16 << 20 }; /* of an output file */
#define FIO_VERSION_BYTES 32

/* Its version, "fio-3.33"; false: there is no fio that can be started. */
bool fio_installed(char version[FIO_VERSION_BYTES]);

/* One run: `path` is only read (--readonly), blocks of bs_bytes, iodepth of them under way. */
typedef struct {
    const char *path;
    bool random, direct;
    uint64_t bs_bytes;
    uint32_t iodepth;
    double runtime_s, ramp_s; /* measured, and before it */
    double timeout_s;         /* > runtime_s + ramp_s: then fio is killed */
} fio_job;

/* PR_ERESOURCE: fio cannot be started, or it hung; another try is of no use. PR_EINTEGRITY: it ran and
 * failed, or what it printed is not a measurement. *version is filled on success. */
int fio_run(profile_disk *out, char version[FIO_VERSION_BYTES], const fio_job *job, pr_err *err);

/* The figures of fio's JSON output (text before the first '{' is skipped), at most PROFILE_MAX_DISK. Jobs
 * that fio ran at the same time (same groupid) must be of one kind and add up; jobs of one kind that ran one
 * after the other are repetitions: median and spread. Latencies that fio did not report are 0. PR_EINTEGRITY
 * names job and key. */
int fio_parse(profile_disk out[PROFILE_MAX_DISK], size_t *n, char version[FIO_VERSION_BYTES],
              const char *text, size_t n_bytes, pr_err *err);

/* n >= 1 repetitions as one: the figures of the one with the median rate, spread = (max - min) / median.
 * Sorts rep. */
profile_disk fio_median(profile_disk *rep, size_t n);

#endif
