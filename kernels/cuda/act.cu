/* Rows of f32 to the inputs of products (act.cuh has the layout, the rules and the kernel).
 *
 * Bound by latency for one token, by memory for many: 4 bytes read and 1 to 5 written a value, about 6
 * instructions. One token of 8192 values is 32 warps in 4 blocks: expected at 2 us, which is a launch. 2048
 * tokens of 4096 values are 42 MB, expected at 15 us on an H200 (75 % of 4.8 TB/s, or less where they come
 * from L2). */
#include "kernels/cuda/act.cuh"

namespace
{
struct plain_rows {
    const float *x;
    size_t stride, n;
    bool wide;

    __device__ __forceinline__ void load(float v[8], size_t t, size_t i) const
    {
        load8(v, x + t * stride, i, n, wide);
    }
};
} // namespace

cudaError_t launch_act(const gpu_acts *out, const float *x, size_t stride, size_t n_tokens,
                       cudaStream_t stream)
{
    const plain_rows from = {x, stride, out->n_cols, rows_are_wide(x, stride)};

    return launch_rows_to_acts(from, out, n_tokens, stream);
}
