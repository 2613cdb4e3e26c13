/* --trace FILE: what every device did, as Chrome trace events (JSON array format) that chrome://tracing and
 * Perfetto open. A process for every device, with a lane each for computing, waiting and sending; times are
 * microseconds of the head's clock since the file was opened. An instant event "clock" in a device's first
 * lane says by how much its clock was corrected from there on, and how exact that is; "spans lost" how many
 * spans its buffer could not hold.
 *
 * The array is closed by trace_close; both viewers also open the file of a run that was killed. */
#ifndef PRIMA_RUN_TRACE_H
#define PRIMA_RUN_TRACE_H
#include "src/run/clocks.h"
#include "src/run/spans.h"

typedef struct trace trace;

int trace_open(trace **out, const char *path, pr_err *err);
/* Devices are shown in the order in which they are first named. */
void trace_device(trace *t, const char *device);
/* Spans of one device in the order in which they ended. Any thread. A disk that is full ends the trace, not
 * the run: that is logged once. Without a known clock they cannot be placed, and count as lost. */
void trace_add(trace *t, const char *device, const span *s, size_t n, uint64_t dropped, clock_guess clock);
/* t NULL is fine. PR_ERESOURCE: the file is not complete. */
int trace_close(trace *t, pr_err *err);

#endif
