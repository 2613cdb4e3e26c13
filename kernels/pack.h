/* Packs: a weight matrix in the order in which kernels read it.
 *
 * Rows are grouped by PACK_ROWS = 16. Within a group the blocks follow each other along the row; a
 * group-block holds the same block of all 16 rows, field by field, each field cut in units of 4 bytes (2 for
 * f16 scales and 16-bit weights) and the units of the 16 rows side by side:
 *
 *   file row r:   [ d | scales | qs0 qs1 qs2 ... ]            (one block of one row)
 *   group-block:  [ qs0 of rows 0..15 | qs1 of rows 0..15 | ... | scales0 of rows 0..15 | ... | d of rows
 * 0..15 ]
 *
 * So 64 bytes (one AVX-512 register, two of AVX2, four of NEON) hold the same 4 bytes of 16 rows: one vector
 * lane belongs to one row and nothing is ever summed across lanes. One layout serves every instruction set.
 * It is a permutation: same bytes, same size, but for the last group, which is filled up with zero rows.
 * The order of the fields of each type stands in the table in pack.c (large fields first, so that they are
 * aligned). */
#ifndef PRIMA_KERNELS_PACK_H
#define PRIMA_KERNELS_PACK_H
#include "kernels/quant.h"

enum { PACK_ROWS = 16 };

static inline size_t pack_groups(size_t n_rows)
{
    return (n_rows + PACK_ROWS - 1) / PACK_ROWS;
}

/* One field of a block. The pack order of a type is the order of its fields in its table row. */
typedef struct {
    uint16_t offset; /* in the file's block */
    uint16_t bytes;  /* in the file's block */
    uint16_t unit;   /* 4 or 2 */
} pack_field;

/* Fields of a type in pack order, ended by bytes == 0. Offset of field i in a group-block = 16 x the bytes
 * before it. */
const pack_field *pack_fields(uint32_t type);

/* Bytes of a packed matrix (a multiple of 16 rows). 0: unknown type or cols not whole blocks. */
size_t pack_bytes(uint32_t type, size_t n_rows, size_t n_cols);

/* Pack rows [16*group_first, 16*group_end) of src (file layout, n_rows x n_cols) into dst (start of the whole
 * packed matrix). */
void pack_rows(uint32_t type, void *dst, const void *src, size_t n_rows, size_t n_cols, size_t group_first,
               size_t group_end);

/* Blocks [block_first, block_end) of row `row` of a packed matrix back in file layout. */
void pack_blocks_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row,
                      size_t block_first, size_t block_end);

/* Row `row` of a packed matrix back in file layout: quant_row_bytes(type, n_cols) bytes. */
void pack_row_back(uint32_t type, void *dst, const void *pack, size_t n_cols, size_t row);

#endif
