/* Products over the thread pool: several matrices that share an input are one loop, so that a barrier is paid
 * once. */
#include "src/model/exec.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_PRODUCTS = 4 };

int exec_init(exec *e, const kernel_table *k, pool *p, size_t scratch_bytes, pr_err *err)
{
    *e = (exec){.k = k, .pool = p, .scratch_bytes = MEM_ALIGN_UP(scratch_bytes, (size_t)4096)};
    if (!scratch_bytes) return PR_OK;
    e->scratch = mem_alloc_aligned(e->scratch_bytes * (size_t)pool_threads(p));
    return e->scratch ? PR_OK : pr_fail(err, PR_ERESOURCE, "out of memory for work buffers");
}

void exec_clear(exec *e)
{
    mem_free_aligned(e->scratch);
    e->scratch = NULL;
}

int acts_init(acts *a, size_t n_cols, size_t max_tokens, pr_err *err)
{
    *a = (acts){.n_cols = n_cols};
    for (int kind = 0; kind < ACT_COUNT; kind++) {
        a->stride[kind] = act_row_bytes((act_kind)kind, n_cols);
        a->row[kind] = mem_alloc_aligned(a->stride[kind] * max_tokens);
        if (!a->row[kind]) {
            acts_clear(a);
            return pr_fail(err, PR_ERESOURCE, "out of memory for activations");
        }
    }
    return PR_OK;
}

void acts_clear(acts *a)
{
    for (int kind = 0; kind < ACT_COUNT; kind++) {
        mem_free_aligned(a->row[kind]);
        a->row[kind] = NULL;
    }
}

unsigned products_acts(const exec *e, const product *p, size_t n)
{
    unsigned kinds = 0;

    for (size_t i = 0; i < n; i++) kinds |= 1u << e->k->matmul_act[p[i].m->type];
    return kinds;
}

typedef struct {
    const exec *e;
    const product *p;
    size_t n, n_tokens;
    size_t chunk;                         /* groups of an item */
    size_t first_group[MAX_PRODUCTS + 1]; /* of each product in the common numbering; the last is the total */
} product_loop;

/* Groups [first, end) of a matrix whose group `origin` begins at pack; next: where the thread will go on, or
 * 0. */
static void multiply(const product_loop *l, const product *p, const void *pack, size_t origin, size_t first,
                     size_t end, size_t next, int thread)
{
    act_kind kind = l->e->k->matmul_act[p->m->type];
    matmul_args a = {.type = p->m->type,
                     .pack = pack,
                     .n_rows = p->m->n_rows - origin * PACK_ROWS,
                     .n_cols = p->m->n_cols,
                     .x = p->x->row[kind],
                     .x_stride = p->x->stride[kind],
                     .n_tokens = l->n_tokens,
                     .out = p->out + origin * PACK_ROWS,
                     .out_stride = p->out_stride,
                     .next_group = next};

    l->e->k->matmul[p->m->type](&a, first - origin, end - origin, exec_scratch(l->e, thread));
}

/* Where the matrix is in runs, each is taken when it is its turn, and given back: it may be waited for, and
 * its place is wanted for what comes later. */
static void run_groups(const product_loop *l, const product *p, size_t first, size_t end, size_t next,
                       int thread)
{
    const matrix *m = p->m;

    if (m->pack) multiply(l, p, m->pack, 0, first, end, next, thread);
    for (size_t i = 0; i < m->n_runs; i++) {
        const matrix_run *r = &m->run[i];
        size_t lo = first > r->group_first ? first : r->group_first,
               hi = end < r->group_end ? end : r->group_end;
        if (lo >= hi) continue;
        const uint8_t *groups = weights_take(m->w, r);
        if (!groups) continue;
        multiply(l, p, groups, r->group_first, lo, hi, 0, thread);
        weights_give(m->w, r, hi - lo);
    }
}

/* Threads of one speed take items in turn, so that of this thread's next item is known; a wrong guess costs
 * some useless reading. */
static void product_item(void *arg, size_t first, size_t end, int thread)
{
    const product_loop *l = arg;
    size_t next = first + l->chunk * (size_t)pool_threads(l->e->pool);

    for (size_t i = 0; i < l->n; i++) {
        size_t lo = first > l->first_group[i] ? first : l->first_group[i];
        size_t hi = end < l->first_group[i + 1] ? end : l->first_group[i + 1];
        if (lo >= hi) continue;
        run_groups(l, &l->p[i], lo - l->first_group[i], hi - l->first_group[i],
                   next < l->first_group[i + 1] ? next - l->first_group[i] : 0, thread);
    }
}

/* Groups a thread takes at a time: few enough for balance, enough that the counter costs nothing, and even,
 * because kernels take two groups at once. */
static size_t groups_per_item(size_t n_groups, int n_threads)
{
    size_t chunk = n_groups / ((size_t)n_threads * 8);
    return chunk < 2 ? 1 : chunk > 16 ? 16 : chunk / 2 * 2;
}

void products_run(const exec *e, const product *p, size_t n, size_t n_tokens)
{
    product_loop l = {.e = e, .p = p, .n = n, .n_tokens = n_tokens};

    for (size_t i = 0; i < n; i++) l.first_group[i + 1] = l.first_group[i] + pack_groups(p[i].m->n_rows);
    l.chunk = groups_per_item(l.first_group[n], pool_threads(e->pool));
    pool_run(e->pool, l.first_group[n], l.chunk, product_item, &l);
}
