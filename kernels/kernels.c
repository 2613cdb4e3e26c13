/* The table of kernels: reference first, then overwritten by rising instruction set.
 *
 * The one place that chooses. With no feature at all everything is the reference, products by dequantised
 * rows; with any feature the activations of products are 8-bit, and what an instruction set does not bring
 * itself stays in portable C. */
#include "kernels/kernels.h"
#include "kernels/isa.h"
#include "kernels/ref/ref.h"
#include <string.h>

act_kind act_for_type(uint32_t type)
{
    const quant_type *t = quant_info(type);

    if (!t || t->block_values == 1) return ACT_F32;
    return t->block_values == 256 ? ACT_Q8_256 : ACT_Q8_32;
}

size_t act_row_bytes(act_kind kind, size_t n_cols)
{
    size_t bytes = kind == ACT_Q8_256  ? n_cols / 256 * sizeof(act_q8_256)
                   : kind == ACT_Q8_32 ? n_cols / 32 * sizeof(act_q8_32)
                                       : n_cols * sizeof(float);
    return ((bytes + 63) / 64 | 1) * 64;
}

static void add_ref(kernel_table *k)
{
    k->isa = "ref";
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (!quant_info(type)) continue;
        k->matmul[type] = matmul_f32_ref;
        k->matmul_act[type] = ACT_F32;
        k->matmul_path[type] = "ref f32";
    }
    k->quantize[ACT_F32] = quantize_f32_ref;
    k->quantize[ACT_Q8_256] = quantize_q8_256_ref;
    k->quantize[ACT_Q8_32] = quantize_q8_32_ref;
    k->rms_norm = rms_norm_ref;
    k->rope = rope_ref;
    k->silu_mul = silu_mul_ref;
    k->add = add_f32_ref;
    k->kv_put = kv_put_ref;
    k->attention = attention_ref;
}

/* What stands under every instruction set: the same products, bit for bit, in portable C. */
static void add_portable_products(kernel_table *k)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (!quant_info(type)) continue;
        k->matmul[type] = matmul_q8_ref;
        k->matmul_act[type] = act_for_type(type);
        k->matmul_path[type] = k->matmul_act[type] == ACT_F32 ? "portable f32" : "portable 8-bit";
    }
}

void kernels_init(kernel_table *k, unsigned features)
{
    memset(k, 0, sizeof *k);
    add_ref(k);
    if (features) add_portable_products(k);
#if defined(__x86_64__)
    if (features & CPU_AVX2) {
        kernels_add_avx2(k);
        if (features & CPU_AVXVNNI) kernels_add_avxvnni(k);
        k->isa = "avx2";
    }
    if (features & CPU_AVX512) {
        kernels_add_avx512(k);
        if (features & CPU_AMX) kernels_add_amx(k);
        k->isa = "avx512";
    }
#elif defined(__aarch64__)
    if (features & CPU_NEON) {
        kernels_add_neon(k);
        if (features & CPU_I8MM) kernels_add_i8mm(k);
        k->isa = "neon";
    }
#endif
}
