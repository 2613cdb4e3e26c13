/* The frozen plan: made from an assignment, and checked. The file's text is plan_file.c. */
#include "planner/plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names of ours and of models end up in a file that every YAML reader must take: printable ASCII, anything
 * else becomes '?'. */
static void copy_text(char *dst, size_t cap, const char *src)
{
    size_t i = 0;

    for (; i + 1 < cap && src[i]; i++) dst[i] = src[i] < ' ' || src[i] > '~' ? '?' : src[i];
    dst[i] = 0;
}

/* --- building ------------------------------------------------------------------------------------- */

/* How many of `total` layers come before a round. */
static uint32_t before(uint32_t total, uint32_t round, uint32_t rounds)
{
    return (uint32_t)((uint64_t)round * total / rounds);
}

static void add_window(plan_device *d, uint32_t round, plan_place place, uint32_t n, uint32_t streamed,
                       uint32_t *next_layer)
{
    if (!n) return;
    d->window[d->n_windows++] = (plan_window){round, *next_layer, *next_layer + n - 1, place, streamed, 0};
    *next_layer += n;
}

static uint32_t streamed_so_far(const plan_device *d)
{
    uint32_t n = 0;

    for (size_t i = 0; i < d->n_windows; i++) n += d->window[i].streamed_pieces;
    return n;
}

/* How far the GPUs of a device are filled. One after the other: they compute one after the other anyway, and
 * so a round has few windows. */
typedef struct {
    size_t at;           /* the GPU that gets the next layer */
    double used, wasted; /* of its memory; of those before, too little for one more layer */
} gpu_filling;

static double gpu_room(const plan_device *d, size_t i)
{
    return (double)d->gpu[i].vram_bytes - d->cost.gpu_buffer_bytes / (double)d->n_gpus;
}

static void add_gpu_layer(plan_device *d, gpu_filling *g, uint32_t round, double bytes, uint32_t *next_layer)
{
    plan_window *last = d->n_windows ? &d->window[d->n_windows - 1] : NULL;
    uint32_t index;

    for (; g->at + 1 < d->n_gpus && g->used + bytes > gpu_room(d, g->at); g->at++, g->used = 0)
        g->wasted += fmax(0, gpu_room(d, g->at) - g->used);
    g->used += bytes;
    index = d->n_gpus ? d->gpu[g->at].index : 0;
    if (last && last->round == round && last->place == PLACE_GPU && last->gpu == index) {
        last->last_layer = (*next_layer)++;
        return;
    }
    add_window(d, round, PLACE_GPU, 1, 0, next_layer);
    d->window[d->n_windows - 1].gpu = index;
}

static int device_windows(plan_device *d, gpu_filling *g, const model_facts *f, const problem *pr,
                          const assignment_device *a, uint32_t round, uint32_t rounds, uint32_t *next_layer,
                          pr_err *err)
{
    uint32_t cpu_layers = a->layers - a->gpu_layers;
    uint32_t gpu = before(a->gpu_layers, round + 1, rounds) - before(a->gpu_layers, round, rounds);
    uint32_t cpu = before(cpu_layers, round + 1, rounds) - before(cpu_layers, round, rounds), streamed;

    if (!d->window) d->window = calloc((d->n_gpus + 2) * (size_t)rounds, sizeof *d->window);
    if (!d->window) return pr_fail(err, PR_ERESOURCE, "plan: out of memory");
    for (; gpu > 0; gpu--)
        add_gpu_layer(d, g, round, (double)f->layer_bytes[*next_layer] + pr->kv_layer_bytes, next_layer);
    streamed =
        problem_streamed(pr->pieces, rounds, cpu_layers, a->streamed_pieces, round, streamed_so_far(d));
    add_window(d, round, streamed ? PLACE_DISK : PLACE_RAM, cpu, streamed, next_layer);
    return PR_OK;
}

/* Bytes of the streamed pieces of a window; *largest: of one of them. */
static uint64_t streamed_bytes(const plan_window *w, const model_facts *f, uint32_t pieces, uint64_t *largest)
{
    uint64_t n = (uint64_t)(w->last_layer - w->first_layer + 1) * pieces, x = w->streamed_pieces, sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t layer = f->layer_bytes[w->first_layer + i / pieces], full = (layer + pieces - 1) / pieces;
        uint64_t from = i % pieces * full, here;
        if ((i + 1) * x / n == i * x / n) continue;
        here = from >= layer ? 0 : layer - from < full ? layer - from : full;
        sum += here;
        if (full > *largest) *largest = full;
    }
    return sum;
}

/* Of all GPUs together, without what is left over on those that are full. */
static double gpu_budget(const plan_device *d, const gpu_filling *g)
{
    double sum = d->n_gpus ? 0 : d->cost.vram_bytes + d->cost.gpu_output_bytes;

    for (size_t i = 0; i < d->n_gpus; i++) sum += (double)d->gpu[i].vram_bytes;
    return fmax(0, sum - g->wasted);
}

static void device_bytes(plan_device *d, const gpu_filling *g, const model_facts *f, const problem *pr,
                         const assignment_device *a)
{
    plan_bytes *b = &d->bytes;
    uint64_t largest = 0;
    double cpu_kv = pr->kv_layer_bytes * (a->layers - a->gpu_layers), buffers;

    for (size_t i = 0; i < d->n_windows; i++) {
        const plan_window *w = &d->window[i];
        uint64_t all = facts_layer_bytes(f, w->first_layer, w->last_layer + 1);
        uint64_t streamed = streamed_bytes(w, f, pr->pieces, &largest);
        if (w->place == PLACE_GPU) b->weights_gpu += all;
        else b->weights_ram += all - streamed;
        b->weights_disk += streamed;
    }
    d->read_bytes_per_pass = b->weights_disk;
    buffers = (double)(largest * d->buffer_pieces);
    b->kv_gpu = (uint64_t)(pr->kv_layer_bytes * a->gpu_layers);
    b->kv_ram = (uint64_t)cpu_kv;
    b->buffers_gpu = a->gpu_layers ? (uint64_t)d->cost.gpu_buffer_bytes : 0;
    if (a->layers > a->gpu_layers) buffers += d->cost.cpu_buffer_bytes;
    if (d->output_on_gpu) {
        double output = fmin(d->cost.gpu_output_bytes, (double)f->output_bytes);
        b->weights_gpu += (uint64_t)output;
        b->buffers_gpu += (uint64_t)(d->cost.gpu_output_bytes - output);
        buffers += d->cost.head_bytes;
    } else if (d->owns_output) {
        double output = fmin(d->cost.head_bytes, (double)f->output_bytes);
        b->weights_ram += (uint64_t)output;
        buffers += d->cost.head_bytes - output;
    }
    b->buffers_ram = (uint64_t)buffers;
    b->budget_ram = (uint64_t)d->cost.ram_bytes;
    b->budget_gpu = (uint64_t)gpu_budget(d, g);
}

/* By rising index. */
static void copy_gpus(plan_device *d, const cluster_device *c)
{
    for (size_t i = 0; i < c->n_gpus; i++) {
        size_t at = d->n_gpus++;
        for (; at > 0 && d->gpu[at - 1].index > c->gpu[i].index; at--) d->gpu[at] = d->gpu[at - 1];
        d->gpu[at] = c->gpu[i];
    }
}

static void fill_device(plan_device *d, const cluster_device *c, const problem_device *cost,
                        const assignment_device *a, bool is_head)
{
    copy_text(d->name, sizeof d->name, c->name);
    copy_text(d->host, sizeof d->host, c->host);
    d->port = c->port;
    copy_text(d->ssh, sizeof d->ssh, c->ssh);
    copy_text(d->user, sizeof d->user, c->user);
    memcpy(d->model, c->model, sizeof d->model); /* UTF-8: cluster.yaml is */
    d->threads = c->threads;
    copy_gpus(d, c);
    if (a->buffer_pieces) copy_text(d->reader, sizeof d->reader, c->reader);
    d->owns_embedding = d->owns_output = is_head;
    d->output_on_gpu = is_head && cost->gpu_output_bytes > 0;
    d->cost = *cost;
    d->cost.fixed_layers = d->cost.fixed_gpu_layers = -1;
    d->compute_ms = a->compute_ms + (is_head ? cost->out_ms : 0);
    d->disk_wait_ms = a->stall_ms;
    d->net_ms = a->net_ms;
    d->pass_ms = d->compute_ms + d->disk_wait_ms + d->net_ms;
    d->buffer_pieces = a->buffer_pieces;
}

static void fill_net(plan *p, const cluster *c)
{
    p->net.secure = c->secure;
    p->net.insecure = c->insecure_spelled_out;
    memcpy(p->net.key_file, c->key_file, sizeof p->net.key_file);
    p->net.connect_s = c->connect_s;
    p->net.heartbeat_s = c->heartbeat_s;
    p->net.peer_s = c->peer_s;
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
    gpu_filling g[PROBLEM_MAX_DEVICES] = {0};
    uint32_t next_layer = 0;
    int rc;

    for (size_t i = 0; i < p->n_devices; i++) g[i].used = p->device[i].cost.gpu_output_bytes;
    for (uint32_t r = 0; r < a->rounds; r++) {
        for (size_t i = 0; i < p->n_devices; i++) {
            rc = device_windows(&p->device[i], &g[i], f, pr, &a->device[from[i]], r, a->rounds, &next_layer,
                                err);
            if (rc) return rc;
        }
    }
    for (size_t i = 0; i < p->n_devices; i++) device_bytes(&p->device[i], &g[i], f, pr, &a->device[from[i]]);
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
    if (!pr->pieces) {
        free(p);
        return pr_fail(err, PR_EINTERNAL, "plan: the problem has no pieces");
    }
    copy_text(p->cluster_sha256, sizeof p->cluster_sha256, c->sha256);
    fill_model(p, f);
    fill_net(p, c);
    p->rounds = a->rounds;
    p->layer_bytes = pr->layer_bytes;
    p->kv_layer_bytes = pr->kv_layer_bytes;
    p->pieces = pr->pieces;
    p->prefill_tokens = pr->prefill_tokens;
    p->in_flight = pr->in_flight;
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
    for (size_t i = 0; i < p->n_fallbacks; i++) free(p->fallback[i].layers);
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

/* May `now` stand behind `before`? */
static bool follows(const plan_window *now, const plan_window *before)
{
    if (now->round != before->round) return now->round > before->round;
    return before->place == PLACE_GPU && (now->place != PLACE_GPU || now->gpu > before->gpu);
}

static int check_gpus(const plan_device *d, pr_err *err)
{
    uint32_t gpu_layers;

    for (size_t i = 1; i < d->n_gpus; i++)
        if (d->gpu[i].index <= d->gpu[i - 1].index)
            return pr_fail(err, PR_EMISMATCH, "ring: %s: gpus must stand by rising index", d->name);
    for (size_t w = 0; w < d->n_windows; w++) {
        const plan_window *x = &d->window[w];
        size_t i = 0;
        while (i < d->n_gpus && d->gpu[i].index != x->gpu) i++;
        if (x->place == PLACE_GPU && i == d->n_gpus)
            return pr_fail(err, PR_EMISMATCH,
                           "ring: %s: layers %u to %u are on GPU %u, which is none of its gpus", d->name,
                           x->first_layer, x->last_layer, x->gpu);
        if (x->place != PLACE_GPU && x->gpu)
            return pr_fail(err, PR_EMISMATCH, "ring: %s: layers %u to %u name GPU %u, but are not on a GPU",
                           d->name, x->first_layer, x->last_layer, x->gpu);
    }
    plan_device_layers(d, &gpu_layers);
    if (d->output_on_gpu && (!d->owns_output || !gpu_layers))
        return pr_fail(err, PR_EMISMATCH, "ring: %s: an output projection on its GPU, but %s", d->name,
                       d->owns_output ? "no layers there" : "it is another device's");
    return PR_OK;
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
            if (w > 0 && !follows(now, now - 1))
                return pr_fail(
                    err, PR_EMISMATCH,
                    "ring: %s: windows must go by rounds, and in a round at most gpu, one for each "
                    "GPU by rising number, then ram or disk",
                    d->name);
        }
        if (check_gpus(d, err)) return PR_EMISMATCH;
    }
    return PR_OK;
}

/* Of a window whose layers are in order. */
static int check_streaming(const plan *p, const plan_device *d, const plan_window *w, pr_err *err)
{
    uint32_t most = (w->last_layer - w->first_layer + 1) * p->pieces;

    if (w->place != PLACE_DISK && w->streamed_pieces)
        return pr_fail(err, PR_EMISMATCH, "ring: %s: layers %u to %u stream %u pieces, but are not on disk",
                       d->name, w->first_layer, w->last_layer, w->streamed_pieces);
    if (w->place == PLACE_DISK && (!w->streamed_pieces || w->streamed_pieces > most))
        return pr_fail(err, PR_EMISMATCH, "ring: %s: layers %u to %u stream %u pieces, expected 1 to %u",
                       d->name, w->first_layer, w->last_layer, w->streamed_pieces, most);
    if (w->place == PLACE_DISK && d->buffer_pieces < 2)
        return pr_fail(err, PR_EMISMATCH, "ring: %s: streams through a buffer of %u pieces, at least 2 work",
                       d->name, d->buffer_pieces);
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
                if (check_streaming(p, d, w, err)) return PR_EMISMATCH;
                next = w->last_layer + 1;
            }
        }
    }
    if (next != p->model.n_layers) return pr_fail(err, PR_EMISMATCH, "ring: layer %u is on no device", next);
    return PR_OK;
}

/* A second of connecting, a beat, a silence that is longer than two beats. */
static int check_net(const plan *p, pr_err *err)
{
    if (p->net.connect_s > 0 && p->net.heartbeat_s > 0 && p->net.peer_s >= 2 * p->net.heartbeat_s)
        return PR_OK;
    return pr_fail(
        err, PR_EMISMATCH,
        "net: connect_s %g, heartbeat_s %g, peer_s %g: expected more than 0, and peer_s at least twice "
        "heartbeat_s",
        p->net.connect_s, p->net.heartbeat_s, p->net.peer_s);
}

int plan_check(const plan *p, pr_err *err)
{
    size_t device;
    uint64_t bytes;
    bool gpu;
    int rc;

    if (!p->n_devices) return pr_fail(err, PR_EMISMATCH, "ring: no device");
    if ((rc = check_net(p, err)) || (rc = check_order(p, err)) || (rc = check_layers(p, err))) return rc;
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

/* RAM that makes the problem stream what the plan does; false: it streams less than the problem needs. */
static bool cut_ram(const plan *p, problem *pr, const assignment *a, bool *changed)
{
    *changed = false;
    for (size_t i = 0; i < p->n_devices; i++) {
        const assignment_device *ad = &a->device[i];
        uint32_t plans = streamed_so_far(&p->device[i]), ahead = p->device[i].buffer_pieces;
        uint32_t n = (ad->layers - ad->gpu_layers) * p->pieces;
        if (plans == ad->streamed_pieces) continue;
        if (plans < ad->streamed_pieces || plans < ahead) return false;
        pr->device[i].ram_bytes = problem_ram_for(pr, i, ad->layers, ad->gpu_layers, n - plans + ahead);
        *changed = true;
    }
    return true;
}

static int no_fit(const plan *p, size_t device, double missing, pr_err *err)
{
    return pr_fail(err, PR_EMISMATCH, "the plan's figures do not fit together: %s lacks %.0f bytes",
                   device < p->n_devices ? p->device[device].name : "a device", missing);
}

int plan_problem(const plan *p, problem *pr, assignment *a, pr_err *err)
{
    size_t lacking = p->n_devices;
    double missing = 0;
    bool changed;

    memset(pr, 0, sizeof *pr);
    memset(a, 0, sizeof *a);
    pr->n_layers = p->model.n_layers;
    pr->layer_bytes = p->layer_bytes;
    pr->kv_layer_bytes = p->kv_layer_bytes;
    pr->pieces = p->pieces;
    pr->prefill_tokens = p->prefill_tokens;
    pr->in_flight = p->in_flight;
    pr->n_devices = a->n_devices = p->n_devices;
    pr->max_rounds = a->rounds = p->rounds;
    pr->throughput = strcmp(p->objective, "throughput") == 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        pr->device[i] = p->device[i].cost;
        memcpy(pr->device[i].name, p->device[i].name, sizeof pr->device[i].name);
        a->device[i].layers = plan_device_layers(&p->device[i], &a->device[i].gpu_layers);
        a->device[i].buffer_pieces = p->device[i].buffer_pieces;
    }
    if (!assignment_evaluate(pr, a, &lacking, &missing)) return no_fit(p, lacking, missing, err);
    if (!cut_ram(p, pr, a, &changed))
        return pr_fail(err, PR_EMISMATCH,
                       "the plan's figures do not fit together: it streams less than its RAM asks for");
    for (size_t i = 0; i < p->n_devices && changed; i++)
        a->device[i].buffer_pieces = p->device[i].buffer_pieces;
    if (changed && !assignment_evaluate(pr, a, &lacking, &missing)) return no_fit(p, lacking, missing, err);
    for (size_t i = 0; i < p->n_devices; i++) {
        if (a->device[i].streamed_pieces == streamed_so_far(&p->device[i])) continue;
        return pr_fail(err, PR_EMISMATCH,
                       "the plan's figures do not fit together: %s streams %u pieces, not %u",
                       p->device[i].name, streamed_so_far(&p->device[i]), a->device[i].streamed_pieces);
    }
    return PR_OK;
}
