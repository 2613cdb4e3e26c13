/* The two clocks: a monotonic one for every interval, and the wall clock for dates that people read.
 * SOURCE_DATE_EPOCH pins the wall clock, so that two runs can write the same bytes. */
#include "src/base/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double clock_ms_since(uint64_t start_ns)
{
    return (double)(clock_ns() - start_ns) / 1e6;
}

int64_t clock_unix_s(void)
{
    const char *pinned = getenv("SOURCE_DATE_EPOCH");

    if (pinned && *pinned >= '0' && *pinned <= '9') {
        char *end;
        errno = 0;
        long long v = strtoll(pinned, &end, 10);
        if (!errno && *end == 0) return v;
    }
    return (int64_t)time(NULL);
}

void clock_rfc3339(char out[CLOCK_RFC3339_BYTES])
{
    const int64_t year_9999_end = 253402300799; /* the format has four digits for the year */
    int64_t s = clock_unix_s();
    time_t t = (time_t)(s < year_9999_end ? s : year_9999_end);
    struct tm tm = {0};

    gmtime_r(&t, &tm);
    strftime(out, CLOCK_RFC3339_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
