/* Weights from host memory to the GPU: some groups of a matrix are packed by all threads into one of two
 * pinned buffers while the other one is on its way. */
#include "kernels/cuda/place.h"
#include "src/base/log.h"
#include <string.h>

typedef struct {
    gpu_place *g;
    const gpu_options *o;
    pool *p;
    uint8_t *stage[GPU_STAGES];
    cudaEvent_t sent[GPU_STAGES]; /* the buffer is free again */
    bool is_sent[GPU_STAGES];
    int next;
    pr_err *err;
} loader;

static int check(const loader *l, cudaError_t e, const char *what)
{
    return cuda_check(e, l->g->gpu, what, l->err);
}

/* A buffer that is not on its way any more. */
static int take_stage(loader *l)
{
    if (!l->is_sent[l->next]) return PR_OK;
    return check(l, cudaEventSynchronize(l->sent[l->next]), "a copy of weights");
}

/* The first bytes of the buffer taken go to `at` in VRAM. */
static int send_stage(loader *l, const void *at, size_t bytes)
{
    int i = l->next, rc;

    rc = check(
        l, cudaMemcpyAsync((void *)(uintptr_t)at, l->stage[i], bytes, cudaMemcpyHostToDevice, l->g->stream),
        "a copy of weights");
    if (!rc) rc = check(l, cudaEventRecord(l->sent[i], l->g->stream), "cudaEventRecord");
    l->is_sent[i] = true;
    l->next = (i + 1) % GPU_STAGES;
    return rc;
}

static int load_floats(loader *l, const float *at, const float *from, size_t n)
{
    size_t most = l->g->map.stage_bytes / sizeof *from;
    int rc = PR_OK;

    for (size_t i = 0; i < n && !rc; i += most) {
        size_t now = n - i < most ? n - i : most;
        if ((rc = take_stage(l))) break;
        memcpy(l->stage[l->next], from + i, now * sizeof *from);
        rc = send_stage(l, at + i, now * sizeof *from);
    }
    return rc;
}

/* Groups [origin, ...) of a matrix into a buffer. */
typedef struct {
    const gpu_matrix *m;
    uint8_t *to;
    size_t origin, group_bytes;
    void (*done_with)(const void *data, size_t bytes);
} pack_loop;

static void pack_item(void *arg, size_t first, size_t end, int thread)
{
    const pack_loop *l = arg;
    const gpu_matrix *m = l->m;
    size_t row_bytes = quant_row_bytes(m->type, m->n_cols), from = (l->origin + first) * GPU_PACK_ROWS,
           to = (l->origin + end) * GPU_PACK_ROWS;

    (void)thread;
    if (to > m->n_rows) to = m->n_rows;
    gpu_pack_rows(m->type, l->to + first * l->group_bytes, m->data, m->n_rows, m->n_cols, l->origin + first,
                  l->origin + end);
    if (l->done_with) l->done_with((const uint8_t *)m->data + from * row_bytes, (to - from) * row_bytes);
}

static int load_matrix(loader *l, const gpu_matrix *m, const uint8_t *at)
{
    size_t bytes = gpu_pack_group_bytes(m->type, m->n_cols), n = gpu_pack_groups(m->n_rows),
           most = l->g->map.stage_bytes / bytes;
    int rc = PR_OK;

    for (size_t first = 0; first < n && !rc; first += most) {
        size_t now = n - first < most ? n - first : most;
        if ((rc = take_stage(l))) break;
        pack_loop loop = {m, l->stage[l->next], first, bytes, l->o->done_with};
        pool_run(l->p, now, now / (4 * (size_t)pool_threads(l->p)) + 1, pack_item, &loop);
        rc = send_stage(l, at + first * bytes, now * bytes);
    }
    if (!rc && l->o->done_with) l->o->done_with(m->data, m->n_rows * quant_row_bytes(m->type, m->n_cols));
    return rc;
}

static int load_layer(loader *l, size_t i)
{
    const layer_place *to = &l->g->layer[i];
    int rc = PR_OK;

    for (gpu_vector v = 0; v < GPU_VECTORS && !rc; v++)
        if (to->vector[v])
            rc = load_floats(l, to->vector[v], gpu_layer_vector(&l->o->layer[i], v),
                             gpu_vector_length(&l->g->shape, v));
    for (gpu_matrix_name m = 0; m < GPU_MATRICES && !rc; m++)
        rc = load_matrix(l, gpu_layer_matrix(&l->o->layer[i], m), to->product[m].pack);
    return rc;
}

static int load_output(loader *l)
{
    const gpu_output *from = l->o->output;
    const gpu_place *g = l->g;
    int rc = load_floats(l, g->output_norm, from->norm, g->shape.n_embd);

    if (!rc && from->bias) rc = load_floats(l, g->output_bias, from->bias, g->shape.n_vocab);
    return rc ? rc : load_matrix(l, &from->matrix, g->output.pack);
}

static int open_stages(loader *l)
{
    int rc = PR_OK;

    for (int i = 0; i < GPU_STAGES && !rc; i++) {
        rc = check(l, cudaMallocHost((void **)&l->stage[i], l->g->map.stage_bytes),
                   "pinned memory for loading");
        if (!rc) rc = check(l, cudaEventCreate(&l->sent[i]), "cudaEventCreate");
    }
    return rc;
}

static void close_stages(loader *l)
{
    for (int i = 0; i < GPU_STAGES; i++) {
        if (l->sent[i]) cudaEventDestroy(l->sent[i]);
        cudaFreeHost(l->stage[i]);
    }
}

int place_load(gpu_place *g, const gpu_options *o, pool *p, const char *label, pr_err *err)
{
    loader l = {.g = g, .o = o, .p = p, .err = err};
    int rc = open_stages(&l);

    for (size_t i = 0; i < g->shape.n_layers && !rc; i++) {
        rc = load_layer(&l, i);
        log_progress("%s: layer %zu of %zu", label, i + 1, g->shape.n_layers);
    }
    if (!rc && o->output) rc = load_output(&l);
    log_progress("%s", "");
    if (!rc) rc = check(&l, cudaStreamSynchronize(g->stream), "copying weights");
    else cudaStreamSynchronize(g->stream); /* the buffers may still be read */
    close_stages(&l);
    return rc;
}
