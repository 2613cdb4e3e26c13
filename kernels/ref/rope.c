/* Rotary embedding: each pair of dimensions is turned by the angle of its position and frequency. */
#include "kernels/ref/ref.h"

void rope_ref(float *x, size_t n_heads, size_t head_size, size_t n_rot, const float *cs, bool neox)
{
    size_t half = n_rot / 2;

    for (size_t h = 0; h < n_heads; h++, x += head_size) {
        for (size_t i = 0; i < half; i++) {
            float *a = neox ? x + i : x + 2 * i, *b = neox ? a + half : a + 1;
            double c = cs[2 * i], s = cs[2 * i + 1], va = *a, vb = *b;

            *a = (float)(va * c - vb * s);
            *b = (float)(va * s + vb * c);
        }
    }
}
