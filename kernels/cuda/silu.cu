/* silu(gate) * up of a feed-forward layer, to the inputs of the next product (act.cuh has the layout and the
 * kernel).
 *
 * Bound by latency for one token, by memory for many: 8 bytes read and 1 to 5 written a value, about 20
 * instructions (one exponential, one division). One token of 14336 values is 56 warps in 7 blocks: expected
 * at 2 us. */
#include "kernels/cuda/act.cuh"

namespace
{
struct gated_rows {
    const float *gate, *up;
    size_t stride, n;
    bool wide;

    /* x / (1 + e^-x) by e^-|x|, so that nothing overflows. */
    static __device__ __forceinline__ float silu(float x)
    {
        const float e = expf(-fabsf(x));
        return x * ((x >= 0 ? 1.0f : e) / (1.0f + e));
    }
    __device__ __forceinline__ void load(float v[8], size_t t, size_t i) const
    {
        float u[8];

        load8(v, gate + t * stride, i, n, wide);
        load8(u, up + t * stride, i, n, wide);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = silu(v[j]) * u[j];
    }
};
} // namespace

cudaError_t launch_silu(const gpu_acts *out, const float *gate, const float *up, size_t stride,
                        size_t n_tokens, cudaStream_t stream)
{
    const bool wide = rows_are_wide(gate, stride) && rows_are_wide(up, stride);
    const gated_rows from = {gate, up, stride, out->n_cols, wide};

    return launch_rows_to_acts(from, out, n_tokens, stream);
}
