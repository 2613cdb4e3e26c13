/* OUTPUT.manifest.json: what the run was, so that a resumed one can see that it is the same (inside src/run).
 */
#ifndef PRIMA_RUN_MANIFEST_H
#define PRIMA_RUN_MANIFEST_H
#include "src/run/output.h"

#define RUN_ID_BYTES 13 /* 12 hex digits and NUL */

/* The run's name: different for every run, or, with created_s 0 (reproducible runs), a function of the input
 * and the facts. PR_ERESOURCE: out of memory. */
int manifest_run_id(char id[RUN_ID_BYTES], const output_options *o, const prompts *p, pr_err *err);

/* Write the manifest of a new run. */
int manifest_start(const char *path, const char *run_id, const output_options *o, const prompts *p,
                   pr_err *err);

/* Compare with the manifest at path and take over its run id. PR_EMISMATCH names the first difference; with
 * force_resume it is noted in the manifest instead, whose facts then become the present ones. Adds the
 * present time to resumed_at. */
int manifest_resume(const char *path, char id[RUN_ID_BYTES], const output_options *o, const prompts *p,
                    pr_err *err);

#endif
