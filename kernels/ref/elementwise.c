/* Element by element: SiLU gate and residual add. */
#include "kernels/ref/ref.h"
#include <math.h>

void silu_mul_ref(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double g = gate[i];
        gate[i] =
            (float)(g / (1.0 + exp(-g)) * up[i]); /* exp may be infinite: then g / inf = -0, as it should */
    }
}

void add_f32_ref(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}
