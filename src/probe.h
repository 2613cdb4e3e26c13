/* Measurements of this machine: what a profile, a benchmark and a plan are made of. Each fills its part of a
 * profile; one file each, probe_X.c. */
#ifndef PRIMA_PROBE_H
#define PRIMA_PROBE_H
#include "planner/profile.h"
#include "src/base/err.h"
#include "src/model/hparams.h"

/* --- facts (probe_machine.c) ---------------------------------------------------------------- */
/* host, os, kernel, cpu_model, isa, cores_physical, threads, numa_nodes, ram_*; nothing is timed. */
void probe_machine(profile *p, int n_threads);
/* Bytes of all last-level caches that n_threads threads use together; 32 MiB where the system does not say.
 */
size_t probe_cache_bytes(int n_threads);

/* --- memory (probe_memory.c) ----------------------------------------------------------------- */
/* GB/s (1e9 bytes) of a read-only loop over 256 MiB a thread on huge pages, best of three: the limit that
 * decoding works against. NaN and *err when it cannot be measured. */
double probe_read_gb_per_s(int n_threads, pr_err *err);
/* mem_bytes_per_s of 1 .. n_threads threads (at most PROFILE_MAX_THREADS), the median of three. */
int probe_memory(profile *p, int n_threads, pr_err *err);

/* --- products (probe_compute.c) -------------------------------------------------------------- */
/* compute[]: every matrix type of the model on the model's shapes, or, when hp is NULL, usual types on usual
 * shapes; batches of 1 .. 512 tokens; about `seconds` in all. */
int probe_compute(profile *p, const hparams *hp, int n_threads, double seconds, pr_err *err);

/* --- disk (probe_disk.c) ---------------------------------------------------------------------- */
/* disk[] and fio_version, measured on the file `path` (which is only read): about `seconds` a pattern. By
 * fio, or by a reader of our own where fio is missing or fails: then p->note says so. */
int probe_disk(profile *p, const char *path, double seconds, pr_err *err);

#endif
