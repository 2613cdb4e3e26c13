/* kernels/neon/q6_k.c with smmla: see kernels/neon/product.h. */
#include "kernels/neon/q6_k.c"
