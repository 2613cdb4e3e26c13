/* The latency and throughput model (halda.md 7.1 and 7.6), the only place where it stands; problem.h has the
 * formulas.
 *
 * A device keeps what fits of its CPU layers in RAM and streams the excess E from disk once a pass,
 * cyclically. With one round nothing of E can be read ahead behind the other devices; with k rounds a buffer
 * of about E/(k-1) hides all of it, at the price of reading that much more. A pass lasts as long as all
 * windows one after the other, or as long as the busiest disk needs: the larger of the two. */
#include "planner/problem.h"
#include "planner/stream.h"
#include <math.h>

static const double ROUNDING = 1e-12; /* relative: RAM for 3.9999999999999 pieces holds four */

/* --- memory ------------------------------------------------------------------------------------------- */

typedef struct {
    double available;     /* [A] for weights of CPU layers; negative: not even the rest fits */
    double excess;        /* [E] */
    uint32_t n, room;     /* pieces of the CPU layers, and how many of them RAM holds */
    double missing_bytes; /* to make it feasible */
} ram_use;

static double piece_bytes(const problem *p)
{
    return p->layer_bytes / p->pieces;
}

static ram_use ram_of(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers)
{
    const problem_device *d = &p->device[device];
    double cpu_layers = (double)(layers - gpu_layers), bytes = p->layer_bytes * cpu_layers;
    bool streams, disk = d->disk_bytes_per_ms > 0;
    ram_use r = {.n = p->pieces * (layers - gpu_layers)};

    r.available = d->ram_bytes - p->kv_layer_bytes * cpu_layers;
    if (cpu_layers > 0) r.available -= d->cpu_buffer_bytes;
    if (device == 0) r.available -= d->head_bytes;
    r.missing_bytes = fmax(0, -r.available);
    r.excess = fmax(0, bytes - fmax(0, r.available));
    streams = r.excess > 0;
    if (p->pieces > 0) {
        double room = floor(fmax(0, r.available) / piece_bytes(p) * (1 + ROUNDING));
        streams = r.n > room;
        r.room = streams ? (uint32_t)room : r.n;
        r.excess = (r.n - r.room) * piece_bytes(p);
        if (streams && disk && room < STREAM_LEAST_BUFFER)
            r.missing_bytes = STREAM_LEAST_BUFFER * piece_bytes(p) - r.available;
    }
    if (streams && !disk) r.missing_bytes = bytes - r.available;
    return r;
}

static double vram_missing(const problem *p, size_t device, uint32_t gpu_layers)
{
    const problem_device *d = &p->device[device];

    if (gpu_layers == 0) return 0;
    return gpu_layers * (p->layer_bytes + p->kv_layer_bytes) + d->gpu_buffer_bytes - d->vram_bytes;
}

double problem_missing_bytes(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers,
                             problem_budget *budget)
{
    double vram = vram_missing(p, device, gpu_layers);

    *budget = vram > 0 ? BUDGET_VRAM : BUDGET_RAM;
    return vram > 0 ? vram : ram_of(p, device, layers, gpu_layers).missing_bytes;
}

double problem_ram_for(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers, uint32_t pieces)
{
    double other_bytes = p->device[device].ram_bytes - ram_of(p, device, layers, gpu_layers).available;

    return other_bytes + pieces * piece_bytes(p);
}

uint32_t problem_max_gpu_layers(const problem *p, size_t device)
{
    uint32_t n = 0;

    if (p->device[device].vram_bytes <= 0) return 0;
    while (n < p->n_layers && vram_missing(p, device, n + 1) <= 0) n++;
    return n;
}

bool problem_gpu_is_fast(const problem *p, size_t device)
{
    return p->device[device].gpu_ms <= p->device[device].cpu_ms;
}

bool problem_gpu_settles(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers)
{
    return problem_gpu_is_fast(p, device) && layers - gpu_layers != 1;
}

/* --- streaming ---------------------------------------------------------------------------------------- */

/* Any number of bytes, k windows: the buffer has a closed form. */
static void stream_bytes(const problem_device *d, assignment_device *a, uint32_t rounds, double available)
{
    double hidden_rounds = rounds - 1, exposed;

    if (a->excess_bytes <= 0) return;
    if (rounds > 1) a->buffer_bytes = fmin(a->excess_bytes / hidden_rounds, available);
    a->read_bytes = a->excess_bytes + a->buffer_bytes;
    a->disk_ms = a->read_bytes / d->disk_bytes_per_ms;
    exposed = fmax(0, a->excess_bytes - hidden_rounds * a->buffer_bytes);
    a->stall_ms = fmax(0, exposed / d->disk_bytes_per_ms - d->theta * a->compute_ms);
}

static uint32_t windows_of(uint32_t cpu_layers, uint32_t rounds)
{
    return rounds < cpu_layers ? rounds : cpu_layers;
}

static uint32_t layers_before(uint32_t layers, uint32_t round, uint32_t rounds)
{
    return (uint32_t)((uint64_t)round * layers / rounds);
}

/* What a window with few layers cannot take the next ones do. None is left over: up to any window there are
 * no more resident pieces than in all of them. */
uint32_t problem_streamed(uint32_t pieces, uint32_t rounds, uint32_t cpu_layers, uint32_t streamed,
                          uint32_t round, uint32_t done)
{
    uint32_t before = layers_before(cpu_layers, round, rounds);
    uint32_t layers = layers_before(cpu_layers, round + 1, rounds) - before, windows, window, share;

    if (layers == 0) return 0;
    windows = windows_of(cpu_layers, rounds);
    window = rounds <= cpu_layers ? round : before; /* with fewer layers than rounds each is a window */
    share = layers_before(streamed, window + 1, windows) - done;
    return share < pieces * layers ? share : pieces * layers;
}

static stream stream_of(const problem *p, const problem_device *d, const assignment_device *a,
                        uint32_t rounds, const ram_use *ram)
{
    return (stream){.pieces = p->pieces,
                    .cpu_layers = a->layers - a->gpu_layers,
                    .rounds = rounds,
                    .room = ram->room,
                    .read_ms = piece_bytes(p) / d->disk_bytes_per_ms,
                    .hide_ms = d->theta * d->cpu_ms / p->pieces};
}

static void stream_pieces(const problem *p, const problem_device *d, assignment_device *a, const ram_use *ram,
                          stream_choice c)
{
    a->buffer_pieces = c.buffer;
    a->streamed_pieces = ram->n - ram->room + a->buffer_pieces;
    a->buffer_bytes = a->buffer_pieces * piece_bytes(p);
    a->read_bytes = a->streamed_pieces * piece_bytes(p);
    a->disk_ms = a->read_bytes / d->disk_bytes_per_ms;
    a->stall_ms = c.stall_ms;
}

/* --- a device ----------------------------------------------------------------------------------------- */

static uint32_t n_hops(size_t device, uint32_t rounds, uint32_t layers, bool alone)
{
    if (layers == 0) return device == 0;
    return alone ? device != 0 : rounds;
}

static double compute_bound(const problem *p, size_t device, const assignment_device *a)
{
    return a->compute_ms + (device == 0 ? p->device[0].out_ms : 0);
}

static void add_up(const problem *p, size_t device, device_cost *c)
{
    const problem_device *d = &p->device[device];
    const assignment_device *a = &c->detail;

    c->cost_ms = a->compute_ms + a->stall_ms + a->net_ms;
    c->bound_ms = a->disk_ms + (1 - d->theta) * a->compute_ms;
    if (p->throughput) c->bound_ms = fmax(c->bound_ms, fmax(compute_bound(p, device, a), a->net_ms));
}

bool problem_device_cost(const problem *p, size_t device, uint32_t rounds, uint32_t layers,
                         uint32_t gpu_layers, bool alone, device_cost *out)
{
    const problem_device *d = &p->device[device];
    assignment_device a = {.layers = layers, .gpu_layers = gpu_layers};

    if (gpu_layers > layers) return false;
    if (d->fixed_layers >= 0 && layers != (uint32_t)d->fixed_layers) return false;
    if (d->fixed_gpu_layers >= 0 && gpu_layers != (uint32_t)d->fixed_gpu_layers) return false;
    if (vram_missing(p, device, gpu_layers) > 0) return false;

    ram_use ram = ram_of(p, device, layers, gpu_layers);
    if (ram.missing_bytes > 0) return false;
    a.excess_bytes = ram.excess;
    a.compute_ms = (layers - gpu_layers) * d->cpu_ms;
    if (gpu_layers > 0) a.compute_ms += gpu_layers * d->gpu_ms;
    a.net_ms = n_hops(device, rounds, layers, alone) * d->hop_ms;
    if (p->pieces == 0) stream_bytes(d, &a, rounds, ram.available);
    else if (ram.n > ram.room) {
        stream s = stream_of(p, d, &a, rounds, &ram);
        stream_pieces(p, d, &a, &ram, stream_choose(p->memo, &s));
    }
    out->detail = a;
    add_up(p, device, out);
    return true;
}

bool problem_set_buffer(const problem *p, size_t device, uint32_t rounds, uint32_t buffer_pieces,
                        device_cost *c)
{
    assignment_device *a = &c->detail;
    ram_use ram = ram_of(p, device, a->layers, a->gpu_layers);
    stream s = stream_of(p, &p->device[device], a, rounds, &ram);

    if (a->streamed_pieces == 0 || buffer_pieces < STREAM_LEAST_BUFFER) return false;
    if (buffer_pieces > stream_largest_buffer(&s)) return false;
    stream_pieces(p, &p->device[device], a, &ram,
                  (stream_choice){buffer_pieces, stream_stall_ms(&s, buffer_pieces)});
    add_up(p, device, c);
    return true;
}

double problem_least_ms(const problem *p, size_t device, uint32_t layers, uint32_t gpu_layers)
{
    const problem_device *d = &p->device[device];
    uint32_t cpu_layers = layers - gpu_layers;
    double compute_ms = cpu_layers * d->cpu_ms + (gpu_layers ? gpu_layers * d->gpu_ms : 0),
           least = compute_ms;

    if (d->disk_bytes_per_ms > 0) {
        double held = d->ram_bytes - (device == 0 ? d->head_bytes : 0) - p->kv_layer_bytes * cpu_layers;
        double read_bytes = p->layer_bytes * cpu_layers - fmax(0, held);
        least = fmax(least, read_bytes / d->disk_bytes_per_ms + (1 - d->theta) * compute_ms);
    }
    return least * (1 - 1e-12); /* rounding must not make it more */
}

uint32_t problem_most_layers(const problem *p, size_t device, double limit_ms)
{
    uint32_t gpu = problem_max_gpu_layers(p, device), low = 0, high = p->n_layers;

    if (!problem_gpu_is_fast(p, device)) return p->n_layers;
    while (low < high) { /* a layer more takes longer, wherever it goes */
        uint32_t middle = low + (high - low + 1) / 2;
        if (problem_least_ms(p, device, middle, middle < gpu ? middle : gpu) <= limit_ms) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* --- rounds ------------------------------------------------------------------------------------------- */

uint32_t problem_last_rounds(const problem *p)
{
    uint32_t last = p->max_rounds < p->n_layers ? p->max_rounds : p->n_layers;

    return last < PROBLEM_MAX_ROUNDS ? last : PROBLEM_MAX_ROUNDS;
}

uint32_t problem_first_rounds(const problem *p)
{
    uint32_t last = problem_last_rounds(p);

    if (p->min_rounds == 0) return 1;
    return p->min_rounds < last ? p->min_rounds : last;
}

/* --- all devices -------------------------------------------------------------------------------------- */

double problem_sum_weight(const problem *p)
{
    if (!p->throughput) return 1;
    return p->in_flight ? 1.0 / p->in_flight : 0;
}

static bool layers_add_up(const problem *p, const assignment *a, size_t *n_active)
{
    size_t n_layers = 0;

    *n_active = 0;
    for (size_t i = 0; i < p->n_devices; i++) {
        n_layers += a->device[i].layers;
        *n_active += a->device[i].layers > 0;
    }
    return n_layers == p->n_layers && a->rounds > 0;
}

static bool lacks_memory(const problem *p, const assignment *a, size_t *device, double *missing)
{
    problem_budget budget;

    for (size_t i = 0; i < p->n_devices; i++) {
        double lacks = problem_missing_bytes(p, i, a->device[i].layers, a->device[i].gpu_layers, &budget);
        if (lacks <= 0) continue;
        if (device) *device = i;
        if (missing) *missing = lacks;
        return true;
    }
    return false;
}

static assignment_bound which_bound(const problem *p, size_t device, const device_cost *c)
{
    if (p->throughput && c->bound_ms <= compute_bound(p, device, &c->detail)) return BOUND_COMPUTE;
    if (p->throughput && c->bound_ms <= c->detail.net_ms) return BOUND_NET;
    return BOUND_DISK;
}

/* T of what stands in a and cost. */
static void take_time(const problem *p, const device_cost *cost, assignment *a)
{
    double sum_ms = p->device[0].out_ms;

    a->bound = BOUND_SUM;
    a->bound_device = 0;
    for (size_t i = 0; i < p->n_devices; i++) sum_ms += cost[i].cost_ms;
    a->pass_ms = sum_ms * problem_sum_weight(p);
    for (size_t i = 0; i < p->n_devices; i++) {
        if (cost[i].bound_ms <= a->pass_ms) continue;
        a->pass_ms = cost[i].bound_ms;
        a->bound = which_bound(p, i, &cost[i]);
        a->bound_device = i;
    }
    for (size_t i = 0; i < p->n_devices; i++) a->device[i] = cost[i].detail;
}

/* From the buffers of least cost: as long as a disk decides, its buffer can shrink. No other way is better:
 * to be faster, just this device must read less. */
static void choose_buffers(const problem *p, device_cost *cost, const bool *is_free, assignment *a)
{
    assignment next = *a;

    while (next.bound == BOUND_DISK && is_free[next.bound_device]) {
        size_t i = next.bound_device;
        if (!problem_set_buffer(p, i, a->rounds, cost[i].detail.buffer_pieces - 1, &cost[i])) break;
        take_time(p, cost, &next);
        if (next.pass_ms < a->pass_ms) *a = next;
    }
}

bool assignment_evaluate(const problem *p, assignment *a, size_t *lacking_device, double *missing)
{
    device_cost cost[PROBLEM_MAX_DEVICES];
    bool is_free[PROBLEM_MAX_DEVICES];
    size_t n_active;

    a->n_devices = p->n_devices;
    if (missing) *missing = 0;
    for (size_t i = 0; i < p->n_devices; i++)
        if (a->device[i].gpu_layers > a->device[i].layers) return false;
    if (lacks_memory(p, a, lacking_device, missing)) return false;
    if (!layers_add_up(p, a, &n_active)) return false;
    for (size_t i = 0; i < p->n_devices; i++) {
        const assignment_device *d = &a->device[i];
        if (!problem_device_cost(p, i, a->rounds, d->layers, d->gpu_layers, n_active == 1, &cost[i]))
            return false;
        is_free[i] = d->buffer_pieces == 0 && cost[i].detail.streamed_pieces > 0;
        if (d->buffer_pieces > 0 && cost[i].detail.streamed_pieces > 0 &&
            !problem_set_buffer(p, i, a->rounds, d->buffer_pieces, &cost[i]))
            return false;
    }
    take_time(p, cost, a);
    choose_buffers(p, cost, is_free, a);
    return true;
}
