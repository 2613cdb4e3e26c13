/* What stands between two products of the residual stream, in one kernel: hidden += branch + bias, RMS norm,
 * times weight, to the inputs of the next product (layout of a row: act.cuh).
 *
 * A thread block takes a row: warp w has the blocks of 256 values w, w + n_warps, ..., KEEP of them in
 * registers from the first load to the last store. As many warps as the row has blocks, at most 32; so the
 * order of additions depends on the row length alone:
 *
 *   lane: its values in order, fused; warp: butterfly; block: butterfly over the warps
 *
 * Bound by latency for one token: load, 5 shuffles, barrier, 5 shuffles, root, 5 shuffles, store; expected at
 * 2 us. Many: 16 bytes a value (hidden read and written, branch, inputs written), about 15 instructions a
 * value. */
#include "kernels/cuda/act.cuh"

template <int KEEP>
static __global__ void __launch_bounds__(MAX_WARPS *WARP) norm_row(gpu_norm_args a, gpu_acts to, bool wide)
{
    __shared__ float part_sum[MAX_WARPS];
    __shared__ uint32_t part_max[MAX_WARPS];
    const size_t t = blockIdx.x, n = a.n_embd, n_warps = blockDim.x / WARP;
    const size_t begin = threadIdx.x / WARP * ROW_BLOCK, step = n_warps * ROW_BLOCK;
    float *const hidden = a.hidden + (a.rows ? (size_t)a.rows[t] : t) * n;
    const bool adds = !a.rows && (a.branch || a.branch_bias);
    float v[KEEP][8], sum = 0, scale;
    uint32_t row_max = 0;

#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        const size_t i = begin + k * step + LANE_VALUES * lane_id();
        float b[8] = {}, c[8] = {}, w[8] = {};

        /* All loads before the first store, behind which the compiler would have to keep them. */
        load8(v[k], hidden, i, n, wide);
        if (adds && a.branch) load8(b, a.branch + t * a.branch_stride, i, n, wide);
        if (adds && a.branch_bias) load8(c, a.branch_bias, i, n, wide);
        if (to.kinds) load8(w, a.weight, i, n, wide);
        if (adds) {
#pragma unroll
            for (int j = 0; j < 8; j++) v[k][j] = v[k][j] + b[j] + c[j];
            store8(hidden, v[k], i, n, wide);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum = fmaf(v[k][j], v[k][j], sum);
            v[k][j] *= w[j];
        }
    }
    if (!to.kinds) return;
    scale = 1.0f / sqrtf(block_sum(sum, part_sum) / (float)n + a.eps);
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[k][j] *= scale;
        row_max = max(row_max, largest8(v[k]));
    }
    if (to.kinds & ACT_HALVES) row_max = block_max(row_max, part_max);
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        const size_t first = begin + k * step;
        if (first < n) store_acts(to, t, first, v[k], row_max);
    }
}

cudaError_t launch_norm(const gpu_norm_args *a, const gpu_acts *out, cudaStream_t stream)
{
    const dim3 grid((unsigned)a->n_tokens), block(row_warps(a->n_embd) * WARP);
    const bool wide = rows_are_wide(a->hidden, a->n_embd) && rows_are_wide(a->branch, a->branch_stride) &&
                      rows_are_wide(a->branch_bias, 0) && rows_are_wide(a->weight, 0);
    const gpu_acts to = out ? *out : gpu_acts{};

    assert(a->n_embd > 0 && a->n_embd <= GPU_MAX_EMBD);
    if (row_blocks(a->n_embd) <= MAX_WARPS) return launch(norm_row<1>, grid, block, 0, stream, *a, to, wide);
    return launch(norm_row<2>, grid, block, 0, stream, *a, to, wide);
}
