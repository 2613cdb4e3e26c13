/* What kernels use of a GPU beyond C++: one name for each instruction, so that a kernel does not know of
 * which generation the GPU is, and so that tests can run kernels on a CPU, where these names are given by
 * tests/gpu/emulate.
 *
 * Fragments are those of the PTX ISA (mma.m16n8k32, mma.m16n8k16). With g = lane / 4, t = lane % 4:
 *   s8:  A 16 x 32: a[0] row g, k 4t..4t+3; a[1] row g+8; a[2] row g, k 16+4t..; a[3] row g+8, k 16+4t..
 *        B 32 x 8:  b[0] k 4t..4t+3, column g; b[1] k 16+4t.., column g
 *   f16: A 16 x 16: a[0] row g, k 2t,2t+1; a[1] row g+8; a[2] row g, k 8+2t..; a[3] row g+8, k 8+2t..
 *        B 16 x 8:  b[0] k 2t,2t+1, column g; b[1] k 8+2t.., column g
 *   C, D 16 x 8:    d[0] row g, column 2t; d[1] row g, column 2t+1; d[2], d[3] the same of row g+8
 * All 32 lanes take part in every call of a mma_ or warp_ function. */
#ifndef PRIMA_KERNELS_CUDA_DEVICE_CUH
#define PRIMA_KERNELS_CUDA_DEVICE_CUH
#include "kernels/cuda/cuda_impl.h"
#include "kernels/cuda/shared.h"

enum { WARP = 32 };

#ifdef __CUDACC__

/* --- tensor cores: d += a * b -------------------------------------------------------------------- */
static __device__ __forceinline__ void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else /* Turing has 8 x 8 x 16, whose fragments are quarters of these */
    for (int half = 0; half < 2; half++) {
        for (int k = 0; k < 2; k++)
            asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                         : "+r"(d[2 * half]), "+r"(d[2 * half + 1])
                         : "r"(a[2 * k + half]), "r"(b[k]));
    }
#endif
}

/* Half of k: A 16 x 16: a[0] row g, k 4t..4t+3; a[1] row g+8; B 16 x 8: b k 4t..4t+3, column g. */
static __device__ __forceinline__ void mma_s8_half(int32_t d[4], const uint32_t a[2], uint32_t b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
#else
    for (int half = 0; half < 2; half++)
        asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                     : "+r"(d[2 * half]), "+r"(d[2 * half + 1])
                     : "r"(a[half]), "r"(b));
#endif
}

static __device__ __forceinline__ void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int k = 0; k < 2; k++)
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 800
/* Turing has none: every lane collects the rows and columns of its four results. A call, because a kernel may
 * have hundreds of them. */
static inline __device__ __noinline__ float4 mma_bf16_by_shuffles(float4 sum, uint4 a4, uint2 b2)
{
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const uint32_t a[4] = {a4.x, a4.y, a4.z, a4.w}, b[2] = {b2.x, b2.y};
    float d[4] = {sum.x, sum.y, sum.z, sum.w};

    for (int half = 0; half < 2; half++) {
        for (int k = 0; k < 4; k++) {
            for (int row = 0; row < 2; row++) {
                uint32_t x = __shfl_sync(0xffffffffu, a[2 * half + row], 4 * g + k);
                for (int col = 0; col < 2; col++) {
                    uint32_t y = __shfl_sync(0xffffffffu, b[half], 4 * (2 * t + col) + k);
                    float *to = &d[2 * row + col];
                    *to = __fmaf_rn(__uint_as_float(x << 16), __uint_as_float(y << 16), *to);
                    *to = __fmaf_rn(__uint_as_float(x & 0xffff0000u), __uint_as_float(y & 0xffff0000u), *to);
                }
            }
        }
    }
    return make_float4(d[0], d[1], d[2], d[3]);
}
#endif

static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const float4 sum = mma_bf16_by_shuffles(make_float4(d[0], d[1], d[2], d[3]),
                                            make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b[0], b[1]));
    d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;
#endif
}

/* d + the products of 4 signed bytes */
static __device__ __forceinline__ int32_t dot4_s8(uint32_t a, uint32_t b, int32_t d)
{
    return __dp4a((int32_t)a, (int32_t)b, d);
}

/* --- within a warp ------------------------------------------------------------------------------- */
/* The value of lane (own ^ mask), of a given lane, of lane own + down. */
template <class T> static __device__ __forceinline__ T warp_xor(T x, int mask)
{
    return __shfl_xor_sync(0xffffffffu, x, mask);
}
template <class T> static __device__ __forceinline__ T warp_from(T x, int lane)
{
    return __shfl_sync(0xffffffffu, x, lane);
}
template <class T> static __device__ __forceinline__ T warp_down(T x, int down)
{
    return __shfl_down_sync(0xffffffffu, x, down);
}
static __device__ __forceinline__ void warp_sync(void)
{
    __syncwarp();
}
static __device__ __forceinline__ void block_sync(void)
{
    __syncthreads();
}

/* --- memory -------------------------------------------------------------------------------------- */
/* 16 bytes that are read once: past the L1 cache. */
static __device__ __forceinline__ uint4 load_once(const void *p)
{
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(p));
    return x;
}

/* 16 bytes of global to shared memory, behind the back of the thread; then: what was asked for until now is a
 * group, and wait until at most `pending` groups are still on their way. */
static __device__ __forceinline__ void copy16_async(void *shared, const void *global)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
        "l"(global)
        : "memory");
#else
    *(uint4 *)shared = *(const uint4 *)global;
#endif
}
/* The same with 4 bytes. */
static __device__ __forceinline__ void copy4_async(void *shared, const void *global)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
#else
    *(uint32_t *)shared = *(const uint32_t *)global;
#endif
}
static __device__ __forceinline__ void copy_commit(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int pending> static __device__ __forceinline__ void copy_wait(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

/* The shared memory whose size the launcher gives. */
static __device__ __forceinline__ void *dynamic_shared(void)
{
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
    return dynamic_shared_memory;
}

/* --- numbers -------------------------------------------------------------------------------------- */
/* f16 and bf16 as bits; to f32 exactly, from f32 to nearest even. The files are built without contraction: a
 * fused multiply-add is fmaf, written out. */
static __device__ __forceinline__ float f16_float(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
static __device__ __forceinline__ uint16_t float_f16(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
static __device__ __forceinline__ float bf16_float(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}
/* Two halves in a word, the first one low. */
static __device__ __forceinline__ uint32_t float_halves(float low, float high)
{
#if __CUDA_ARCH__ >= 800
    uint32_t h;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(high), "f"(low));
    return h;
#else
    return (uint32_t)float_f16(low) | (uint32_t)float_f16(high) << 16;
#endif
}
static __device__ __forceinline__ uint32_t halves_sub(uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
static __device__ __forceinline__ uint32_t halves_mul(uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
/* Byte i of the result is byte (nibble i of the selector) of b:a; nibbles below 8. */
static __device__ __forceinline__ uint32_t bytes_pick(uint32_t a, uint32_t b, uint32_t selector)
{
    return __byte_perm(a, b, selector);
}
static __device__ __forceinline__ uint32_t float_bits(float f)
{
    return __float_as_uint(f);
}
static __device__ __forceinline__ float bits_float(uint32_t u)
{
    return __uint_as_float(u);
}

#endif /* __CUDACC__ */

static __device__ __forceinline__ uint16_t float_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}
static __device__ __forceinline__ uint32_t pack_halves(uint16_t low, uint16_t high)
{
    return (uint32_t)low | (uint32_t)high << 16;
}
static __device__ __forceinline__ int lane_id(void)
{
    return (int)(threadIdx.x % WARP);
}

/* --- launching: the kernel's parameters, exactly as it has them ------------------------------------- */
template <class T> struct as_it_is {
    typedef T type;
};
template <class... P>
static cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                          cudaStream_t stream, typename as_it_is<P>::type... p)
{
    void *args[] = {(void *)&p...};
    cudaError_t e = cuda_allow_shared((const void *)kernel, shared_bytes);

    if (e != cudaSuccess) return e;
    return cudaLaunchKernel(kernel, grid, block, args, shared_bytes, stream);
}

#endif
