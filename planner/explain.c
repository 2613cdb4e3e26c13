/* Plan -> table a person can check; bottleneck in words. */
#include "planner/explain.h"
#include <math.h>
#include <string.h>

enum { BAR = 40 };

/* --- the table -------------------------------------------------------------------------------------- */
static double gib(uint64_t bytes)
{
    return (double)bytes / 0x1p30;
}

/* Segments are rounded by their ends, so that the bar is as long as the budget whatever the parts are. */
typedef struct {
    char text[2 * BAR + 1];
    size_t n;
    double done, whole;
} bar;

static void bar_add(bar *b, char c, uint64_t bytes)
{
    size_t end;

    b->done += (double)bytes;
    end = b->whole > 0 ? (size_t)fmin(rint(BAR * b->done / b->whole), 2 * BAR) : 0;
    while (b->n < end) b->text[b->n++] = c;
    b->text[b->n] = 0;
}

/* GPU and RAM budget side by side, streamed weights to the right of both in the same scale. */
static void print_bar(const plan_bytes *b, FILE *o)
{
    bar in = {.whole = (double)b->budget_gpu + (double)b->budget_ram}, out = {.whole = in.whole};
    uint64_t used_gpu = b->weights_gpu + b->kv_gpu + b->buffers_gpu;
    uint64_t used_ram = b->weights_ram + b->kv_ram + b->buffers_ram;

    bar_add(&in, 'G', b->weights_gpu);
    bar_add(&in, 'k', b->kv_gpu);
    bar_add(&in, 'b', b->buffers_gpu);
    bar_add(&in, '.', b->budget_gpu > used_gpu ? b->budget_gpu - used_gpu : 0);
    bar_add(&in, 'R', b->weights_ram);
    bar_add(&in, 'k', b->kv_ram);
    bar_add(&in, 'b', b->buffers_ram);
    bar_add(&in, '.', b->budget_ram > used_ram ? b->budget_ram - used_ram : 0);
    bar_add(&out, 'S', b->weights_disk);
    fprintf(o, "     [%s]%s\n", in.text, out.text);
}

static void print_device(const plan *p, const plan_device *d, FILE *o)
{
    uint32_t gpu, all = plan_device_layers(d, &gpu), streamed = 0;
    double in_layers, cpu = all - gpu;

    for (size_t i = 0; i < d->n_windows; i++) streamed += d->window[i].streamed_pieces;
    in_layers = p->pieces ? (double)streamed / p->pieces : 0;
    fprintf(o, "%4u %-20s %5u %7.2f %7.2f %9.1f %9.1f %9.1f %9.1f %8.2f %8.2f\n", d->rank, d->name, gpu,
            cpu - in_layers, in_layers, d->compute_ms, d->disk_wait_ms, d->net_ms, d->pass_ms,
            gib(d->bytes.weights_ram + d->bytes.kv_ram + d->bytes.buffers_ram),
            gib(d->bytes.weights_gpu + d->bytes.kv_gpu + d->bytes.buffers_gpu));
    print_bar(&d->bytes, o);
    if (streamed)
        fprintf(o,
                "     streams %u of %.0f pieces of its %.0f CPU layers: %.3f GiB a pass, %u pieces ahead\n",
                streamed, cpu * p->pieces, cpu, gib(d->read_bytes_per_pass), d->buffer_pieces);
}

static void print_predictions(const plan *p, FILE *o)
{
    fprintf(o,
            "\npredicted  %.1f ms a token, %.2f tokens/s; first token after %.0f ms (prompt of %u tokens)\n",
            p->predicted.tpot_ms, p->predicted.output_tps, p->predicted.ttft_ms, p->predicted.ttft_tokens);
    fprintf(o, "read       %.3f GiB of weights from disk for each token\n",
            gib(p->predicted.read_bytes_per_token));
    fprintf(o, "binds      %s\n", p->predicted.bottleneck);
    fprintf(o, "would help %s\n", p->predicted.advice);
    fprintf(o, "solver     found by %s, certified by %s, %s", p->solver.found_by, p->solver.certified_by,
            p->solver.status);
    if (!isnan(p->solver.gap_pct)) fprintf(o, " (gap %.3f %%)", p->solver.gap_pct);
    fputc('\n', o);
}

void explain_plan(const plan *p, FILE *o)
{
    fprintf(o, "%s %s, %u layers, %.2f GiB; %u slots of %u tokens, %s KV; %s, %u round%s, micro-batch %u\n\n",
            p->model.name, p->model.quant, p->model.n_layers, gib(p->model.file_bytes), p->slots, p->ctx,
            p->kv_type, p->objective, p->rounds, p->rounds == 1 ? "" : "s", p->micro_batch);
    fprintf(o, "%4s %-20s %5s %7s %7s %9s %9s %9s %9s %8s %8s\n", "rank", "device", "GPU", "RAM", "disk",
            "compute", "disk wait", "network", "pass ms", "RAM GiB", "GPU GiB");
    for (size_t i = 0; i < p->n_devices; i++) print_device(p, &p->device[i], o);
    fprintf(
        o,
        "     G weights on the GPU, R resident, k KV cache, b buffers, . free, S streamed in every pass\n");
    for (size_t i = 0; i < p->n_unused; i++)
        fprintf(o, "unused     %s: %s\n", p->unused[i].name, p->unused[i].reason);
    print_predictions(p, o);
    for (size_t i = 0; i < p->n_fallbacks; i++) {
        const plan_fallback *f = &p->fallback[i];
        if (f->rounds)
            fprintf(o, "without %-12s %.1f ms a token: %s, rounds %u\n", f->lost, f->tpot_ms,
                    f->layers ? f->layers : "", f->rounds);
        else fprintf(o, "without %-12s no plan fits\n", f->lost);
    }
}

void explain_reader(const char *device, const profile *p, FILE *o)
{
    const profile_disk *d = profile_disk_used(p);

    if (!d) return;
    fprintf(o, "disk       %s: %.0f MB/s, as %s%s read %s the page cache, %u blocks of %.0f KiB at a time\n",
            device, d->read_bytes_per_s / 1e6, d->engine, profile_disk_is_ours(d) ? "" : " (not our reader)",
            d->direct ? "past" : "through", d->iodepth, (double)d->bs_bytes / 1024);
}

/* --- in words ----------------------------------------------------------------------------------------- */
static void widest_part(const problem *pr, const assignment *a, const char *const *name, char *out,
                        size_t cap)
{
    double most = -1, sum = 0;
    const char *part = "", *who = "";

    for (size_t i = 0; i < pr->n_devices; i++) {
        const assignment_device *d = &a->device[i];
        double part_ms[] = {d->compute_ms + (i ? 0 : pr->device[0].out_ms), d->stall_ms, d->net_ms};
        static const char *const parts[] = {"compute", "waiting for its disk", "network"};
        for (size_t j = 0; j < 3; j++) {
            sum += part_ms[j];
            if (part_ms[j] <= most) continue;
            most = part_ms[j];
            part = parts[j];
            who = name[i];
        }
    }
    snprintf(out, cap, "%s: %s, %.0f %% of a pass", who, part, sum > 0 ? 100 * most / sum : 0);
}

void explain_bottleneck(const problem *pr, const assignment *a, const char *const *name, char *out,
                        size_t cap)
{
    const char *who = name[a->bound_device];

    switch (a->bound) {
    case BOUND_SUM: widest_part(pr, a, name, out, cap); break;
    case BOUND_DISK: snprintf(out, cap, "%s: its disk reads all the time", who); break;
    case BOUND_COMPUTE: snprintf(out, cap, "%s: compute, busy all the time", who); break;
    case BOUND_NET: snprintf(out, cap, "%s: its link sends all the time", who); break;
    }
}
