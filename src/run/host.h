/* What a run does to the machine it is on: memory of this process and of the machine, between two looks. A
 * dip of free memory between two notes is not seen, but the kernel's pressure counter (PSI) misses none. */
#ifndef PRIMA_RUN_HOST_H
#define PRIMA_RUN_HOST_H
#include <stdint.h>

/* Since the look before. Bytes 0, doubles NAN: unknown. */
typedef struct {
    uint64_t rss_peak_bytes, available_min_bytes, major_faults;
    double pressure_pct; /* 100 (MemAvailable at the start - the lowest since) / MemTotal, at least 0 */
    double psi_some_pct; /* of the time some task waited for memory */
} host_row;

typedef struct {
    uint64_t start_available, lowest_bytes, at_ns, faults;
    double stalled_us;
} host_watch;

host_watch host_watch_start(void);
void host_note(host_watch *w); /* how much memory is left just now */
host_row host_take(host_watch *w);
/* Two rows that follow each other, as one: the extremes, faults added. */
host_row host_merge(const host_row *a, const host_row *b);

#endif
