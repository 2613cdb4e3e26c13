/* Where prima keeps what it can make or fetch again: PRIMA_CACHE, else $XDG_CACHE_HOME/prima, else
 * ~/.cache/prima. */
#ifndef PRIMA_BASE_CACHE_H
#define PRIMA_BASE_CACHE_H
#include "src/base/err.h"
#include <stddef.h>

/* "CACHE/name", and the folders on the way to it. PR_EUSAGE when none of the three is set. */
int cache_path(char *out, size_t n, const char *name, pr_err *err);

#endif
