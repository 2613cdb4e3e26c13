/* Which products go by smmla on CPUs that have it; quantisers and all else stay NEON's. */
#include "kernels/isa.h"
#include "kernels/neon/product.h"

static void add(kernel_table *k, uint32_t type, matmul_fn fn, const char *path)
{
    k->matmul[type] = fn;
    k->matmul_path[type] = path;
}

void kernels_add_i8mm(kernel_table *k)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (unpack8_info(type)) add(k, type, matmul_via8_i8mm, "neon i8mm via 8-bit unpack");
    }
    add(k, Q_Q4_K, matmul_q4_k_i8mm, "neon i8mm");
    add(k, Q_Q6_K, matmul_q6_k_i8mm, "neon i8mm");
    add(k, Q_Q8_0, matmul_q8_0_i8mm, "neon i8mm");
}
