/* See product_rig.h.
 *
 * For each weight type the distinct matrix shapes are packed into one region, again and again until it is
 * larger than the caches hold: with few tokens the weights then come from memory, as they do in a pass
 * through a model. Sixteen rows are read from the file and repeated: a product's time does not depend on the
 * values. Quantising the input rows is left out, it is under a hundredth of a product. */
#include "src/product_rig.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/model/exec.h"
#include "src/probe.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_SHAPES = 64, MAX_MATRICES = 4096, MIN_ROWS = 512 };
#define MIN_WORKING_SET ((size_t)64 << 20)
#define MAX_WORKING_SET ((size_t)1 << 30)

typedef struct {
    uint32_t type;
    size_t n_rows, n_cols;
    const uint8_t *rows; /* at least min(n_rows, 16) rows in file layout */
} shape;

struct product_rig {
    size_t n_shapes, working_set;
    shape shape[MAX_SHAPES];
    uint8_t *made[MAX_SHAPES];  /* rows of our own, of the usual shapes */
    double bytes[Q_TYPE_COUNT]; /* of the model's weights by type */
    exec e;
    kernel_table k;
    pool *pool;
    acts x;
    float *out;
    mem_region weights;
    matrix *m;
    size_t n, next;
};

/* --- shapes --------------------------------------------------------------------------------------- */
static void add_shape(product_rig *r, uint32_t type, size_t n_rows, size_t n_cols, const void *rows)
{
    r->bytes[type] += (double)n_rows * (double)quant_row_bytes(type, n_cols);
    if (n_rows > RIG_MAX_ROWS) n_rows = RIG_MAX_ROWS;
    for (size_t i = 0; i < r->n_shapes; i++)
        if (r->shape[i].type == type && r->shape[i].n_rows == n_rows && r->shape[i].n_cols == n_cols) return;
    if (r->n_shapes < MAX_SHAPES) r->shape[r->n_shapes++] = (shape){type, n_rows, n_cols, rows};
}

static void add_tensor(product_rig *r, const gguf_tensor *t)
{
    add_shape(r, t->type, (size_t)t->ne[1], (size_t)t->ne[0], t->data);
}

static void model_shapes(product_rig *r, const hparams *hp)
{
    for (uint32_t il = 0; il < hp->n_layers; il++) {
        const layer_tensors *t = &hp->layer[il];
        const gguf_tensor *const all[] = {t->attn_q,   t->attn_k, t->attn_v,  t->attn_output,
                                          t->ffn_gate, t->ffn_up, t->ffn_down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) add_tensor(r, all[i]);
    }
    add_tensor(r, hp->output);
}

static int usual_shapes(product_rig *r, pr_err *err)
{
    static const uint32_t types[] = {Q_Q4_K, Q_Q6_K, Q_Q8_0, Q_F16};
    static const size_t n_rows[] = {4096, 14336}, n_cols = 4096;
    float x[4096];

    for (size_t i = 0; i < n_cols; i++) x[i] = (float)((i * 7919 + 17) % 1000) / 1000 - 0.5f;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        size_t row_bytes = quant_row_bytes(types[t], n_cols);
        uint8_t *rows = malloc(row_bytes * PACK_ROWS);
        if (!rows) return pr_fail(err, PR_ERESOURCE, "out of memory");
        r->made[t] = rows;
        for (size_t i = 0; i < PACK_ROWS; i++) quant_quantize(types[t], x, rows + i * row_bytes, n_cols);
        for (size_t i = 0; i < 2; i++) add_shape(r, types[t], n_rows[i], n_cols, rows);
        r->bytes[types[t]] = (double)(sizeof types / sizeof *types - t); /* the first is the usual one */
    }
    return PR_OK;
}

/* --- the rig ---------------------------------------------------------------------------------------- */
static int fill_inputs(product_rig *r, pr_err *err)
{
    float *x = malloc(r->x.n_cols * sizeof *x);

    if (!x) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < r->x.n_cols; i++) x[i] = (float)((i * 104729 + 7) % 2000) / 1000 - 1;
    for (int kind = 0; kind < ACT_COUNT; kind++)
        for (size_t t = 0; t < RIG_MAX_TOKENS; t++)
            r->k.quantize[kind](r->x.row[kind] + t * r->x.stride[kind], x, r->x.n_cols);
    free(x);
    return PR_OK;
}

static size_t working_set_bytes(int n_threads)
{
    size_t want = 2 * probe_cache_bytes(n_threads), room = (size_t)mem_available_bytes() / 4;

    if (want < MIN_WORKING_SET) want = MIN_WORKING_SET;
    if (want > MAX_WORKING_SET) want = MAX_WORKING_SET;
    return room && want > room ? room : want;
}

static int prepare(product_rig *r, int n_threads, pr_err *err)
{
    size_t most_cols = 0;
    int rc;

    kernels_init(&r->k, cpu_features());
    r->working_set = working_set_bytes(n_threads);
    for (size_t i = 0; i < r->n_shapes; i++)
        if (r->shape[i].n_cols > most_cols) most_cols = r->shape[i].n_cols;
    /* Blocks of a row follow each other, so shorter matrices read the beginning of the same rows. */
    most_cols = MEM_ALIGN_UP(most_cols, (size_t)256);
    if ((rc = pool_new(&r->pool, n_threads, err)) ||
        (rc = exec_init(&r->e, &r->k, r->pool, MATMUL_SCRATCH(RIG_MAX_TOKENS), err)) ||
        (rc = acts_init(&r->x, most_cols, RIG_MAX_TOKENS, err)))
        return rc;
    r->out = mem_alloc_aligned((size_t)RIG_MAX_TOKENS * RIG_MAX_ROWS * sizeof *r->out);
    if (!r->out) return pr_fail(err, PR_ERESOURCE, "out of memory");
    return fill_inputs(r, err);
}

int product_rig_new(product_rig **out, const hparams *hp, int n_threads, pr_err *err)
{
    product_rig *r = calloc(1, sizeof *r);
    int rc = PR_OK;

    if (!r) return pr_fail(err, PR_ERESOURCE, "out of memory");
    if (hp) model_shapes(r, hp);
    else rc = usual_shapes(r, err);
    if (!rc) rc = prepare(r, n_threads, err);
    if (rc) product_rig_free(r);
    else *out = r;
    return rc;
}

static void unload(product_rig *r)
{
    mem_region_free(&r->weights);
    free(r->m);
    r->m = NULL;
}

void product_rig_free(product_rig *r)
{
    if (!r) return;
    unload(r);
    acts_clear(&r->x);
    exec_clear(&r->e);
    mem_free_aligned(r->out);
    pool_free(r->pool);
    for (size_t i = 0; i < MAX_SHAPES; i++) free(r->made[i]);
    free(r);
}

bool product_rig_has(const product_rig *r, uint32_t type)
{
    return r->bytes[type] > 0;
}

uint32_t product_rig_main_type(const product_rig *r)
{
    uint32_t most = r->shape[0].type;

    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++)
        if (r->bytes[type] > r->bytes[most]) most = type;
    return most;
}

/* --- the matrices of one type ---------------------------------------------------------------------- */
static void fill_matrix(const shape *s, uint8_t *dst)
{
    size_t n_groups = pack_groups(s->n_rows), group_bytes = pack_bytes(s->type, PACK_ROWS, s->n_cols);
    size_t some = s->n_rows < PACK_ROWS ? s->n_rows : PACK_ROWS;

    pack_rows(s->type, dst, s->rows, some, s->n_cols, 0, 1);
    for (size_t g = 1; g < n_groups; g++) memcpy(dst + g * group_bytes, dst, group_bytes);
}

/* Matrices of this type up to the working set, every shape at least once; their bytes. With m NULL they are
 * only counted. */
static size_t lay_out(product_rig *r, uint32_t type, matrix *m, uint8_t *base)
{
    size_t bytes = 0, count = 0;

    do {
        for (size_t i = 0; i < r->n_shapes && count < MAX_MATRICES; i++) {
            const shape *s = &r->shape[i];
            if (s->type != type) continue;
            if (m) {
                m[count] =
                    (matrix){.type = type, .n_rows = s->n_rows, .n_cols = s->n_cols, .pack = base + bytes};
                fill_matrix(s, base + bytes);
            }
            bytes += MEM_ALIGN_UP(pack_bytes(type, s->n_rows, s->n_cols), (size_t)64);
            count++;
        }
    } while (bytes < r->working_set && count < MAX_MATRICES);
    r->n = count;
    return bytes;
}

int product_rig_load(product_rig *r, uint32_t type, pr_err *err)
{
    size_t bytes = lay_out(r, type, NULL, NULL);

    unload(r);
    if (mem_region_new(&r->weights, bytes))
        return pr_fail_errno(err, PR_ERESOURCE, "no memory (%zu bytes) to measure products of %s", bytes,
                             quant_info(type)->name);
    r->m = calloc(r->n, sizeof *r->m);
    if (!r->m) return pr_fail(err, PR_ERESOURCE, "out of memory");
    lay_out(r, type, r->m, r->weights.p);
    r->next = 0;
    return PR_OK;
}

/* --- timing ----------------------------------------------------------------------------------------- */
/* A slow CPU must not hold the command up. */
size_t product_rig_rows_within(const product_rig *r, size_t n_tokens, double gflops, double ms)
{
    size_t most_cols = 1;
    double rows;

    for (size_t i = 0; i < r->n; i++)
        if (r->m[i].n_cols > most_cols) most_cols = r->m[i].n_cols;
    rows = gflops * ms * 1e6 / (2.0 * (double)most_cols * (double)n_tokens);
    if (rows >= RIG_MAX_ROWS) return RIG_MAX_ROWS;
    return rows <= MIN_ROWS ? MIN_ROWS : (size_t)rows / PACK_ROWS * PACK_ROWS;
}

double product_rig_run(product_rig *r, size_t n_tokens, size_t max_rows, double ms)
{
    uint64_t start = clock_ns();
    double flop = 0, spent;

    do {
        matrix m = r->m[r->next++ % r->n];
        product p = {.m = &m, .x = &r->x, .out = r->out, .out_stride = RIG_MAX_ROWS};
        if (m.n_rows > max_rows) m.n_rows = max_rows;
        products_run(&r->e, &p, 1, n_tokens);
        flop += 2.0 * (double)m.n_rows * (double)m.n_cols * (double)n_tokens;
        spent = clock_ms_since(start);
    } while (spent < ms);
    return flop / (spent * 1e6);
}
