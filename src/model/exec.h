/* What computing needs: the threads, the kernels, and each thread's scratch. */
#ifndef PRIMA_MODEL_EXEC_H
#define PRIMA_MODEL_EXEC_H
#include "kernels/kernels.h"
#include "src/base/pool.h"
#include "src/model/weights.h"

typedef struct {
    const kernel_table *k;
    pool *pool;
    uint8_t *scratch; /* pool_threads() x scratch_bytes, 64-byte aligned */
    size_t scratch_bytes;
} exec;

/* scratch_bytes: that a kernel needs at most; 0: none is called that needs some. */
int exec_init(exec *e, const kernel_table *k, pool *p, size_t scratch_bytes, pr_err *err);
void exec_clear(exec *e);
static inline void *exec_scratch(const exec *e, int thread)
{
    return e->scratch + (size_t)thread * e->scratch_bytes;
}

/* Activation rows of one input in the kinds that its products want; filled by acts_prepare. */
typedef struct {
    uint8_t *row[ACT_COUNT]; /* [max_tokens] rows of stride[kind] bytes */
    size_t stride[ACT_COUNT];
    size_t n_cols;
} acts;

int acts_init(acts *a, size_t n_cols, size_t max_tokens, pr_err *err);
void acts_clear(acts *a);

/* One product: out[t * out_stride + row] for all rows of m. */
typedef struct {
    const matrix *m;
    const acts *x;
    float *out;
    size_t out_stride; /* >= rows rounded up to PACK_ROWS */
} product;

/* Kinds of activation that these products read, as a bit mask over act_kind. */
unsigned products_acts(const exec *e, const product *p, size_t n);
/* All products in one parallel loop over their row groups; their inputs are prepared already. */
void products_run(const exec *e, const product *p, size_t n, size_t n_tokens);

#endif
