/* prima simulate: a plan played through, event by event, beside what the plan predicts. */
#include "planner/plan.h"
#include "planner/simulate.h"
#include "planner/ttft.h"
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/cmd.h"
#include "src/options.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *path, *trace;
    size_t passes, in_flight, prompt;
} simulate_options;

static int parse(simulate_options *o, int argc, char **argv, pr_err *err)
{
    const opt table[] = {
        {"passes", 0, OPT_COUNT, &o->passes, "N", 3, 100000,
         "passes of each micro-batch (60; with F in flight 6 + 54 / F)"},
        {"in-flight", 0, OPT_COUNT, &o->in_flight, "N", 1, 1024,
         "micro-batches in the ring (latency 1, throughput slots / micro-batch)"},
        {"prompt", 0, OPT_COUNT, &o->prompt, "N", 1, 1 << 20, "a prompt of so many tokens goes first"},
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

static void print_times(const char *of, double simulated_ms, double predicted_ms)
{
    printf("\nsimulated  %.3f ms %s\npredicted  %.3f ms (%+.1f %%)\n", simulated_ms, of, predicted_ms,
           simulated_ms > 0 ? 100 * (predicted_ms - simulated_ms) / simulated_ms : 0);
}

static void report(const plan *p, const problem *pr, const assignment *a, const sim_result *r,
                   uint32_t prompt_tokens)
{
    char of[80];

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
    snprintf(of, sizeof of, "a pass, the first one finished after %.3f ms", r->first_ms);
    print_times(of, r->pass_ms, p->predicted.pass_ms);
    if (!prompt_tokens) return;
    snprintf(of, sizeof of, "to the first token of a prompt of %u (%.1f tokens a second)", prompt_tokens,
             r->prefill_tps);
    print_times(of, r->ttft_ms, ttft_ms(pr, a, prompt_tokens));
}

static int play(const simulate_options *o, const plan *p, FILE *trace, pr_err *err)
{
    problem pr;
    assignment a;
    sim_result r;
    sim_options so = {.passes = (uint32_t)o->passes,
                      .in_flight = (uint32_t)o->in_flight,
                      .prompt_tokens = (uint32_t)o->prompt,
                      .trace = trace};
    uint64_t started_ns;
    int rc = plan_problem(p, &pr, &a, err);

    if (rc) return rc;
    if (!so.in_flight) so.in_flight = pr.in_flight ? pr.in_flight : 1;
    if (!so.passes) so.passes = 6 + 54 / so.in_flight;
    started_ns = clock_ns();
    if ((rc = simulate(&pr, &a, &so, &r, err))) return rc;
    log_info("simulate: %llu events in %.0f ms", (unsigned long long)r.n_events, clock_ms_since(started_ns));
    report(p, &pr, &a, &r, so.prompt_tokens);
    return PR_OK;
}

int cmd_simulate(int argc, char **argv, pr_err *err)
{
    simulate_options o = {0};
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
