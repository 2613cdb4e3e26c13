/* Worker threads that run one loop together. Items are taken one by one (or in chunks) from a shared counter,
 * so fast and slow cores share by speed. Nobody's result may depend on which thread ran an item. */
#ifndef PRIMA_BASE_POOL_H
#define PRIMA_BASE_POOL_H
#include "src/base/err.h"
#include <stddef.h>

typedef struct pool pool;
#define POOL_MAX_THREADS 256

/* n_threads in 1..POOL_MAX_THREADS counts the caller's thread too: 1 starts none. */
int pool_new(pool **out, int n_threads, pr_err *err);
void pool_free(pool *p);
int pool_threads(const pool *p);

/* fn(arg, first, end, thread) for disjoint [first, end) of at most `chunk` items that cover [0, n);
 * thread in [0, pool_threads). Returns when all are done. One caller at a time; not reentrant.
 * Workers spin for some tens of microseconds for the next loop, then sleep. */
typedef void (*pool_fn)(void *arg, size_t first, size_t end, int thread);
void pool_run(pool *p, size_t n, size_t chunk, pool_fn fn, void *arg);

/* Cores this process may use (affinity, cgroup quota), at least 1: the default of --threads. */
int pool_default_threads(void);

#endif
