/* Norm, rotary embedding, gate, add and KV store in AVX2: the text is kernels/vec/ops.h. */
#include "kernels/isa.h"
/* The words first, then the text. */
#include "kernels/avx2/vec.h"

#include "kernels/vec/ops.h"

void avx2_add_ops(kernel_table *k)
{
    add_vec_ops(k);
}
