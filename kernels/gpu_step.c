/* The arrays of a step, made on the host; see gpu_step.h. */
#include "kernels/gpu_step.h"
#include "kernels/gpu_tiles.h"
#include <assert.h>
#include <string.h>

enum { STEP_ALIGN = 16, SPAN_PAGES = (int)GPU_ATTN_SPAN / (int)KV_PAGE };

size_t gpu_step_bucket(size_t n_positions, size_t max_spans)
{
    size_t spans = 1, needed = (n_positions + GPU_ATTN_SPAN - 1) / GPU_ATTN_SPAN;

    while (spans < needed) spans *= 2;
    return spans < max_spans ? spans : max_spans;
}

static size_t take(gpu_step_layout *l, size_t n, size_t size)
{
    size_t at = l->bytes;

    l->bytes += (n * size + STEP_ALIGN - 1) / STEP_ALIGN * STEP_ALIGN;
    return at;
}

static void place(gpu_step_layout *l, size_t n_rot)
{
    l->pos = take(l, l->n_tokens, sizeof(int32_t));
    l->page = take(l, l->n_tokens, sizeof(int32_t));
    l->run = take(l, l->n_tokens, sizeof(int32_t));
    l->tile = take(l, l->n_tiles * GPU_TILE_FIELDS, sizeof(int32_t));
    l->first = take(l, l->n_runs, sizeof(int32_t));
    l->pages = take(l, l->n_runs * l->page_stride, sizeof(int32_t));
    l->rope = take(l, l->n_tokens * n_rot, sizeof(float));
}

static size_t group_of(const gpu_shape *s)
{
    return s->n_heads / s->n_kv_heads;
}

size_t gpu_step_most_bytes(const gpu_shape *s, size_t max_tokens, size_t max_runs, size_t max_pages)
{
    gpu_step_layout l = {.n_tokens = max_tokens,
                         .n_runs = max_runs,
                         .n_tiles = gpu_tiles_most(max_tokens, max_runs, group_of(s)),
                         .page_stride = max_pages};

    place(&l, s->n_rot);
    return l.bytes;
}

gpu_step_layout gpu_step_layout_of(const gpu_batch *b, const gpu_shape *s, size_t max_pages, size_t max_spans)
{
    gpu_step_layout l = {.n_tokens = b->n_tokens, .n_runs = b->n_runs};
    size_t longest = 0, longest_single = 0;

    for (size_t i = 0; i < b->n_runs; i++) {
        const gpu_run *r = &b->run[i];
        if (r->pos + r->n > longest) longest = r->pos + r->n;
        if (r->n == 1 && r->pos >= longest_single) longest_single = r->pos + 1;
        l.n_single += r->n == 1;
    }
    l.is_decoding = l.n_single == b->n_runs;
    if (l.n_single) l.single_bucket = gpu_step_bucket(longest_single, max_spans);
    l.n_tiles = gpu_tiles_cut(NULL, b->run, b->n_runs, group_of(s));
    l.bucket = gpu_step_bucket(longest, max_spans);
    l.page_stride = l.bucket * SPAN_PAGES < max_pages ? l.bucket * SPAN_PAGES : max_pages;
    assert(longest <= max_pages * KV_PAGE);
    place(&l, s->n_rot);
    return l;
}

void gpu_step_fill(void *at, const gpu_step_layout *l, const gpu_batch *b, const gpu_shape *s)
{
    uint8_t *to = at;
    int32_t *pos = (int32_t *)(void *)(to + l->pos), *page = (int32_t *)(void *)(to + l->page),
            *run = (int32_t *)(void *)(to + l->run), *first = (int32_t *)(void *)(to + l->first),
            *pages = (int32_t *)(void *)(to + l->pages);

    for (size_t i = 0; i < b->n_runs; i++) {
        const gpu_run *r = &b->run[i];
        size_t n_pages = (r->pos + r->n + KV_PAGE - 1) / KV_PAGE;
        for (size_t t = 0; t < r->n; t++) {
            pos[r->first + t] = (int32_t)(r->pos + t);
            page[r->first + t] = r->pages[(r->pos + t) / KV_PAGE];
            run[r->first + t] = (int32_t)i;
        }
        first[i] = (int32_t)r->first;
        memcpy(pages + i * l->page_stride, r->pages, n_pages * sizeof *pages);
        memset(pages + i * l->page_stride + n_pages, 0, (l->page_stride - n_pages) * sizeof *pages);
    }
    gpu_tiles_cut((int32_t *)(void *)(to + l->tile), b->run, b->n_runs, group_of(s));
    memcpy(to + l->rope, b->rope, b->n_tokens * s->n_rot * sizeof(float));
}
