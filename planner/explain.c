/* Plan -> table a person can check; bottleneck and advice in words. */
#include "planner/explain.h"
#include "planner/solve.h"
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

static void print_device(const plan_device *d, FILE *o)
{
    uint32_t by_place[3] = {0};

    for (size_t i = 0; i < d->n_windows; i++)
        by_place[d->window[i].place] += d->window[i].last_layer - d->window[i].first_layer + 1;
    fprintf(o, "%4u %-20s %5u %5u %5u %9.1f %9.1f %9.1f %9.1f %8.2f %8.2f\n", d->rank, d->name,
            by_place[PLACE_GPU], by_place[PLACE_RAM], by_place[PLACE_DISK], d->compute_ms, d->disk_wait_ms,
            d->net_ms, d->pass_ms, gib(d->bytes.weights_ram + d->bytes.kv_ram + d->bytes.buffers_ram),
            gib(d->bytes.weights_gpu + d->bytes.kv_gpu + d->bytes.buffers_gpu));
    print_bar(&d->bytes, o);
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
    fprintf(o, "%4s %-20s %5s %5s %5s %9s %9s %9s %9s %8s %8s\n", "rank", "device", "GPU", "RAM", "disk",
            "compute", "disk wait", "network", "pass ms", "RAM GiB", "GPU GiB");
    for (size_t i = 0; i < p->n_devices; i++) print_device(&p->device[i], o);
    fprintf(
        o,
        "     G weights on the GPU, R resident, k KV cache, b buffers, . free, S streamed in every pass\n");
    for (size_t i = 0; i < p->n_unused; i++)
        fprintf(o, "unused     %s: %s\n", p->unused[i].name, p->unused[i].reason);
    print_predictions(p, o);
    for (size_t i = 0; i < p->n_fallbacks; i++) {
        const plan_fallback *f = &p->fallback[i];
        if (f->rounds)
            fprintf(o, "without %-12s %.1f ms a token: %s, rounds %u\n", f->lost, f->tpot_ms, f->layers,
                    f->rounds);
        else fprintf(o, "without %-12s no plan fits\n", f->lost);
    }
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

typedef enum { MORE_RAM, MORE_DISK, MORE_LINK, N_CHANGES } change;

static bool apply(problem *pr, size_t device, change what)
{
    problem_device *d = &pr->device[device];
    double before[] = {d->ram_bytes, d->disk_bytes_per_ms, d->hop_ms};

    if (what == MORE_RAM) d->ram_bytes *= 1.25;
    if (what == MORE_DISK) d->disk_bytes_per_ms *= 1.25;
    if (what == MORE_LINK) d->hop_ms /= 1.25;
    return before[what] > 0;
}

void explain_advice(const problem *pr, const assignment *a, const char *const *name, char *out, size_t cap)
{
    static const double WORTH = 1.02; /* below 2 % the model's own error is larger */
    double best = WORTH;

    snprintf(out, cap, "no 25 %% more RAM, disk or link of one device gains 2 %%");
    for (size_t i = 0; i < pr->n_devices; i++) {
        for (change what = 0; what < N_CHANGES; what++) {
            problem changed = *pr;
            solution s;
            double gain;

            if (!apply(&changed, i, what) || dp_solve(&changed, &s, NULL)) continue;
            gain = a->pass_ms / s.best.pass_ms;
            if (!(gain > best)) continue;
            best = gain;
            if (what == MORE_RAM)
                snprintf(out, cap, "%.1f GiB more RAM on %s: %.2fx", 0.25 * pr->device[i].ram_bytes / 0x1p30,
                         name[i], gain);
            else
                snprintf(out, cap, "a 25 %% faster %s of %s: %.2fx", what == MORE_DISK ? "disk" : "link",
                         name[i], gain);
        }
    }
}
