/* Where a run stands: requests, tokens and every device, told by who knows it, for the status line and the
 * metrics file. Any thread. */
#ifndef PRIMA_RUN_PROGRESS_H
#define PRIMA_RUN_PROGRESS_H
#include "src/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct progress progress;
progress *progress_new(void); /* NULL: out of memory */
void progress_free(progress *p);

/* --- telling it; p NULL is fine ----------------------------------------------------------------------------
 */
typedef struct {
    size_t n_ok, n_failed; /* requests answered in this run */
    size_t n_done, n_all;  /* of the job, with what runs before this one have done */
    size_t n_running;
    uint64_t prompt_tokens, completion_tokens;
} progress_run;
void progress_note_run(progress *p, const progress_run *r);

/* Counted since the device has loaded; one that has loaded again begins at nothing. */
typedef struct {
    uint64_t since_ns, at_ns; /* when it began to count, and when this was, on a clock of its own */
    double compute_s, wait_s, send_s, disk_s; /* disk_s: waiting for streamed weights */
    uint64_t rx_bytes, tx_bytes, disk_bytes;
} progress_device;
void progress_note_device(progress *p, const char *name, const progress_device *d);
/* Known, and here or lost. */
void progress_note_up(progress *p, const char *name, bool is_up);
void progress_note_restart(progress *p); /* a lost device has been started or found again */

/* --- asking it ---------------------------------------------------------------------------------------------
 */
enum { PROGRESS_DEVICES = 256, PROGRESS_NAME_BYTES = 64 };

typedef struct {
    char name[PROGRESS_NAME_BYTES];
    bool is_up;
    double busy;           /* 0 to 1: of its time lately it computed or waited for its disk */
    progress_device total; /* of the whole run, over all restarts */
} progress_shown;

typedef struct {
    progress_run run;
    double tokens_per_s, left_s; /* completion tokens, lately; left_s NaN: not known yet */
    uint32_t restarts;
    size_t n_devices;
    progress_shown device[PROGRESS_DEVICES];
} progress_view;
void progress_look(progress *p, progress_view *v);

/* "12 of 600 done, 16 running, 512.3 tokens/s, 1 min 20 s left, slowest: laptop 93 %"; the last part with two
 * devices or more. */
void progress_line(const progress_view *v, char *out, size_t n);

#endif
