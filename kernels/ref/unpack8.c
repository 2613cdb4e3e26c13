/* Group-blocks to tiles of 8-bit integers (kernels/unpack8.h), one function per type.
 *
 *   type              d of the tile   sc            q             dm     m
 *   Q2_K              d               4 bits        0..3          -dmin  4 bits
 *   Q3_K              d               s - 32        -4..3
 *   Q4_K Q5_K         d               6 bits        0..15 0..31   -dmin  6 bits
 *   Q6_K              d               int8          -32..31
 *   IQ4_XS            d               s - 32        iq4_values
 *   IQ2_* IQ3_XXS     d/8, d/4        2 s + 1       +-43, +-62
 *   IQ3_S             d               2 s + 1       +-15
 *   IQ1_S IQ1_M       d/8             2 s + 1       8 x (-1 0 1) +- 1
 *   Q4_0 Q5_0 Q8_0    d               -             -8..7 -16..15 -128..127
 *   Q4_1 Q5_1         d               -             0..15 0..31   m
 *   IQ4_NL            d               -             iq4_values
 *
 * Largest sums: |S| <= 256 x 127 x 128 x 32 = 2^27 - 2^20 (Q6_K), IQ4_XS 256 x 127 x 127 x 32, the others
 * less; |M| <= 256 x 127 x 63 < 2^21. So int32 holds every file's blocks.
 *
 * A line is 64 bytes: 4 consecutive bytes of a field, that is values of 4 consecutive k, of each of the 16
 * rows: most types are shifts and masks over whole lines. The grids of the IQ types are looked up row by row.
 */
#include "kernels/unpack8.h"
#include "kernels/ref/blocks.h"
#include "kernels/ref/iq.h"
#include "kernels/ref/iq_grids.h"

enum { LINE = 64 };

/* Byte i of a field (units of 4 bytes) of row r. */
static uint8_t field_byte(const uint8_t *field, int i, int r)
{
    return field[(i / 4 * PACK_ROWS + r) * 4 + i % 4];
}

/* A field of units of 2 bytes: f16 of every row. */
static void load_d(float *d, const uint8_t *field, float factor)
{
    for (int r = 0; r < PACK_ROWS; r++) d[r] = load_f16(field + 2 * r) * factor;
}

/* out = (in >> shift & mask) + add, byte by byte. */
static void digits(int8_t *out, const uint8_t *in, int shift, int mask, int add)
{
    for (int i = 0; i < LINE; i++) out[i] = (int8_t)((in[i] >> shift & mask) + add);
}

/* out += (in >> shift & mask) << left. */
static void more_digits(int8_t *out, const uint8_t *in, int shift, int mask, int left)
{
    for (int i = 0; i < LINE; i++) out[i] = (int8_t)(out[i] + ((in[i] >> shift & mask) << left));
}

/* out = table[in >> shift & 15]. */
static void looked_up(int8_t *out, const uint8_t *in, int shift)
{
    for (int i = 0; i < LINE; i++) out[i] = iq4_values[in[i] >> shift & 15];
}

/* --- K-quants; c is the number of the line, k = 4 c its first value --------------------------- */

/* 2-bit digits of 64 bytes (16 lines) stand 32 values apart. */
static const uint8_t *line_of_2(const uint8_t *qs, int c)
{
    return qs + (c / 32 * 8 + c % 8) * LINE;
}
static int shift_of_2(int c)
{
    return c % 32 / 8 * 2;
}

/* 4-bit digits of 128 bytes (32 lines) stand 32 values apart. */
static const uint8_t *line_of_4(const uint8_t *qs, int c)
{
    return qs + (c / 16 * 8 + c % 8) * LINE;
}
static int shift_of_4(int c)
{
    return c % 16 / 8 * 4;
}

static void unpack_q2_k(unpack8_tile *t, const uint8_t *block)
{
    const uint8_t *qs = block, *scales = block + 64 * PACK_ROWS, *d = block + 80 * PACK_ROWS;

    for (int c = 0; c < 64; c++) digits(t->q[c][0], line_of_2(qs, c), shift_of_2(c), 3, 0);
    for (int j = 0; j < 16; j++) {
        for (int r = 0; r < PACK_ROWS; r++) {
            int s = field_byte(scales, j, r);
            t->sc[j][r] = s & 15;
            t->m[j][r] = s >> 4;
        }
    }
    load_d(t->d, d, 1);
    load_d(t->dm, d + 2 * PACK_ROWS, -1);
}

static void unpack_q3_k(unpack8_tile *t, const uint8_t *block)
{
    const uint8_t *qs = block, *hmask = block + 64 * PACK_ROWS, *scales = block + 96 * PACK_ROWS;

    for (int c = 0; c < 64; c++) {
        digits(t->q[c][0], line_of_2(qs, c), shift_of_2(c), 3, -4);
        more_digits(t->q[c][0], hmask + c % 8 * LINE, c / 8, 1, 2);
    }
    for (int r = 0; r < PACK_ROWS; r++) {
        uint8_t s[12];
        for (int i = 0; i < 12; i++) s[i] = field_byte(scales, i, r);
        for (int j = 0; j < 16; j++) t->sc[j][r] = q3_k_scale(s, j) - 32;
    }
    load_d(t->d, block + 108 * PACK_ROWS, 1);
}

/* Scales, mins, d and dmin of Q4_K and Q5_K. */
static void unpack_scales_4_k(unpack8_tile *t, const uint8_t *scales)
{
    const uint8_t *d = scales + 12 * PACK_ROWS;

    for (int r = 0; r < PACK_ROWS; r++) {
        uint8_t s[12];
        for (int i = 0; i < 12; i++) s[i] = field_byte(scales, i, r);
        for (int j = 0; j < 16; j++) {
            t->sc[j][r] = q4_k_scale(s, j / 2);
            t->m[j][r] = q4_k_min(s, j / 2);
        }
    }
    load_d(t->d, d, 1);
    load_d(t->dm, d + 2 * PACK_ROWS, -1);
}

static void unpack_q4_k(unpack8_tile *t, const uint8_t *block)
{
    for (int c = 0; c < 64; c++) digits(t->q[c][0], line_of_4(block, c), shift_of_4(c), 15, 0);
    unpack_scales_4_k(t, block + 128 * PACK_ROWS);
}

static void unpack_q5_k(unpack8_tile *t, const uint8_t *block)
{
    const uint8_t *qh = block + 128 * PACK_ROWS;

    for (int c = 0; c < 64; c++) {
        digits(t->q[c][0], line_of_4(block, c), shift_of_4(c), 15, 0);
        more_digits(t->q[c][0], qh + c % 8 * LINE, c / 8, 1, 4);
    }
    unpack_scales_4_k(t, block + 160 * PACK_ROWS);
}

static void unpack_q6_k(unpack8_tile *t, const uint8_t *block)
{
    const uint8_t *ql = block, *qh = block + 128 * PACK_ROWS, *scales = block + 192 * PACK_ROWS;

    for (int c = 0; c < 64; c++) { /* low digits of 4 bits stand 64 values apart */
        digits(t->q[c][0], ql + (c / 32 * 16 + c % 16) * LINE, c % 32 / 16 * 4, 15, -32);
        more_digits(t->q[c][0], line_of_2(qh, c), shift_of_2(c), 3, 4);
    }
    for (int j = 0; j < 16; j++) {
        for (int r = 0; r < PACK_ROWS; r++) t->sc[j][r] = (int8_t)field_byte(scales, j, r);
    }
    load_d(t->d, block + 208 * PACK_ROWS, 1);
}

/* --- IQ types --------------------------------------------------------------------------------- */

static void unpack_iq4_xs(unpack8_tile *t, const uint8_t *block)
{
    const uint8_t *low = block + 128 * PACK_ROWS, *high = block + 132 * PACK_ROWS;

    for (int c = 0; c < 64; c++) looked_up(t->q[c][0], block + (c / 8 * 4 + c % 4) * LINE, c % 8 / 4 * 4);
    for (int r = 0; r < PACK_ROWS; r++) {
        for (int j = 0; j < 16; j++) {
            int ib = j / 2, l = field_byte(low, ib / 2, r) >> 4 * (ib % 2) & 15;
            t->sc[j][r] = l + (load_u16(high + 2 * r) >> 2 * ib & 3) * 16 - 32;
        }
    }
    load_d(t->d, block + 134 * PACK_ROWS, 1);
}

/* Row by row through the file's layout. */
static void unpack_grid(unpack8_tile *t, const uint8_t *block, uint32_t type,
                        float (*decode)(const uint8_t *, int8_t *, int8_t *))
{
    for (int r = 0; r < PACK_ROWS; r++) {
        uint8_t row[110];
        int8_t q[256], sc[16];

        pack_blocks_back(type, row, block, 256, (size_t)r, 0, 1);
        t->d[r] = decode(row, q, sc);
        for (int c = 0; c < 64; c++) memcpy(t->q[c][r], q + 4 * c, 4);
        for (int j = 0; j < 16; j++) t->sc[j][r] = sc[j];
    }
}

static void unpack_iq2_xxs(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ2_XXS, iq2_xxs_decode);
}

static void unpack_iq2_xs(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ2_XS, iq2_xs_decode);
}

static void unpack_iq2_s(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ2_S, iq2_s_decode);
}

static void unpack_iq3_xxs(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ3_XXS, iq3_xxs_decode);
}

static void unpack_iq3_s(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ3_S, iq3_s_decode);
}

static void unpack_iq1_s(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ1_S, iq1_s_decode);
}

static void unpack_iq1_m(unpack8_tile *t, const uint8_t *block)
{
    unpack_grid(t, block, Q_IQ1_M, iq1_m_decode);
}

/* --- blocks of 32 values: 8 lines of q; 4-bit digits stand 16 values apart -------------------- */

static void nibbles32(unpack8_tile *t, const uint8_t *qs, int add)
{
    for (int c = 0; c < 8; c++) digits(t->q[c][0], qs + c % 4 * LINE, c / 4 * 4, 15, add);
}

/* Bit k of a row's 32 is the fifth bit of value k. */
static void fifth_bits(unpack8_tile *t, const uint8_t *qh)
{
    for (int r = 0; r < PACK_ROWS; r++) {
        uint32_t bits = load_u32(qh + 4 * r);
        for (int k = 0; k < 32; k++)
            t->q[k / 4][r][k % 4] = (int8_t)(t->q[k / 4][r][k % 4] + (bits >> k & 1) * 16);
    }
}

static void unpack_q4_0(unpack8_tile *t, const uint8_t *block)
{
    nibbles32(t, block, -8);
    load_d(t->d, block + 16 * PACK_ROWS, 1);
}

static void unpack_q4_1(unpack8_tile *t, const uint8_t *block)
{
    nibbles32(t, block, 0);
    load_d(t->d, block + 16 * PACK_ROWS, 1);
    load_d(t->dm, block + 18 * PACK_ROWS, 1);
}

static void unpack_q5_0(unpack8_tile *t, const uint8_t *block)
{
    nibbles32(t, block, -16);
    fifth_bits(t, block + 16 * PACK_ROWS);
    load_d(t->d, block + 20 * PACK_ROWS, 1);
}

static void unpack_q5_1(unpack8_tile *t, const uint8_t *block)
{
    nibbles32(t, block, 0);
    fifth_bits(t, block + 16 * PACK_ROWS);
    load_d(t->d, block + 20 * PACK_ROWS, 1);
    load_d(t->dm, block + 22 * PACK_ROWS, 1);
}

static void unpack_q8_0(unpack8_tile *t, const uint8_t *block)
{
    memcpy(t->q, block, 8 * LINE);
    load_d(t->d, block + 32 * PACK_ROWS, 1);
}

static void unpack_iq4_nl(unpack8_tile *t, const uint8_t *block)
{
    for (int c = 0; c < 8; c++) looked_up(t->q[c][0], block + c % 4 * LINE, c / 4 * 4);
    load_d(t->d, block + 16 * PACK_ROWS, 1);
}

static const unpack8_type infos[Q_TYPE_COUNT] = {
    [Q_Q4_0] = {unpack_q4_0, 32, 32, false, -8, 7},
    [Q_Q4_1] = {unpack_q4_1, 32, 32, true, 0, 15},
    [Q_Q5_0] = {unpack_q5_0, 32, 32, false, -16, 15},
    [Q_Q5_1] = {unpack_q5_1, 32, 32, true, 0, 31},
    [Q_Q8_0] = {unpack_q8_0, 32, 32, false, -128, 127},
    [Q_Q2_K] = {unpack_q2_k, 256, 16, true, 0, 3},
    [Q_Q3_K] = {unpack_q3_k, 256, 16, false, -4, 3},
    [Q_Q4_K] = {unpack_q4_k, 256, 32, true, 0, 15},
    [Q_Q5_K] = {unpack_q5_k, 256, 32, true, 0, 31},
    [Q_Q6_K] = {unpack_q6_k, 256, 16, false, -32, 31},
    [Q_IQ2_XXS] = {unpack_iq2_xxs, 256, 32, false, -43, 43},
    [Q_IQ2_XS] = {unpack_iq2_xs, 256, 16, false, -43, 43},
    [Q_IQ2_S] = {unpack_iq2_s, 256, 16, false, -43, 43},
    [Q_IQ3_XXS] = {unpack_iq3_xxs, 256, 32, false, -62, 62},
    [Q_IQ3_S] = {unpack_iq3_s, 256, 32, false, -15, 15},
    [Q_IQ1_S] = {unpack_iq1_s, 256, 32, false, -9, 9},
    [Q_IQ1_M] = {unpack_iq1_m, 256, 16, false, -9, 9},
    [Q_IQ4_NL] = {unpack_iq4_nl, 32, 32, false, -127, 113},
    [Q_IQ4_XS] = {unpack_iq4_xs, 256, 32, false, -127, 113},
};

const unpack8_type *unpack8_info(uint32_t type)
{
    return type < Q_TYPE_COUNT && infos[type].unpack ? &infos[type] : NULL;
}
