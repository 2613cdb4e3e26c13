/* Memory pressure: does somebody on this machine, or in the control group of this process, wait because
 * memory is short? A job that holds weights only to be fast gives some of them back then.
 *
 * Linux tells it as the share of time in which at least one task waited for memory ("some" of PSI:
 * /proc/pressure/memory, and memory.pressure of the group). Elsewhere nothing is told. */
#ifndef PRIMA_BASE_PRESSURE_H
#define PRIMA_BASE_PRESSURE_H
#include "src/base/err.h"
#include <stdbool.h>

typedef struct {
    double high_pct; /* from this share of a period on, up to 100, pressure is high (0: 10) */
    double calm_s;   /* it is over after so long below half of that (0: 10) */
    double poll_s;   /* > 0: look so often. 0: each second, and only when the kernel has told, where it can */
    const char *root; /* before /proc and /sys: NULL for this machine, a folder in tests */
} pressure_options;

/* From a thread of the watcher's, after a look. high: since the look before it, some_pct of the time was
 * waited; again after each look for which that is so. Not high: once, when it is over; some_pct is what still
 * was. */
typedef void (*pressure_fn)(void *arg, bool high, double some_pct);

typedef struct pressure pressure;
/* PR_ERESOURCE: no thread or descriptor. Where the system does not tell, nothing is ever called. */
int pressure_watch(pressure **out, const pressure_options *o, pressure_fn fn, void *arg, pr_err *err);
/* fn is not called any more when it returns. Not from fn. NULL is allowed. */
void pressure_end(pressure *p);
/* "kernel", "polling" or "none". */
const char *pressure_source(const pressure *p);

#endif
