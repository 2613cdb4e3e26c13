/* OpenBLAS' sgemm as a yardstick: what a well-known library makes of the multiply-add rate. prima computes
 * with its own products, which are faster and give a token the same bits whatever is beside it
 * (results/README.md has the figures), so the library is not linked: it is looked for when it is measured,
 * and a machine without it lacks that figure only. */
#ifndef PRIMA_BLAS_H
#define PRIMA_BLAS_H
#include "src/base/err.h"
#include <stddef.h>

/* Gop/s of x [n_tokens][n_cols] times the transpose of w [n_rows][n_cols], f32, single-threaded in
 * n_processes processes at once, together; of each the best call within `ms`. `features`: the instruction set
 * (kernels.h) whose kernels it is to use, where it can be told. NAN and *err when it is not here or fails. */
double blas_gop_per_s(unsigned features, int n_processes, size_t n_tokens, size_t n_rows, size_t n_cols,
                      double ms, pr_err *err);

#endif
