/* kernels/neon/via8.c with smmla: see kernels/neon/product.h. */
#include "kernels/neon/via8.c"
