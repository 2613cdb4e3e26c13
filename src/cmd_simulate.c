/* prima simulate: a plan played through, event by event, beside what the plan predicts. */
#include "planner/plan.h"
#include "planner/simulate.h"
#include "src/cmd.h"
#include "src/options.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *path, *trace;
    size_t passes, in_flight, pieces;
} simulate_options;

static int parse(simulate_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"passes", 0, OPT_COUNT, &o->passes, "N", 3, 100000, "passes of each micro-batch (60)"},
        {"in-flight", 0, OPT_COUNT, &o->in_flight, "N", 1, 1024,
         "micro-batches in the ring (latency 1, throughput slots / micro-batch)"},
        {"pieces", 0, OPT_COUNT, &o->pieces, "N", 1, 64,
         "parts of a layer that are resident or streamed on their own (8)"},
        {"trace", 0, OPT_STRING, &o->trace, "FILE", 0, 0, "write a trace for chrome://tracing or Perfetto"},
        {0}};
    const opt_spec spec = {"plan.yaml [options]",
                           "Plays a plan through, event by event, and compares with what the plan predicts.",
                           table, 1, 1};
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (!rc) o->path = argv[first];
    return rc;
}

static double share_pct(double part_ms, const sim_result *r)
{
    return r->pass_ms > 0 ? 100 * part_ms / r->pass_ms : 0;
}

static void report(const plan *p, const sim_result *r)
{
    printf("%s %s, %s, %u rounds, %u micro-batches of %u in flight\n\n", p->model.name, p->model.quant,
           p->objective, p->rounds, r->in_flight, p->micro_batch);
    printf("%4s %-20s %10s %12s %12s %10s %10s %12s\n", "rank", "device", "compute %", "disk wait %",
           "send wait %", "idle %", "disk %", "read MiB");
    for (size_t i = 0; i < p->n_devices; i++) {
        const sim_device *d = &r->device[i];
        printf("%4u %-20s %10.1f %12.1f %12.1f %10.1f %10.1f %12.1f\n", p->device[i].rank, p->device[i].name,
               share_pct(d->busy_ms, r), share_pct(d->disk_wait_ms, r), share_pct(d->send_wait_ms, r),
               share_pct(d->idle_ms, r), share_pct(d->disk_busy_ms, r), d->read_bytes / 0x1p20);
    }
    printf("\nsimulated  %.3f ms a pass, the first one finished after %.3f ms\n", r->pass_ms, r->first_ms);
    printf("predicted  %.3f ms a pass (%+.1f %%)\n", p->predicted.pass_ms,
           r->pass_ms > 0 ? 100 * (p->predicted.pass_ms - r->pass_ms) / r->pass_ms : 0);
}

static int play(const simulate_options *o, const plan *p, FILE *trace, pr_err *err)
{
    problem pr;
    assignment a;
    sim_result r;
    sim_options so = {.passes = (uint32_t)o->passes,
                      .in_flight = (uint32_t)o->in_flight,
                      .pieces = (uint32_t)o->pieces,
                      .trace = trace};
    int rc = plan_problem(p, &pr, &a, err);

    if (rc) return rc;
    if (!so.in_flight) so.in_flight = pr.throughput ? (p->slots + p->micro_batch - 1) / p->micro_batch : 1;
    if ((rc = simulate(&pr, &a, &so, &r, err))) return rc;
    report(p, &r);
    return PR_OK;
}

int cmd_simulate(int argc, char **argv, pr_err *err)
{
    simulate_options o = {.passes = 60, .pieces = 8};
    plan *p = NULL;
    FILE *trace = NULL;
    int rc = parse(&o, argc, argv, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if ((rc = plan_read(&p, o.path, err))) return rc;
    if (o.trace && !(trace = fopen(o.trace, "w"))) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", o.trace);
    if (!rc) rc = play(&o, p, trace, err);
    if (trace && fclose(trace) && !rc) rc = pr_fail_errno(err, PR_ERESOURCE, "%s", o.trace);
    plan_free(p);
    return rc;
}
