/* The product with tiles (AMX): the bits of every other 8-bit product. */
#ifndef PRIMA_KERNELS_AMX_MATMUL_H
#define PRIMA_KERNELS_AMX_MATMUL_H
#include "kernels/kernels.h"

void matmul_amx(const matmul_args *a, size_t group_first, size_t group_end, void *scratch);

#endif
