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

/* In the idealised problem, without pieces, layers are cut into so many, and what RAM holds beside whole
 * resident ones is buffer, at least two of them. */
enum { IDEAL_PIECES = 32 };

static void ideal_memory(const sim *s, const assignment_device *a, double n_pieces, double room,
                         uint32_t *streamed, double *buffer_bytes)
{
    double buffer = fmin(room, fmax(a->buffer_bytes, 2 * s->piece_bytes));
    double resident = floor((room - buffer) / s->piece_bytes + 1e-9);

    *streamed = (uint32_t)(n_pieces - resident);
    *buffer_bytes = room - resident * s->piece_bytes;
}

/* Streamed pieces of all CPU pieces, and the buffer: those of the assignment, if RAM holds them. */
static int plan_memory(const sim *s, const assignment_device *a, size_t device, uint32_t *streamed,
                       double *buffer_bytes, pr_err *err)
{
    const problem_device *d = &s->p->device[device];
    uint32_t cpu_layers = a->layers - a->gpu_layers;
    double n_pieces = (double)cpu_layers * s->pieces, needs;
    double room = d->ram_bytes - cpu_layers * s->p->kv_layer_bytes - (cpu_layers ? d->cpu_buffer_bytes : 0) -
                  (device == 0 ? d->head_bytes : 0);
    double vram = a->gpu_layers * (s->p->layer_bytes + s->p->kv_layer_bytes) + d->gpu_buffer_bytes;

    *streamed = 0;
    *buffer_bytes = 0;
    if (a->gpu_layers && vram > d->vram_bytes) return lacks(d, device, vram - d->vram_bytes, "VRAM", err);
    if (room < 0) return lacks(d, device, -room, "RAM", err);
    if (s->p->pieces) *streamed = a->streamed_pieces;
    if (*streamed == 0 && n_pieces * s->piece_bytes <= room * (1 + 1e-12)) return PR_OK;
    if (d->disk_bytes_per_ms <= 0)
        return lacks(d, device, n_pieces * s->piece_bytes - room, "RAM and has no disk to stream from", err);
    if (room < s->piece_bytes)
        return lacks(d, device, s->piece_bytes - room, "RAM for one piece of a layer", err);
    if (!s->p->pieces) {
        ideal_memory(s, a, n_pieces, room, streamed, buffer_bytes);
        return PR_OK;
    }
    *buffer_bytes = a->buffer_bytes;
    needs = (n_pieces - *streamed) * s->piece_bytes + *buffer_bytes;
    if (*streamed > n_pieces || *buffer_bytes < s->piece_bytes * (1 - 1e-9))
        return pr_fail(err, PR_EUSAGE,
                       "simulate: device %zu streams %u of %.0f pieces through %.0f bytes: expected at most "
                       "all of them, and a piece of %.0f bytes to fit",
                       device, *streamed, n_pieces, *buffer_bytes, s->piece_bytes);
    if (needs > room * (1 + 1e-12)) return lacks(d, device, needs - room, "RAM", err);
    return PR_OK;
}

static int plan_node(sim *s, const assignment_device *a, size_t device, pr_err *err)
{
    node *n = &s->node[device];
    uint32_t cpu_layers = a->layers - a->gpu_layers, streamed, done = 0;
    int rc = plan_memory(s, a, device, &streamed, &n->free_bytes, err);

    if (rc) return rc;
    n->d = &s->p->device[device];
    n->active = a->layers > 0;
    n->streams = streamed > 0;
    n->left_bytes = s->piece_bytes;
    n->read_started = NAN;
    for (uint32_t r = 0; r < s->rounds; r++) {
        sim_window *w = &n->window[r];
        w->gpu_layers = share(a->gpu_layers, r, s->rounds);
        w->streamed = problem_streamed(s->pieces, s->rounds, cpu_layers, streamed, r, done);
        w->resident = share(cpu_layers, r, s->rounds) * s->pieces - w->streamed;
        done += w->streamed;
    }
    return PR_OK;
}

/* A device with layers must have figures for a chunk of a prompt. */
static int check_prompt(const problem *p, const assignment *a, pr_err *err)
{
    if (!p->prefill_tokens)
        return pr_fail(err, PR_EUSAGE,
                       "simulate: the plan has no figures for prompts: make it anew with "
                       "profiles that measured prefill");
    for (size_t i = 0; i < p->n_devices; i++) {
        const problem_device *d = &p->device[i];
        bool cpu = a->device[i].layers > a->device[i].gpu_layers && !(d->prefill_cpu_ms > 0);
        bool gpu = a->device[i].gpu_layers && !(d->prefill_gpu_ms > 0);
        if (cpu || gpu)
            return pr_fail(err, PR_EUSAGE, "simulate: device %zu %s has no figure for prompts on its %s", i,
                           d->name, cpu ? "CPU" : "GPU");
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
    return o->prompt_tokens ? check_prompt(p, a, err) : PR_OK;
}

/* The ring of active devices. More frames than it can hold without all links full would stop it. Of a
 * prompt's chunks there are fewer in it, one on each device and two on the way: with more, they pile up
 * before devices that have still to serve them in an earlier round. */
static void join_ring(sim *s, const assignment *a)
{
    uint32_t n_active = 0, most, enough;
    int next = NOBODY;

    s->last = NOBODY;
    for (size_t i = s->n_nodes; i-- > 0;) {
        if (a->device[i].layers == 0) continue;
        s->node[i].next = next;
        if (next == NOBODY) s->last = (int)i;
        s->first = next = (int)i;
        n_active++;
    }
    most = (LINK_FRAMES + 1) * n_active - 1;
    enough = n_active + 2 < most ? n_active + 2 : most;
    s->batches_in_flight = s->o->in_flight < most ? s->o->in_flight : most;
    s->chunks_in_flight = s->n_chunks < enough ? s->n_chunks : enough;
}

static int build(sim *s, const assignment *a, pr_err *err)
{
    size_t n_ids = s->n_nodes * N_CLOCKS;
    uint32_t most_in_flight;
    int rc = PR_OK;

    if (!(s->node = calloc(s->n_nodes, sizeof *s->node))) goto memory;
    join_ring(s, a);
    most_in_flight = s->batches_in_flight > s->chunks_in_flight ? s->batches_in_flight : s->chunks_in_flight;
    s->batch = calloc(most_in_flight, sizeof *s->batch);
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
        s->node[i].inbox = calloc(most_in_flight, sizeof *s->node[i].inbox);
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
    s->pieces = p->pieces ? p->pieces : IDEAL_PIECES;
    s->piece_bytes = p->layer_bytes / s->pieces;
    s->n_nodes = p->n_devices;
    if (o->prompt_tokens) s->n_chunks = (o->prompt_tokens - 1) / p->prefill_tokens + 1;
    if ((rc = build(s, a, err))) return rc;
    s->n_total = (uint64_t)o->passes * s->batches_in_flight;
    s->n_warm = (uint64_t)(o->passes / 3) * s->batches_in_flight;
    return PR_OK;
}
