/* Measurements of this machine: what a profile, a benchmark and a plan are made of. */
#ifndef PRIMA_PROBE_H
#define PRIMA_PROBE_H
#include "src/base/err.h"

/* GB/s (1e9 bytes) of a read-only loop over 256 MiB a thread on huge pages, best of three: the limit that
 * decoding works against. NaN and *err when it cannot be measured. */
double probe_read_gb_per_s(int n_threads, pr_err *err);

#endif
