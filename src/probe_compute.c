/* Rates of products, measured with the kernels and the loop that the runtime uses.
 *
 * For each weight type the distinct matrix shapes are packed into one region, again and again until it is
 * larger than the caches hold: with few tokens the weights then come from memory, as they do in a pass
 * through a model. Sixteen rows are read from the file and repeated: a product's time does not depend on the
 * values. Quantising the input rows is left out, it is under a hundredth of a product. */
#include "src/base/clock.h"
#include "src/base/log.h"
#include "src/model/exec.h"
#include "src/probe.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_SHAPES = 64,
    MAX_MATRICES = 4096,
    MAX_TOKENS = 512,
    MAX_ROWS = 8192, /* a taller matrix is cut: more rows are more of the same */
    MIN_ROWS = 512,
    REPS = 5
};
#define MIN_WORKING_SET ((size_t)64 << 20)
#define MAX_WORKING_SET ((size_t)1 << 30)

static const uint32_t batches[] = {1, 2, 4, 8, 16, 64, 512};
enum { N_BATCHES = sizeof batches / sizeof *batches };

typedef struct {
    uint32_t type;
    size_t n_rows, n_cols;
    const uint8_t *rows; /* at least min(n_rows, 16) rows in file layout */
} shape;

typedef struct {
    size_t n;
    shape s[MAX_SHAPES];
    uint8_t *made[MAX_SHAPES]; /* rows of our own, of the usual shapes */
} shape_list;

typedef struct {
    exec e;
    kernel_table k;
    pool *pool;
    acts x;
    float *out;
    mem_region weights;
    matrix *m;
    size_t n, next;
} rig;

/* --- shapes --------------------------------------------------------------------------------------- */
static void add_shape(shape_list *l, uint32_t type, size_t n_rows, size_t n_cols, const void *rows)
{
    if (n_rows > MAX_ROWS) n_rows = MAX_ROWS;
    for (size_t i = 0; i < l->n; i++)
        if (l->s[i].type == type && l->s[i].n_rows == n_rows && l->s[i].n_cols == n_cols) return;
    if (l->n < MAX_SHAPES) l->s[l->n++] = (shape){type, n_rows, n_cols, rows};
}

static void add_tensor(shape_list *l, const gguf_tensor *t)
{
    add_shape(l, t->type, (size_t)t->ne[1], (size_t)t->ne[0], t->data);
}

static void model_shapes(shape_list *l, const hparams *hp)
{
    for (uint32_t il = 0; il < hp->n_layers; il++) {
        const layer_tensors *t = &hp->layer[il];
        const gguf_tensor *const all[] = {t->attn_q,   t->attn_k, t->attn_v,  t->attn_output,
                                          t->ffn_gate, t->ffn_up, t->ffn_down};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) add_tensor(l, all[i]);
    }
    add_tensor(l, hp->output);
}

static int usual_shapes(shape_list *l, pr_err *err)
{
    static const uint32_t types[] = {Q_Q4_K, Q_Q6_K, Q_Q8_0, Q_F16};
    static const size_t n_rows[] = {4096, 14336}, n_cols = 4096;
    float x[4096];

    for (size_t i = 0; i < n_cols; i++) x[i] = (float)((i * 7919 + 17) % 1000) / 1000 - 0.5f;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        size_t row_bytes = quant_row_bytes(types[t], n_cols);
        uint8_t *rows = malloc(row_bytes * PACK_ROWS);
        if (!rows) return pr_fail(err, PR_ERESOURCE, "out of memory");
        l->made[t] = rows;
        for (size_t r = 0; r < PACK_ROWS; r++) quant_quantize(types[t], x, rows + r * row_bytes, n_cols);
        for (size_t i = 0; i < 2; i++) add_shape(l, types[t], n_rows[i], n_cols, rows);
    }
    return PR_OK;
}

static void shapes_free(shape_list *l)
{
    for (size_t i = 0; i < MAX_SHAPES; i++) free(l->made[i]);
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
static size_t lay_out(const shape_list *l, uint32_t type, size_t working_set, matrix *m, uint8_t *base,
                      size_t *n)
{
    size_t bytes = 0, count = 0;

    do {
        for (size_t i = 0; i < l->n && count < MAX_MATRICES; i++) {
            const shape *s = &l->s[i];
            if (s->type != type) continue;
            if (m) {
                m[count] = (matrix){type, s->n_rows, s->n_cols, base + bytes};
                fill_matrix(s, base + bytes);
            }
            bytes += MEM_ALIGN_UP(pack_bytes(type, s->n_rows, s->n_cols), (size_t)64);
            count++;
        }
    } while (bytes < working_set && count < MAX_MATRICES);
    *n = count;
    return bytes;
}

static int load_type(rig *r, const shape_list *l, uint32_t type, size_t working_set, pr_err *err)
{
    size_t bytes = lay_out(l, type, working_set, NULL, NULL, &r->n);

    if (mem_region_new(&r->weights, bytes))
        return pr_fail_errno(err, PR_ERESOURCE, "no memory (%zu bytes) to measure products of %s", bytes,
                             quant_info(type)->name);
    r->m = calloc(r->n, sizeof *r->m);
    if (!r->m) return pr_fail(err, PR_ERESOURCE, "out of memory");
    lay_out(l, type, working_set, r->m, r->weights.p, &r->n);
    r->next = 0;
    return PR_OK;
}

static void unload_type(rig *r)
{
    mem_region_free(&r->weights);
    free(r->m);
    r->m = NULL;
}

/* --- the rig ---------------------------------------------------------------------------------------- */
static int fill_inputs(rig *r, pr_err *err)
{
    float *x = malloc(r->x.n_cols * sizeof *x);

    if (!x) return pr_fail(err, PR_ERESOURCE, "out of memory");
    for (size_t i = 0; i < r->x.n_cols; i++) x[i] = (float)((i * 104729 + 7) % 2000) / 1000 - 1;
    for (int kind = 0; kind < ACT_COUNT; kind++)
        for (size_t t = 0; t < MAX_TOKENS; t++)
            r->k.quantize[kind](r->x.row[kind] + t * r->x.stride[kind], x, r->x.n_cols);
    free(x);
    return PR_OK;
}

static int rig_new(rig *r, const shape_list *l, int n_threads, pr_err *err)
{
    static const hparams any_heads = {.head_size = 128, .n_heads = 32, .n_kv_heads = 8};
    size_t most_cols = 0;
    int rc;

    kernels_init(&r->k, cpu_features());
    for (size_t i = 0; i < l->n; i++)
        if (l->s[i].n_cols > most_cols) most_cols = l->s[i].n_cols;
    /* Blocks of a row follow each other, so shorter matrices read the beginning of the same rows. */
    most_cols = MEM_ALIGN_UP(most_cols, (size_t)256);
    if ((rc = pool_new(&r->pool, n_threads, err)) ||
        (rc = exec_init(&r->e, &r->k, r->pool, &any_heads, MAX_TOKENS, err)) ||
        (rc = acts_init(&r->x, most_cols, MAX_TOKENS, err)))
        return rc;
    r->out = mem_alloc_aligned((size_t)MAX_TOKENS * MAX_ROWS * sizeof *r->out);
    if (!r->out) return pr_fail(err, PR_ERESOURCE, "out of memory");
    return fill_inputs(r, err);
}

static void rig_free(rig *r)
{
    unload_type(r);
    acts_clear(&r->x);
    exec_clear(&r->e);
    mem_free_aligned(r->out);
    pool_free(r->pool);
}

/* --- timing ----------------------------------------------------------------------------------------- */
/* One matrix after the other for at least `ms`; gflops. */
static double run_for(rig *r, size_t n_tokens, size_t max_rows, double ms)
{
    uint64_t start = clock_ns();
    double flop = 0, spent;

    do {
        matrix m = r->m[r->next++ % r->n];
        product p = {.m = &m, .x = &r->x, .out = r->out, .out_stride = MAX_ROWS};
        if (m.n_rows > max_rows) m.n_rows = max_rows;
        products_run(&r->e, &p, 1, n_tokens);
        flop += 2.0 * (double)m.n_rows * (double)m.n_cols * (double)n_tokens;
        spent = clock_ms_since(start);
    } while (spent < ms);
    return flop / (spent * 1e6);
}

/* So few rows that a product at this rate takes about `ms`: a slow CPU must not hold the command up. */
static size_t rows_within(const rig *r, size_t n_tokens, double gflops, double ms)
{
    size_t most_cols = 1;
    double rows;

    for (size_t i = 0; i < r->n; i++)
        if (r->m[i].n_cols > most_cols) most_cols = r->m[i].n_cols;
    rows = gflops * ms * 1e6 / (2.0 * (double)most_cols * (double)n_tokens);
    if (rows >= MAX_ROWS) return MAX_ROWS;
    return rows <= MIN_ROWS ? MIN_ROWS : (size_t)rows / PACK_ROWS * PACK_ROWS;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure_type(rig *r, profile *p, uint32_t type, double ms)
{
    double last = 0;

    for (size_t b = 0; b < N_BATCHES && p->n_compute < PROFILE_MAX_COMPUTE; b++) {
        profile_compute *c = &p->compute[p->n_compute++];
        double slice = ms / N_BATCHES / (REPS + 1), rate[REPS];
        size_t rows = last > 0 ? rows_within(r, batches[b], last, slice) : MAX_ROWS;

        log_progress("products: %s, %u tokens", quant_info(type)->name, batches[b]);
        run_for(r, batches[b], rows, slice);
        for (size_t i = 0; i < REPS; i++) rate[i] = run_for(r, batches[b], rows, slice);
        qsort(rate, REPS, sizeof *rate, rising);
        last = rate[REPS / 2];
        *c = (profile_compute){.gpu = -1,
                               .batch = batches[b],
                               .gflops = last,
                               .spread_pct = 100 * (rate[REPS - 1] - rate[0]) / last};
        snprintf(c->type, sizeof c->type, "%s", quant_info(type)->name);
    }
}

static size_t working_set_bytes(int n_threads)
{
    size_t want = 2 * probe_cache_bytes(n_threads), room = (size_t)mem_available_bytes() / 4;

    if (want < MIN_WORKING_SET) want = MIN_WORKING_SET;
    if (want > MAX_WORKING_SET) want = MAX_WORKING_SET;
    return room && want > room ? room : want;
}

static int measure_all(rig *r, profile *p, const shape_list *l, int n_threads, double seconds, pr_err *err)
{
    size_t working_set = working_set_bytes(n_threads), n_types = 0;
    bool present[Q_TYPE_COUNT] = {false};

    for (size_t i = 0; i < l->n; i++) {
        n_types += !present[l->s[i].type];
        present[l->s[i].type] = true;
    }
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        int rc;
        if (!present[type]) continue;
        if ((rc = load_type(r, l, type, working_set, err))) return rc;
        measure_type(r, p, type, seconds * 1e3 / (double)n_types);
        unload_type(r);
    }
    return PR_OK;
}

int probe_compute(profile *p, const hparams *hp, int n_threads, double seconds, pr_err *err)
{
    shape_list l = {0};
    rig r = {0};
    int rc = PR_OK;

    if (hp) model_shapes(&l, hp);
    else rc = usual_shapes(&l, err);
    if (!rc) rc = rig_new(&r, &l, n_threads, err);
    if (!rc) rc = measure_all(&r, p, &l, n_threads, seconds, err);
    log_progress("%s", "");
    rig_free(&r);
    shapes_free(&l);
    return rc;
}
