/* What a .cu file finds here in place of nvcc's language and of the CUDA part of kernels/cuda/device.cuh
 * (g++ -x c++ -include tests/gpu/emulate/kernel.h). Written from the PTX ISA and the CUDA programming guide.
 *
 * Static __shared__ arrays become static variables, in .bss, where the file has nothing else: the Makefile
 * renames that section to emu_shared, so that they can be filled with 0xff before each block. */
#ifndef PRIMA_TESTS_GPU_EMULATE_KERNEL_H
#define PRIMA_TESTS_GPU_EMULATE_KERNEL_H
#include "tests/gpu/emulate/emulate.h"
#include <math.h>
#include <new>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <type_traits>

/* --- the language -------------------------------------------------------------------------------- */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__      static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (emu_self->index)
#define blockIdx  emu_block_index
#define blockDim  emu_block_size
#define gridDim   emu_grid_size

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define EMU_VECTORS(T, name, align2, align4)                                                                 \
    struct __align__(align2) name##2                                                                         \
    {                                                                                                        \
        T x, y;                                                                                              \
    };                                                                                                       \
    struct name##3                                                                                           \
    {                                                                                                        \
        T x, y, z;                                                                                           \
    };                                                                                                       \
    struct __align__(align4) name##4                                                                         \
    {                                                                                                        \
        T x, y, z, w;                                                                                        \
    };                                                                                                       \
    static inline name##2 make_##name##2(T x, T y)                                                           \
    {                                                                                                        \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline name##3 make_##name##3(T x, T y, T z)                                                      \
    {                                                                                                        \
        return {x, y, z};                                                                                    \
    }                                                                                                        \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                                 \
    {                                                                                                        \
        return {x, y, z, w};                                                                                 \
    }
EMU_VECTORS(signed char, char, 2, 4)
EMU_VECTORS(unsigned char, uchar, 2, 4)
EMU_VECTORS(short, short, 4, 8)
EMU_VECTORS(unsigned short, ushort, 4, 8)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(unsigned, uint, 8, 16)
EMU_VECTORS(float, float, 8, 16)
#undef EMU_VECTORS
#define EMU_VECTOR2(T, name)                                                                                 \
    struct __align__(16) name                                                                                \
    {                                                                                                        \
        T x, y;                                                                                              \
    };                                                                                                       \
    static inline name make_##name(T x, T y)                                                                 \
    {                                                                                                        \
        return {x, y};                                                                                       \
    }
EMU_VECTOR2(long long, longlong2)
EMU_VECTOR2(unsigned long long, ulonglong2)
EMU_VECTOR2(double, double2)
#undef EMU_VECTOR2

/* --- functions of CUDA's math and integer interfaces ---------------------------------------------------- */
#define EMU_MIN_MAX(T)                                                                                       \
    static inline T min(T a, T b)                                                                            \
    {                                                                                                        \
        return b < a ? b : a;                                                                                \
    }                                                                                                        \
    static inline T max(T a, T b)                                                                            \
    {                                                                                                        \
        return a < b ? b : a;                                                                                \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

template <class T, class F> static inline T emu_bits(F from)
{
    T to;
    static_assert(sizeof to == sizeof from, "the same number of bits");
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline uint32_t __float_as_uint(float f)
{
    return emu_bits<uint32_t>(f);
}
static inline int __float_as_int(float f)
{
    return emu_bits<int>(f);
}
static inline float __uint_as_float(uint32_t u)
{
    return emu_bits<float>(u);
}
static inline float __int_as_float(int i)
{
    return emu_bits<float>(i);
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
static inline float __frcp_rn(float a)
{
    return 1 / a;
}
static inline float rsqrtf(float a)
{
    return (float)(1 / sqrt((double)a));
}
/* Less exact on a GPU. (The C library has functions of these names, which it keeps for itself.) */
#define __expf expf
#define __logf logf
static inline float __fdividef(float a, float b)
{
    return a / b;
}

/* To integers as cvt does it: what is too large becomes the largest there is, NaN becomes 0. */
static inline int emu_int(float f) /* integral or not finite */
{
    return f != f ? 0 : f >= 0x1p31f ? INT32_MAX : f < -0x1p31f ? INT32_MIN : (int)f;
}
static inline int __float2int_rn(float f)
{
    return emu_int(rintf(f));
}
static inline int __float2int_rz(float f)
{
    return emu_int(truncf(f));
}
static inline int __float2int_rd(float f)
{
    return emu_int(floorf(f));
}
static inline float __int2float_rn(int i)
{
    return (float)i;
}
static inline float __uint2float_rn(unsigned i)
{
    return (float)i;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
/* Bytes of b:a chosen by the nibbles of s; bit 3 of a nibble fills the byte with the sign (prmt). */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned out = 0;

    for (int i = 0; i < 4; i++) {
        unsigned byte = (unsigned)(both >> 8 * (s >> 4 * i & 7)) & 0xff;
        if (s >> 4 * i & 8) byte = byte & 0x80 ? 0xff : 0;
        out |= byte << 8 * i;
    }
    return out;
}
static inline unsigned __vadd4(unsigned a, unsigned b)
{
    return ((a & 0x7f7f7f7f) + (b & 0x7f7f7f7f)) ^ ((a ^ b) & 0x80808080);
}
static inline unsigned __vsub4(unsigned a, unsigned b)
{
    return ((a | 0x80808080) - (b & 0x7f7f7f7f)) ^ ((a ^ ~b) & 0x80808080);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}

template <class T> static inline T __ldg(const T *p)
{
    return *(const T *)emu_check_global(p, sizeof *p, "__ldg");
}
template <class T> static inline T __ldcs(const T *p)
{
    return *(const T *)emu_check_global(p, sizeof *p, "__ldcs");
}
template <class T> static inline T __ldcg(const T *p)
{
    return *(const T *)emu_check_global(p, sizeof *p, "__ldcg");
}
template <class T> static inline void __stcs(T *p, T x)
{
    *(T *)emu_check_global(p, sizeof *p, "__stcs") = x;
}
static inline void __threadfence(void) {}

/* One thread runs at a time. */
template <class T> static inline T atomicAdd(T *p, typename std::common_type<T>::type x)
{
    T old = *p;
    *p = old + x;
    return old;
}
template <class T> static inline T atomicMax(T *p, typename std::common_type<T>::type x)
{
    T old = *p;
    if (old < x) *p = x;
    return old;
}

/* --- device.cuh ------------------------------------------------------------------------------------- */
static inline void emu_mma(emu_meeting m, void *d, const uint32_t a[4], const uint32_t b[2])
{
    emu_slot *own = &emu_slots()[emu_self->lane];

    memcpy(own->a, a, sizeof own->a);
    memcpy(own->b, b, sizeof own->b);
    memcpy(&own->d, d, sizeof own->d);
    emu_meet_warp(m);
    memcpy(d, &own->d, sizeof own->d);
}
static inline void mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_S8, d, a, b);
}
static inline void mma_s8_half(int32_t d[4], const uint32_t a[2], uint32_t b)
{
    const uint32_t whole_a[4] = {a[0], a[1], 0, 0}, whole_b[2] = {b, 0};
    emu_mma(EMU_MMA_S8_HALF, d, whole_a, whole_b);
}
static inline void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_F16, d, a, b);
}
static inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_BF16, d, a, b);
}
static inline int32_t dot4_s8(uint32_t a, uint32_t b, int32_t d)
{
    uint32_t sum = (uint32_t)d; /* modulo 2^32 */

    for (int i = 0; i < 4; i++) sum += (uint32_t)((int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i));
    return (int32_t)sum;
}

/* The value that lane `from` brings; from < 0: one's own. */
template <class T> static inline T emu_shuffle(emu_meeting m, T x, int from)
{
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "32 or 64 bits");
    emu_slot *slots = emu_slots();
    T got;

    memcpy(slots[emu_self->lane].a, &x, sizeof x);
    emu_meet_warp(m);
    memcpy(&got, slots[from < 0 ? emu_self->lane : (unsigned)from].a, sizeof got);
    return got;
}
template <class T> static inline T warp_xor(T x, int mask)
{
    if (mask & ~31) emu_die("warp_xor: mask %d", mask);
    return emu_shuffle(EMU_WARP_XOR, x, (int)emu_self->lane ^ mask);
}
template <class T> static inline T warp_from(T x, int lane)
{
    return emu_shuffle(EMU_WARP_FROM, x, lane & 31);
}
template <class T> static inline T warp_down(T x, int down)
{
    if (down & ~31) emu_die("warp_down: by %d", down);
    return emu_shuffle(EMU_WARP_DOWN, x,
                       (int)emu_self->lane + down < EMU_WARP ? (int)emu_self->lane + down : -1);
}
static inline void warp_sync(void)
{
    emu_meet_warp(EMU_WARP_SYNC);
}
static inline void block_sync(void)
{
    emu_meet_block();
}

static inline uint4 load_once(const void *p)
{
    return *(const uint4 *)emu_check_global(p, sizeof(uint4), "load_once");
}
static inline void copy16_async(void *shared, const void *global)
{
    emu_copy_begin(shared, global, 16);
}
static inline void copy4_async(void *shared, const void *global)
{
    emu_copy_begin(shared, global, 4);
}
static inline void copy_commit(void)
{
    emu_copy_close();
}
template <int pending> static inline void copy_wait(void)
{
    static_assert(pending >= 0, "a number of groups");
    emu_copy_wait(pending);
}
static inline void *dynamic_shared(void)
{
    return emu_dynamic_shared();
}

static inline float f16_float(uint16_t h)
{
    return emu_f16_float(h);
}
static inline uint16_t float_f16(float f)
{
    return emu_float_f16(f);
}
static inline float bf16_float(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}
/* Two halves in a word. f32 has enough bits for an f16 operation to be rounded twice without harm. */
static inline uint32_t float_halves(float low, float high)
{
    return emu_float_f16(low) | (uint32_t)emu_float_f16(high) << 16;
}
static inline uint32_t halves_sub(uint32_t a, uint32_t b)
{
    return float_halves(emu_f16_float((uint16_t)a) - emu_f16_float((uint16_t)b),
                        emu_f16_float((uint16_t)(a >> 16)) - emu_f16_float((uint16_t)(b >> 16)));
}
static inline uint32_t halves_mul(uint32_t a, uint32_t b)
{
    return float_halves(emu_f16_float((uint16_t)a) * emu_f16_float((uint16_t)b),
                        emu_f16_float((uint16_t)(a >> 16)) * emu_f16_float((uint16_t)(b >> 16)));
}
static inline uint32_t bytes_pick(uint32_t a, uint32_t b, uint32_t selector)
{
    return __byte_perm(a, b, selector);
}
static inline uint32_t float_bits(float f)
{
    return __float_as_uint(f);
}
static inline float bits_float(uint32_t u)
{
    return __uint_as_float(u);
}

/* --- launching: a kernel and copies of its arguments -----------------------------------------------------
 */
template <class... P> struct emu_call {
    void (*kernel)(P...);
    std::tuple<typename std::remove_const<P>::type...> args;

    static void run(const void *p)
    {
        const emu_call *c = (const emu_call *)p;
        std::apply(c->kernel, c->args);
    }
};
template <class T> static inline const void *emu_pointer_of(const T &p)
{
    if constexpr (std::is_pointer<T>::value) return (const void *)p;
    else return NULL;
}
template <class... P, size_t... I>
static cudaError_t emu_launch_typed(void (*kernel)(P...), std::index_sequence<I...>, dim3 grid, dim3 block,
                                    void **args, size_t shared_bytes, cudaStream_t stream)
{
    typedef emu_call<P...> call;
    call *c = (call *)malloc(sizeof(call));
    if (!c) return cudaErrorMemoryAllocation;
    new (c) call{kernel, {*(typename std::remove_const<P>::type *)args[I]...}};
    const void *pointers[] = {emu_pointer_of(std::get<I>(c->args))..., NULL};
    emu_launch l = {call::run,    (const void *)kernel,     c,
                    sizeof(call), {grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                    shared_bytes};
    return emu_launch_kernel(&l, pointers, sizeof...(P), stream);
}
template <class... P>
static cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void **args,
                                    size_t shared_bytes, cudaStream_t stream)
{
    return emu_launch_typed(kernel, std::index_sequence_for<P...>{}, grid, block, args, shared_bytes, stream);
}

#endif
