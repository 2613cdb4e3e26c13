/* From an assignment to the simulator's devices: what is resident, what is streamed, in which window. */
#include "planner/simulate_impl.h"
#include <math.h>
#include <stdlib.h>

/* Layers of a window: floor((r+1)c/k) - floor(rc/k) (halda.md 7.4). */
static uint32_t share(uint32_t count, uint32_t round, uint32_t rounds)
{
    return (uint32_t)((uint64_t)(round + 1) * count / rounds - (uint64_t)round * count / rounds);
}

static int lacks(const problem_device *d, size_t device, double bytes, const char *of, pr_err *err)
{
    return pr_fail(err, PR_EINFEASIBLE, "simulate: device %zu %s lacks %.0f bytes of %s", device, d->name,
                   bytes, of);
}

/* Streamed pieces of all CPU pieces, and the buffer: what RAM holds beside whole resident pieces. */
static int plan_memory(const sim *s, const assignment_device *a, size_t device, uint32_t *streamed,
                       double *buffer_bytes, pr_err *err)
{
    const problem_device *d = &s->p->device[device];
    uint32_t cpu_layers = a->layers - a->gpu_layers;
    double n_pieces = (double)cpu_layers * s->pieces, resident, buffer;
    double room = d->ram_bytes - cpu_layers * s->p->kv_layer_bytes - (cpu_layers ? d->cpu_buffer_bytes : 0) -
                  (device == 0 ? d->head_bytes : 0);
    double vram = a->gpu_layers * (s->p->layer_bytes + s->p->kv_layer_bytes) + d->gpu_buffer_bytes;

    *streamed = 0;
    *buffer_bytes = 0;
    if (a->gpu_layers && vram > d->vram_bytes) return lacks(d, device, vram - d->vram_bytes, "VRAM", err);
    if (room < 0) return lacks(d, device, -room, "RAM", err);
    if (n_pieces * s->piece_bytes <= room * (1 + 1e-12)) return PR_OK;
    if (d->disk_bytes_per_ms <= 0)
        return lacks(d, device, n_pieces * s->piece_bytes - room, "RAM and has no disk to stream from", err);
    if (room < s->piece_bytes)
        return lacks(d, device, s->piece_bytes - room, "RAM for one part of a layer", err);
    buffer = fmin(room, fmax(a->buffer_bytes, 2 * s->piece_bytes));
    resident = floor((room - buffer) / s->piece_bytes + 1e-9);
    *streamed = (uint32_t)(n_pieces - resident);
    *buffer_bytes = room - resident * s->piece_bytes;
    return PR_OK;
}

/* Streamed pieces as evenly over the rounds as the windows allow. */
static int plan_node(sim *s, const assignment_device *a, size_t device, pr_err *err)
{
    node *n = &s->node[device];
    uint32_t streamed, done = 0;
    int rc = plan_memory(s, a, device, &streamed, &n->free_bytes, err);

    if (rc) return rc;
    n->d = &s->p->device[device];
    n->active = a->layers > 0;
    n->piece_ms = n->d->cpu_ms / s->pieces;
    n->streams = streamed > 0;
    n->left_bytes = s->piece_bytes;
    n->read_started = NAN;
    for (uint32_t r = 0; r < s->rounds; r++) {
        sim_window *w = &n->window[r];
        uint32_t gpu_layers = share(a->gpu_layers, r, s->rounds);
        uint32_t cpu = share(a->layers - a->gpu_layers, r, s->rounds) * s->pieces;
        uint32_t want = (uint32_t)((uint64_t)(r + 1) * streamed / s->rounds) - done;
        w->gpu_ms = gpu_layers ? gpu_layers * n->d->gpu_ms : 0; /* gpu_ms may be anything without a GPU */
        w->streamed = want < cpu ? want : cpu;
        w->resident = cpu - w->streamed;
        done += w->streamed;
    }
    return PR_OK;
}

static int check(const problem *p, const assignment *a, const sim_options *o, pr_err *err)
{
    uint64_t layers = 0;

    if (o->passes < 3 || o->in_flight < 1)
        return pr_fail(err, PR_EUSAGE, "simulate: %u passes, %u micro-batches: expected at least 3 and 1",
                       o->passes, o->in_flight);
    if (a->rounds < 1 || a->rounds > p->n_layers)
        return pr_fail(err, PR_EUSAGE, "simulate: %u rounds: expected 1 to %u, the layers of the model",
                       a->rounds, p->n_layers);
    for (size_t i = 0; i < p->n_devices; i++) {
        layers += a->device[i].layers;
        if (a->device[i].gpu_layers > a->device[i].layers)
            return pr_fail(err, PR_EUSAGE, "simulate: device %zu has %u layers, %u of them on the GPU", i,
                           a->device[i].layers, a->device[i].gpu_layers);
    }
    if (layers != p->n_layers || layers == 0)
        return pr_fail(err, PR_EUSAGE, "simulate: %llu layers are assigned, the model has %u",
                       (unsigned long long)layers, p->n_layers);
    return PR_OK;
}

/* The ring of active devices. More micro-batches than it can hold without all links full would stop it. */
static void join_ring(sim *s, const assignment *a)
{
    uint32_t n_active = 0;
    int next = NOBODY;

    s->last = NOBODY;
    for (size_t i = s->n_nodes; i-- > 0;) {
        if (a->device[i].layers == 0) continue;
        s->node[i].next = next;
        if (next == NOBODY) s->last = (int)i;
        s->first = next = (int)i;
        n_active++;
    }
    s->n_batches = s->o->in_flight;
    if (s->n_batches > (LINK_FRAMES + 1) * n_active - 1) s->n_batches = (LINK_FRAMES + 1) * n_active - 1;
}

static int build(sim *s, const assignment *a, pr_err *err)
{
    size_t n_ids = s->n_nodes * N_CLOCKS;
    int rc = PR_OK;

    if (!(s->node = calloc(s->n_nodes, sizeof *s->node))) goto memory;
    join_ring(s, a);
    s->batch = calloc(s->n_batches, sizeof *s->batch);
    s->clock = malloc(n_ids * sizeof *s->clock);
    s->heap = malloc(n_ids * sizeof *s->heap);
    s->place = malloc(n_ids * sizeof *s->place);
    if (!s->batch || !s->clock || !s->heap || !s->place) goto memory;
    for (size_t i = 0; i < n_ids; i++) {
        s->clock[i] = INFINITY;
        s->heap[i] = s->place[i] = i;
    }
    for (size_t i = 0; i < s->n_nodes && !rc; i++) {
        s->node[i].window = calloc(s->rounds, sizeof *s->node[i].window);
        s->node[i].inbox = calloc(s->n_batches, sizeof *s->node[i].inbox);
        if (!s->node[i].window || !s->node[i].inbox) goto memory;
        rc = plan_node(s, &a->device[i], i, err);
    }
    return rc;
memory:
    return pr_fail(err, PR_ERESOURCE, "simulate: out of memory");
}

void sim_clear(sim *s)
{
    for (size_t i = 0; s->node && i < s->n_nodes; i++) {
        free(s->node[i].window);
        free(s->node[i].inbox);
    }
    free(s->node);
    free(s->batch);
    free(s->clock);
    free(s->heap);
    free(s->place);
}

int sim_init(sim *s, const problem *p, const assignment *a, const sim_options *o, pr_err *err)
{
    int rc = check(p, a, o, err);

    if (rc) return rc;
    s->p = p;
    s->o = o;
    s->rounds = a->rounds;
    s->pieces = o->pieces ? o->pieces : 1;
    s->piece_bytes = p->layer_bytes / s->pieces;
    s->n_nodes = p->n_devices;
    if ((rc = build(s, a, err))) return rc;
    s->n_total = (uint64_t)o->passes * s->n_batches;
    s->n_warm = (uint64_t)(o->passes / 3) * s->n_batches;
    return PR_OK;
}
