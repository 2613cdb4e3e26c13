/* From blocks of the IQ types to small integers (iq.h). In file order the fields are, for 256 values:
 *
 *   IQ2_XXS  d, 8 x [4 grid indices of 8 bits, u32: 4 x 7 signs, 4-bit scale]
 *   IQ2_XS   d, 32 x u16 [9-bit index, 7 signs], 16 4-bit scales
 *   IQ2_S    d, 32 low index bytes, 32 sign bytes, 8 bytes of 4 x 2 high index bits, 16 4-bit scales
 *   IQ3_XXS  d, 64 indices of 8 bits, 8 x u32 [4 x 7 signs, 4-bit scale]
 *   IQ3_S    d, 64 low index bytes, 8 bytes of 8 high index bits, 32 sign bytes, 8 4-bit scales
 *   IQ1_S    d, 32 low index bytes, 8 x u16 [4 x 3 high index bits, 3-bit scale, sign of delta]
 *   IQ1_M    32 low index bytes, 32 x 4 bits [3 high index bits, sign of delta], 4 x u16 [4 x 3-bit scale, 4
 * bits of d]
 *
 * A stored scale s stands for (2 s + 1) times a power of two of d. A block of 32 values is 4 patterns of 8.
 */
#include "kernels/ref/iq.h"
#include "kernels/ref/blocks.h"
#include "kernels/ref/iq_grids.h"

/* Two words of four values each to q. */
static void put8(int8_t *q, uint32_t low, uint32_t high)
{
    for (int i = 0; i < 4; i++) {
        q[i] = (int8_t)(low >> 8 * i);
        q[4 + i] = (int8_t)(high >> 8 * i);
    }
}

static void put_iq2(int8_t *q, uint32_t digits, uint32_t signs)
{
    put8(q, iq_negate(iq2_values(digits & 255), signs), iq_negate(iq2_values(digits >> 8), signs >> 4));
}

static void put_iq1(int8_t *q, uint32_t digits, int negative_delta)
{
    put8(q, iq1_values(digits & 255, negative_delta), iq1_values(digits >> 8, negative_delta));
}

/* 16 scales of 4 bits, low half of a byte first. */
static void scales_of_16(const uint8_t *s, int8_t *sc)
{
    for (int j = 0; j < 16; j++) sc[j] = (int8_t)(2 * (s[j / 2] >> 4 * (j % 2) & 15) + 1);
}

/* The scale of 32 values: two entries. */
static void scale_of_32(int8_t *sc, int ib, uint32_t s)
{
    sc[2 * ib] = sc[2 * ib + 1] = (int8_t)(2 * s + 1);
}

float iq2_xxs_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    for (int ib = 0; ib < 8; ib++) {
        const uint8_t *index = block + 2 + 8 * ib;
        uint32_t bits = load_u32(index + 4);

        scale_of_32(sc, ib, bits >> 28);
        for (int l = 0; l < 4; l++) {
            put_iq2(q + 32 * ib + 8 * l, iq2_xxs_grid[index[l]], iq_signs8(bits >> 7 * l & 127));
        }
    }
    return load_f16(block) * 0.125f;
}

float iq2_xs_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    scales_of_16(block + 66, sc);
    for (int p = 0; p < 32; p++) {
        uint32_t bits = load_u16(block + 2 + 2 * p);
        put_iq2(q + 8 * p, iq2_xs_grid[bits & 511], iq_signs8(bits >> 9));
    }
    return load_f16(block) * 0.125f;
}

float iq2_s_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    scales_of_16(block + 74, sc);
    for (int p = 0; p < 32; p++) {
        uint32_t high = block[66 + p / 4] >> 2 * (p % 4) & 3;
        put_iq2(q + 8 * p, iq2_s_grid[block[2 + p] | high << 8], block[34 + p]);
    }
    return load_f16(block) * 0.125f;
}

float iq3_xxs_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    const uint8_t *index = block + 2;

    for (int ib = 0; ib < 8; ib++) {
        uint32_t bits = load_u32(block + 66 + 4 * ib);

        scale_of_32(sc, ib, bits >> 28);
        for (int l = 0; l < 4; l++, index += 2) {
            uint32_t signs = iq_signs8(bits >> 7 * l & 127);
            put8(q + 32 * ib + 8 * l, iq_negate(iq3_xxs_values(iq3_xxs_grid[index[0]]), signs),
                 iq_negate(iq3_xxs_values(iq3_xxs_grid[index[1]]), signs >> 4));
        }
    }
    return load_f16(block) * 0.25f;
}

float iq3_s_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    const uint8_t *index = block + 2, *high = block + 66, *signs = block + 74, *scales = block + 106;

    for (int ib = 0; ib < 8; ib++) scale_of_32(sc, ib, scales[ib / 2] >> 4 * (ib % 2) & 15);
    for (int p = 0; p < 32; p++) {
        uint32_t h = high[p / 4] >> 2 * (p % 4);
        uint32_t low4 = iq3_s_grid[index[2 * p] | (h & 1) << 8];
        uint32_t high4 = iq3_s_grid[index[2 * p + 1] | (h >> 1 & 1) << 8];

        put8(q + 8 * p, iq_negate(iq3_s_values(low4), signs[p]),
             iq_negate(iq3_s_values(high4), signs[p] >> 4));
    }
    return load_f16(block);
}

float iq1_s_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    for (int ib = 0; ib < 8; ib++) {
        uint32_t bits = load_u16(block + 34 + 2 * ib);

        scale_of_32(sc, ib, bits >> 12 & 7);
        for (int l = 0; l < 4; l++) {
            uint32_t digits = iq1_grid[block[2 + 4 * ib + l] | (bits >> 3 * l & 7) << 8];
            put_iq1(q + 32 * ib + 8 * l, digits, bits >> 15);
        }
    }
    return load_f16(block) * 0.125f;
}

float iq1_m_decode(const uint8_t *block, int8_t *q, int8_t *sc)
{
    uint32_t d = 0;

    for (int j = 0; j < 16; j++) {
        sc[j] = (int8_t)(2 * (load_u16(block + 48 + j / 4 * 2) >> 3 * (j % 4) & 7) + 1);
    }
    for (int i = 0; i < 4; i++) d |= (uint32_t)(load_u16(block + 48 + 2 * i) >> 12) << 4 * i;
    for (int p = 0; p < 32; p++) {
        uint32_t bits = block[32 + p / 2] >> 4 * (p % 2);
        put_iq1(q + 8 * p, iq1_grid[block[p] | (bits & 7) << 8], bits >> 3 & 1);
    }
    return quant_f16_to_f32((uint16_t)d) * 0.125f;
}
