/* GPU packs: the fields of every type and the permutation in both directions.
 *
 * Nothing here knows what a field means: all block types go through one loop over their fields, in the order
 * in which they stand in a group-block. There are three orders within a field, of 16 rows r:
 *
 *   FRAGMENT  units of 32 bytes. Lane 4g + t of a warp finds in its 16 bytes what mma.m16n8k32 takes as A:
 *             row g bytes 4t..4t+3 | row g+8 the same | row g bytes 16+4t..16+4t+3 | row g+8 the same
 *   HALF      units of 16 bytes, 8 bytes for each lane: row g bytes 4t..4t+3 | row g+8 the same
 *   else      units of so many bytes, those of row 0, row 1, .. row 15 side by side
 *
 * Where digits of 4 bits stand 32 values apart, a FRAGMENT's low and high digits are two fragments of 32
 * values each; where they stand 16 apart (legacy types, IQ4), a HALF is one fragment of 32 values. What is
 * not digits is read by one lane for each row. The types with grids are no tensor core's fragments before
 * they are looked up: each row's block stays as it is. Floats: gpu_pack_float.c.
 *
 * Group-blocks are 16 x block_bytes long, hence 16-byte aligned, and so are all fields that are read by 16
 * bytes. The file's block layouts are ggml's (MIT). */
#include "kernels/gpu_pack.h"
#include "kernels/gpu_pack_float.h"
#include <string.h>

enum { ROWS = GPU_PACK_ROWS, FRAGMENT = 32, HALF = 16, FRAGMENT_ORDER = 256, ALIGN = 256 };
#define FRAGMENTS (FRAGMENT_ORDER | FRAGMENT)
#define HALVES    (FRAGMENT_ORDER | HALF)

typedef struct {
    uint16_t offset, bytes; /* in the file's block */
    uint16_t order;         /* FRAGMENTS, HALVES, or the bytes of a unit */
} field;

/* clang-format off */
static const field fields[Q_TYPE_COUNT][5] = {
    [Q_Q4_0] = {{2, 16, HALVES}, {0, 2, 2}},                                /* qs, d */
    [Q_Q4_1] = {{4, 16, HALVES}, {0, 4, 4}},                                /* qs, d m */
    [Q_Q5_0] = {{6, 16, HALVES}, {2, 4, 4}, {0, 2, 2}},                     /* qs, qh, d */
    [Q_Q5_1] = {{8, 16, HALVES}, {0, 8, 8}},                                /* qs, d m qh */
    [Q_Q8_0] = {{2, 32, FRAGMENTS}, {0, 2, 2}},                             /* qs, d */
    [Q_Q2_K] = {{16, 64, FRAGMENTS}, {0, 16, 16}, {80, 4, 4}},              /* qs, scales, d dmin */
    [Q_Q3_K] = {{32, 64, FRAGMENTS}, {0, 32, FRAGMENTS}, {96, 12, 4}, {108, 2, 2}}, /* qs, hmask, scales, d */
    [Q_Q4_K] = {{16, 128, FRAGMENTS}, {0, 16, 16}},                         /* qs, d dmin scales */
    [Q_Q5_K] = {{48, 128, FRAGMENTS}, {16, 32, FRAGMENTS}, {0, 16, 16}},    /* qs, qh, d dmin scales */
    [Q_Q6_K] = {{0, 128, FRAGMENTS}, {128, 64, FRAGMENTS}, {192, 16, 16}, {208, 2, 2}}, /* ql, qh, scales, d */
    [Q_IQ2_XXS] = {{0, 66, 66}},
    [Q_IQ2_XS] = {{0, 74, 74}},
    [Q_IQ2_S] = {{0, 82, 82}},
    [Q_IQ3_XXS] = {{0, 98, 98}},
    [Q_IQ3_S] = {{0, 110, 110}},
    [Q_IQ1_S] = {{0, 50, 50}},
    [Q_IQ1_M] = {{0, 56, 56}},
    [Q_IQ4_NL] = {{2, 16, HALVES}, {0, 2, 2}},                              /* qs, d */
    [Q_IQ4_XS] = {{8, 128, FRAGMENTS}, {0, 8, 8}},                          /* qs, d scales_h scales_l */
};
/* clang-format on */

static bool is_float(uint32_t type)
{
    return quant_info(type)->block_values == 1;
}

size_t gpu_pack_group_bytes(uint32_t type, size_t n_cols)
{
    size_t row = quant_row_bytes(type, n_cols), bytes;

    if (!row || row > SIZE_MAX / 64) return 0;
    if (is_float(type)) return gpu_pack_float_group_bytes(type, n_cols);
    return __builtin_mul_overflow(row, (size_t)ROWS, &bytes) ? 0 : bytes;
}

size_t gpu_pack_bytes(uint32_t type, size_t n_rows, size_t n_cols)
{
    size_t group = gpu_pack_group_bytes(type, n_cols), bytes;

    if (!group || n_rows > SIZE_MAX - ROWS) return 0;
    if (__builtin_mul_overflow(group, gpu_pack_groups(n_rows), &bytes) || bytes > SIZE_MAX - ALIGN) return 0;
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* --- the permutation: where a piece of a field stands, and how long it is ----------------------- */

static size_t piece_bytes(const field *f)
{
    return f->order & FRAGMENT_ORDER ? 4 : f->order;
}

/* Byte i (the first of a piece) of row r's field, counted from the field's place in the group-block. */
static size_t piece_place(const field *f, size_t i, size_t r)
{
    size_t unit = f->order & ~FRAGMENT_ORDER, in_unit = i % unit, at = i / unit * unit * ROWS;

    if (!(f->order & FRAGMENT_ORDER)) return at + r * unit;
    size_t lane = r % 8 * 4 + in_unit % 16 / 4; /* lane, then which of the lane's words */
    return at + lane * (unit / 2) + in_unit / 16 * 8 + r / 8 * 4;
}

/* One field of 16 rows. Pieces of 4 bytes are nearly all, and worth a copy of constant length. */
static void field_in(const field *f, uint8_t *dst, const uint8_t *src, size_t row_bytes, size_t n_rows)
{
    size_t piece = piece_bytes(f);

    for (size_t r = 0; r < n_rows; r++) {
        const uint8_t *from = src + r * row_bytes + f->offset;
        for (size_t i = 0; i < f->bytes; i += piece) {
            uint8_t *to = dst + piece_place(f, i, r);
            if (piece == 4) memcpy(to, from + i, 4);
            else memcpy(to, from + i, piece);
        }
    }
}

/* n_rows <= 16 whole rows, row_bytes apart; the others are zeros. */
static void group_in(uint32_t type, uint8_t *dst, const uint8_t *src, size_t row_bytes, size_t n_rows)
{
    size_t block_bytes = quant_info(type)->block_bytes;

    if (n_rows < ROWS) memset(dst, 0, ROWS * row_bytes);
    for (size_t b = 0; b < row_bytes; b += block_bytes) {
        for (const field *f = fields[type]; f->bytes; f++) {
            field_in(f, dst, src + b, row_bytes, n_rows);
            dst += ROWS * (size_t)f->bytes;
        }
    }
}

void gpu_pack_rows(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols,
                   size_t group_first, size_t group_end)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), group_bytes = gpu_pack_group_bytes(type, n_cols);

    for (size_t g = group_first; g < group_end; g++) {
        uint8_t *to = (uint8_t *)dst + (g - group_first) * group_bytes;
        const uint8_t *from = (const uint8_t *)src + g * ROWS * row_bytes;
        size_t rows = n_rows - g * ROWS < ROWS ? n_rows - g * ROWS : ROWS;

        if (is_float(type)) gpu_pack_float_group(type, to, from, rows, n_cols);
        else group_in(type, to, from, row_bytes, rows);
    }
}

void gpu_pack_row_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), block_bytes = quant_info(type)->block_bytes;
    const uint8_t *from = (const uint8_t *)pack + row / ROWS * gpu_pack_group_bytes(type, n_cols);
    uint8_t *out = dst;

    if (is_float(type)) {
        gpu_pack_float_row_back(type, dst, from, n_cols, row % ROWS);
        return;
    }
    for (size_t b = 0; b < row_bytes; b += block_bytes) {
        for (const field *f = fields[type]; f->bytes; f++) {
            for (size_t i = 0; i < f->bytes; i += piece_bytes(f)) {
                memcpy(out + b + f->offset + i, from + piece_place(f, i, row % ROWS), piece_bytes(f));
            }
            from += ROWS * (size_t)f->bytes;
        }
    }
}
