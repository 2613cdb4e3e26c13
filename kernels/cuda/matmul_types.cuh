/* The weight types of 8-bit products: how lanes of a warp get a block's digits as A fragments of mma_s8, and
 * its scales. One struct per type, without state; the kernels of matmul_few.cuh and matmul_tile.cuh and the
 * unpacking of matmul_grids.cu are written once for all of them. Layout of group-blocks: kernels/gpu_pack.c,
 * meaning of the numbers: kernels/unpack8.h.
 *
 * Types with blocks of 256 values:
 *   SUB        values with one scale, 16 or 32       HAS_MIN
 *   BYTES      of a row's block; a group-block has 16 times as many
 *   UNITS      of 512 bytes with digits, at the beginning of a group-block; a lane's part of one is a uint4
 *   PER_CHUNK  units of which the digits of 64 values (a chunk) are made; unit(chunk, i): which
 *   FEW_BLOCKS blocks of threads that fit a multiprocessor's registers without spills in matmul_few.cuh
 *   head       what the scales of a row are made of; lanes 0..15 (and 16..31 again) load that of their row
 *   digits     chunk `chunk` as two fragments
 * Types with blocks of 32 values, one fragment each:
 *   part       what a lane loads of a block's digits; digits: the fragment
 *   head       as above: d and dm of a row
 *
 * Instructions per 32-bit word of digits (4 weights of a row), besides loads: Q4_K 1.5, Q5_K 4.5, Q6_K 7,
 * Q3_K 7, Q2_K 1.5, IQ4_XS 7, Q8_0 0, Q4_0 3.5. */
#ifndef PRIMA_KERNELS_CUDA_MATMUL_TYPES_CUH
#define PRIMA_KERNELS_CUDA_MATMUL_TYPES_CUH
#include "kernels/cuda/device.cuh"

/* How 16 bytes are loaded: of weights in device memory, past the cache; of those in shared memory. */
struct once {
    static __device__ __forceinline__ uint4 load16(const uint8_t *p) { return load_once(p); }
};
struct in_place {
    static __device__ __forceinline__ uint4 load16(const uint8_t *p) { return *(const uint4 *)p; }
};

/* --- bytes in words -------------------------------------------------------------------------------- */
static __device__ __forceinline__ uint32_t low_nibbles(uint32_t x)
{
    return x & 0x0f0f0f0fu;
}
static __device__ __forceinline__ uint32_t high_nibbles(uint32_t x)
{
    return x >> 4 & 0x0f0f0f0fu;
}
/* Each byte of x (0..127) less the byte of y (0..127): bit 7 is lent, so that none borrows from the next. */
static __device__ __forceinline__ uint32_t bytes_less(uint32_t x, uint32_t y)
{
    return ((x | 0x80808080u) - y) ^ 0x80808080u;
}
/* Byte i, signed. */
static __device__ __forceinline__ int32_t signed_byte(uint32_t x, int i)
{
    return (int32_t)(x << (24 - 8 * i)) >> 24;
}
/* Four digits of 2 bits, lowest first, to four bytes. */
static __device__ __forceinline__ uint32_t spread_2_bits(uint32_t x)
{
    uint32_t v = (x | x << 12) & 0x000f000fu;
    return (v | v << 6) & 0x03030303u;
}
/* Four bits to bit 4 of four bytes. */
static __device__ __forceinline__ uint32_t fifth_bits(uint32_t four)
{
    return ((four & 15) * 0x00204081u & 0x01010101u) << 4;
}
static __device__ __forceinline__ uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* The values of IQ4 of 8 digits (a word): those of the low halves of its bytes and of the high ones. A pick
 * of bytes knows 8 of them: once for digits below 8, once for the others, then one of both for each byte.
 * (It looks at the low 16 bits of a selector only.) */
static __device__ __forceinline__ void iq4_lookup(uint32_t x, uint32_t *low, uint32_t *high)
{
    const uint32_t t0 = 0xbfad9881u, t1 = 0xf6eaddcfu; /* -127 -104 -83 -65, -49 -35 -22 -10 */
    const uint32_t t2 = 0x26190d01u, t3 = 0x71594535u; /* 1 13 25 38, 53 69 89 113 */
    uint32_t in8 = x & 0x77777777u, which = (x >> 1 & 0x44444444u) | 0x32103210u, value[2];

#pragma unroll
    for (int i = 0; i < 2; i++, in8 >>= 16, which >>= 16)
        value[i] = bytes_pick(bytes_pick(t0, t1, in8), bytes_pick(t2, t3, in8), which);
    *low = bytes_pick(value[0], value[1], 0x6420);
    *high = bytes_pick(value[0], value[1], 0x7531);
}

/* --- blocks of 256 values --------------------------------------------------------------------------- */
/* Of one row: scales of 16 values each (or 8 of 32: the first two words) and mins of 16 values, as bytes. */
struct row_scales {
    uint32_t sc[4], m[4];
    float d, dm;
};

/* The 6-bit scales and mins of Q4_K and Q5_K; head: d, dmin, 12 bytes (kernels/ref/blocks.h). */
static __device__ __forceinline__ void scales_4_k(const uint4 &h, row_scales *s)
{
    uint32_t first = h.z & 0x3f3f3f3fu, last = high_nibbles(h.w) | (h.z >> 2 & 0x30303030u);

    s->sc[0] = h.y & 0x3f3f3f3fu;
    s->sc[1] = low_nibbles(h.w) | (h.y >> 2 & 0x30303030u);
    s->m[0] = bytes_pick(first, 0, 0x1100); /* mins cover 32 values: each one twice */
    s->m[1] = bytes_pick(first, 0, 0x3322);
    s->m[2] = bytes_pick(last, 0, 0x1100);
    s->m[3] = bytes_pick(last, 0, 0x3322);
    s->d = f16_float((uint16_t)h.x);
    s->dm = -f16_float((uint16_t)(h.x >> 16));
}

struct q4_k {
    static constexpr int VALUES = 256, SUB = 32, BYTES = 144, UNITS = 4, PER_CHUNK = 1, FEW_BLOCKS = 3;
    static constexpr bool HAS_MIN = true;
    typedef uint4 head;

    static __device__ __forceinline__ int unit(int chunk, int) { return chunk; }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return L::load16(block + 2048 + 16 * row);
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s) { scales_4_k(h, s); }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[0][i] = low_nibbles(word_of(w[0], i));
            a[1][i] = high_nibbles(word_of(w[0], i));
        }
    }
};

struct q5_k {
    static constexpr int VALUES = 256, SUB = 32, BYTES = 176, UNITS = 5, PER_CHUNK = 2, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = true;
    typedef uint4 head;

    static __device__ __forceinline__ int unit(int chunk, int i) { return i ? 4 : chunk; }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return L::load16(block + 2560 + 16 * row);
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s) { scales_4_k(h, s); }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int chunk)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t fifth = word_of(w[1], i) >> 2 * chunk;
            a[0][i] = low_nibbles(word_of(w[0], i)) | (fifth & 0x01010101u) << 4;
            a[1][i] = high_nibbles(word_of(w[0], i)) | (fifth & 0x02020202u) << 3;
        }
    }
};

/* Low digits of 4 bits stand 64 values apart, so a chunk takes one half of the bytes of two units. */
struct q6_k {
    static constexpr int VALUES = 256, SUB = 16, BYTES = 210, UNITS = 6, PER_CHUNK = 3, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = false;
    struct head {
        uint4 scales;
        uint16_t d;
    };

    static __device__ __forceinline__ int unit(int chunk, int i)
    {
        return i < 2 ? chunk / 2 * 2 + i : 4 + chunk / 2;
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        head h;
        h.scales = L::load16(block + 3072 + 16 * row);
        h.d = *(const uint16_t *)(block + 3328 + 2 * row);
        return h;
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) s->sc[i] = word_of(h.scales, i);
        s->d = f16_float(h.d);
    }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int chunk)
    {
        const int shift = chunk % 2 * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t high = word_of(w[2], i) >> shift;
            uint32_t v0 = (word_of(w[0], i) >> shift & 0x0f0f0f0fu) | (high & 0x03030303u) << 4;
            uint32_t v1 = (word_of(w[1], i) >> shift & 0x0f0f0f0fu) | (high & 0x0c0c0c0cu) << 2;
            a[0][i] = bytes_less(v0, 0x20202020u);
            a[1][i] = bytes_less(v1, 0x20202020u);
        }
    }
};

struct q2_k {
    static constexpr int VALUES = 256, SUB = 16, BYTES = 84, UNITS = 2, PER_CHUNK = 1, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = true;
    struct head {
        uint4 scales;
        uint32_t d; /* d, dmin */
    };

    static __device__ __forceinline__ int unit(int chunk, int) { return chunk / 2; }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        head h;
        h.scales = L::load16(block + 1024 + 16 * row);
        h.d = *(const uint32_t *)(block + 1280 + 4 * row);
        return h;
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s->sc[i] = low_nibbles(word_of(h.scales, i));
            s->m[i] = high_nibbles(word_of(h.scales, i));
        }
        s->d = f16_float((uint16_t)h.d);
        s->dm = -f16_float((uint16_t)(h.d >> 16));
    }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int chunk)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t v = word_of(w[0], i) >> chunk % 2 * 4;
            a[0][i] = v & 0x03030303u;
            a[1][i] = v >> 2 & 0x03030303u;
        }
    }
};

struct q3_k {
    static constexpr int VALUES = 256, SUB = 16, BYTES = 110, UNITS = 3, PER_CHUNK = 2, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = false;
    struct head {
        uint32_t s[3];
        uint16_t d;
    };

    static __device__ __forceinline__ int unit(int chunk, int i) { return i ? 2 : chunk / 2; }
    /* The 12 bytes of scales are units of 4: three times 64 bytes. */
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        head h;
#pragma unroll
        for (int i = 0; i < 3; i++) h.s[i] = *(const uint32_t *)(block + 1536 + 64 * i + 4 * row);
        h.d = *(const uint16_t *)(block + 1728 + 2 * row);
        return h;
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t low = i < 2 ? low_nibbles(h.s[i]) : high_nibbles(h.s[i - 2]);
            s->sc[i] = bytes_less(low | (h.s[2] >> 2 * i & 0x03030303u) << 4, 0x20202020u);
        }
        s->d = f16_float(h.d);
    }
    /* The third bit unset means 4 less. */
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int chunk)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t v = word_of(w[0], i) >> chunk % 2 * 4, unset = ~word_of(w[1], i) >> 2 * chunk;
            a[0][i] = (v & 0x03030303u) | (unset & 0x01010101u) * 0xfc;
            a[1][i] = (v >> 2 & 0x03030303u) | (unset >> 1 & 0x01010101u) * 0xfc;
        }
    }
};

/* 16 bytes are 32 values: a unit's first half is one fragment, its second half the next. */
struct iq4_xs {
    static constexpr int VALUES = 256, SUB = 32, BYTES = 136, UNITS = 4, PER_CHUNK = 1, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = false;
    typedef uint2 head;

    static __device__ __forceinline__ int unit(int chunk, int) { return chunk; }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint2 *)(block + 2048 + 8 * row);
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s)
    {
        uint32_t even = low_nibbles(h.y), odd = high_nibbles(h.y);
        uint32_t high0 = spread_2_bits(h.x >> 16 & 255), high1 = spread_2_bits(h.x >> 24);

        s->sc[0] = bytes_less(bytes_pick(even, odd, 0x5140) | high0 << 4, 0x20202020u);
        s->sc[1] = bytes_less(bytes_pick(even, odd, 0x7362) | high1 << 4, 0x20202020u);
        s->d = f16_float((uint16_t)h.x);
    }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int)
    {
        iq4_lookup(w[0].x, &a[0][0], &a[0][2]);
        iq4_lookup(w[0].y, &a[0][1], &a[0][3]);
        iq4_lookup(w[0].z, &a[1][0], &a[1][2]);
        iq4_lookup(w[0].w, &a[1][1], &a[1][3]);
    }
};

/* What matmul_grids.cu makes of the types with grids: digits as fragments, then scales, then d as f32. */
struct unpacked {
    static constexpr int VALUES = 256, SUB = 16, BYTES = 276, UNITS = 8, PER_CHUNK = 2, FEW_BLOCKS = 2;
    static constexpr bool HAS_MIN = false;
    struct head {
        uint4 scales;
        float d;
    };

    static __device__ __forceinline__ int unit(int chunk, int i) { return 2 * chunk + i; }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        head h;
        h.scales = L::load16(block + 4096 + 16 * row);
        h.d = *(const float *)(block + 4352 + 4 * row);
        return h;
    }
    static __device__ __forceinline__ void scales(const head &h, row_scales *s)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) s->sc[i] = word_of(h.scales, i);
        s->d = h.d;
    }
    static __device__ __forceinline__ void digits(uint32_t a[2][4], const uint4 *w, int)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[0][i] = word_of(w[0], i);
            a[1][i] = word_of(w[1], i);
        }
    }
};

/* --- blocks of 32 values ----------------------------------------------------------------------------- */
/* d and dm of one row; a lane's digits of a HALF unit: row g and row g + 8, low halves of the bytes are
 * values 0..15, high ones 16..31. */
struct row_numbers {
    float d, dm;
};
static __device__ __forceinline__ void nibbles_32(uint32_t a[4], const uint2 &w)
{
    a[0] = low_nibbles(w.x);
    a[1] = low_nibbles(w.y);
    a[2] = high_nibbles(w.x);
    a[3] = high_nibbles(w.y);
}
static __device__ __forceinline__ row_numbers numbers_of(uint32_t d_and_m)
{
    row_numbers n;
    n.d = f16_float((uint16_t)d_and_m);
    n.dm = f16_float((uint16_t)(d_and_m >> 16));
    return n;
}

struct q8_0 {
    static constexpr int VALUES = 32, BYTES = 34;
    static constexpr bool HAS_MIN = false;
    typedef uint4 part;
    typedef uint16_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        return L::load16(block + 16 * lane);
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint16_t *)(block + 512 + 2 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &w, int)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = word_of(w, i);
    }
};

struct q4_0 {
    static constexpr int VALUES = 32, BYTES = 18;
    static constexpr bool HAS_MIN = false;
    typedef uint2 part;
    typedef uint16_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        return *(const uint2 *)(block + 8 * lane);
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint16_t *)(block + 256 + 2 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &w, int)
    {
        nibbles_32(a, w);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = bytes_less(a[i], 0x08080808u);
    }
};

struct q4_1 {
    static constexpr int VALUES = 32, BYTES = 20;
    static constexpr bool HAS_MIN = true;
    typedef uint2 part;
    typedef uint32_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        return *(const uint2 *)(block + 8 * lane);
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint32_t *)(block + 256 + 4 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &w, int) { nibbles_32(a, w); }
};

struct iq4_nl {
    static constexpr int VALUES = 32, BYTES = 18;
    static constexpr bool HAS_MIN = false;
    typedef uint2 part;
    typedef uint16_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        return *(const uint2 *)(block + 8 * lane);
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint16_t *)(block + 256 + 2 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &w, int)
    {
        iq4_lookup(w.x, &a[0], &a[2]);
        iq4_lookup(w.y, &a[1], &a[3]);
    }
};

/* Digits of 5 bits: halves of bytes, and the fifth bits of rows g and g + 8. */
struct part_5_bits {
    uint2 w;
    uint32_t fifth[2];
};
static __device__ __forceinline__ void digits_5_bits(uint32_t a[4], const part_5_bits &p, int lane)
{
    nibbles_32(a, p.w);
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] |= fifth_bits(p.fifth[i % 2] >> (i / 2 * 16 + lane % 4 * 4));
}

struct q5_0 {
    static constexpr int VALUES = 32, BYTES = 22;
    static constexpr bool HAS_MIN = false;
    typedef part_5_bits part;
    typedef uint16_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        part p;
        p.w = *(const uint2 *)(block + 8 * lane);
        for (int i = 0; i < 2; i++) p.fifth[i] = *(const uint32_t *)(block + 256 + 4 * (lane / 4 + 8 * i));
        return p;
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint16_t *)(block + 320 + 2 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &p, int lane)
    {
        digits_5_bits(a, p, lane);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = bytes_less(a[i], 0x10101010u);
    }
};

struct q5_1 {
    static constexpr int VALUES = 32, BYTES = 24;
    static constexpr bool HAS_MIN = true;
    typedef part_5_bits part;
    typedef uint32_t head;

    template <class L> static __device__ __forceinline__ part load_part(const uint8_t *block, int lane)
    {
        part p;
        p.w = *(const uint2 *)(block + 8 * lane);
        for (int i = 0; i < 2; i++) p.fifth[i] = *(const uint32_t *)(block + 260 + 8 * (lane / 4 + 8 * i));
        return p;
    }
    template <class L> static __device__ __forceinline__ head load_head(const uint8_t *block, int row)
    {
        return *(const uint32_t *)(block + 256 + 8 * row);
    }
    static __device__ __forceinline__ row_numbers numbers(head h) { return numbers_of(h); }
    static __device__ __forceinline__ void digits(uint32_t a[4], const part &p, int lane)
    {
        digits_5_bits(a, p, lane);
    }
};

#endif
