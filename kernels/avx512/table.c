/* What avx512 brings to the table of kernels. */
#include "kernels/isa.h"

void kernels_add_avx512(kernel_table *k)
{
    avx512_add_products(k);
    avx512_add_ops(k);
}
