/* What avx2 brings to the table of kernels. */
#include "kernels/isa.h"

void kernels_add_avx2(kernel_table *k)
{
    avx2_add_products(k);
    avx2_add_ops(k);
}

void kernels_add_avxvnni(kernel_table *k)
{
    avx2_add_vnni_products(k);
}
