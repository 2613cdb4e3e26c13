/* Attention in AVX2: the text is kernels/vec/attention.h. */
/* The words first, then the text. */
#include "kernels/avx2/vec.h"

#include "kernels/vec/attention.h"
