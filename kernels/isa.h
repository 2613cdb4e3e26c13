/* What each instruction set's folder gives to kernels_init, which alone calls these. */
#ifndef PRIMA_KERNELS_ISA_H
#define PRIMA_KERNELS_ISA_H
#include "kernels/kernels.h"

/* Overwrite the entries that this instruction set does better; the others stay. Called only when the
 * feature bit is set, after all lower instruction sets. */
void kernels_add_avx2(kernel_table *k);    /* avx2/table.c */
void kernels_add_avxvnni(kernel_table *k); /* avx2/table.c: the same bits */
void kernels_add_avx512(kernel_table *k);  /* avx512/table.c */
void kernels_add_amx(kernel_table *k);     /* amx/products.c: the same bits */
void kernels_add_i8mm(kernel_table *k);    /* i8mm/products.c: the same bits */
void kernels_add_neon(kernel_table *k);    /* neon/table.c */

/* Their parts: products (matmul, quantize) and the other operations. */
void avx2_add_products(kernel_table *k);
void avx2_add_vnni_products(kernel_table *k);
void avx2_add_ops(kernel_table *k);
void avx512_add_products(kernel_table *k);
void avx512_add_ops(kernel_table *k);
void neon_add_products(kernel_table *k);
void neon_add_ops(kernel_table *k);

#endif
