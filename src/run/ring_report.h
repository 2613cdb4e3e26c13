/* What every device of the ring has done: rows of timings.devices.csv, lanes of the trace, and where the run
 * stands. */
#ifndef PRIMA_RUN_RING_REPORT_H
#define PRIMA_RUN_RING_REPORT_H
#include "src/run/device.h"
#include "src/run/peer.h"
#include "src/run/progress.h"
#include "src/run/timings.h"

typedef struct {
    stage_counts stage;
    uint64_t rx_bytes, tx_bytes;
    double send_wait_ms;
    uint64_t clock_ns; /* when, on the device's clock */
} device_counts;

/* Where a device stood at its last row. */
typedef struct {
    uint64_t at_ns, beats;
    device_counts counts;
} report_mark;

device_counts counts_of_device(device *d);
device_counts counts_of_beat(const peer_beat *b);

/* A row for what a device has done since the mark, which moves then; none, and it stays, when no window has
 * been finished. t NULL: no rows. host NULL: this process. */
int report_device(timings *t, const plan *p, size_t rank, const device_counts *now, const host_row *host,
                  report_mark *mark, uint64_t start_ns, pr_err *err);
void report_progress(progress *p, const char *name, const device_counts *now);
void report_spans(trace *t, const char *name, stage *s); /* the head's; t NULL is fine */

#endif
