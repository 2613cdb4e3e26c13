/* --metrics-file FILE: where a run stands in the Prometheus text format, for node_exporter's textfile
 * collector: replaced as a whole every few seconds by a thread of its own (also while the run waits for a
 * lost device), and at the end. */
#ifndef PRIMA_RUN_METRICS_H
#define PRIMA_RUN_METRICS_H
#include "src/run/progress.h"

typedef struct metrics metrics;

/* Writes it once, which finds out whether it can be. */
int metrics_start(metrics **out, const char *path, progress *p, pr_err *err);
/* The last state, with prima_run_active 0. m NULL is fine. */
int metrics_stop(metrics *m, pr_err *err);

/* Its text, malloc'ed; NULL: out of memory. */
char *metrics_text(const progress_view *v, bool is_active);

#endif
