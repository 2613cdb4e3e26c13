/* Time: intervals from CLOCK_MONOTONIC, dates only for people. */
#ifndef PRIMA_BASE_CLOCK_H
#define PRIMA_BASE_CLOCK_H
#include <stddef.h>
#include <stdint.h>

uint64_t clock_ns(void); /* monotonic nanoseconds */
double clock_ms_since(uint64_t start_ns);
/* Wall time as RFC 3339 UTC, "2026-11-20T08:46:19Z", 21 bytes with NUL. SOURCE_DATE_EPOCH is respected. */
#define CLOCK_RFC3339_BYTES 21
void clock_rfc3339(char out[CLOCK_RFC3339_BYTES]);
int64_t clock_unix_s(void); /* seconds since 1970, the same rule */

#endif
