/* Politeness: a device that streams anyway gives some of its resident weights back while somebody on the
 * machine waits for memory (src/base/pressure.h), streams them too, and takes them again when that has been
 * over for a while. */
#ifndef PRIMA_RUN_RELIEF_H
#define PRIMA_RUN_RELIEF_H
#include "src/base/pressure.h"
#include "src/model/residency.h"

typedef struct {
    uint64_t resident_bytes; /* of the residency as it was made */
    double step_pct;         /* given or taken at a time, of these (0: 6.25) */
    double give_s, take_s;   /* at least between two steps (0: 1 and 20) */
    pressure_options pressure;
} relief_options;

typedef struct relief relief;
/* Watching begins. r is borrowed. */
int relief_new(relief **out, residency *r, const relief_options *o, pr_err *err);
void relief_free(relief *x); /* NULL is allowed */
/* Between passes, from the thread that computes. Errors: those of residency_adjust. */
int relief_look(relief *x, pr_err *err);

#endif
