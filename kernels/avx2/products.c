/* Which products and quantisers AVX2 brings. */
#include "kernels/avx2/rows.h"
#include "kernels/isa.h"

static void add_type(kernel_table *k, uint32_t type, matmul_fn fn, const char *path)
{
    k->matmul[type] = fn;
    k->matmul_act[type] = act_for_type(type);
    k->matmul_path[type] = path;
}

static const uint8_t blocks[] = {Q_Q4_0, Q_Q4_1, Q_Q5_0, Q_Q5_1, Q_Q8_0,   Q_Q2_K,
                                 Q_Q3_K, Q_Q4_K, Q_Q5_K, Q_Q6_K, Q_IQ4_NL, Q_IQ4_XS};
static const uint8_t grids[] = {Q_IQ1_S, Q_IQ1_M, Q_IQ2_XXS, Q_IQ2_XS, Q_IQ2_S, Q_IQ3_XXS, Q_IQ3_S};
static const uint8_t floats[] = {Q_F32, Q_F16, Q_BF16};

void avx2_add_products(kernel_table *k)
{
    for (size_t i = 0; i < sizeof floats; i++) add_type(k, floats[i], matmul_float_avx2, "avx2");
    for (size_t i = 0; i < sizeof blocks; i++) add_type(k, blocks[i], matmul_blocks_avx2, "avx2");
    for (size_t i = 0; i < sizeof grids; i++)
        add_type(k, grids[i], matmul_tile8_avx2, "avx2 via 8-bit unpack");
    k->quantize[ACT_Q8_256] = quantize_q8_256_avx2;
    k->quantize[ACT_Q8_32] = quantize_q8_32_avx2;
}

void avx2_add_vnni_products(kernel_table *k)
{
    for (size_t i = 0; i < sizeof blocks; i++) add_type(k, blocks[i], matmul_blocks_avxvnni, "avx2 vnni");
    for (size_t i = 0; i < sizeof grids; i++)
        add_type(k, grids[i], matmul_tile8_avxvnni, "avx2 vnni via 8-bit unpack");
}
