/* The text of one line of the completions file (inside src/run). */
#ifndef PRIMA_RUN_RECORD_H
#define PRIMA_RUN_RECORD_H
#include "src/run/output.h"

typedef struct {
    const char *run_id, *model_name;
    uint64_t created_s;
    const vocab *vocab;
} record_facts;

/* malloc'ed, with its '\n'; NULL: out of memory. The keys stand in a fixed order with `timings`, the only one
 * that differs from run to run, last. */
char *record_completion(const record_facts *f, const request *r, const completion *c, const request_times *t);
char *record_error(const record_facts *f, const request *r);

#endif
