/* Norm, rotary embedding, gate, add and KV store in NEON: the text is kernels/vec/ops.h. */
#include "kernels/isa.h"
/* The words first, then the text. */
#include "kernels/neon/vec.h"

#include "kernels/vec/ops.h"

void neon_add_ops(kernel_table *k)
{
    add_vec_ops(k);
}
