/* The machine's memory during a run; see host.h. */
#include "src/run/host.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>

/* PSI: microseconds in which some task waited for memory; NAN where the kernel does not tell. */
static double stalled_us(void)
{
    unsigned long long total;
    double us = NAN;
    FILE *f = fopen("/proc/pressure/memory", "re");

    if (!f) return NAN;
    if (fscanf(f, "some %*s %*s %*s total=%llu", &total) == 1) us = (double)total;
    fclose(f);
    return us;
}

static uint64_t major_faults(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (uint64_t)u.ru_majflt;
}

host_watch host_watch_start(void)
{
    uint64_t available = mem_available_bytes();
    return (host_watch){available, available, clock_ns(), major_faults(), stalled_us()};
}

void host_note(host_watch *w)
{
    uint64_t available = mem_available_bytes();
    if (available < w->lowest_bytes) w->lowest_bytes = available;
}

static double pressure_pct(const host_watch *w)
{
    uint64_t total = mem_total_bytes();

    if (!total || !w->start_available) return NAN;
    return w->lowest_bytes < w->start_available
               ? 100.0 * (double)(w->start_available - w->lowest_bytes) / (double)total
               : 0;
}

host_row host_take(host_watch *w)
{
    uint64_t now = clock_ns(), faults = major_faults();
    double stalled = stalled_us(), wall_us = (double)(now - w->at_ns) / 1e3;
    host_row r;

    host_note(w);
    r = (host_row){mem_rss_peak_bytes(), w->lowest_bytes, faults - w->faults, pressure_pct(w),
                   wall_us > 0 ? fmin(100, 100 * (stalled - w->stalled_us) / wall_us) : NAN};
    w->at_ns = now;
    w->faults = faults;
    w->stalled_us = stalled;
    w->lowest_bytes = mem_available_bytes();
    return r;
}

host_row host_merge(const host_row *a, const host_row *b)
{
    return (host_row){a->rss_peak_bytes > b->rss_peak_bytes ? a->rss_peak_bytes : b->rss_peak_bytes,
                      a->available_min_bytes < b->available_min_bytes ? a->available_min_bytes
                                                                      : b->available_min_bytes,
                      a->major_faults + b->major_faults, fmax(a->pressure_pct, b->pressure_pct),
                      fmax(a->psi_some_pct, b->psi_some_pct)};
}
