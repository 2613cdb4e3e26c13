/* kernels/neon/q8_0.c with smmla: see kernels/neon/product.h. */
#include "kernels/neon/q8_0.c"
