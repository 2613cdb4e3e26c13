/* Matrix products set up to be timed: a model's matrices of one weight type, filled so that they come from
 * memory as in a pass through the model, and the kernels and the loop that the runtime uses. */
#ifndef PRIMA_PRODUCT_RIG_H
#define PRIMA_PRODUCT_RIG_H
#include "src/base/err.h"
#include "src/model/hparams.h"
#include <stdbool.h>

/* A taller matrix is cut: more rows are more of the same. */
enum { RIG_MAX_TOKENS = 512, RIG_MAX_ROWS = 8192 };

typedef struct product_rig product_rig;

/* The matrix types and shapes of the model, or, when hp is NULL, usual types on usual shapes. hp outlives the
 * rig. */
int product_rig_new(product_rig **out, const hparams *hp, int n_threads, pr_err *err);
void product_rig_free(product_rig *r); /* NULL is allowed */
bool product_rig_has(const product_rig *r, uint32_t type);
/* The type of most of its weights. */
uint32_t product_rig_main_type(const product_rig *r);

/* Fill in the matrices of one type, in the place of those before. */
int product_rig_load(product_rig *r, uint32_t type, pr_err *err);
/* So few rows that a product of n_tokens (<= RIG_MAX_TOKENS) at this rate takes about `ms`. */
size_t product_rig_rows_within(const product_rig *r, size_t n_tokens, double gflops, double ms);
/* One matrix after the other, at most max_rows of each, for at least `ms`; gflops. */
double product_rig_run(product_rig *r, size_t n_tokens, size_t max_rows, double ms);

#endif
