/* Measurements of this machine: what a profile, a benchmark and a plan are made of. Each fills its part of a
 * profile; one file each, probe_X.c. */
#ifndef PRIMA_PROBE_H
#define PRIMA_PROBE_H
#include "planner/profile.h"
#include "src/base/err.h"
#include "src/product_rig.h"

/* --- facts (probe_machine.c) ---------------------------------------------------------------- */
/* host, os, kernel, cpu_model, isa, cores_physical, threads, numa_nodes, ram_*; nothing is timed. */
void probe_machine(profile *p, int n_threads);
/* disk_name: of the file system that path is on, or will be when it is made; "" when the system does not say.
 */
void probe_disk_name(profile *p, const char *path);
/* One more sentence of the note: what a reader of the profile must know. Becomes plain ASCII. */
void probe_note(profile *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Bytes of all last-level caches that n_threads threads use together; 32 MiB where the system does not say.
 */
size_t probe_cache_bytes(int n_threads);

/* --- memory (probe_memory.c) ----------------------------------------------------------------- */
/* GB/s (1e9 bytes) of a read-only loop over 256 MiB a thread on huge pages, best of five: the limit that
 * decoding works against. NaN and *err when it cannot be measured. */
double probe_read_gb_per_s(int n_threads, pr_err *err);
/* mem_bytes_per_s of 1 .. n_threads threads (at most PROFILE_MAX_THREADS), the median of five,
 * and mem_spread_pct. */
int probe_memory(profile *p, int n_threads, pr_err *err);

/* --- products (probe_compute.c) -------------------------------------------------------------- */
/* compute[]: every matrix type of the rig on its shapes; batches of 1 .. 512 tokens; about `seconds` in all.
 * The multiply-add rates that limit them (own loops, OpenBLAS) are logged. */
int probe_compute(profile *p, product_rig *r, double seconds, pr_err *err);

/* --- disk (probe_disk.c) ---------------------------------------------------------------------- */
/* disk[] and fio_version, measured on the file `path` (which is only read): about `seconds` a pattern, up to
 * eleven of them. By fio, and by the runtime's reader: the best block size and depth of each engine past and
 * through the page cache; where fio is missing or fails, by the reader alone. p->note says that, and what
 * made the figures better than a disk is. */
int probe_disk(profile *p, const char *path, double seconds, pr_err *err);

/* --- both at once (probe_overlap.c) ------------------------------------------------------------ */
/* overlap[], with the way of reading that plans use (disk_best.h): about `seconds`. */
int probe_overlap(profile *p, product_rig *r, const char *path, double seconds, pr_err *err);

#endif
