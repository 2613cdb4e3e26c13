/* Attention in NEON: the text is kernels/vec/attention.h. */
/* The words first, then the text. */
#include "kernels/neon/vec.h"

#include "kernels/vec/attention.h"
