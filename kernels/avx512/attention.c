/* Attention in AVX-512: the text is kernels/vec/attention.h. */
/* The words first, then the text. */
#include "kernels/avx512/vec.h"

#include "kernels/vec/attention.h"
