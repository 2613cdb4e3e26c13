/* Blocks of one group laid out for instructions that multiply whole tiles (kernels/amx), made by each type's
 * file from the same unpacking that its own product uses.
 *
 * A weight times its scale has up to 14 bits. It stands in two planes of signed bytes, weight = lo + 128 *
 * hi, each multiplied on its own, so a whole block of 256 values needs no scaling in between. Lines are as in
 * a pack: line k / 4 has for each of 16 rows the 4 bytes of values k .. k + 3, which is what a tile of
 * weights is. */
#ifndef PRIMA_KERNELS_AVX512_PLANES_H
#define PRIMA_KERNELS_AVX512_PLANES_H
#include "kernels/avx512/rows.h"

typedef struct {
    _Alignas(64) int8_t lo[64][LINE]; /* 0 .. 127 */
    int8_t hi[64][LINE];              /* -64 .. 63; not set by a type with one plane */
    int32_t mins[8][PACK_ROWS];       /* pairs of int16, for the pairs of sums of a block of activations */
    float d[PACK_ROWS], dm[PACK_ROWS];
} planes_256;

typedef struct {
    uint8_t scale_values; /* that have one scale: 16 or 32; 0: one plane, lo is the weight times its scale */
    bool has_min; /* mins and dm are set: 4 pairs for sum32 where scale_values is 32, else 8 for sum16 */
    /* block: any alignment; meanwhile what lies `ahead` bytes on is asked for */
    void (*make)(planes_256 *p, const uint8_t *block, size_t ahead);
} planes_256_type;

/* One block of 32 values, which has a float scale of its own: value = d * q + m. */
typedef struct {
    _Alignas(64) int8_t q[8][LINE];
    float d[PACK_ROWS], m[PACK_ROWS]; /* m: zeros without mins */
} planes_32;

typedef struct {
    uint16_t block_bytes; /* of 16 rows */
    bool has_min;
    void (*make)(planes_32 *p, const uint8_t *block, size_t ahead); /* as above */
} planes_32_type;

extern const planes_256_type planes_q2_k_avx512, planes_q3_k_avx512, planes_q4_k_avx512, planes_q5_k_avx512,
    planes_q6_k_avx512, planes_iq4_xs_avx512, planes_tile8_avx512;
extern const planes_32_type planes_q4_0_avx512, planes_q4_1_avx512, planes_q5_0_avx512, planes_q5_1_avx512,
    planes_q8_0_avx512, planes_iq4_nl_avx512;

#endif
