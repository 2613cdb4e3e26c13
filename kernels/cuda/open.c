/* Opening and closing: one block of VRAM for everything, with every pointer into it fixed here. */
#include "kernels/cuda/device.h"
#include "kernels/cuda/place.h"
#include <stdlib.h>

static float *floats_at(const gpu_place *g, uint64_t at)
{
    return at == GPU_NOWHERE ? NULL : (float *)(void *)(g->memory + at);
}

/* Where product m of a layer writes, and how far apart its rows are. */
static void aim(gpu_place *g, gpu_product *p, gpu_matrix_name m)
{
    const gpu_map *map = &g->map;
    const struct {
        uint64_t at;
        size_t stride;
    } out[GPU_MATRICES] = {
        [GPU_Q] = {map->q, map->q_stride},           [GPU_K] = {map->k, map->kv_stride},
        [GPU_V] = {map->v, map->kv_stride},          [GPU_O] = {map->branch, map->embd_stride},
        [GPU_GATE] = {map->gate, map->ff_stride},    [GPU_UP] = {map->up, map->ff_stride},
        [GPU_DOWN] = {map->branch, map->embd_stride}};

    p->out = floats_at(g, out[m].at);
    p->out_stride = out[m].stride;
}

static gpu_product product_of(const gpu_place *g, const gpu_matrix *m, uint64_t at)
{
    return (gpu_product){.type = m->type, .pack = g->memory + at, .n_rows = m->n_rows, .n_cols = m->n_cols};
}

static void place_layers(gpu_place *g, const gpu_options *o)
{
    for (size_t i = 0; i < o->shape.n_layers; i++) {
        const gpu_layer_map *at = &g->map.layer[i];
        layer_place *l = &g->layer[i];
        for (gpu_vector v = 0; v < GPU_VECTORS; v++) l->vector[v] = floats_at(g, at->vector[v]);
        for (gpu_matrix_name m = 0; m < GPU_MATRICES; m++) {
            l->product[m] = product_of(g, gpu_layer_matrix(&o->layer[i], m), at->matrix[m]);
            aim(g, &l->product[m], m);
        }
        l->kv = g->memory + at->kv;
    }
}

static void place_output(gpu_place *g, const gpu_options *o)
{
    g->output_norm = floats_at(g, g->map.output_norm);
    g->output_bias = floats_at(g, g->map.output_bias);
    g->output = product_of(g, &o->output->matrix, g->map.output_matrix);
    g->output.out = floats_at(g, g->map.logits);
    g->output.out_stride = g->map.logits_stride;
}

static void place_all(gpu_place *g, const gpu_options *o)
{
    const gpu_map *m = &g->map;
    const gpu_shape *s = &g->shape;

    place_layers(g, o);
    if (o->output) place_output(g, o);
    gpu_acts_place(&g->x, g->memory + m->x, s->n_embd, m->rows, m->x_kinds);
    if (!s->n_layers) return;
    gpu_acts_place(&g->heads, g->memory + m->heads, s->n_heads * s->head_size, g->max_tokens, m->heads_kinds);
    gpu_acts_place(&g->ff, g->memory + m->ff, s->n_ff, g->max_tokens, m->ff_kinds);
}

/* More than is free is said in bytes, before CUDA says it without. */
static int check_room(const gpu_place *g, pr_err *err)
{
    const gpu_memory *need = &g->map.bytes;
    gpu_info info;
    int rc = gpu_describe(&info, g->gpu, err);

    if (rc || need->total <= info.vram_free_bytes) return rc;
    return pr_fail(
        err, PR_ERESOURCE,
        "GPU %d (%s): weights %.2f GiB + KV cache %.2f GiB + buffers %.2f GiB, but only %.2f GiB of "
        "its memory are free (%.2f GiB missing): put fewer layers on it",
        g->gpu, info.name, (double)need->weights / 0x1p30, (double)need->kv / 0x1p30,
        (double)need->buffers / 0x1p30, (double)info.vram_free_bytes / 0x1p30,
        (double)(need->total - info.vram_free_bytes) / 0x1p30);
}

static int take_host(gpu_place *g, const gpu_options *o, pr_err *err)
{
    size_t logits = o->output ? o->max_out * g->map.logits_stride * sizeof(float) : 0;
    int rc =
        cuda_check(cudaMallocHost((void **)&g->step_host, g->map.step_bytes), g->gpu, "cudaMallocHost", err);

    if (!rc && logits)
        rc = cuda_check(cudaMallocHost((void **)&g->logits_host, logits), g->gpu, "cudaMallocHost", err);
    return rc ? pr_wrap(err, "%zu bytes of pinned memory", g->map.step_bytes + logits) : PR_OK;
}

/* The KV cache begins as zeros: what is never written is read, masked. */
static int take(gpu_place *g, const gpu_options *o, pr_err *err)
{
    const gpu_memory *need = &g->map.bytes;
    int rc = check_room(g, err);

    if (rc || (rc = cuda_check(cudaSetDevice(g->gpu), g->gpu, "cudaSetDevice", err)) ||
        (rc = cuda_check(cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking), g->gpu,
                         "cudaStreamCreate", err)) ||
        (rc = cuda_check(cudaEventCreate(&g->begin), g->gpu, "cudaEventCreate", err)) ||
        (rc = cuda_check(cudaEventCreate(&g->end), g->gpu, "cudaEventCreate", err)))
        return rc;
    if ((rc = cuda_check(cudaMalloc((void **)&g->memory, need->total), g->gpu, "cudaMalloc", err)))
        return pr_wrap(err, "%llu bytes of VRAM", (unsigned long long)need->total);
    if (need->kv)
        rc = cuda_check(cudaMemsetAsync(g->memory + need->weights, 0, need->kv, g->stream), g->gpu,
                        "cudaMemset", err);
    return rc ? rc : take_host(g, o, err);
}

static int open_place(gpu_place *g, const gpu_options *o, pool *p, const char *label, pr_err *err)
{
    int rc = gpu_map_init(&g->map, o, err);

    if (rc) return rc;
    if (!(g->layer = calloc(o->shape.n_layers + 1, sizeof *g->layer)))
        return pr_fail(err, PR_ERESOURCE, "out of memory");
    if ((rc = take(g, o, err))) return rc;
    place_all(g, o);
    return place_load(g, o, p, label, err);
}

int gpu_open(gpu_place **out, const gpu_options *o, pool *p, const char *label, pr_err *err)
{
    gpu_place *g = calloc(1, sizeof *g);
    int rc;

    if (!g) return pr_fail(err, PR_ERESOURCE, "out of memory");
    *g = (gpu_place){.gpu = o->gpu,
                     .shape = o->shape,
                     .kv = o->kv,
                     .max_tokens = o->max_tokens,
                     .max_runs = o->max_runs,
                     .max_out = o->max_out};
    if ((rc = open_place(g, o, p, label, err))) gpu_close(g);
    else *out = g;
    return rc;
}

/* Nothing can be done about an error here: the runtime frees what is left when the process ends. */
void gpu_close(gpu_place *g)
{
    if (!g) return;
    cudaSetDevice(g->gpu);
    if (g->stream) cudaStreamSynchronize(g->stream);
    place_drop_graphs(g);
    if (g->begin) cudaEventDestroy(g->begin);
    if (g->end) cudaEventDestroy(g->end);
    if (g->stream) cudaStreamDestroy(g->stream);
    cudaFreeHost(g->step_host);
    cudaFreeHost(g->logits_host);
    cudaFree(g->memory);
    cudaGetLastError();
    gpu_map_clear(&g->map);
    free(g->layer);
    free(g);
}

double gpu_busy_ms(const gpu_place *g)
{
    return g->busy_ms;
}

bool gpu_is_lost(const gpu_place *g)
{
    return g->is_lost;
}

gpu_memory gpu_taken(const gpu_place *g)
{
    return g->map.bytes;
}
