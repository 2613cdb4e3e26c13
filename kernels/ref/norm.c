/* RMS norm in double: x / sqrt(mean(x^2) + eps) * w. */
#include "kernels/ref/ref.h"
#include <math.h>

void rms_norm_ref(float *out, const float *x, const float *w, size_t n, float eps)
{
    double sum = 0, scale;

    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    scale = 1.0 / sqrt(sum / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++) out[i] = (float)(x[i] * scale * w[i]);
}
