/* Rows of the devices of a ring; see ring_report.h. */
#include "src/run/ring_report.h"
#include "src/base/clock.h"
#include <math.h>

device_counts counts_of_device(device *d)
{
    link_counts in = device_received(d), out = device_sent(d);
    return (device_counts){stage_about(device_stage(d)), in.bytes, out.bytes, out.wait_ms, clock_ns()};
}

device_counts counts_of_beat(const peer_beat *b)
{
    return (device_counts){{.since_ns = b->since_ns,
                            .passes = b->passes,
                            .tokens = b->tokens,
                            .prefill_tokens = b->prefill_tokens,
                            .merged = b->merged,
                            .batch = b->batch,
                            .layer = b->layer,
                            .compute_ms = b->compute_ms,
                            .gpu_ms = b->gpu_ms,
                            .gpu_bytes = b->gpu_bytes,
                            .wait_ms = b->wait_ms,
                            .disk_wait_ms = b->disk_wait_ms,
                            .disk_busy_ms = b->disk_busy_ms,
                            .disk_bytes = b->disk_bytes},
                           b->rx_bytes,
                           b->tx_bytes,
                           b->send_wait_ms,
                           b->clock_ns};
}

static const char *phase_of(uint64_t prefill_tokens, uint64_t tokens)
{
    return prefill_tokens == 0 ? "decode" : prefill_tokens == tokens ? "prefill" : "mixed";
}

int report_device(timings *t, const plan *p, size_t rank, const device_counts *now, const host_row *host,
                  report_mark *mark, uint64_t start_ns, pr_err *err)
{
    static const device_counts nothing; /* a device that has loaded again counts from there */
    const device_counts *was = now->stage.since_ns != mark->counts.stage.since_ns ? &nothing : &mark->counts;
    const stage_counts *a = &was->stage, *b = &now->stage;
    uint64_t at = clock_ns(), passes = b->passes - a->passes, tokens = b->tokens - a->tokens;
    double compute_ms = b->compute_ms - a->compute_ms, gpu_ms = b->gpu_ms - a->gpu_ms,
           busy_ms = compute_ms + b->disk_wait_ms - a->disk_wait_ms;
    timings_device_row row = {.rank = (int)rank,
                              .device = p->device[rank].name,
                              .phase = phase_of(b->prefill_tokens - a->prefill_tokens, tokens),
                              .interval_start_ms = (double)(mark->at_ns - start_ns) / 1e6,
                              .wall_ms = (double)(at - mark->at_ns) / 1e6,
                              .compute_cpu_ms = fmax(0, compute_ms - gpu_ms),
                              .compute_gpu_ms = gpu_ms,
                              .send_wait_ms = now->send_wait_ms - was->send_wait_ms,
                              .recv_wait_ms = b->wait_ms - a->wait_ms,
                              .disk_wait_ms = b->disk_wait_ms - a->disk_wait_ms,
                              .disk_busy_ms = b->disk_busy_ms - a->disk_busy_ms,
                              .disk_read_bytes = b->disk_bytes - a->disk_bytes,
                              .net_tx_bytes = now->tx_bytes - was->tx_bytes,
                              .net_rx_bytes = now->rx_bytes - was->rx_bytes,
                              .passes = passes,
                              .tokens = tokens,
                              .gpu_mem_peak_bytes = b->gpu_bytes,
                              .predicted_pass_ms = p->device[rank].pass_ms,
                              .measured_pass_ms = passes ? busy_ms / (double)passes * p->rounds : NAN,
                              .host = host};

    if (!passes) return PR_OK; /* a pass that takes longer than an interval: its row spans them */
    mark->at_ns = at;
    mark->counts = *now;
    return t ? timings_device(t, &row, err) : PR_OK;
}

void report_progress(progress *p, const char *name, const device_counts *now)
{
    const progress_device d = {.since_ns = now->stage.since_ns,
                               .at_ns = now->clock_ns,
                               .compute_s = now->stage.compute_ms / 1e3,
                               .wait_s = now->stage.wait_ms / 1e3,
                               .send_s = now->send_wait_ms / 1e3,
                               .disk_s = now->stage.disk_wait_ms / 1e3,
                               .disk_bytes = now->stage.disk_bytes,
                               .rx_bytes = now->rx_bytes,
                               .tx_bytes = now->tx_bytes};
    progress_note_device(p, name, &d);
}

void report_spans(trace *t, const char *name, stage *s)
{
    static const clock_guess ours = {0, 0};
    span x[SPANS_MAX];
    uint64_t dropped;
    size_t n = t ? SPANS_MAX : 0;

    while (n == SPANS_MAX) {
        n = stage_take_spans(s, x, SPANS_MAX, &dropped);
        trace_add(t, name, x, n, dropped, ours);
    }
}
