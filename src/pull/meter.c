/* The progress display; see meter.h. The rate is that of the last eight seconds or so: what a slow start or a
 * break cost earlier says nothing of the time left. */
#include "src/pull/meter.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include <stdio.h>
#include <string.h>

#define POINT_NS 500000000u
#define SAY_NS   10000000000u

void meter_begin(meter *m, uint64_t total)
{
    *m = (meter){.is_terminal = m->is_terminal, .total = total, .said_ns = clock_ns()};
}

void meter_file(meter *m, const char *verb, const char *name, uint64_t before)
{
    snprintf(m->what, sizeof m->what, "%s %s", verb, name);
    m->before = before;
    m->n = 0; /* what was there already came at no rate */
}

void meter_count(meter *m, uint64_t now_ns, uint64_t done)
{
    size_t last = (m->n + METER_POINTS - 1) % METER_POINTS;

    if (m->before + done > m->done) m->done = m->before + done;
    if (m->n && now_ns - m->point[last].at_ns < POINT_NS) return;
    m->point[m->n % METER_POINTS].at_ns = now_ns;
    m->point[m->n % METER_POINTS].done = m->done;
    m->n++;
}

/* Bytes per second; 0: not known yet. */
static double rate_of(const meter *m, uint64_t now_ns)
{
    size_t oldest = m->n > METER_POINTS ? m->n % METER_POINTS : 0;
    uint64_t ns = m->n ? now_ns - m->point[oldest].at_ns : 0;

    return ns >= POINT_NS ? (double)(m->done - m->point[oldest].done) * 1e9 / (double)ns : 0;
}

static void print_left(char *out, size_t n, double s)
{
    unsigned long t = s < 1e7 ? (unsigned long)(s + 0.5) : 0;

    if (!(s < 1e7)) *out = 0;
    else if (t < 60) snprintf(out, n, ", %lu s left", t);
    else if (t < 3600) snprintf(out, n, ", %lu min %02lu s left", t / 60, t % 60);
    else snprintf(out, n, ", %lu h %02lu min left", t / 3600, t / 60 % 60);
}

void meter_text(const meter *m, uint64_t now_ns, char *out, size_t n)
{
    double unit = m->total >= 1000000000u ? 1e9 : 1e6, rate = rate_of(m, now_ns);
    char speed[32] = "", left[48] = "";

    if (rate > 0) {
        snprintf(speed, sizeof speed, ", %.1f MB/s", rate / 1e6);
        print_left(left, sizeof left, (double)(m->total > m->done ? m->total - m->done : 0) / rate);
    }
    snprintf(out, n, "%s: %.2f of %.2f %s%s%s", m->what, (double)m->done / unit, (double)m->total / unit,
             unit > 1e6 ? "GB" : "MB", speed, left);
}

void meter_note(meter *m, uint64_t done)
{
    uint64_t now = clock_ns();
    char text[METER_LINE_BYTES];

    meter_count(m, now, done);
    if (!m->is_terminal && now - m->said_ns < SAY_NS) return;
    meter_text(m, now, text, sizeof text);
    if (m->is_terminal) {
        log_progress("%s", text);
    } else {
        log_info("%s", text);
        m->said_ns = now;
    }
}

void meter_fetched(void *arg, uint64_t done, uint64_t total)
{
    (void)total;
    meter_note(arg, done);
}

void meter_end(meter *m)
{
    (void)m;
    log_progress("%s", "");
}
