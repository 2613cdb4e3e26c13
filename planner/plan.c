/* The frozen plan: made from an assignment, and checked. The file's text is plan_write.c and plan_read.c. */
#include "planner/plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names end up in a file that every YAML reader must take: printable ASCII, anything else becomes '?'. */
static void copy_text(char *dst, size_t cap, const char *src)
{
    size_t i = 0;

    for (; i + 1 < cap && src[i]; i++) dst[i] = src[i] < ' ' || src[i] > '~' ? '?' : src[i];
    dst[i] = 0;
}

/* --- building ------------------------------------------------------------------------------------- */

/* A device's layers by place, spread over the rounds as evenly as whole layers allow. */
typedef struct {
    uint32_t rounds, gpu, cpu, streamed;
} shares;

/* How many of `total` layers come before a round. */
static uint32_t before(uint32_t total, uint32_t round, uint32_t rounds)
{
    return (uint32_t)((uint64_t)round * total / rounds);
}

/* Streamed layers before a round: as even as the round's CPU layers allow, which may be none; what a round
 * cannot take the next ones do. None is left over: up to any round there are no more resident layers than in
 * all of them, because floor(a) - floor(b) <= ceil(a - b). */
static uint32_t streamed_before(const shares *s, uint32_t round)
{
    uint32_t done = 0;

    for (uint32_t r = 0; r < round; r++) {
        uint32_t here = before(s->cpu, r + 1, s->rounds) - before(s->cpu, r, s->rounds);
        uint32_t wanted = before(s->streamed, r + 1, s->rounds);

        done += wanted <= done ? 0 : wanted - done < here ? wanted - done : here;
    }
    return done;
}

/* Bytes that are read in every pass, as whole layers. */
static uint32_t streamed_layers(const problem *pr, const assignment_device *a)
{
    double n = ceil(a->read_bytes / pr->layer_bytes - 1e-6);
    uint32_t cpu = a->layers - a->gpu_layers;

    return n <= 0 ? 0 : n >= cpu ? cpu : (uint32_t)n;
}

static void add_window(plan_device *d, uint32_t round, plan_place place, uint32_t n, uint32_t *next_layer)
{
    if (!n) return;
    d->window[d->n_windows++] = (plan_window){round, *next_layer, *next_layer + n - 1, place};
    *next_layer += n;
}

static int device_windows(plan_device *d, const shares *s, uint32_t round, uint32_t *next_layer, pr_err *err)
{
    uint32_t cpu = before(s->cpu, round + 1, s->rounds) - before(s->cpu, round, s->rounds);
    uint32_t gpu = before(s->gpu, round + 1, s->rounds) - before(s->gpu, round, s->rounds);
    uint32_t streamed = streamed_before(s, round + 1) - streamed_before(s, round);

    if (!d->window) d->window = calloc(3 * (size_t)s->rounds, sizeof *d->window);
    if (!d->window) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    add_window(d, round, PLACE_GPU, gpu, next_layer);
    add_window(d, round, PLACE_RAM, cpu - streamed, next_layer);
    add_window(d, round, PLACE_DISK, streamed, next_layer);
    return PR_OK;
}

static void device_bytes(plan_device *d, const model_facts *f, const problem *pr, const assignment_device *a)
{
    plan_bytes *b = &d->bytes;
    uint64_t by_place[3] = {0};
    double cpu_kv = pr->kv_layer_bytes * (a->layers - a->gpu_layers), buffers = ceil(a->buffer_bytes);

    for (size_t i = 0; i < d->n_windows; i++) {
        const plan_window *w = &d->window[i];
        by_place[w->place] += facts_layer_bytes(f, w->first_layer, w->last_layer + 1);
    }
    b->weights_gpu = by_place[PLACE_GPU];
    b->weights_ram = by_place[PLACE_RAM];
    b->weights_disk = by_place[PLACE_DISK];
    b->kv_gpu = (uint64_t)(pr->kv_layer_bytes * a->gpu_layers);
    b->kv_ram = (uint64_t)cpu_kv;
    b->buffers_gpu = a->gpu_layers ? (uint64_t)d->cost.gpu_buffer_bytes : 0;
    if (a->layers > a->gpu_layers) buffers += d->cost.cpu_buffer_bytes;
    if (d->owns_output) {
        double output = fmin(d->cost.head_bytes, (double)f->output_bytes);
        b->weights_ram += (uint64_t)output;
        buffers += d->cost.head_bytes - output;
    }
    b->buffers_ram = (uint64_t)buffers;
    b->budget_ram = (uint64_t)d->cost.ram_bytes;
    b->budget_gpu = (uint64_t)d->cost.vram_bytes;
}

static void fill_device(plan_device *d, const cluster_device *c, const problem_device *cost,
                        const assignment_device *a, bool is_head)
{
    copy_text(d->name, sizeof d->name, c->name);
    copy_text(d->host, sizeof d->host, c->host);
    d->port = c->port;
    d->owns_embedding = d->owns_output = is_head;
    d->cost = *cost;
    d->cost.fixed_layers = d->cost.fixed_gpu_layers = -1;
    d->compute_ms = a->compute_ms + (is_head ? cost->out_ms : 0);
    d->disk_wait_ms = a->stall_ms;
    d->net_ms = a->net_ms;
    d->pass_ms = d->compute_ms + d->disk_wait_ms + d->net_ms;
    d->read_bytes_per_pass = (uint64_t)ceil(a->read_bytes);
}

static void fill_model(plan *p, const model_facts *f)
{
    copy_text(p->model.name, sizeof p->model.name, f->name);
    copy_text(p->model.arch, sizeof p->model.arch, f->arch);
    copy_text(p->model.quant, sizeof p->model.quant, f->quant);
    copy_text(p->model.header_sha256, sizeof p->model.header_sha256, f->header_sha256);
    p->model.n_layers = f->n_layers;
    p->model.file_bytes = f->file_bytes;
}

static void fill_unused(plan *p, const char *name, const problem *pr, size_t i)
{
    plan_unused *u = &p->unused[p->n_unused++];
    const problem_device *d = &pr->device[i];

    copy_text(u->name, sizeof u->name, name);
    if (d->fixed_layers == 0) snprintf(u->reason, sizeof u->reason, "given no layers by hand");
    else if (d->ram_bytes < d->cpu_buffer_bytes + pr->layer_bytes + pr->kv_layer_bytes &&
             d->disk_bytes_per_ms <= 0 && d->vram_bytes <= 0)
        snprintf(u->reason, sizeof u->reason, "its budget does not hold one layer and its buffers");
    else snprintf(u->reason, sizeof u->reason, "the plan without it is as fast or faster");
}

static int lay_out(plan *p, const model_facts *f, const problem *pr, const assignment *a, const size_t *from,
                   pr_err *err)
{
    uint32_t next_layer = 0;
    int rc;

    for (uint32_t r = 0; r < a->rounds; r++) {
        for (size_t i = 0; i < p->n_devices; i++) {
            const assignment_device *ad = &a->device[from[i]];
            shares s = {a->rounds, ad->gpu_layers, ad->layers - ad->gpu_layers, streamed_layers(pr, ad)};
            if ((rc = device_windows(&p->device[i], &s, r, &next_layer, err))) return rc;
        }
    }
    for (size_t i = 0; i < p->n_devices; i++) device_bytes(&p->device[i], f, pr, &a->device[from[i]]);
    if (next_layer != f->n_layers)
        return pr_fail(err, PR_EINTERNAL, "plan: %u layers assigned, the model has %u", (unsigned)next_layer,
                       (unsigned)f->n_layers);
    return PR_OK;
}

int plan_build(plan **out, const cluster *c, const model_facts *f, const uint32_t *order, size_t n_order,
               const problem *pr, const assignment *a, pr_err *err)
{
    plan *p = calloc(1, sizeof *p);
    size_t from[CLUSTER_MAX_DEVICES];
    int rc;

    *out = NULL;
    if (!p) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    copy_text(p->cluster_sha256, sizeof p->cluster_sha256, c->sha256);
    fill_model(p, f);
    p->rounds = a->rounds;
    p->layer_bytes = pr->layer_bytes;
    p->kv_layer_bytes = pr->kv_layer_bytes;
    for (size_t i = 0; i < n_order; i++) {
        const cluster_device *cd = &c->device[order[i]];
        if (i > 0 && !a->device[i].layers) {
            fill_unused(p, cd->name, pr, i);
            continue;
        }
        p->device[p->n_devices].rank = (uint32_t)p->n_devices;
        from[p->n_devices] = i;
        fill_device(&p->device[p->n_devices++], cd, &pr->device[i], &a->device[i], i == 0);
    }
    rc = lay_out(p, f, pr, a, from, err);
    if (rc) plan_free(p);
    else *out = p;
    return rc;
}

void plan_free(plan *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n_devices; i++) free(p->device[i].window);
    free(p);
}

/* --- checking -------------------------------------------------------------------------------------- */

/* a + b + c - budget without wrapping; 0 when it fits. */
static uint64_t excess(uint64_t a, uint64_t b, uint64_t c, uint64_t budget)
{
    uint64_t parts[] = {a, b, c};

    for (size_t i = 0; i < 3; i++) {
        if (parts[i] > budget) {
            uint64_t over = parts[i] - budget;
            for (i++; i < 3; i++) over += parts[i] < UINT64_MAX - over ? parts[i] : UINT64_MAX - over;
            return over;
        }
        budget -= parts[i];
    }
    return 0;
}

bool plan_lacks(const plan *p, size_t *device, bool *gpu, uint64_t *bytes)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        const plan_bytes *b = &p->device[i].bytes;
        uint64_t ram = excess(b->weights_ram, b->kv_ram, b->buffers_ram, b->budget_ram);
        uint64_t vram = excess(b->weights_gpu, b->kv_gpu, b->buffers_gpu, b->budget_gpu);

        if (!ram && !vram) continue;
        *device = i;
        *gpu = !ram;
        *bytes = ram ? ram : vram;
        return true;
    }
    return false;
}

static int check_order(const plan *p, pr_err *err)
{
    for (size_t i = 0; i < p->n_devices; i++) {
        const plan_device *d = &p->device[i];

        if (d->rank != i)
            return pr_fail(err, PR_EMISMATCH, "ring: %s has rank %u, expected %zu", d->name, d->rank, i);
        if (d->owns_embedding != (i == 0) || d->owns_output != (i == 0))
            return pr_fail(err, PR_EMISMATCH, "ring: %s: embedding and output belong to rank 0 alone",
                           d->name);
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(p->device[j].name, d->name))
                return pr_fail(err, PR_EMISMATCH, "ring: %s is there twice", d->name);
        }
        for (size_t w = 0; w < d->n_windows; w++) {
            const plan_window *now = &d->window[w];
            if (now->round >= p->rounds)
                return pr_fail(err, PR_EMISMATCH, "ring: %s: round %u of a plan of %u rounds", d->name,
                               now->round, p->rounds);
            if (w > 0 &&
                (now->round < now[-1].round || (now->round == now[-1].round && now->place <= now[-1].place)))
                return pr_fail(err, PR_EMISMATCH,
                               "ring: %s: windows must go by rounds, and in a round gpu, ram, disk", d->name);
        }
    }
    return PR_OK;
}

/* Walks the ring as a token does: every window must begin where the last one ended. */
static int check_layers(const plan *p, pr_err *err)
{
    size_t at[CLUSTER_MAX_DEVICES] = {0};
    uint32_t next = 0;

    for (uint32_t r = 0; r < p->rounds; r++) {
        for (size_t i = 0; i < p->n_devices; i++) {
            const plan_device *d = &p->device[i];
            for (; at[i] < d->n_windows && d->window[at[i]].round == r; at[i]++) {
                const plan_window *w = &d->window[at[i]];
                if (w->first_layer != next)
                    return pr_fail(err, PR_EMISMATCH,
                                   "ring: %s: round %u: a window begins with layer %u, expected layer %u",
                                   d->name, r, w->first_layer, next);
                if (w->last_layer < w->first_layer || w->last_layer >= p->model.n_layers)
                    return pr_fail(err, PR_EMISMATCH, "ring: %s: layers %u to %u of a model with %u", d->name,
                                   w->first_layer, w->last_layer, p->model.n_layers);
                next = w->last_layer + 1;
            }
        }
    }
    if (next != p->model.n_layers) return pr_fail(err, PR_EMISMATCH, "ring: layer %u is on no device", next);
    return PR_OK;
}

int plan_check(const plan *p, pr_err *err)
{
    size_t device;
    uint64_t bytes;
    bool gpu;
    int rc;

    if (!p->n_devices) return pr_fail(err, PR_EMISMATCH, "ring: no device");
    if ((rc = check_order(p, err)) || (rc = check_layers(p, err))) return rc;
    if (plan_lacks(p, &device, &gpu, &bytes))
        return pr_fail(err, PR_EMISMATCH,
                       "ring: %s: its layers need %llu bytes more than its %s budget of %llu",
                       p->device[device].name, (unsigned long long)bytes, gpu ? "GPU" : "RAM",
                       (unsigned long long)(gpu ? p->device[device].bytes.budget_gpu
                                                : p->device[device].bytes.budget_ram));
    return PR_OK;
}

/* --- back to numbers -------------------------------------------------------------------------------- */

uint32_t plan_device_layers(const plan_device *d, uint32_t *gpu_layers)
{
    uint32_t all = 0, gpu = 0;

    for (size_t i = 0; i < d->n_windows; i++) {
        uint32_t n = d->window[i].last_layer - d->window[i].first_layer + 1;
        all += n;
        if (d->window[i].place == PLACE_GPU) gpu += n;
    }
    if (gpu_layers) *gpu_layers = gpu;
    return all;
}

int plan_problem(const plan *p, problem *pr, assignment *a, pr_err *err)
{
    size_t lacking = 0;
    double missing = 0;

    memset(pr, 0, sizeof *pr);
    memset(a, 0, sizeof *a);
    pr->n_layers = p->model.n_layers;
    pr->layer_bytes = p->layer_bytes;
    pr->kv_layer_bytes = p->kv_layer_bytes;
    pr->n_devices = a->n_devices = p->n_devices;
    pr->max_rounds = a->rounds = p->rounds;
    pr->throughput = strcmp(p->objective, "throughput") == 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        pr->device[i] = p->device[i].cost;
        a->device[i].layers = plan_device_layers(&p->device[i], &a->device[i].gpu_layers);
    }
    if (!assignment_evaluate(pr, a, &lacking, &missing))
        return pr_fail(err, PR_EMISMATCH, "the plan's figures do not fit together: %s lacks %.0f bytes",
                       lacking < p->n_devices ? p->device[lacking].name : "a device", missing);
    return PR_OK;
}
