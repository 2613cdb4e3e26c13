/* GPU packs: the same bytes in another order, and back; whatever is filled up is zeros. The order itself is
 * checked against the definition of a tensor core's fragments, written anew here. */
#include "kernels/cuda.h"
#include "kernels/gpu_layout.h"
#include "kernels/gpu_matmul.h"
#include "kernels/gpu_pack.h"
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

static size_t some_cols(uint32_t type, size_t i)
{
    static const size_t of_1[] = {7, 1, 32, 45}, of_blocks[] = {3, 1, 2, 5};
    return quant_info(type)->block_values == 1 ? of_1[i % 4]
                                               : of_blocks[i % 4] * quant_info(type)->block_values;
}

/* Rows come back; packing group by group gives the same; every byte of a group is written whatever was there
 * before, and nothing behind the last one. */
static void check_pack(uint32_t type, size_t n_rows, size_t n_cols)
{
    size_t row_bytes = quant_row_bytes(type, n_cols), bytes = gpu_pack_bytes(type, n_rows, n_cols);
    size_t group_bytes = gpu_pack_group_bytes(type, n_cols), groups = gpu_pack_groups(n_rows);
    uint8_t *rows = test_alloc(n_rows * row_bytes), *back = test_alloc(row_bytes);
    uint8_t *whole = test_alloc(bytes), *parts = test_alloc(bytes);
    uint64_t state = type + n_rows;
    size_t ones_in = 0, ones_out = 0;

    cr_assert_eq(bytes % 256, 0);
    cr_assert_eq(group_bytes % 16, 0);
    cr_assert(groups * group_bytes <= bytes && bytes < groups * group_bytes + 256);
    for (size_t k = 0; k < n_rows * row_bytes; k++) rows[k] = (uint8_t)rnd(&state);
    memset(whole, 0xa5, bytes);
    memset(parts, 0x5a, bytes);
    gpu_pack_rows(type, whole, rows, n_rows, n_cols, 0, groups);
    for (size_t g = groups; g-- > 0;)
        gpu_pack_rows(type, parts + g * group_bytes, rows, n_rows, n_cols, g, g + 1);
    cr_assert_arr_eq(whole, parts, groups * group_bytes, "%s %zu rows: in parts", quant_info(type)->name,
                     n_rows);
    for (size_t k = groups * group_bytes; k < bytes; k++)
        cr_assert_eq(whole[k], 0xa5, "wrote behind the end");
    for (size_t row = 0; row < n_rows; row++) {
        gpu_pack_row_back(type, back, whole, n_cols, row);
        cr_assert_arr_eq(back, rows + row * row_bytes, row_bytes, "%s row %zu of %zu, cols %zu",
                         quant_info(type)->name, row, n_rows, n_cols);
    }
    /* As all rows come back from different places, equal numbers of ones mean that the rest is zeros. */
    for (size_t k = 0; k < n_rows * row_bytes; k++) ones_in += (size_t)__builtin_popcount(rows[k]);
    for (size_t k = 0; k < groups * group_bytes; k++) ones_out += (size_t)__builtin_popcount(whole[k]);
    cr_assert_eq(ones_in, ones_out, "%s: %zu bits set in the file, %zu in the pack", quant_info(type)->name,
                 ones_in, ones_out);
    free(rows);
    free(back);
    free(whole);
    free(parts);
}

ParameterizedTestParameters(gpu_pack, is_a_permutation_and_comes_back)
{
    return known_types();
}
ParameterizedTest(uint32_t *type, gpu_pack, is_a_permutation_and_comes_back)
{
    static const size_t row_counts[] = {1, 5, 15, 16, 17, 37, 48};

    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        for (size_t c = 0; c < 4; c++) check_pack(*type, row_counts[i], some_cols(*type, c));
    }
}

/* What lane `lane` needs of the 32 bytes `row_of(r)` of 16 rows as A of mma.m16n8k32 (PTX ISA): registers 0
 * to 3 are row g, row g + 8, both with k 4t.., then both with k 16 + 4t... */
static void check_fragment(const uint8_t *at, const uint8_t *rows, size_t row_bytes, size_t offset)
{
    for (size_t lane = 0; lane < 32; lane++) {
        for (size_t i = 0; i < 16; i++) {
            size_t reg = i / 4, row = lane / 4 + 8 * (reg % 2), k = 16 * (reg / 2) + 4 * (lane % 4) + i % 4;
            cr_assert_eq(at[16 * lane + i], rows[row * row_bytes + offset + k], "lane %zu byte %zu", lane, i);
        }
    }
}

/* The digits of types whose fragments are whole units, and their scales row by row. */
Test(gpu_pack, digits_are_fragments)
{
    static const struct {
        uint32_t type;
        size_t offset, bytes, before;   /* digits in the file's block; where in the group-block, / 16 */
        size_t scales, scales_bytes, s; /* the scales' unit, likewise */
    } t[] = {{Q_Q4_K, 16, 128, 0, 0, 16, 128},    {Q_Q5_K, 48, 128, 0, 0, 16, 160},
             {Q_Q5_K, 16, 32, 128, 0, 16, 160},   {Q_Q6_K, 0, 128, 0, 192, 16, 192},
             {Q_Q6_K, 128, 64, 128, 208, 2, 208}, {Q_Q8_0, 2, 32, 0, 0, 2, 32},
             {Q_Q3_K, 32, 64, 0, 108, 2, 108},    {Q_Q3_K, 0, 32, 64, 108, 2, 108},
             {Q_Q2_K, 16, 64, 0, 80, 4, 80},      {Q_IQ4_XS, 8, 128, 0, 0, 8, 128}};

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        const quant_type *q = quant_info(t[i].type);
        size_t n_cols = 2 * (size_t)q->block_values, row_bytes = 2 * (size_t)q->block_bytes;
        uint8_t rows[16 * 512], pack[16 * 512];
        uint64_t state = 9;

        for (size_t k = 0; k < 16 * row_bytes; k++) rows[k] = (uint8_t)rnd(&state);
        gpu_pack_rows(t[i].type, pack, rows, 16, n_cols, 0, 1);
        for (size_t b = 0; b < 2; b++) {
            const uint8_t *block = pack + b * 16 * q->block_bytes;
            size_t in_row = b * q->block_bytes;
            for (size_t k = 0; k < t[i].bytes; k += 32)
                check_fragment(block + 16 * (t[i].before + k), rows, row_bytes, in_row + t[i].offset + k);
            for (size_t r = 0; r < 16; r++)
                cr_assert_arr_eq(block + 16 * t[i].s + r * t[i].scales_bytes,
                                 rows + r * row_bytes + in_row + t[i].scales, t[i].scales_bytes);
        }
    }
}

/* The inputs' order: a permutation, in which the words of a B fragment (t and t + 4 of 32 values) stand side
 * by side for each lane. */
Test(gpu_pack, inputs_are_fragments)
{
    for (size_t block = 32; block <= 256; block += 224) {
        bool seen[512] = {false};
        size_t span = block == 256 ? 64 : 32;

        for (size_t k = 0; k < 512; k++) {
            size_t at = gpu_act_place(k, block);
            cr_assert(at < 512 && !seen[at]);
            seen[at] = true;
        }
        for (size_t k = 0; k < 512; k++) {
            size_t t = k % 16 / 4, reg = k % span / 16; /* lane's t, and which of its words */
            cr_assert_eq(gpu_act_place(k, block), k / span * span + t * (span / 4) + 4 * reg + k % 4);
        }
    }
}

Test(gpu_pack, sizes)
{
    cr_assert_eq(gpu_pack_bytes(Q_Q4_K, 17, 512), 32 * 288);
    cr_assert_eq(gpu_pack_bytes(Q_Q6_K, 1, 256), 3584, "3360 rounded up");
    cr_assert_eq(gpu_pack_bytes(Q_Q4_K, 16, 100), 0, "no whole blocks");
    cr_assert_eq(gpu_pack_bytes(4, 16, 256), 0, "unknown type");
    cr_assert_eq(gpu_pack_bytes(UINT32_MAX, 16, 256), 0, "unknown type");
    cr_assert_eq(gpu_pack_bytes(Q_F32, SIZE_MAX, 1), 0, "more than can be");
    cr_assert_eq(gpu_pack_bytes(Q_F32, SIZE_MAX / 64, 256), 0, "more than can be");
    cr_assert_eq(gpu_pack_bytes(Q_Q8_0, 16, SIZE_MAX / 64 * 32), 0, "more than can be");
}

/* Pieces of a matrix that are unpacked at a time: whole tiles of rows, or all; work memory for one of them.
 */
Test(gpu_pack, work_memory)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (!quant_info(type)) continue;
        cr_assert_not_null(gpu_matmul_path(type));
        cr_assert_eq(gpu_matmul_scratch(type, 48, 512) != 0, gpu_matmul_unpacks(type), "%s",
                     quant_info(type)->name);
    }
    cr_assert_null(gpu_matmul_path(5));
    cr_assert_eq(gpu_matmul_piece_groups(33, 256), 3);
    cr_assert_eq(gpu_matmul_scratch(Q_IQ2_XS, 33, 512), 3 * 2 * 16 * 276);
    cr_assert_eq(gpu_matmul_piece_groups(1 << 20, 1 << 20), 8, "however long the rows are");
    for (size_t n_cols = 256; n_cols < 65536; n_cols += 4096) {
        size_t groups = gpu_matmul_piece_groups(128256, n_cols);
        cr_assert(groups == 8016 || groups % 8 == 0);
        cr_assert(gpu_matmul_scratch(Q_IQ3_S, 128256, n_cols) <= GPU_UNPACKED_PIECE);
    }
}
