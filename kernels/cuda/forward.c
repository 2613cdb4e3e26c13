/* A batch to the GPU, its layers, and back: one copy there, one back, one wait at the end. */
#include "kernels/cuda/place.h"
#include <assert.h>
#include <string.h>

/* Hidden states come first, what a batch is behind them. */
static size_t hidden_bytes(const gpu_place *g, size_t n_rows)
{
    size_t bytes = n_rows * g->shape.n_embd * sizeof(float);

    return (bytes + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN;
}

float *gpu_hidden(gpu_place *g)
{
    return (float *)(void *)g->step_host;
}

static step_place place_step(const gpu_place *g, const gpu_step_layout *l)
{
    uint8_t *hidden = g->memory + g->map.step, *at = hidden + hidden_bytes(g, l->n_tokens);

    return (step_place){.layout = *l,
                        .step = {.pos = (int32_t *)(void *)(at + l->pos),
                                 .page = (int32_t *)(void *)(at + l->page),
                                 .run = (int32_t *)(void *)(at + l->run),
                                 .tile = (int32_t *)(void *)(at + l->tile),
                                 .first = (int32_t *)(void *)(at + l->first),
                                 .pages = (int32_t *)(void *)(at + l->pages),
                                 .max_pages = l->page_stride,
                                 .rope = (float *)(void *)(at + l->rope)},
                        .hidden = (float *)(void *)hidden};
}

/* An error of CUDA may have lost everything: nothing is asked of this GPU again. */
static int check(gpu_place *g, cudaError_t e, const char *what, pr_err *err)
{
    if (e) g->is_lost = true;
    return cuda_check(e, g->gpu, what, err);
}

static int check_here(gpu_place *g, pr_err *err)
{
    if (g->is_lost) return pr_fail(err, PR_ERESOURCE, "GPU %d: it was lost before", g->gpu);
    return check(g, cudaSetDevice(g->gpu), "cudaSetDevice", err);
}

static cudaError_t begin(gpu_place *g, size_t bytes)
{
    cudaError_t e = cudaEventRecord(g->begin, g->stream);

    if (e) return e;
    return cudaMemcpyAsync(g->memory + g->map.step, g->step_host, bytes, cudaMemcpyHostToDevice, g->stream);
}

/* The only wait; then how long it all took. */
static cudaError_t end(gpu_place *g)
{
    float ms = 0;
    cudaError_t e = cudaEventRecord(g->end, g->stream);

    if (!e) e = cudaStreamSynchronize(g->stream);
    if (!e) e = cudaEventElapsedTime(&ms, g->begin, g->end);
    g->busy_ms += (double)ms;
    return e;
}

static cudaError_t transform(gpu_place *g, size_t first, size_t n, const gpu_batch *b, float *hidden)
{
    const gpu_map *m = &g->map;
    size_t bytes = b->n_tokens * g->shape.n_embd * sizeof *hidden, step_at = hidden_bytes(g, b->n_tokens);
    bool is_there = b->generation && b->generation == g->generation;
    gpu_step_layout l = gpu_step_layout_of(b, &g->shape, m->max_pages, m->max_spans);
    step_place s = place_step(g, &l);
    cudaError_t e;

    assert(step_at + l.bytes <= m->step_bytes);
    if (hidden != gpu_hidden(g)) memcpy(g->step_host, hidden, bytes);
    if (!is_there) gpu_step_fill(g->step_host + step_at, &l, b, &g->shape);
    e = begin(g, is_there ? bytes : step_at + l.bytes);
    if (!e) e = place_run(g, first, n, &s);
    if (!e) e = cudaMemcpyAsync(g->step_host, s.hidden, bytes, cudaMemcpyDeviceToHost, g->stream);
    if (!e) e = end(g);
    if (e) return e;
    g->generation = b->generation;
    if (hidden != gpu_hidden(g)) memcpy(hidden, g->step_host, bytes);
    return cudaSuccess;
}

int gpu_forward(gpu_place *g, size_t first, size_t n, const gpu_batch *b, float *hidden, pr_err *err)
{
    int rc;

    assert(b->n_tokens <= g->max_tokens && b->n_runs <= g->max_runs && first + n <= g->shape.n_layers);
    if (!n || !b->n_tokens) return PR_OK;
    if ((rc = check_here(g, err))) return rc;
    return check(g, transform(g, first, n, b, hidden), "computing layers", err);
}

static cudaError_t project(gpu_place *g, size_t n_rows)
{
    const gpu_shape *s = &g->shape;
    gpu_acts x = g->x;
    gpu_norm_args a = {.hidden = (float *)(void *)(g->memory + g->map.step),
                       .weight = g->output_norm,
                       .n_embd = s->n_embd,
                       .n_tokens = n_rows,
                       .eps = s->norm_eps};
    size_t bytes = n_rows * g->map.logits_stride * sizeof(float);
    cudaError_t e = begin(g, n_rows * s->n_embd * sizeof(float));

    x.kinds = 1u << gpu_act_for_type(g->output.type);
    if (!e) e = launch_norm(&a, &x, g->stream);
    if (!e) e = launch_matmul(&g->output, 1, &x, n_rows, g->memory + g->map.scratch, g->stream);
    if (!e && g->output_bias)
        e = launch_bias(g->output.out, g->output_bias, s->n_vocab, g->map.logits_stride, n_rows, g->stream);
    if (!e) e = cudaMemcpyAsync(g->logits_host, g->output.out, bytes, cudaMemcpyDeviceToHost, g->stream);
    return e ? e : end(g);
}

int gpu_project(gpu_place *g, const float *hidden, const int32_t *rows, size_t n_rows, float *logits,
                size_t logits_stride, pr_err *err)
{
    size_t n_embd = g->shape.n_embd, n_vocab = g->shape.n_vocab;
    int rc;

    assert(g->output.pack && n_rows <= g->max_out && logits_stride >= n_vocab);
    if (!n_rows) return PR_OK;
    if ((rc = check_here(g, err))) return rc;
    for (size_t i = 0; i < n_rows; i++) /* moved to the front, where they may have been behind */
        memmove(gpu_hidden(g) + i * n_embd, hidden + (size_t)rows[i] * n_embd, n_embd * sizeof *hidden);
    g->generation = 0; /* more rows than the batch has tokens may stand on it */
    if ((rc = check(g, project(g, n_rows), "computing logits", err))) return rc;
    for (size_t i = 0; i < n_rows; i++)
        memcpy(logits + i * logits_stride, g->logits_host + i * g->map.logits_stride,
               n_vocab * sizeof *logits);
    return PR_OK;
}
