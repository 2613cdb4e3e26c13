/* Packs: the same bytes in another order, and back; padding rows are zero. */
#include "kernels/pack.h"
#include "tests/kernels/blocks.h"
#include <criterion/parameterized.h>

static uint32_t types[Q_TYPE_COUNT];

static struct criterion_test_params known_types(void)
{
    size_t n = 0;
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (quant_info(type)) types[n++] = type;
    }
    return cr_make_param_array(uint32_t, types, n);
}

/* Fields cover every byte of a block exactly once, large ones first, cut in whole units. */
ParameterizedTestParameters(pack, fields_are_a_partition)
{
    return known_types();
}
ParameterizedTest(uint32_t *type, pack, fields_are_a_partition)
{
    uint8_t seen[256] = {0};
    unsigned total = 0, previous = 65535;

    for (const pack_field *f = pack_fields(*type); f->bytes; f++) {
        cr_assert(f->unit == 2 || f->unit == 4);
        cr_assert_eq(f->bytes % f->unit, 0);
        cr_assert_leq(f->bytes, previous, "%s: fields from large to small", quant_info(*type)->name);
        for (unsigned i = 0; i < f->bytes; i++) cr_assert_eq(seen[f->offset + i]++, 0);
        total += f->bytes;
        previous = f->bytes;
    }
    cr_assert_eq(total, quant_info(*type)->block_bytes);
}

/* The definition of pack.h, byte by byte: field f, unit u of row r stands at 16 x (bytes before f) + (16 u +
 * r) x unit. */
static void check_layout(uint32_t type, const uint8_t *pack, const uint8_t *rows, size_t n_rows,
                         size_t n_cols)
{
    const quant_type *t = quant_info(type);
    size_t row_bytes = quant_row_bytes(type, n_cols);

    for (size_t row = 0; row < pack_groups(n_rows) * PACK_ROWS; row++) {
        for (size_t b = 0; b < n_cols / t->block_values; b++) {
            const uint8_t *block = pack + row / 16 * 16 * row_bytes + b * 16 * t->block_bytes;
            size_t before = 0;
            for (const pack_field *f = pack_fields(type); f->bytes; before += f->bytes, f++) {
                for (size_t i = 0; i < f->bytes; i++) {
                    uint8_t got =
                        block[16 * before + (16 * (i / f->unit) + row % 16) * f->unit + i % f->unit];
                    uint8_t want =
                        row < n_rows ? rows[row * row_bytes + b * t->block_bytes + f->offset + i] : 0;
                    cr_assert_eq(got, want, "%s row %zu block %zu field at %d byte %zu", t->name, row, b,
                                 f->offset, i);
                }
            }
        }
    }
}

ParameterizedTestParameters(pack, is_a_permutation_and_comes_back)
{
    return known_types();
}
ParameterizedTest(uint32_t *type, pack, is_a_permutation_and_comes_back)
{
    static const size_t row_counts[] = {1, 5, 15, 16, 17, 37, 48};
    const quant_type *t = quant_info(*type);
    size_t n_cols = t->block_values == 1 ? 7 : 3 * (size_t)t->block_values,
           row_bytes = quant_row_bytes(*type, n_cols);
    uint64_t state = *type + 1;

    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        size_t n_rows = row_counts[i], bytes = pack_bytes(*type, n_rows, n_cols),
               groups = pack_groups(n_rows);
        uint8_t *rows = malloc(n_rows * row_bytes), *back = malloc(row_bytes);
        uint8_t *whole = malloc(bytes), *parts = malloc(bytes);

        cr_assert_eq(bytes, (n_rows + 15) / 16 * 16 * row_bytes);
        for (size_t k = 0; k < n_rows * row_bytes; k++) rows[k] = (uint8_t)rnd(&state);
        memset(whole, 0xa5, bytes);
        memset(parts, 0x5a, bytes);
        pack_rows(*type, whole, rows, n_rows, n_cols, 0, groups);
        for (size_t g = groups; g-- > 0;) pack_rows(*type, parts, rows, n_rows, n_cols, g, g + 1);
        cr_assert_arr_eq(whole, parts, bytes, "%s %zu rows: in parts", t->name, n_rows);
        check_layout(*type, whole, rows, n_rows, n_cols);
        for (size_t row = 0; row < n_rows; row++) {
            pack_row_back(*type, back, whole, n_cols, row);
            cr_assert_arr_eq(back, rows + row * row_bytes, row_bytes, "%s row %zu of %zu", t->name, row,
                             n_rows);
            size_t n_blocks = n_cols / t->block_values;
            pack_blocks_back(*type, back, whole, n_cols, row, 1, n_blocks - 1);
            cr_assert_arr_eq(back, rows + row * row_bytes + t->block_bytes, (n_blocks - 2) * t->block_bytes);
        }
        free(rows);
        free(back);
        free(whole);
        free(parts);
    }
}

Test(pack, sizes)
{
    cr_assert_eq(pack_bytes(Q_Q4_K, 17, 512), 32 * 288);
    cr_assert_eq(pack_bytes(Q_F32, 1, 3), 16 * 12);
    cr_assert_eq(pack_bytes(Q_Q4_K, 16, 100), 0, "no whole blocks");
    cr_assert_eq(pack_bytes(4, 16, 256), 0, "unknown type");
    cr_assert_eq(pack_bytes(Q_F32, SIZE_MAX, 1), 0, "more than can be");
    cr_assert_eq(pack_bytes(Q_F32, SIZE_MAX / 64, 256), 0, "more than can be");
    cr_assert_null(pack_fields(5));
    cr_assert_null(pack_fields(UINT32_MAX));
}
