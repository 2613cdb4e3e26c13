/* Blocks of weights for the tests of kernels: random or extreme bytes, with scales that are finite numbers.
 */
#ifndef PRIMA_TESTS_KERNELS_BLOCKS_H
#define PRIMA_TESTS_KERNELS_BLOCKS_H
#include "kernels/pack.h"
#include "kernels/quant.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* How to make the bytes of a block. */
enum {
    BLOCKS_RANDOM,     /* any bytes; scales within +-4 */
    BLOCKS_EXTREME,    /* every field all the same byte out of the least, the greatest and their neighbours */
    BLOCKS_ZERO_SCALE, /* any bytes; d and dmin are +0 or -0 */
    BLOCKS_WILD_SCALE, /* any bytes; any finite scale, subnormal and largest ones often */
    BLOCKS_UNIT_SCALE, /* any bytes; d = 1, dmin (m) = 0.5: products of whole numbers are exact */
    BLOCKS_KINDS
};

static inline uint32_t rnd(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) ^ (uint32_t)(*state >> 40);
}

/* Within +-1. */
static inline float rnd_float(uint64_t *state)
{
    return (float)(rnd(state) & 0xffffff) / 0x1p23f - 1;
}

static inline void *test_alloc(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    cr_assert_not_null(p);
    return p;
}

/* Where the f16 numbers of a block stand in file layout, -1: none. IQ1_M has the four digits of d in four
 * places. */
static inline void scale_offsets(uint32_t type, int *d, int *dmin)
{
    *d = 0;
    *dmin = -1;
    switch (type) {
    case Q_Q4_1:
    case Q_Q5_1:
    case Q_Q4_K:
    case Q_Q5_K: *dmin = 2; break;
    case Q_Q2_K:
        *d = 80;
        *dmin = 82;
        break;
    case Q_Q3_K: *d = 108; break;
    case Q_Q6_K: *d = 208; break;
    case Q_IQ1_M:
    case Q_F32:
    case Q_F16:
    case Q_BF16: *d = -1; break;
    default: break;
    }
}

static inline uint16_t make_scale(int kind, uint64_t *state, bool is_min)
{
    static const uint16_t wild[] = {0x7bff, 0xfbff, 0x0001, 0x8001, 0x03ff, 0x0400, 0x8000, 0x3c00};

    switch (kind) {
    case BLOCKS_ZERO_SCALE: return rnd(state) & 1 ? 0x8000 : 0;
    case BLOCKS_WILD_SCALE:
        return rnd(state) & 1 ? wild[rnd(state) % 8]
                              : (uint16_t)(rnd(state) % 0x7c00 | (rnd(state) & 1) << 15);
    case BLOCKS_UNIT_SCALE: return is_min ? 0x3800 : 0x3c00;
    default: return quant_f32_to_f16(rnd_float(state) * 4);
    }
}

static inline void put_u16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* One weight of a float type: finite, or whole when the kind asks for exact sums. */
static inline void make_float(uint32_t type, int kind, uint64_t *state, uint8_t *out)
{
    float f = rnd_float(state) * 2;

    if (kind == BLOCKS_EXTREME) f = rnd(state) & 1 ? 65504.0f : -65504.0f;
    if (kind == BLOCKS_ZERO_SCALE) f = rnd(state) & 1 ? 0.0f : -0.0f;
    if (kind == BLOCKS_WILD_SCALE && rnd(state) & 1)
        f *= rnd(state) & 1 ? 0x1p-18f : 0x1p14f; /* subnormal as f16 */
    if (kind == BLOCKS_UNIT_SCALE) f = (float)((int)(rnd(state) % 64) - 32);
    quant_quantize(type, &f, out, 1);
}

/* n_blocks blocks of a type in file layout. */
static inline void make_blocks(uint32_t type, int kind, uint64_t *state, uint8_t *out, size_t n_blocks)
{
    static const uint8_t extremes[] = {0x00, 0xff, 0x80, 0x7f, 0x88, 0x77, 0x0f, 0xf0};
    const quant_type *t = quant_info(type);
    int d, dmin;

    scale_offsets(type, &d, &dmin);
    for (size_t b = 0; b < n_blocks; b++, out += t->block_bytes) {
        if (t->block_values == 1) {
            make_float(type, kind, state, out);
            continue;
        }
        for (size_t i = 0; i < t->block_bytes; i++) out[i] = (uint8_t)rnd(state);
        if (kind == BLOCKS_EXTREME) {
            for (const pack_field *f = pack_fields(type); f->bytes; f++) {
                memset(out + f->offset, extremes[rnd(state) % 8], f->bytes);
            }
        }
        if (d >= 0) put_u16(out + d, make_scale(kind, state, false));
        if (dmin >= 0) put_u16(out + dmin, make_scale(kind, state, true));
        if (type == Q_IQ1_M) {
            unsigned h = make_scale(kind, state, false);
            for (int i = 0; i < 4; i++)
                out[49 + 2 * i] = (uint8_t)((out[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
        }
    }
}

#endif
