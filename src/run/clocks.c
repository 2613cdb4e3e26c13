/* Another machine's clock; see clocks.h. An answer was written somewhere between the ping's leaving and its
 * return: the middle is off by at most half the way there and back. */
#include "src/run/clocks.h"

/* Two quartz clocks, each disciplined by NTP, part by less than this: 100 ppm. */
static const uint64_t DRIFT_PER = 10000;

void clocks_add(clocks *c, uint64_t sent_ns, uint64_t theirs_ns, uint64_t back_ns)
{
    uint64_t half = (back_ns - sent_ns + 1) / 2;

    if (back_ns < sent_ns) return;
    c->ping[c->n % CLOCKS_PINGS].at_ns = back_ns;
    c->ping[c->n % CLOCKS_PINGS].g = (clock_guess){(int64_t)(theirs_ns - (sent_ns + half)), half};
    c->n++;
}

clock_guess clocks_at(const clocks *c, uint64_t now_ns)
{
    clock_guess best = {0, UINT64_MAX};

    for (size_t i = 0; i < c->n && i < CLOCKS_PINGS; i++) {
        clock_guess g = c->ping[i].g;
        if (now_ns > c->ping[i].at_ns) g.error_ns += (now_ns - c->ping[i].at_ns) / DRIFT_PER;
        if (g.error_ns < best.error_ns) best = g;
    }
    return best;
}
