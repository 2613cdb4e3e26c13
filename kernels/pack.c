/* Packs: the field table of every type and the permutation in both directions (layout: pack.h).
 *
 * Nothing here knows what a field means; all types go through one loop over their fields. The file's block
 * layouts are ggml's (MIT). Large fields come first, so that in a group-block they start at multiples of 64
 * bytes from its beginning; group-blocks themselves are 16 x block_bytes long, a multiple of 32. */
#include "kernels/pack.h"
#include <string.h>

/* clang-format off */
/* { offset in the file's block, bytes, unit } in pack order; what is not written is 0 and ends the list. */
static const pack_field fields[Q_TYPE_COUNT][6] = {
    [Q_F32] = {{0, 4, 4}},
    [Q_F16] = {{0, 2, 2}},
    [Q_BF16] = {{0, 2, 2}},
    [Q_Q4_0] = {{2, 16, 4}, {0, 2, 2}},                                      /* qs d */
    [Q_Q4_1] = {{4, 16, 4}, {0, 2, 2}, {2, 2, 2}},                           /* qs d m */
    [Q_Q5_0] = {{6, 16, 4}, {2, 4, 4}, {0, 2, 2}},                           /* qs qh d */
    [Q_Q5_1] = {{8, 16, 4}, {4, 4, 4}, {0, 2, 2}, {2, 2, 2}},                /* qs qh d m */
    [Q_Q8_0] = {{2, 32, 4}, {0, 2, 2}},                                      /* qs d */
    [Q_Q2_K] = {{16, 64, 4}, {0, 16, 4}, {80, 2, 2}, {82, 2, 2}},            /* qs scales d dmin */
    [Q_Q3_K] = {{32, 64, 4}, {0, 32, 4}, {96, 12, 4}, {108, 2, 2}},          /* qs hmask scales d */
    [Q_Q4_K] = {{16, 128, 4}, {4, 12, 4}, {0, 2, 2}, {2, 2, 2}},             /* qs scales d dmin */
    [Q_Q5_K] = {{48, 128, 4}, {16, 32, 4}, {4, 12, 4}, {0, 2, 2}, {2, 2, 2}}, /* qs qh scales d dmin */
    [Q_Q6_K] = {{0, 128, 4}, {128, 64, 4}, {192, 16, 4}, {208, 2, 2}},       /* ql qh scales d */
    [Q_IQ2_XXS] = {{2, 64, 4}, {0, 2, 2}},                                   /* qs d */
    [Q_IQ2_XS] = {{2, 64, 4}, {66, 8, 4}, {0, 2, 2}},                        /* qs scales d */
    [Q_IQ2_S] = {{2, 64, 4}, {66, 8, 4}, {74, 8, 4}, {0, 2, 2}},             /* qs qh scales d */
    [Q_IQ3_XXS] = {{2, 96, 4}, {0, 2, 2}},                                   /* qs d */
    [Q_IQ3_S] = {{2, 64, 4}, {74, 32, 4}, {66, 8, 4}, {106, 4, 4}, {0, 2, 2}}, /* qs signs qh scales d */
    [Q_IQ1_S] = {{2, 32, 4}, {34, 16, 4}, {0, 2, 2}},                        /* qs qh d */
    [Q_IQ1_M] = {{0, 32, 4}, {32, 16, 4}, {48, 8, 4}},                       /* qs qh scales */
    [Q_IQ4_NL] = {{2, 16, 4}, {0, 2, 2}},                                    /* qs d */
    [Q_IQ4_XS] = {{8, 128, 4}, {4, 4, 4}, {2, 2, 2}, {0, 2, 2}},             /* qs scales_l scales_h d */
};
/* clang-format on */

const pack_field *pack_fields(uint32_t type)
{
    return quant_info(type) ? fields[type] : NULL;
}

size_t pack_bytes(uint32_t type, size_t n_rows, size_t n_cols)
{
    size_t row = quant_row_bytes(type, n_cols), bytes;

    if (!row || n_rows > SIZE_MAX - PACK_ROWS) return 0;
    return __builtin_mul_overflow(row, pack_groups(n_rows) * PACK_ROWS, &bytes) ? 0 : bytes;
}

/* `bytes` bytes in units at src, of 16 rows that are `step` bytes apart, to 16 x bytes at dst. */
static void units_in(uint8_t *dst, const uint8_t *src, size_t step, size_t bytes, size_t unit)
{
    if (unit == 4) {
        for (size_t u = 0; u < bytes; u += 4) {
            for (size_t r = 0; r < PACK_ROWS; r++, dst += 4) memcpy(dst, src + r * step + u, 4);
        }
    } else {
        for (size_t u = 0; u < bytes; u += 2) {
            for (size_t r = 0; r < PACK_ROWS; r++, dst += 2) memcpy(dst, src + r * step + u, 2);
        }
    }
}

/* A group of 16 whole rows, row_bytes apart. */
static void group_in(uint32_t type, uint8_t *dst, const uint8_t *src, size_t row_bytes, size_t n_blocks)
{
    size_t block_bytes = quant_info(type)->block_bytes;

    if (quant_info(type)->block_values == 1) { /* blocks of one unit: a run of them is a run of units */
        units_in(dst, src, row_bytes, n_blocks * block_bytes, fields[type]->unit);
        return;
    }
    for (size_t b = 0; b < n_blocks; b++, src += block_bytes) {
        for (const pack_field *f = fields[type]; f->bytes; f++) {
            units_in(dst, src + f->offset, row_bytes, f->bytes, f->unit);
            dst += PACK_ROWS * (size_t)f->bytes;
        }
    }
}

/* The last group when rows are missing: block by block through a buffer whose missing rows are zero. */
static void group_in_padded(uint32_t type, uint8_t *dst, const uint8_t *src, size_t row_bytes,
                            size_t n_blocks, size_t n_rows)
{
    enum { BLOCK_MAX = 210 };
    uint8_t rows[PACK_ROWS * BLOCK_MAX] = {0};
    size_t block_bytes = quant_info(type)->block_bytes;

    for (size_t b = 0; b < n_blocks; b++, dst += PACK_ROWS * block_bytes) {
        for (size_t r = 0; r < n_rows; r++) {
            memcpy(rows + r * block_bytes, src + r * row_bytes + b * block_bytes, block_bytes);
        }
        group_in(type, dst, rows, block_bytes, 1);
    }
}

void pack_rows(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols, size_t group_first,
               size_t group_end)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), n_blocks = n_cols / quant_info(type)->block_values;

    for (size_t g = group_first; g < group_end; g++) {
        uint8_t *to = (uint8_t *)dst + g * PACK_ROWS * row_bytes;
        const uint8_t *from = (const uint8_t *)src + g * PACK_ROWS * row_bytes;
        size_t rows = n_rows - g * PACK_ROWS;

        if (rows >= PACK_ROWS) group_in(type, to, from, row_bytes, n_blocks);
        else group_in_padded(type, to, from, row_bytes, n_blocks, rows);
    }
}

void pack_blocks_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row,
                      size_t block_first, size_t block_end)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), block_bytes = quant_info(type)->block_bytes;
    const uint8_t *group = (const uint8_t *)pack + row / PACK_ROWS * PACK_ROWS * row_bytes;
    uint8_t *out = dst;

    for (size_t b = block_first; b < block_end; b++, out += block_bytes) {
        const uint8_t *from = group + b * PACK_ROWS * block_bytes;
        for (const pack_field *f = fields[type]; f->bytes; f++) {
            const uint8_t *unit = from + row % PACK_ROWS * f->unit;
            for (size_t u = 0; u < f->bytes; u += f->unit, unit += (size_t)PACK_ROWS * f->unit) {
                memcpy(out + f->offset + u, unit, f->unit);
            }
            from += PACK_ROWS * (size_t)f->bytes;
        }
    }
}

void pack_row_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row)
{
    pack_blocks_back(type, dst, pack, n_cols, row, 0, n_cols / quant_info(type)->block_values);
}
