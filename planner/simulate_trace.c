/* The simulator's Chrome trace: a process a device, a lane each for compute, disk and link. */
#include "planner/simulate_impl.h"

void trace_span(sim *s, const node *n, trace_lane lane, const char *what, double from_ms, double to_ms)
{
    if (!s->o->trace || to_ms <= from_ms) return;
    fprintf(s->o->trace, "%s\n{\"ph\":\"X\",\"name\":\"%s\",\"pid\":%zu,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
            s->trace_comma ? "," : "", what, (size_t)(n - s->node), (int)lane, from_ms * 1e3,
            (to_ms - from_ms) * 1e3);
    s->trace_comma = true;
}

const char *busy_name(const sim *s)
{
    return s->prefill ? "prefill" : "compute";
}

void trace_begin(sim *s)
{
    static const char *const lane[N_LANES] = {"compute", "disk", "link"};

    if (!s->o->trace) return;
    fprintf(s->o->trace, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (int l = 0; l < N_LANES; l++) {
            fprintf(s->o->trace,
                    "%s\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%zu,\"tid\":%d,"
                    "\"args\":{\"name\":\"device %zu %s\"}}",
                    s->trace_comma ? "," : "", i, l, i, lane[l]);
            s->trace_comma = true;
        }
    }
}

int trace_end(const sim *s, pr_err *err)
{
    if (!s->o->trace) return PR_OK;
    fprintf(s->o->trace, "\n]}\n");
    if (fflush(s->o->trace) || ferror(s->o->trace))
        return pr_fail_errno(err, PR_ERESOURCE, "simulate: cannot write the trace");
    return PR_OK;
}
