/* Kernels for tests/gpu/test_device.c. Fragments are read as kernels/cuda/device.cuh describes them. */
#include "kernels/cuda/device.cuh"
#include "tests/gpu/device_kernels.h"

/* --- tensor cores ------------------------------------------------------------------------------------------
 */
static __device__ uint32_t bytes4(const int8_t *p, int step)
{
    uint32_t w = 0;

    for (int i = 0; i < 4; i++) w |= (uint32_t)(uint8_t)p[i * step] << 8 * i;
    return w;
}

static __global__ void try_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, int half)
{
    const int g = lane_id() / 4, t = lane_id() % 4, n_k = half ? 16 : 32;
    uint32_t fa[4], fb[2];
    int32_t fd[4];

    for (int i = 0; i < (half ? 2 : 4); i++)
        fa[i] = bytes4(a + (g + 8 * (i % 2)) * n_k + 16 * (i / 2) + 4 * t, 1);
    for (int i = 0; i < (half ? 1 : 2); i++) fb[i] = bytes4(b + (16 * i + 4 * t) * 8 + g, 8);
    for (int i = 0; i < 4; i++) fd[i] = d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    if (half) mma_s8_half(fd, fa, fb[0]);
    else mma_s8(fd, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = fd[i];
}

cudaError_t launch_try_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, int half, cudaStream_t stream)
{
    return launch(try_mma_s8, 1, WARP, 0, stream, d, a, b, half);
}

static __global__ void try_mma_float(float *d, const uint16_t *a, const uint16_t *b, int is_bf16)
{
    const int g = lane_id() / 4, t = lane_id() % 4;
    uint32_t fa[4], fb[2];
    float fd[4];

    for (int i = 0; i < 4; i++) {
        const uint16_t *p = a + (g + 8 * (i % 2)) * 16 + 8 * (i / 2) + 2 * t;
        fa[i] = pack_halves(p[0], p[1]);
    }
    for (int i = 0; i < 2; i++) {
        const uint16_t *p = b + (8 * i + 2 * t) * 8 + g;
        fb[i] = pack_halves(p[0], p[8]);
    }
    for (int i = 0; i < 4; i++) fd[i] = d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    if (is_bf16) mma_bf16(fd, fa, fb);
    else mma_f16(fd, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = fd[i];
}

cudaError_t launch_try_mma_float(float *d, const uint16_t *a, const uint16_t *b, int is_bf16,
                                 cudaStream_t stream)
{
    return launch(try_mma_float, 1, WARP, 0, stream, d, a, b, is_bf16);
}

/* --- warps
 * --------------------------------------------------------------------------------------------------- */
template <class T> static __global__ void try_warp(T *out, const T *in, int step)
{
    const int lane = lane_id();
    T x = in[lane];

    out[lane] = warp_xor(x, step);
    out[WARP + lane] = warp_from(x, step);
    warp_sync();
    out[2 * WARP + lane] = warp_down(x, step);
}

cudaError_t launch_try_warp_int(int32_t *out, const int32_t *in, int step, cudaStream_t stream)
{
    return launch(try_warp<int32_t>, 1, WARP, 0, stream, out, in, step);
}
cudaError_t launch_try_warp_float(float *out, const float *in, int step, cudaStream_t stream)
{
    return launch(try_warp<float>, 1, WARP, 0, stream, out, in, step);
}
cudaError_t launch_try_warp_word(uint64_t *out, const uint64_t *in, int step, cudaStream_t stream)
{
    typedef unsigned long long word;
    return launch(try_warp<word>, 1, WARP, 0, stream, (word *)out, (const word *)in, step);
}

/* --- numbers
 * --------------------------------------------------------------------------------------------------- */
static __global__ void try_halves(float *all)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;

    all[i] = f16_float((uint16_t)i);
}

cudaError_t launch_try_halves(float *all, cudaStream_t stream)
{
    return launch(try_halves, 256, 256, 0, stream, all);
}

static __global__ void try_to_halves(uint16_t *f16, uint16_t *bf16, const float *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i >= n) return;
    f16[i] = float_f16(x[i]);
    bf16[i] = float_bf16(x[i]);
}

cudaError_t launch_try_to_halves(uint16_t *f16, uint16_t *bf16, const float *x, int n, cudaStream_t stream)
{
    return launch(try_to_halves, (n + 255) / 256, 256, 0, stream, f16, bf16, x, n);
}

static __global__ void try_words(uint32_t *out, const uint32_t *in, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i >= n) return;
    const uint32_t a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
    out[5 * i] = float_halves(bits_float(a), bits_float(b));
    out[5 * i + 1] = halves_sub(a, b);
    out[5 * i + 2] = halves_mul(a, b);
    out[5 * i + 3] = bytes_pick(a, b, c & 0x7777u);
    out[5 * i + 4] = (uint32_t)dot4_s8(a, b, (int32_t)c);
}

cudaError_t launch_try_words(uint32_t *out, const uint32_t *in, int n, cudaStream_t stream)
{
    return launch(try_words, (n + 63) / 64, 64, 0, stream, out, in, n);
}

static __global__ void try_int(int32_t *out, const float *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n) out[i] = __float2int_rn(x[i]);
}

cudaError_t launch_try_int(int32_t *out, const float *x, int n, cudaStream_t stream)
{
    return launch(try_int, (n + 63) / 64, 64, 0, stream, out, x, n);
}

/* --- memory
 * ------------------------------------------------------------------------------------------------------ */
enum { COPIERS = 128 };

/* The first half by copies of 16 bytes, the second by copies of 4, a group each; a load of 16 bytes back. */
static __global__ void __launch_bounds__(COPIERS) try_copies(uint32_t *out, const uint32_t *in, int n)
{
    __shared__ uint32_t first_word;
    uint32_t *shared = (uint32_t *)dynamic_shared();
    const int thread = (int)threadIdx.x, half = n / 2;

    for (int i = 4 * thread; i < half; i += 4 * COPIERS) copy16_async(shared + i, in + i);
    copy_commit();
    for (int i = half + thread; i < n; i += COPIERS) copy4_async(shared + i, in + i);
    copy_commit();
    copy_wait<1>();
    block_sync();
    if (thread == COPIERS - 1) first_word = shared[0];
    for (int i = thread; i < half; i += COPIERS) out[n - 1 - i] = shared[i];
    copy_wait<0>();
    block_sync();
    for (int i = half + thread; i < n; i += COPIERS) out[n - 1 - i] = shared[i];
    if (thread == 0) {
        uint4 x = load_once(in);
        out[n] = first_word ^ x.x;
        out[n + 1] = x.y ^ shared[1];
        out[n + 2] = x.z ^ shared[2];
        out[n + 3] = x.w ^ shared[3];
    }
}

cudaError_t launch_try_copies(uint32_t *out, const uint32_t *in, int n, cudaStream_t stream)
{
    return launch(try_copies, 1, COPIERS, (size_t)n * sizeof *in, stream, out, in, n);
}

static __global__ void try_index(int32_t *out)
{
    int block = (int)((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    int thread = (int)((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    int n = (int)(blockDim.x * blockDim.y * blockDim.z);

    atomicAdd(&out[block * n + thread], block * n + thread);
}

cudaError_t launch_try_index(int32_t *out, cudaStream_t stream)
{
    return launch(try_index, dim3(5, 3, 2), dim3(7, 5, 3), 0, stream, out);
}

static __global__ void try_add(int32_t *out, int i, int by)
{
    out[i] += by;
}

cudaError_t launch_try_add(int32_t *out, int i, int by, cudaStream_t stream)
{
    return launch(try_add, 1, 1, 0, stream, out, i, by);
}
