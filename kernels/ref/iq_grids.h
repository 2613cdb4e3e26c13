/* The grids of the IQ types: lists of the value patterns that a few bits of index can name.
 *
 * A pattern is stored as digits: 8 values of 2 bits (iq1, iq2) or 4 values of 3 bits (iq3), value 0 in the
 * lowest bits. The functions below turn digits into 4 values in the bytes of a word, lowest byte first. */
#ifndef PRIMA_KERNELS_IQ_GRIDS_H
#define PRIMA_KERNELS_IQ_GRIDS_H
#include <stdint.h>

extern const uint16_t iq1_grid[2048];    /* IQ1_S, IQ1_M: digits 0 1 2 mean -1 0 1 */
extern const uint16_t iq2_xxs_grid[256]; /* digits 0 1 2 mean 8 25 43 */
extern const uint16_t iq2_xs_grid[512];
extern const uint16_t iq2_s_grid[1024];
extern const uint16_t iq3_xxs_grid[256]; /* digits 0..7 mean 4 12 20 28 36 44 52 62 */
extern const uint16_t iq3_s_grid[512];   /* digits 0..7 mean 1 3 5 .. 15 */
extern const int8_t iq4_values[16];      /* IQ4_NL, IQ4_XS */

/* Four 2-bit digits to four bytes. */
static inline uint32_t iq_spread2(uint32_t digits)
{
    uint32_t v = (digits | digits << 12) & 0x000f000f;
    return (v | v << 6) & 0x03030303;
}

/* Four 3-bit digits to four bytes. */
static inline uint32_t iq_spread3(uint32_t digits)
{
    return (digits & 7) | (digits << 5 & 0x700) | (digits << 10 & 0x70000) | (digits << 15 & 0x7000000);
}

/* 8, 25 or 43 for each of four 2-bit digits. */
static inline uint32_t iq2_values(uint32_t digits)
{
    uint32_t v = iq_spread2(digits);
    return 0x08080808 + v * 17 + (v >> 1 & 0x01010101);
}

/* 8 x (-1, 0 or 1) + 1 (or - 1 when negative_delta), signed bytes; made with 128 on top so that no byte
 * borrows. */
static inline uint32_t iq1_values(uint32_t digits, int negative_delta)
{
    return (iq_spread2(digits) * 8 + (negative_delta ? 0x77777777 : 0x79797979)) ^ 0x80808080;
}

/* 4, 12, .. 52, 62 for each of four 3-bit digits. */
static inline uint32_t iq3_xxs_values(uint32_t digits)
{
    uint32_t v = iq_spread3(digits);
    return 0x04040404 + v * 8 + ((v + 0x01010101) >> 2 & 0x02020202);
}

/* 1, 3, .. 15 for each of four 3-bit digits. */
static inline uint32_t iq3_s_values(uint32_t digits)
{
    return iq_spread3(digits) * 2 + 0x01010101;
}

/* Negate byte i (none is 0) where bit i of the low four bits of `signs` is set. */
static inline uint32_t iq_negate(uint32_t bytes, uint32_t signs)
{
    uint32_t one = (signs & 15) * 0x00204081 & 0x01010101;
    return (bytes ^ one * 255) + one;
}

/* The eighth sign of seven stored ones makes their number even. */
static inline uint32_t iq_signs8(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

#endif
