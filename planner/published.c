/* Problem -> halda_problem, halda_result -> assignment. Rates are chosen so that both models give a layer the
 * same time; memory and disk are the same figures. */
#include "planner/published.h"
#include <string.h>

static double gflops(double flops, double ms)
{
    return ms > 0 ? flops / (ms * 1e6) : 0;
}

void published_problem(halda_problem *h, const problem *p, const model_facts *f, const char *const *os)
{
    static const double MASTER_PRIORITY = 1.01; /* as shipped */

    memset(h, 0, sizeof *h);
    h->n_layers = p->n_layers;
    h->layer_bytes = p->layer_bytes;
    h->kv_layer_bytes = p->kv_layer_bytes;
    h->input_row_bytes = (double)f->input_row_bytes;
    h->output_bytes = (double)f->output_bytes;
    for (size_t i = 0; i < f->n_work; i++) {
        h->layer_flops += 2 * f->work[i].layer_elements;
        h->output_flops += 2 * f->work[i].output_elements;
    }
    h->n_devices = p->n_devices;
    h->master_priority = MASTER_PRIORITY;
    h->select = true;
    for (size_t i = 0; i < p->n_devices; i++) {
        const problem_device *d = &p->device[i];
        h->device[i] = (halda_device){.cpu_gflops = gflops(h->layer_flops, d->cpu_ms),
                                      .gpu_gflops = d->vram_bytes > 0 ? gflops(h->layer_flops, d->gpu_ms) : 0,
                                      .ram_available_bytes = d->ram_bytes,
                                      .vram_bytes = d->vram_bytes,
                                      .disk_bytes_per_ms = d->disk_bytes_per_ms,
                                      .cpu_buffer_bytes = d->cpu_buffer_bytes,
                                      .gpu_buffer_bytes = d->gpu_buffer_bytes,
                                      .os = strcmp(os[i], "macOS") == 0     ? HALDA_MACOS
                                            : strcmp(os[i], "Android") == 0 ? HALDA_ANDROID
                                                                            : HALDA_LINUX};
    }
}

/* Its GPU buffers are those of the iteration before, which may have had none: layers beyond the VRAM go to
 * the CPU. */
static void cut_gpu_layers(const problem *p, assignment *a)
{
    problem_budget budget;

    for (size_t i = 0; i < p->n_devices; i++) {
        assignment_device *d = &a->device[i];
        while (d->gpu_layers > 0 && problem_missing_bytes(p, i, d->layers, d->gpu_layers, &budget) > 0 &&
               budget == BUDGET_VRAM)
            d->gpu_layers--;
    }
}

int published_solve(const problem *p, const model_facts *f, const char *const *os, assignment *a, pr_err *err)
{
    halda_problem h;
    halda_result r;
    size_t lacking = 0;
    double missing = 0;
    int rc;

    published_problem(&h, p, f, os);
    if ((rc = halda_solve(&h, &r, err))) return rc;
    memset(a, 0, sizeof *a);
    a->rounds = r.rounds;
    a->n_devices = p->n_devices;
    for (size_t i = 0; i < p->n_devices; i++) {
        a->device[i].layers = r.rounds * r.window[i];
        a->device[i].gpu_layers = r.rounds * r.gpu[i];
    }
    cut_gpu_layers(p, a);
    if (assignment_evaluate(p, a, &lacking, &missing)) return PR_OK;
    return pr_fail(
        err, PR_EINFEASIBLE,
        "the plan of the paper's algorithm does not fit: device %zu of the ring lacks %.0f bytes for %u "
        "layers",
        lacking, missing, (unsigned)a->device[lacking].layers);
}
