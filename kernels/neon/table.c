/* What neon brings to the table of kernels. */
#include "kernels/isa.h"

void kernels_add_neon(kernel_table *k)
{
    neon_add_products(k);
    neon_add_ops(k);
}
