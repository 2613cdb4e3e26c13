/* Micro-batches as frames; see wire.h. */
#include "src/run/wire.h"
#include "kernels/kernels.h"
#include "kernels/quant.h"
#include "src/base/bytes.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hidden states travel as they lie in memory");

static size_t table_pages(size_t n_positions)
{
    return (n_positions + KV_PAGE - 1) / KV_PAGE;
}

static size_t max_extra(const wire_limits *l)
{
    return 4 * (2 + (size_t)l->max_runs * (2 + table_pages(l->ctx)) + l->max_out);
}

size_t wire_max_bytes(const wire_limits *l)
{
    return frame_matrix_bytes((uint16_t)l->elem, l->max_tokens, l->n_embd) + max_extra(l);
}

int wire_batch_init(wire_batch *w, const wire_limits *l, pr_err *err)
{
    *w = (wire_batch){.max_table = table_pages(l->ctx)};
    w->run = calloc(l->max_runs, sizeof *w->run);
    w->pages = calloc(l->max_runs * w->max_table, sizeof *w->pages);
    w->out = calloc((size_t)l->max_out + 1, sizeof *w->out);
    if (w->run && w->pages && w->out) return PR_OK;
    wire_batch_clear(w);
    return pr_fail(err, PR_ERESOURCE, "out of memory");
}

void wire_batch_clear(wire_batch *w)
{
    free(w->run);
    free(w->pages);
    free(w->out);
    *w = (wire_batch){0};
}

/* --- reading --------------------------------------------------------------------------------------- */
static int malformed(pr_err *err, const char *what, uint64_t found, uint64_t limit)
{
    return pr_fail(err, PR_EPEER, "malformed micro-batch: %s %llu, expected at most %llu", what,
                   (unsigned long long)found, (unsigned long long)limit);
}

static int read_runs(wire_batch *w, const wire_limits *l, bytes *in, pr_err *err)
{
    size_t n_tokens = 0, n_pages = 0;

    for (size_t i = 0; i < w->b.n_runs; i++) {
        batch_run *r = &w->run[i];
        uint32_t n = bytes_u32(in), pos = bytes_u32(in);
        if (!n || n > w->b.n_tokens - n_tokens)
            return malformed(err, "tokens of a run", n, w->b.n_tokens - n_tokens);
        if (pos > l->ctx || n > l->ctx - pos) return malformed(err, "position", (uint64_t)pos + n, l->ctx);
        *r = (batch_run){.first = n_tokens, .n = n, .pos = pos, .pages = w->pages + n_pages};
        n_tokens += n;
        n_pages += table_pages((size_t)pos + n);
    }
    if (n_tokens != w->b.n_tokens) return malformed(err, "runs cover tokens", n_tokens, w->b.n_tokens);
    for (size_t i = 0; i < n_pages; i++) {
        uint32_t page = bytes_u32(in);
        if (page >= l->n_pages) return malformed(err, "page", page, l->n_pages - 1);
        w->pages[i] = (int32_t)page;
    }
    return PR_OK;
}

static int read_out(wire_batch *w, const wire_limits *l, bytes *in, pr_err *err)
{
    w->b.n_out = bytes_left(in) / 4;
    if (w->b.n_out > l->max_out) return malformed(err, "rows wanted", w->b.n_out, l->max_out);
    for (size_t i = 0; i < w->b.n_out; i++) {
        uint32_t row = bytes_u32(in);
        if (row >= w->b.n_tokens) return malformed(err, "row", row, w->b.n_tokens - 1);
        if (i && (int32_t)row <= w->out[i - 1]) return malformed(err, "row after a later one:", row, row);
        w->out[i] = (int32_t)row;
    }
    return PR_OK;
}

int wire_read(wire_batch *w, const wire_limits *l, const parcel *x, pr_err *err)
{
    bytes in = bytes_of(x->payload + (x->f.payload_bytes - x->f.extra), x->f.extra);
    int rc;

    w->b = (batch){.run = w->run, .out = w->out};
    w->b.n_runs = bytes_u32(&in);
    w->b.n_tokens = bytes_u32(&in);
    if (x->f.cols != l->n_embd || x->f.elem != l->elem)
        return pr_fail(err, PR_EPEER,
                       "malformed micro-batch: rows of %u elements of type %u, expected %u of %u", x->f.cols,
                       x->f.elem, l->n_embd, l->elem);
    if (w->b.n_tokens != x->f.rows) return malformed(err, "tokens", w->b.n_tokens, x->f.rows);
    if (w->b.n_tokens > l->max_tokens) return malformed(err, "tokens", w->b.n_tokens, l->max_tokens);
    if (!w->b.n_runs || w->b.n_runs > l->max_runs) return malformed(err, "runs", w->b.n_runs, l->max_runs);
    if ((rc = read_runs(w, l, &in, err)) || (rc = read_out(w, l, &in, err))) return rc;
    if (!bytes_ok(&in) || bytes_left(&in))
        return pr_fail(err, PR_EPEER, "malformed micro-batch: its description of %u bytes ends %s",
                       x->f.extra, bytes_ok(&in) ? "late" : "early");
    return PR_OK;
}

/* --- writing ----------------------------------------------------------------------------------------- */
static uint8_t *put(uint8_t *at, size_t v)
{
    assert(v <= UINT32_MAX);
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(v >> (8 * i));
    return at + 4;
}

void wire_write(parcel *x, const wire_limits *l, const batch *b)
{
    uint32_t matrix = frame_matrix_bytes((uint16_t)l->elem, (uint32_t)b->n_tokens, l->n_embd);
    uint8_t *at = x->payload + matrix;

    at = put(at, b->n_runs);
    at = put(at, b->n_tokens);
    for (size_t i = 0; i < b->n_runs; i++) {
        at = put(at, b->run[i].n);
        at = put(at, b->run[i].pos);
    }
    for (size_t i = 0; i < b->n_runs; i++) {
        size_t n = table_pages(b->run[i].pos + b->run[i].n);
        for (size_t j = 0; j < n; j++) at = put(at, (size_t)b->run[i].pages[j]);
    }
    for (size_t i = 0; i < b->n_out; i++) at = put(at, (size_t)b->out[i]);
    x->f.rows = (uint32_t)b->n_tokens;
    x->f.cols = l->n_embd;
    x->f.elem = (uint16_t)l->elem;
    x->f.extra = (uint32_t)(at - x->payload) - matrix;
    x->f.payload_bytes = matrix + x->f.extra;
}

void wire_write_last(parcel *x, const wire_limits *l, size_t n_rows)
{
    x->f.rows = (uint32_t)n_rows;
    x->f.cols = n_rows ? l->n_embd : 0;
    x->f.elem = (uint16_t)(n_rows ? l->elem : FRAME_NO_ELEM);
    x->f.extra = 0;
    x->f.payload_bytes = n_rows ? frame_matrix_bytes((uint16_t)l->elem, (uint32_t)n_rows, l->n_embd) : 0;
}

/* --- hidden states ----------------------------------------------------------------------------------- */
static uint16_t f32_to_bf16(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void wire_pack(void *dst, const float *src, size_t n, frame_elem elem)
{
    uint16_t *half = dst;

    if (elem == FRAME_F32) {
        if (dst != (const void *)src) memcpy(dst, src, n * sizeof *src);
    } else if (elem == FRAME_F16) {
        for (size_t i = 0; i < n; i++) half[i] = quant_f32_to_f16(src[i]);
    } else {
        for (size_t i = 0; i < n; i++) half[i] = f32_to_bf16(src[i]);
    }
}

void wire_unpack(float *dst, const void *src, size_t n, frame_elem elem)
{
    const uint16_t *half = src;

    if (elem == FRAME_F32) {
        if (src != (const void *)dst) memcpy(dst, src, n * sizeof *dst);
    } else if (elem == FRAME_F16) {
        for (size_t i = 0; i < n; i++) dst[i] = quant_f16_to_f32(half[i]);
    } else {
        for (size_t i = 0; i < n; i++) dst[i] = quant_bf16_to_f32(half[i]);
    }
}
