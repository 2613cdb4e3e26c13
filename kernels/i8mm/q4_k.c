/* kernels/neon/q4_k.c with smmla: see kernels/neon/product.h. */
#include "kernels/neon/q4_k.c"
