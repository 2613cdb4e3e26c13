/* Which product of NEON serves which type. */
#include "kernels/isa.h"
#include "kernels/neon/product.h"

static void add(kernel_table *k, uint32_t type, matmul_fn fn, const char *path)
{
    k->matmul[type] = fn;
    k->matmul_path[type] = path;
}

void neon_add_products(kernel_table *k)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (unpack8_info(type)) add(k, type, matmul_via8_neon, "neon via 8-bit unpack");
        else if (quant_info(type)) add(k, type, matmul_float_neon, "neon");
    }
    add(k, Q_Q4_K, matmul_q4_k_neon, "neon");
    add(k, Q_Q6_K, matmul_q6_k_neon, "neon");
    add(k, Q_Q8_0, matmul_q8_0_neon, "neon");
    k->quantize[ACT_Q8_256] = quantize_q8_256_neon;
    k->quantize[ACT_Q8_32] = quantize_q8_32_neon;
}
