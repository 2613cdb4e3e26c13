/* How fast a counter grows lately. */
#ifndef PRIMA_RUN_RATE_H
#define PRIMA_RUN_RATE_H
#include <stddef.h>
#include <stdint.h>

enum { RATE_POINTS = 20 };

typedef struct {
    struct {
        uint64_t at_ns;
        double value;
    } point[RATE_POINTS], last; /* half a second apart; last: the newest */
    size_t n;                   /* points ever */
} rate;

/* value: of a counter; one that falls begins anew. Times rise. */
void rate_add(rate *r, uint64_t at_ns, double value);
/* Per second over the last ten or so that it was told of, up to now_ns; 0: not known yet. */
double rate_per_s(const rate *r, uint64_t now_ns);

#endif
