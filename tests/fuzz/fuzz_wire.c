/* Any bytes as the description of a micro-batch: refused, or inside every limit, and written again the same
 * bytes. The first eight bytes choose the limits and the shape of the frame; the rest is the description, in
 * a block of exactly its size. */
#include "kernels/kernels.h"
#include "src/run/wire.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SETTINGS = 8, MAX_BYTES = 1 << 16 };

static void must(bool ok)
{
    if (!ok) abort();
}

static wire_limits limits_of(const uint8_t *d)
{
    return (wire_limits){.n_embd = 1 + d[0] % 4,
                         .max_tokens = 1 + d[1],
                         .max_runs = 1 + d[2] % 32,
                         .max_out = 1 + d[3] % 32,
                         .n_pages = 1 + d[4],
                         .ctx = 1 + d[5] * 8,
                         .elem = FRAME_F32 + d[6] % 3};
}

static void check_run(const wire_limits *l, const batch_run *r)
{
    must(r->n > 0 && r->pos + r->n <= l->ctx);
    for (size_t i = 0; i * KV_PAGE < r->pos + r->n; i++)
        must(r->pages[i] >= 0 && (uint32_t)r->pages[i] < l->n_pages);
}

static void check(const wire_limits *l, const batch *b)
{
    size_t next = 0;

    must(!b->token && b->n_tokens > 0 && b->n_tokens <= l->max_tokens);
    must(b->n_runs > 0 && b->n_runs <= l->max_runs && b->n_out <= l->max_out);
    for (size_t i = 0; i < b->n_runs; i++) {
        must(b->run[i].first == next);
        check_run(l, &b->run[i]);
        next += b->run[i].n;
    }
    must(next == b->n_tokens);
    for (size_t i = 0; i < b->n_out; i++) {
        must(b->out[i] >= 0 && (size_t)b->out[i] < b->n_tokens);
        must(i == 0 || b->out[i] > b->out[i - 1]);
    }
}

/* There is one way to say a thing: what is written again is what came. */
static void check_again(const wire_limits *l, const batch *b, const parcel *x)
{
    parcel again = {.payload = calloc(1, wire_max_bytes(l))};

    must(again.payload != NULL);
    must(x->f.payload_bytes <= wire_max_bytes(l));
    wire_write(&again, l, b);
    must(again.f.payload_bytes == x->f.payload_bytes && again.f.extra == x->f.extra &&
         again.f.rows == x->f.rows);
    must(!memcmp(again.payload, x->payload, x->f.payload_bytes));
    free(again.payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    wire_limits l;
    wire_batch w;
    uint32_t rows, matrix;
    parcel x = {0};
    pr_err err = {0};

    if (n < SETTINGS || n > MAX_BYTES) return 0;
    l = limits_of(data);
    rows = 1 + data[7];
    matrix = frame_matrix_bytes((uint16_t)l.elem, rows, l.n_embd);
    n -= SETTINGS;
    x.f = (frame){.type = FRAME_PASS,
                  .rows = rows,
                  .cols = l.n_embd,
                  .elem = (uint16_t)l.elem,
                  .extra = (uint32_t)n,
                  .payload_bytes = matrix + (uint32_t)n};
    x.payload = calloc(1, x.f.payload_bytes);
    must(x.payload && !wire_batch_init(&w, &l, &err));
    memcpy(x.payload + matrix, data + SETTINGS, n);
    if (wire_read(&w, &l, &x, &err)) must(err.code == PR_EPEER && *err.msg);
    else {
        check(&l, &w.b);
        check_again(&l, &w.b, &x);
    }
    wire_batch_clear(&w);
    free(x.payload);
    return 0;
}
