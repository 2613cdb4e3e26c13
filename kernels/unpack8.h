/* One group-block of any block type (pack.h: the same block of 16 rows) as small integers: what the
 * portable product reads, and what instruction sets use for types that have no product of their own.
 *
 * Every block type means, with integers q, sc, m and floats d, dm that belong to the row:
 *
 *   ACT_Q8_256 types (256 values):  value = d * sc[k / 16] * q[k] + dm * m[k / 16]
 *   ACT_Q8_32  types (32 values):   value = d * q[k]              + dm
 *
 * where constant factors are moved so that all are whole and small: see the table in ref/unpack8.c. d and dm
 * are the f16 numbers of the file times a power of two or -1, hence exact; dm = -dmin for K-quants, +m for
 * Q4_1 and Q5_1.
 *
 * The product is defined on this form (ref/matmul_q8.c has it in C), for an activation block with scale xd:
 *
 *   ACT_Q8_256:  S = sum_j sc[j] * (sum over 16 values of q * x)       int32, cannot overflow:
 *                M = sum_j m[j] * sum16[j]                             |S| < 2^27, |M| < 2^21
 *                acc = fmaf(d * xd, (float)S, acc);  with mins:  acc = fmaf(dm * xd, (float)M, acc)
 *   ACT_Q8_32:   acc = fmaf(d * xd, (float)(sum of q * x), acc);
 *                with mins:  acc = fmaf(dm * xd, (float)sum, acc)
 *
 * d * xd and dm * xd are rounded to f32 once, (float)S rounds to nearest even, blocks in order, acc starts at
 * 0. Integer sums may be taken in any order or grouping. */
#ifndef PRIMA_KERNELS_UNPACK8_H
#define PRIMA_KERNELS_UNPACK8_H
#include "kernels/pack.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* q[k / 4][row][k % 4]; 32-value types fill the first 8 lines only. */
    _Alignas(64) int8_t q[64][PACK_ROWS][4];
    /* 256-value types only. Types whose scales cover 32 values have each of them twice. */
    int32_t sc[16][PACK_ROWS];
    int32_t m[16][PACK_ROWS]; /* set only when has_min */
    float d[PACK_ROWS];
    float dm[PACK_ROWS]; /* set only when has_min */
} unpack8_tile;
_Static_assert(sizeof(unpack8_tile) == 4096 + 2048 + 128, "unpack8_tile");

typedef struct {
    void (*unpack)(unpack8_tile *t, const uint8_t *group_block); /* any alignment */
    uint16_t n_values;                                           /* of a block: 256 or 32 */
    uint16_t sub_values; /* values with one scale: 16 or 32 (32-value types: 32) */
    bool has_min;
    int8_t q_min, q_max; /* smallest and largest q that any file can hold */
} unpack8_type;

/* NULL for F32, F16, BF16 and unknown types. */
const unpack8_type *unpack8_info(uint32_t type);

#endif
