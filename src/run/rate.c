/* A counter's growth; see rate.h. */
#include "src/run/rate.h"

static const uint64_t GAP_NS = 500000000;

void rate_add(rate *r, uint64_t at_ns, double value)
{
    size_t newest;

    if (value < r->last.value) r->n = 0;
    newest = (r->n + RATE_POINTS - 1) % RATE_POINTS;
    r->last.at_ns = at_ns;
    r->last.value = value;
    if (r->n && at_ns - r->point[newest].at_ns < GAP_NS) return;
    r->point[r->n % RATE_POINTS].at_ns = at_ns;
    r->point[r->n++ % RATE_POINTS].value = value;
}

double rate_per_s(const rate *r, uint64_t now_ns)
{
    size_t oldest = r->n > RATE_POINTS ? r->n % RATE_POINTS : 0;
    uint64_t since = r->point[oldest].at_ns, until = now_ns > r->last.at_ns ? now_ns : r->last.at_ns;

    if (!r->n || until - since < GAP_NS) return 0;
    return (r->last.value - r->point[oldest].value) / ((double)(until - since) / 1e9);
}
