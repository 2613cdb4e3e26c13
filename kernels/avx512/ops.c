/* Norm, rotary embedding, gate, add and KV store in AVX-512: the text is kernels/vec/ops.h. */
#include "kernels/isa.h"
/* The words first, then the text. */
#include "kernels/avx512/vec.h"

#include "kernels/vec/ops.h"

void avx512_add_ops(kernel_table *k)
{
    add_vec_ops(k);
}
