/* How far another machine's monotonic clock is from ours: from pings, of which those that came back soonest
 * say most. */
#ifndef PRIMA_RUN_CLOCKS_H
#define PRIMA_RUN_CLOCKS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t offset_ns; /* their clock - ours */
    uint64_t error_ns; /* at most; UINT64_MAX: nothing is known */
} clock_guess;

enum { CLOCKS_PINGS = 16 };

typedef struct {
    struct {
        uint64_t at_ns;
        clock_guess g;
    } ping[CLOCKS_PINGS]; /* the last ones */
    size_t n;             /* ever */
} clocks;

/* A ping left at sent_ns, was answered when their clock said theirs_ns, and was back at back_ns. */
void clocks_add(clocks *c, uint64_t sent_ns, uint64_t theirs_ns, uint64_t back_ns);
/* The best of them; clocks drift apart, so an old ping says less. */
clock_guess clocks_at(const clocks *c, uint64_t now_ns);

#endif
