/* Links measured beside links planned; see link_table.h. */
#include "src/run/link_table.h"
#include "net/frame.h"
#include <math.h>
#include <stdio.h>

static const double OFF = 2;

/* As the planner counts them: f32, one frame. */
static double frame_bytes(uint32_t n_tokens, size_t n_embd)
{
    return FRAME_HEADER_BYTES + (double)n_tokens * (double)n_embd * sizeof(float);
}

link_view link_planned(const plan *p, size_t from, size_t n_embd)
{
    const problem_device *d = &p->device[from].cost;
    double pass = frame_bytes(p->micro_batch, n_embd), chunk = frame_bytes(p->prefill_tokens, n_embd);
    double more_ms = d->prefill_hop_ms - d->hop_ms;
    link_view v = {NAN, NAN, d->hop_ms};

    if (chunk <= pass || more_ms <= 0) return v;
    v.bytes_per_s = (chunk - pass) / more_ms * 1e3;
    v.way_us = fmax(d->hop_ms - pass / v.bytes_per_s * 1e3, 0) * 1e3;
    return v;
}

link_view link_measured(const plan *p, size_t n_embd, double rtt_ms, double bytes_per_s)
{
    return (link_view){rtt_ms / 2 * 1e3, bytes_per_s,
                       rtt_ms / 2 + frame_bytes(p->micro_batch, n_embd) / bytes_per_s * 1e3};
}

void link_table_head(char out[LINK_ROW_BYTES])
{
    snprintf(out, LINK_ROW_BYTES, "%-16s %-16s %9s %9s %9s %9s %9s %9s", "from", "to", "rtt/2 us", "(plan)",
             "MB/s", "(plan)", "pass ms", "(plan)");
}

static void print_planned(char out[24], double v, int digits)
{
    if (isnan(v)) snprintf(out, 24, "-");
    else snprintf(out, 24, "%.*f", digits, v);
}

static bool differs(double measured, double planned)
{
    return !isnan(planned) && (measured > OFF * planned || measured * OFF < planned);
}

void link_table_row(char out[LINK_ROW_BYTES], const plan *p, size_t from, const link_view *measured,
                    const link_view *planned, bool *is_off)
{
    const char *to = p->device[(from + 1) % p->n_devices].name;
    char way[24], rate[24], hop[24];

    *is_off = differs(measured->way_us, planned->way_us) ||
              differs(measured->bytes_per_s, planned->bytes_per_s) ||
              differs(measured->hop_ms, planned->hop_ms);
    print_planned(way, planned->way_us, 1);
    print_planned(rate, planned->bytes_per_s / 1e6, 1);
    print_planned(hop, planned->hop_ms, 3);
    snprintf(out, LINK_ROW_BYTES, "%-16s %-16s %9.1f %9s %9.1f %9s %9.3f %9s%s%s", p->device[from].name, to,
             measured->way_us, way, measured->bytes_per_s / 1e6, rate, measured->hop_ms, hop,
             *is_off ? "  off by more than 2x: " : "",
             !*is_off                             ? ""
             : measured->hop_ms > planned->hop_ms ? "slower"
                                                  : "faster");
}
