/* The GPUs of an engine; see engine_gpu.h. A GPU has one place for all its layers of all windows, numbered in
 * the order of the windows. */
#include "src/run/engine_gpu.h"
#include "kernels/cuda/device.h"
#include <stdlib.h>

struct gpu_set {
    size_t n_places;
    gpu_place *place[ENGINE_MAX_GPUS];
    gpu_place *output;
    gpu_part *part; /* [n_parts] by window */
    uint32_t *window;
    size_t n_parts;
};

layer_range engine_range(const model *m, const engine_options *o, uint32_t i)
{
    uint64_t n_layers = m->hp.n_layers, n = engine_windows(o);

    if (o->window) return o->window[i];
    return (layer_range){(uint32_t)(n_layers * i / n), (uint32_t)(n_layers * (i + 1) / n)};
}

uint32_t engine_windows(const engine_options *o)
{
    return o->n_windows ? o->n_windows : 1;
}

uint32_t engine_gpu_layers(const engine_options *o, uint32_t i)
{
    uint32_t n = 0;

    for (size_t k = 0; k < o->n_gpu_parts; k++)
        if (o->gpu_part[k].window == i) n += o->gpu_part[k].n_layers;
    return n;
}

bool engine_uses_gpu(const engine_options *o)
{
    return o->n_gpu_parts || o->output_on_gpu;
}

/* --- what each GPU has ------------------------------------------------------------------------------- */
/* The GPUs in use, each once. */
static size_t list_gpus(int gpu[ENGINE_MAX_GPUS], const engine_options *o, pr_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < o->n_gpu_parts + o->output_on_gpu; i++) {
        int now = i < o->n_gpu_parts ? o->gpu_part[i].gpu : o->output_gpu;
        size_t at = 0;
        while (at < n && gpu[at] != now) at++;
        if (at < n) continue;
        if (n == ENGINE_MAX_GPUS) {
            pr_fail(err, PR_EUSAGE, "more than %d GPUs on one device", ENGINE_MAX_GPUS);
            return 0;
        }
        gpu[n++] = now;
    }
    return n;
}

/* The layers of a GPU in the order of the windows, and where each part's begin. layer: room for all. */
static size_t list_layers(uint32_t *layer, const model *m, const engine_options *o, int gpu)
{
    uint32_t in_window = 0;
    size_t n = 0;

    for (size_t i = 0; i < o->n_gpu_parts; i++) {
        const engine_gpu_part *p = &o->gpu_part[i];
        if (!i || p->window != p[-1].window) in_window = engine_range(m, o, p->window).first;
        for (uint32_t k = 0; p->gpu == gpu && k < p->n_layers; k++) layer[n++] = in_window + k;
        in_window += p->n_layers;
    }
    return n;
}

static gpu_layers_options options_of(const engine_options *o, int gpu, const uint32_t *layer, size_t n)
{
    return (gpu_layers_options){.gpu = gpu,
                                .layer = layer,
                                .n_layers = n,
                                .output = o->output_on_gpu && o->output_gpu == gpu,
                                .kv = o->kv,
                                .n_pages = o->n_pages,
                                .max_tokens = o->max_tokens,
                                .max_runs = o->max_runs ? o->max_runs : o->max_tokens,
                                .max_positions = o->max_positions ? o->max_positions : o->n_pages * KV_PAGE,
                                .max_out = o->max_out};
}

/* All layers' numbers fit. */
static uint32_t *layer_list(const model *m, pr_err *err)
{
    uint32_t *layer = calloc(m->hp.n_layers, sizeof *layer);

    if (!layer) pr_fail(err, PR_ERESOURCE, "out of memory");
    return layer;
}

static gpu_memory add(gpu_memory a, gpu_memory b)
{
    return (gpu_memory){
        a.weights + b.weights, a.kv + b.kv,
        a.buffers + b.buffers, a.total + b.total,
        a.host + b.host,       a.loading > b.loading ? a.loading : b.loading}; /* one after the other */
}

/* Bytes of VRAM that may be taken of a GPU, as far as the options say. */
static uint64_t cap_of(const engine_options *o, int gpu)
{
    for (size_t i = 0; i < o->n_gpu_caps; i++)
        if (o->gpu_cap[i].gpu == gpu) return o->gpu_cap[i].budget;
    return UINT64_MAX;
}

static int need_one(gpu_memory *out, const model *m, const engine_options *o, int gpu, pr_err *err)
{
    uint32_t *layer = layer_list(m, err);
    gpu_layers_options lo;
    int rc;

    if (!layer) return PR_ERESOURCE;
    lo = options_of(o, gpu, layer, list_layers(layer, m, o, gpu));
    rc = gpu_layers_need(out, &m->hp, &lo, err);
    free(layer);
    return rc;
}

int gpu_set_need(gpu_memory *out, const model *m, const engine_options *o, pr_err *err)
{
    int gpu[ENGINE_MAX_GPUS], rc = PR_OK;
    size_t n = list_gpus(gpu, o, err);

    *out = (gpu_memory){0};
    if (!n) return engine_uses_gpu(o) ? PR_EUSAGE : PR_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        gpu_memory one;
        if (!(rc = need_one(&one, m, o, gpu[i], err))) *out = add(*out, one);
    }
    return rc;
}

static int check_one(const model *m, const engine_options *o, int gpu, pr_err *err)
{
    uint64_t cap = cap_of(o, gpu);
    gpu_memory need;
    gpu_info info;
    int rc;

    if ((rc = need_one(&need, m, o, gpu, err))) return rc;
    if ((rc = gpu_describe(&info, gpu, err))) return pr_wrap(err, "layers on GPU %d are asked for", gpu);
    if (need.total <= cap) return PR_OK;
    return pr_fail(
        err, PR_ERESOURCE,
        "the layers on GPU %d take %llu bytes of its memory, its budget is %llu (%llu missing): put "
        "fewer on it",
        gpu, (unsigned long long)need.total, (unsigned long long)cap, (unsigned long long)(need.total - cap));
}

int gpu_set_check(const model *m, const engine_options *o, pr_err *err)
{
    int gpu[ENGINE_MAX_GPUS], rc = PR_OK;
    size_t n = list_gpus(gpu, o, err);

    if (!n) return engine_uses_gpu(o) ? PR_EUSAGE : PR_OK;
    for (size_t i = 0; i < n && !rc; i++) rc = check_one(m, o, gpu[i], err);
    return rc;
}

/* --- places ------------------------------------------------------------------------------------------ */
/* Where each part of the windows is on its GPU: behind those of the same GPU before it. */
static void fill_parts(gpu_set *s, const engine_options *o, const int *gpu)
{
    size_t next[ENGINE_MAX_GPUS] = {0};

    for (size_t i = 0; i < o->n_gpu_parts; i++) {
        const engine_gpu_part *p = &o->gpu_part[i];
        size_t at = 0;
        while (gpu[at] != p->gpu) at++;
        s->part[i] = (gpu_part){s->place[at], next[at], p->n_layers};
        s->window[i] = p->window;
        next[at] += p->n_layers;
    }
}

static int open_places(gpu_set *s, const model *m, const engine_options *o, pool *p, const int *gpu, size_t n,
                       pr_err *err)
{
    uint32_t *layer = layer_list(m, err);
    int rc = layer ? PR_OK : PR_ERESOURCE;

    for (size_t i = 0; i < n && !rc; i++) {
        gpu_layers_options lo = options_of(o, gpu[i], layer, list_layers(layer, m, o, gpu[i]));
        if ((rc = gpu_layers_open(&s->place[i], &m->hp, &lo, p, err))) break;
        s->n_places++;
        if (lo.output) s->output = s->place[i];
    }
    free(layer);
    return rc;
}

int gpu_set_new(gpu_set **out, const model *m, const engine_options *o, pool *p, pr_err *err)
{
    int gpu[ENGINE_MAX_GPUS], rc;
    size_t n = list_gpus(gpu, o, err);
    gpu_set *s = calloc(1, sizeof *s);

    if (s) {
        s->n_parts = o->n_gpu_parts;
        s->part = calloc(o->n_gpu_parts + 1, sizeof *s->part);
        s->window = calloc(o->n_gpu_parts + 1, sizeof *s->window);
    }
    if (!s || !s->part || !s->window) rc = pr_fail(err, PR_ERESOURCE, "out of memory");
    else rc = open_places(s, m, o, p, gpu, n, err);
    if (rc) {
        gpu_set_free(s);
        return rc;
    }
    fill_parts(s, o, gpu);
    *out = s;
    return PR_OK;
}

void gpu_set_free(gpu_set *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_places; i++) gpu_close(s->place[i]);
    free(s->part);
    free(s->window);
    free(s);
}

const gpu_part *gpu_set_parts(const gpu_set *s, uint32_t i, size_t *n)
{
    size_t first = 0;

    *n = 0;
    if (!s) return NULL;
    while (first < s->n_parts && s->window[first] != i) first++;
    while (first + *n < s->n_parts && s->window[first + *n] == i) ++*n;
    return s->part + first;
}

gpu_place *gpu_set_output(const gpu_set *s)
{
    return s ? s->output : NULL;
}

float *gpu_set_hidden(const gpu_set *s)
{
    return s && s->n_places ? gpu_hidden(s->place[0]) : NULL;
}

gpu_memory gpu_set_taken(const gpu_set *s)
{
    gpu_memory all = {0};

    for (size_t i = 0; s && i < s->n_places; i++) all = add(all, gpu_taken(s->place[i]));
    return all;
}

double gpu_set_busy_ms(const gpu_set *s)
{
    double ms = 0;

    for (size_t i = 0; s && i < s->n_places; i++) ms += gpu_busy_ms(s->place[i]);
    return ms;
}

bool gpu_set_is_lost(const gpu_set *s)
{
    bool lost = false;

    for (size_t i = 0; s && i < s->n_places; i++) lost = lost || gpu_is_lost(s->place[i]);
    return lost;
}

/* --- as many as fit ---------------------------------------------------------------------------------- */
/* x layers of all windows on one GPU, spread by the windows' layers; returns how many parts. */
static size_t spread(const model *m, const engine_options *o, int gpu, engine_gpu_part *part, uint64_t x,
                     uint64_t n_layers)
{
    uint64_t before = 0;
    size_t n = 0;

    for (uint32_t i = 0; i < engine_windows(o) && n_layers; i++) {
        layer_range r = engine_range(m, o, i);
        uint64_t after = before + r.end - r.first, here = after * x / n_layers - before * x / n_layers;
        if (here) part[n++] = (engine_gpu_part){i, gpu, (uint32_t)here};
        before = after;
    }
    return n;
}

uint32_t engine_use_gpu(const model *m, engine_options *o, int gpu, engine_gpu_part *part, uint32_t most)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < engine_windows(o); i++) {
        layer_range r = engine_range(m, o, i);
        n += r.end - r.first;
    }
    if (most > n) most = (uint32_t)n;
    o->gpu_part = part;
    o->n_gpu_parts = spread(m, o, gpu, part, most, n);
    o->output_on_gpu = most == n && !o->is_worker;
    o->output_gpu = gpu;
    return most;
}

/* More than is needed stays free for the driver, whose kernels are loaded later, and for a screen. */
static uint64_t room_of(const gpu_info *info, const engine_options *o, int gpu)
{
    uint64_t keep = info->vram_total_bytes / 20, cap = cap_of(o, gpu),
             room = info->vram_free_bytes > keep ? info->vram_free_bytes - keep : 0;

    return cap < room ? cap : room;
}

static bool fits(const model *m, const engine_options *o, uint64_t room, pr_err *err)
{
    gpu_memory need;
    int rc = gpu_set_need(&need, m, o, err);

    if (!rc && need.total > room)
        rc = pr_fail(err, PR_ERESOURCE, "%.2f GiB of its memory are too little for a layer (%.2f GiB)",
                     (double)room / 0x1p30, (double)need.total / 0x1p30);
    return rc == PR_OK;
}

uint32_t engine_fit_gpu(const model *m, engine_options *o, int gpu, engine_gpu_part *part, pr_err *why)
{
    uint32_t low = 0, high = m->hp.n_layers;
    gpu_info info;
    uint64_t room;

    if (gpu_describe(&info, gpu, why)) return 0;
    room = room_of(&info, o, gpu);
    while (low < high) {
        uint32_t x = (low + high + 1) / 2;
        engine_use_gpu(m, o, gpu, part, x);
        if (fits(m, o, room, why)) low = x;
        else high = x - 1;
    }
    engine_use_gpu(m, o, gpu, part, low);
    return low;
}
